// When a removal's marker may be swept, without a server: only after it was seen unchanged for the whole retention.
import { assert, describe, it } from "@effect/vitest"
import { dueMarkers } from "../../src/ControlPlane/internal/natsMarkers.ts"
import type { SeenMarkers } from "../../src/ControlPlane/internal/natsMarkers.ts"

describe("a marker is due", () => {
  const present = new Map([["k", "7"]])

  it("once it was there for the whole retention, and not before", () => {
    const seen: SeenMarkers = new Map()
    assert.deepStrictEqual(dueMarkers(seen, present, 0, 1_000), [])
    assert.deepStrictEqual(dueMarkers(seen, present, 999, 1_000), [])
    assert.deepStrictEqual(dueMarkers(seen, present, 1_000, 1_000), [["k", "7"]])
  })

  it("anew when the key lived in between", () => {
    const seen: SeenMarkers = new Map()
    dueMarkers(seen, present, 0, 1_000)
    dueMarkers(seen, new Map(), 500, 1_000)
    assert.deepStrictEqual(dueMarkers(seen, present, 1_200, 1_000), [])
    assert.deepStrictEqual(dueMarkers(seen, new Map([["k", "9"]]), 2_300, 1_000), [])
    assert.deepStrictEqual(dueMarkers(seen, new Map([["k", "9"]]), 3_300, 1_000), [["k", "9"]])
  })

  it("a few at a time", () => {
    const seen: SeenMarkers = new Map()
    const many = new Map(Array.from({ length: 100 }, (_, i) => [`k${i}`, String(i + 1)] as const))
    dueMarkers(seen, many, 0, 1_000)
    assert.strictEqual(dueMarkers(seen, many, 5_000, 1_000).length, 20)
  })
})

// The pure core by which readers count leases that nobody closes: only over time that their own watch proved.
import { assert, describe, it } from "@effect/vitest"
import type { Entry, WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import { encodeLease } from "../../src/ControlPlane/internal/leaseRecord.ts"
import * as Proven from "../../src/ControlPlane/internal/provenLease.ts"

const key = "leases/a"
const lease = (revision: number, counter = revision): Entry => ({
  key,
  revision: String(revision),
  value: encodeLease({ state: "Held", counter, duration: 10_000, writer: "w", operation: counter })
})
const put = (revision: number): WatchEvent => ({ _tag: "Put", entry: lease(revision) })
const current: WatchEvent = { _tag: "Current" }
const lost: WatchEvent = { _tag: "Lost", reason: "" }
const snapshot = (...entries: ReadonlyArray<Entry>): WatchEvent => ({ _tag: "Snapshot", entries })

/** Milliseconds left after these events, each with its second. */
const left = (...events: ReadonlyArray<readonly [number, WatchEvent]>) => {
  const state = events.reduce(
    (next, [second, event]) => Proven.step(next, event, second * 1_000, (name) => name.startsWith("leases/"))[0],
    Proven.initial
  )
  const seen = state.leases.get(key)
  return seen === undefined ? undefined : Proven.remaining(state, seen)
}

describe("a lease that is read", () => {
  it("counts down while the watch proves itself, and stops at zero", () => {
    assert.strictEqual(left([0, snapshot(lease(1))], [1, current], [2, current], [3, current]), 7_000)
    const long = Array.from({ length: 20 }, (_, second): readonly [number, WatchEvent] => [second + 1, current])
    assert.strictEqual(left([0, snapshot(lease(1))], ...long), 0)
  })

  it("begins anew with a renewal, not with one that is told twice or late", () => {
    assert.strictEqual(left([0, snapshot(lease(1))], [2, put(2)], [4, current]), 8_000)
    assert.strictEqual(left([0, snapshot(lease(2))], [2, put(2)], [3, put(1)], [4, current]), 6_000)
  })

  it("does not count a pause: proofs that lie far apart prove nothing about the time between", () => {
    assert.strictEqual(left([0, snapshot(lease(1))], [2, current], [60, current], [61, current]), 7_000)
  })

  it("does not count a loss of the watch, and goes on after it where it stopped", () => {
    assert.strictEqual(left([0, snapshot(lease(1))], [2, current], [3, lost], [4, current], [5, current]), 7_000)
    assert.strictEqual(
      left([0, snapshot(lease(1))], [2, current], [3, lost], [50, snapshot(lease(1))], [52, current]),
      6_000
    )
  })

  it("that expired is not brought back by a snapshot of the same revision, but by a renewed one", () => {
    const expired = Array.from({ length: 12 }, (_, second): readonly [number, WatchEvent] => [second + 1, current])
    assert.strictEqual(left([0, snapshot(lease(1))], ...expired, [13, lost], [14, snapshot(lease(1))]), 0)
    assert.strictEqual(left([0, snapshot(lease(1))], ...expired, [13, lost], [14, snapshot(lease(2))]), 10_000)
  })

  it("in an emptied store that gives the same revision again is another one", () => {
    const expired = Array.from({ length: 12 }, (_, second): readonly [number, WatchEvent] => [second + 1, current])
    assert.strictEqual(left([0, snapshot(lease(7, 40))], ...expired, [14, snapshot(lease(7, 1))]), 10_000)
  })

  it("is gone with its key, and where its value is no lease", () => {
    assert.isUndefined(left([0, snapshot(lease(1))], [1, { _tag: "Removed", key, revision: "2" }]))
    assert.isUndefined(left([0, snapshot(lease(1))], [1, { _tag: "Put", entry: { key, revision: "2", value: "?" } }]))
  })

  it("is not disturbed by keys that are no leases", () => {
    assert.strictEqual(
      left([0, snapshot(lease(1))], [2, { _tag: "Put", entry: { key: "x", revision: "9", value: "" } }]),
      8_000
    )
  })
})

// What others leave under a store's prefix is told once each, and neither fills a log nor forges one.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { makeReportForeign } from "../../src/ControlPlane/internal/foreign.ts"

const said = <A, E>(use: (report: (what: string) => Effect.Effect<void>) => Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const lines: Array<string> = []
    const report = yield* makeReportForeign("etcd: /app/")
    yield* use((what) => report(what, "is no key of this store")).pipe(
      Effect.provide(Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))]))
    )
    return lines
  })

describe("a foreign entry", () => {
  it.effect("is told once, by its name", () =>
    Effect.gen(function*() {
      const lines = yield* said((report) => Effect.all([report("their key"), report("another"), report("their key")]))
      assert.deepStrictEqual(lines, [
        "etcd: /app/: \"their key\" is no key of this store; left out",
        "etcd: /app/: \"another\" is no key of this store; left out"
      ])
    }))

  it.effect("is told in one short line, whatever its name is", () =>
    Effect.gen(function*() {
      const lines = yield* said((report) => report(`a\nERROR: all is lost\u001b[2J${"x".repeat(1_000_000)}`))
      assert.strictEqual(lines.length, 1)
      assert.isBelow(lines[0]!.length, 300)
      assert.notMatch(lines[0]!, /[\n\u001b]/)
    }))

  it.effect("is told no more once there are hundreds of them", () =>
    Effect.gen(function*() {
      const lines = yield* said((report) => Effect.forEach(Array.from({ length: 2_000 }), (_, i) => report(`k ${i}`)))
      assert.isAtMost(lines.length, 256)
    }))
})

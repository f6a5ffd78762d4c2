// What a watch tells of what a backend reports: nothing twice, nothing out of order, and nothing that was removed comes back unannounced.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue } from "effect"
import type { WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import { type Listed, makeWatchSink } from "../../src/ControlPlane/internal/watchSink.ts"

const entry = (key: string, revision: number) => ({ key, value: `v${revision}`, revision: String(revision) })
const listing = (...entries: ReadonlyArray<ReturnType<typeof entry>>) =>
  new Map<string, Listed>(entries.map((one) => [one.key, { entry: one }]))
const shown = (event: WatchEvent): string => {
  switch (event._tag) {
    case "Snapshot":
      return `Snapshot ${event.entries.map(({ key, revision }) => `${key}@${revision}`).join(" ")}`.trim()
    case "Put":
      return `Put ${event.entry.key}@${event.entry.revision}`
    case "Removed":
      return `Removed ${event.key}@${event.revision}`
    default:
      return event._tag
  }
}

/** A sink, and all that it has told since the last question. */
const sinkAndTold = Effect.gen(function*() {
  const queue = yield* Queue.unbounded<WatchEvent>()
  const told = Effect.map(Queue.clear(queue), (events) => Array.from(events, shown))
  return { sink: makeWatchSink(queue), told }
})

describe("what a watch tells", () => {
  it.effect("is no change that is older than what it told before", () =>
    Effect.gen(function*() {
      const { sink, told } = yield* sinkAndTold
      sink.snapshot(listing(entry("a", 5)))
      sink.put(entry("a", 5))
      sink.put(entry("a", 4))
      sink.removed("a", "4")
      sink.removed("b", "9")
      assert.deepStrictEqual(yield* told, ["Snapshot a@5"])
    }))

  it.effect("is no late version of a key whose removal it told; its next life is", () =>
    Effect.gen(function*() {
      const { sink, told } = yield* sinkAndTold
      sink.snapshot(listing(entry("a", 5)))
      sink.removed("a", "7")
      sink.put(entry("a", 6))
      sink.put(entry("a", 8))
      assert.deepStrictEqual(yield* told, ["Snapshot a@5", "Removed a@7", "Put a@8"])
    }))

  it.effect("is a loss where the store lists again what was removed, however many writes came after", () =>
    Effect.gen(function*() {
      for (const seen of [true, false]) {
        const { sink, told } = yield* sinkAndTold
        sink.snapshot(listing(entry("a", 5), entry("b", 6)))
        sink.removed("a", "07")
        if (!seen) sink.lost("a gap")
        const reason = sink.relist(listing(entry("a", 5), entry("b", 6), entry("c", 8)))
        assert.include(reason, "a")
        const events = yield* told
        assert.deepStrictEqual(events.slice(-2), ["Lost", "Snapshot a@5 b@6 c@8"])
      }
    }))

  it.effect("is no loss where a removed key lives anew, or its removal is listed", () =>
    Effect.gen(function*() {
      const { sink, told } = yield* sinkAndTold
      sink.snapshot(listing(entry("a", 5), entry("b", 6)))
      sink.removed("a", "7")
      sink.removed("b", "8")
      const listed = listing(entry("a", 9))
      listed.set("b", { removedAt: "8" })
      assert.isUndefined(sink.relist(listed))
      assert.deepStrictEqual(yield* told, ["Snapshot a@5 b@6", "Removed a@7", "Removed b@8", "Put a@9"])
    }))

  it.effect("is everything that a store tells which begins anew, though it counts from below what was removed before", () =>
    Effect.gen(function*() {
      for (const anew of ["snapshot", "relist"] as const) {
        const { sink, told } = yield* sinkAndTold
        sink.snapshot(listing(entry("a", 5)))
        sink.removed("a", "100")
        sink.lost("the store was made anew")
        yield* told
        sink[anew](listing())
        sink.put(entry("a", 3))
        assert.deepStrictEqual(yield* told, ["Snapshot", "Put a@3"])
      }
    }))

  it.effect("forgets removals after a snapshot that says otherwise, so that one loss is told once", () =>
    Effect.gen(function*() {
      const { sink, told } = yield* sinkAndTold
      sink.snapshot(listing(entry("a", 5)))
      sink.removed("a", "7")
      sink.relist(listing(entry("a", 5)))
      yield* told
      assert.isUndefined(sink.relist(listing(entry("a", 5))))
      sink.put(entry("a", 6))
      assert.deepStrictEqual(yield* told, ["Put a@6"])
    }))
})

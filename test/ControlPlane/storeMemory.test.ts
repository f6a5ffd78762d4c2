import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ControlStore from "../../src/ControlPlane/ControlStore.ts"
import * as MemoryBackend from "../../src/ControlPlane/ControlStoreMemory.ts"

/** what a watch says, one event at a time */
const follow = Effect.fnUntraced(function*(store: ControlStore.ControlStoreService, prefix: string) {
  const events = yield* Queue.unbounded<ControlStore.WatchEvent>()
  yield* store.watch(prefix).pipe(
    Stream.runForEach((event) => Queue.offer(events, event)),
    Effect.forkScoped({ startImmediately: true })
  )
  return events
})
const said = (events: Queue.Queue<ControlStore.WatchEvent>) =>
  Effect.map(
    Queue.clear(events),
    (all) =>
      all.map((event) =>
        event._tag === "Snapshot"
          ? `Snapshot ${event.entries.map((entry) => `${entry.key}=${entry.value}`).join(",")}`
          : event._tag === "Put"
          ? `Put ${event.entry.key}=${event.entry.value}`
          : event._tag === "Removed"
          ? `Removed ${event.key}`
          : event._tag
      )
  )

describe("the embedded store", () => {
  it.effect("two clients see one truth, in order and at once", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      const [a, b] = [backend.client(), backend.client()]
      const events = yield* follow(b, "x/")
      const r1 = yield* a.create("x/1", "one")
      yield* b.update("x/1", "two", r1)
      yield* a.create("y/1", "elsewhere")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* said(events), ["Snapshot ", "Put x/1=one", "Put x/1=two"])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* said(events), ["Current", "Current"])
    }))

  it.effect("a cut client fails typed, its watch is lost, and both come back by themselves", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      let up = true
      const cut = backend.client({ reachable: () => up })
      const other = backend.client()
      const events = yield* follow(cut, "")
      up = false
      assert.strictEqual((yield* Effect.flip(cut.get("a"))).message !== undefined, true)
      assert.strictEqual((yield* Effect.flip(cut.create("a", "1")))._tag, "StoreUnavailable")
      yield* other.create("a", "2")
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* said(events), ["Snapshot ", "Lost"])
      up = true
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* said(events), ["Snapshot a=2"])
    }))

  it.effect("an unknown outcome may have been applied or not, and the store knows which", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      let fate: MemoryBackend.WriteFate = "UnknownApplied"
      const client = backend.client({ write: () => fate })
      assert.strictEqual((yield* Effect.flip(client.create("a", "1")))._tag, "OutcomeUnknown")
      fate = "UnknownNotApplied"
      assert.strictEqual((yield* Effect.flip(client.create("b", "1")))._tag, "OutcomeUnknown")
      assert.deepStrictEqual(backend.entries().map((entry) => entry.key), ["a"])
    }))

  it.effect("a slow write outlives its caller's patience and is applied all the same", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make({ requestTimeout: "1 second" })
      const client = backend.client({ delay: () => ({ request: 3_000, reply: 0 }) })
      const write = yield* Effect.forkChild(Effect.flip(client.create("a", "1")))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(write))._tag, "OutcomeUnknown")
      assert.deepStrictEqual(backend.entries(), [])
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(backend.entries().length, 1)
    }))

  it.effect("silence is noticed by deadlines and, within three seconds, by watches", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      let silent = false
      const client = backend.client({ silent: () => silent })
      const events = yield* follow(client, "")
      silent = true
      const read = yield* Effect.forkChild(Effect.flip(client.list("")))
      const write = yield* Effect.forkChild(Effect.flip(client.create("a", "1")))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* said(events), ["Snapshot ", "Lost"])
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Fiber.join(read))._tag, "StoreUnavailable")
      assert.strictEqual((yield* Fiber.join(write))._tag, "OutcomeUnknown")
      assert.deepStrictEqual(backend.entries(), [])
    }))

  it.effect("a missed change is repaired by the next relist, a doubled and a late one stay in order", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      let fate: MemoryBackend.WatchFate = "Miss"
      let lateness = 0
      const client = backend.client({ watch: () => fate, watchDelay: () => lateness })
      const events = yield* follow(client, "")
      yield* client.create("a", "1")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual((yield* said(events)).filter((event) => event !== "Current"), [
        "Snapshot ",
        "Snapshot a=1"
      ])
      fate = "Twice"
      yield* client.create("b", "1")
      fate = "Deliver"
      lateness = 1_500
      yield* client.create("c", "1")
      lateness = 0
      yield* client.create("d", "1")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* said(events), ["Put b=1", "Put b=1"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* said(events), ["Put c=1", "Put d=1", "Current"])
    }))

  it.effect("stale reads lag, and a lost suffix gives revisions again and restarts watches", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      let lag = 0
      const client = backend.client({ staleBy: () => lag })
      const events = yield* follow(client, "")
      const r1 = yield* client.create("a", "1")
      const r2 = yield* client.update("a", "2", r1)
      lag = 1
      assert.strictEqual((yield* Effect.fromOption(yield* client.get("a"))).value, "1")
      lag = 2
      assert.deepStrictEqual(yield* client.list(""), [])
      lag = 0
      assert.strictEqual(backend.forget(1), 1)
      assert.strictEqual(yield* client.update("a", "other", r1), r2)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* said(events), ["Snapshot ", "Put a=1", "Put a=2", "Lost", "Snapshot a=other"])
    }))

  it.effect("a consumer that does not read is told to start over instead of filling memory", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      const client = backend.client()
      const pull = yield* Stream.toPull(client.watch(""))
      const first = yield* pull
      assert.strictEqual(first[0]._tag, "Snapshot")
      let revision = yield* client.create("a", "0")
      for (let i = 1; i <= 12_000; i++) revision = yield* client.update("a", String(i), revision)
      const rest = yield* pull
      assert.isBelow(rest.length, 10_100)
      assert.strictEqual(rest.at(-1)?._tag, "Lost")
      yield* TestClock.adjust("1 second")
      const again = yield* pull
      assert.deepStrictEqual(again[0], { _tag: "Snapshot", entries: [{ key: "a", value: "12000", revision }] })
    }))

  it.effect("what no store could take is refused by name before it is sent", () =>
    Effect.gen(function*() {
      const store = yield* ControlStore.makeMemory({ maxValueBytes: 10 })
      for (const key of ["", "/a", "a/", "a//b", "a b", "é", "a*", "x".repeat(513)]) {
        assert.strictEqual((yield* Effect.flip(store.create(key, "1")))._tag, "InvalidData", key)
      }
      assert.strictEqual((yield* Effect.flip(store.create("a", "12345678901")))._tag, "InvalidData")
      assert.strictEqual((yield* Effect.flip(store.create("a", "éééééé")))._tag, "InvalidData")
      assert.strictEqual((yield* Effect.flip(store.create("a", "\ud800")))._tag, "InvalidData")
      assert.strictEqual(
        ControlStore.keyPart("a/b é=").length > 0 && (yield* store.create(ControlStore.keyPart("a/b é="), "1")),
        "1"
      )
    }))

  it.effect("a caller's shorter patience ends a write as unknown and a read as unavailable", () =>
    Effect.gen(function*() {
      const backend = yield* MemoryBackend.make()
      const hasty = ControlStore.withDeadline(backend.client({ silent: () => true }), "500 millis")
      const read = yield* Effect.forkChild(Effect.flip(hasty.get("a")))
      const write = yield* Effect.forkChild(Effect.flip(hasty.create("a", "1")))
      yield* TestClock.adjust("500 millis")
      assert.strictEqual((yield* Fiber.join(read))._tag, "StoreUnavailable")
      assert.strictEqual((yield* Fiber.join(write))._tag, "OutcomeUnknown")
    }))
})

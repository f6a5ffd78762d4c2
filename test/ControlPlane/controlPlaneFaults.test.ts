// The control plane on a store that is slow, silent, doubtful, stale or forgetful: three outcomes stay three outcomes, and what a
// reader cannot know it does not claim.
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import type { ControlPlaneEvent, Registration } from "../../src/ControlPlane/ControlPlane.ts"
import { dataCenterId } from "../../src/ControlPlane/ControlPlane.ts"
import * as ControlPlaneStore from "../../src/ControlPlane/ControlPlaneStore.ts"
import { ControlStore } from "../../src/ControlPlane/index.ts"

const ttl = Duration.seconds(30)
const dataCenter = { name: "us", labels: {} }
const id = dataCenterId(dataCenter)
const registration: Registration = { id, dataCenter, endpoints: ["a:1"], state: "ACTIVE", writer: "w" }

const world = Effect.gen(function*() {
  const backend = yield* ControlStore.makeMemoryBackend
  const make = () => {
    const faults = {
      reachable: true,
      silent: false,
      write: "Normal" as "Normal" | "UnknownApplied" | "UnknownNotApplied",
      stale: 0,
      watch: "Deliver" as "Deliver" | "Miss" | "Twice"
    }
    const store = backend.client({
      reachable: () => faults.reachable,
      silent: () => faults.silent,
      write: () => faults.write,
      staleBy: () => faults.stale,
      watch: () => faults.watch
    })
    return Effect.map(ControlPlaneStore.make(store, { ttl }), (plane) => ({ faults, plane }))
  }
  return { backend, writer: yield* make(), reader: yield* make() }
})

const tagOf = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
  Effect.match(effect, { onFailure: ({ _tag }) => _tag, onSuccess: () => "Success" })
const activeAt = (plane: { readonly listActive: Effect.Effect<ReadonlyArray<unknown>, unknown> }) =>
  Effect.map(Effect.orElseSucceed(plane.listActive, () => []), (records) => records.length)

describe("writes of a doubtful store", () => {
  it.effect("a registration that was applied without an answer is recognised as our own", () =>
    Effect.gen(function*() {
      const { backend, writer } = yield* world
      writer.faults.write = "UnknownApplied"
      const outcome = yield* tagOf(writer.plane.register(registration))
      // the lease, which is written first, has an unknown outcome of its own
      assert.strictEqual(outcome, "OutcomeUnknown")
      let writes = 0
      const doubtful = backend.client({
        write: (_, key) => key.includes("records") && ++writes > 0 ? "UnknownApplied" : "Normal"
      })
      const plane = yield* ControlPlaneStore.make(doubtful, { ttl })
      const version = yield* plane.register(registration)
      assert.strictEqual((yield* plane.list)[0]?.version, version)
      const next = yield* plane.setState(id, "DRAINING", version)
      assert.strictEqual((yield* plane.list)[0]?.version, next)
      assert.strictEqual(writes, 2)
    }))

  it.effect("one that was not applied stays unknown, and the next attempt settles it", () =>
    Effect.gen(function*() {
      const { writer } = yield* world
      writer.faults.write = "UnknownNotApplied"
      assert.strictEqual(yield* tagOf(writer.plane.register(registration)), "OutcomeUnknown")
      writer.faults.write = "Normal"
      yield* writer.plane.register(registration)
    }))

  it.effect("X-11: heartbeats whose answers are lost keep the lease alive all the same", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      yield* writer.plane.register(registration)
      writer.faults.write = "UnknownApplied"
      for (let i = 0; i < 12; i++) {
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* tagOf(writer.plane.heartbeat(id, "w")), "OutcomeUnknown")
        assert.strictEqual(yield* activeAt(reader.plane), 1)
      }
    }))

  it.effect("a change of state decided from a stale read conflicts", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      const first = yield* writer.plane.register(registration)
      yield* writer.plane.setState(id, "DRAINING", first)
      reader.faults.stale = 1
      assert.strictEqual(yield* tagOf(reader.plane.setState(id, "ACTIVE", first)), "RevisionConflict")
      reader.faults.stale = 0
      assert.strictEqual((yield* reader.plane.list)[0]?.state, "DRAINING")
    }))

  it.effect("every operation ends within the store's deadline when nobody answers, and says what is certain", () =>
    Effect.gen(function*() {
      const { writer } = yield* world
      const version = yield* writer.plane.register(registration)
      writer.faults.silent = true
      const outcomes = yield* Effect.forkChild(Effect.all([
        tagOf(writer.plane.heartbeat(id, "w")),
        tagOf(writer.plane.list),
        tagOf(writer.plane.setState(id, "DRAINING", version)),
        tagOf(writer.plane.deregister(id, version)),
        tagOf(writer.plane.register(registration, version))
      ], { concurrency: "unbounded" }))
      yield* TestClock.adjust("11 seconds")
      assert.deepStrictEqual(yield* Fiber.join(outcomes), [
        "OutcomeUnknown",
        "StoreUnavailable",
        "StoreUnavailable",
        "OutcomeUnknown",
        "OutcomeUnknown"
      ])
    }))
})

describe("a reader that cannot see", () => {
  it.effect("fails to list while the store is gone, and counts no lease down that it cannot see renewed", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      yield* writer.plane.register(registration)
      yield* TestClock.adjust("1 second")
      reader.faults.reachable = false
      for (let i = 0; i < 60; i++) {
        yield* TestClock.adjust("10 seconds")
        yield* writer.plane.heartbeat(id, "w")
      }
      assert.strictEqual(yield* tagOf(reader.plane.list), "StoreUnavailable")
      reader.faults.reachable = true
      for (let i = 0; i < 9; i++) {
        assert.strictEqual(yield* activeAt(reader.plane), 1)
        yield* TestClock.adjust("1 second")
      }
    }))

  it.effect("what had expired before an outage is still expired after it", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      yield* writer.plane.register(registration)
      yield* TestClock.adjust("40 seconds")
      assert.strictEqual(yield* activeAt(reader.plane), 0)
      reader.faults.reachable = false
      yield* TestClock.adjust("1 minute")
      reader.faults.reachable = true
      for (let i = 0; i < 40; i++) {
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* activeAt(reader.plane), 0)
      }
      yield* writer.plane.heartbeat(id, "w")
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* activeAt(reader.plane), 1)
    }))

  it.effect("an outage only stops the count: what was left before it is left after it", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      yield* writer.plane.register(registration)
      yield* TestClock.adjust("20 seconds")
      reader.faults.reachable = false
      yield* TestClock.adjust("10 minutes")
      reader.faults.reachable = true
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* activeAt(reader.plane), 1)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* activeAt(reader.plane), 0)
    }))

  it.effect("tells its own watchers that it is blind, and begins again with a snapshot", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      const version = yield* writer.plane.register(registration)
      const events: Array<ControlPlaneEvent> = []
      yield* reader.plane.watch.pipe(
        Stream.runForEach((e) => Effect.sync(() => void events.push(e))),
        Effect.forkScoped
      )
      yield* TestClock.adjust("1 second")
      reader.faults.reachable = false
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(events.at(-1)?._tag, "Lost")
      yield* writer.plane.setState(id, "DRAINING", version)
      reader.faults.reachable = true
      const before = events.length
      yield* TestClock.adjust("2 seconds")
      const first = events[before]
      assert.strictEqual(first?._tag === "Snapshot" && first.records[0]?.state, "DRAINING")
    }))

  it.effect("a watcher that comes while the plane is blind is told so first", () =>
    Effect.gen(function*() {
      const { reader } = yield* world
      yield* TestClock.adjust("1 second")
      reader.faults.reachable = false
      yield* TestClock.adjust("2 seconds")
      const first = yield* Stream.runHead(reader.plane.watch)
      assert.strictEqual(first._tag === "Some" && first.value._tag, "Lost")
    }))

  it.effect("changes that its watch missed are in its lists at once, and in its watch after the next resync", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      const version = yield* writer.plane.register(registration)
      const states: Array<string> = []
      yield* reader.plane.watch.pipe(
        Stream.runForEach((event) =>
          Effect.sync(() => {
            if (event._tag === "Snapshot") states.push(event.records[0]?.state ?? "none")
            if (event._tag === "Upsert") states.push(event.record.state)
          })
        ),
        Effect.forkScoped
      )
      yield* TestClock.adjust("1 second")
      reader.faults.watch = "Miss"
      yield* writer.plane.setState(id, "DRAINING", version)
      reader.faults.watch = "Deliver"
      assert.strictEqual((yield* reader.plane.list)[0]?.state, "DRAINING")
      yield* TestClock.adjust("12 seconds")
      assert.strictEqual(states.at(-1), "DRAINING")
    }))

  it.effect("changes that are told twice change nothing twice", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      reader.faults.watch = "Twice"
      yield* writer.plane.register(registration)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* activeAt(reader.plane), 1)
      yield* TestClock.adjust("11 seconds")
      assert.strictEqual(yield* activeAt(reader.plane), 0, "a repeated old renewal renews nothing")
    }))
})

describe("a watcher that does not read", () => {
  it.effect("costs bounded memory, and is told to start over with what is there", () =>
    Effect.gen(function*() {
      const { reader, writer } = yield* world
      const version = yield* writer.plane.register(registration)
      yield* TestClock.adjust("1 second")
      const told: Array<ControlPlaneEvent> = []
      const reads = yield* Latch.make(false)
      yield* reader.plane.watch.pipe(
        Stream.runForEach((event) => Effect.andThen(Effect.sync(() => told.push(event)), reads.await)),
        Effect.forkScoped
      )
      yield* TestClock.adjust("1 second")
      const count = 6_000
      for (let i = 0; i < count; i++) {
        yield* writer.plane.heartbeat(id, "w")
        if (i % 100 === 0) yield* TestClock.adjust("10 millis")
      }
      const last = yield* writer.plane.setState(id, "DRAINING", version)
      yield* TestClock.adjust("1 second")
      yield* reads.open
      yield* TestClock.adjust("1 second")
      assert.isBelow(told.length, count)
      const lost = told.findLastIndex(({ _tag }) => _tag === "Lost")
      assert.isAbove(lost, 0, "that something is missing was said")
      const next = told[lost + 1]
      assert.deepStrictEqual(
        next?._tag === "Snapshot" && next.records.map(({ state, version }) => [state, version]),
        [["DRAINING", last]]
      )
      assert.isTrue(told.slice(lost + 2).every((event) => event._tag !== "Upsert" || event.record.version === last))
      yield* writer.plane.setState(id, "INACTIVE", last)
      yield* TestClock.adjust("10 millis")
      const end = told.at(-1)
      assert.strictEqual(end?._tag === "Upsert" && end.record.state, "INACTIVE", "it goes on from there")
    }))
})

describe("a store that forgets", () => {
  it.effect("X-9: a version that was given and forgotten is worth nothing", () =>
    Effect.gen(function*() {
      const { backend, writer } = yield* world
      const first = yield* writer.plane.register(registration)
      const second = yield* writer.plane.setState(id, "DRAINING", first)
      backend.forget(1)
      assert.strictEqual(yield* tagOf(writer.plane.setState(id, "INACTIVE", second)), "RevisionConflict")
      assert.strictEqual((yield* writer.plane.list)[0]?.version, first)
    }))

  it.effect("M29: records of a store that was emptied and begins to count anew are believed again", () =>
    Effect.gen(function*() {
      const { backend, reader, writer } = yield* world
      let version = yield* writer.plane.register(registration)
      for (let i = 0; i < 10; i++) {
        version = yield* writer.plane.setState(id, i % 2 === 0 ? "DRAINING" : "ACTIVE", version)
      }
      backend.wipe()
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* activeAt(reader.plane), 0)
      yield* writer.plane.register(registration)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* activeAt(reader.plane), 1)
    }))
})

describe("what is not ours", () => {
  it.effect("M28: is told once as an event, however often it is read", () =>
    Effect.gen(function*() {
      const told: Array<SystemEvents.SystemEvent> = []
      yield* Effect.gen(function*() {
        const events = yield* SystemEvents.SystemEvents
        yield* events.stream.pipe(
          Stream.runForEach((event) => Effect.sync(() => void told.push(event))),
          Effect.forkScoped({ startImmediately: true })
        )
        const backend = yield* ControlStore.makeMemoryBackend
        const store = backend.client()
        yield* store.create(`${ControlPlaneStore.keyPrefix}records/rubbish`, "rubbish")
        const plane = yield* ControlPlaneStore.make(store, { ttl })
        for (let i = 0; i < 5; i++) {
          yield* plane.list
          yield* TestClock.adjust("5 seconds")
        }
      }).pipe(Effect.provide(Layer.fresh(SystemEvents.layer)))
      assert.strictEqual(told.filter(({ _tag }) => _tag === "StoreTrouble").length, 1)
    }))
})

// What actors do across nodes: watching one that lives elsewhere, streams from it, looking at it and stopping it.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorSystem } from "effect-troupe/Actor"
import { Simulation } from "effect-troupe/testing"
import { Effect, Fiber, Layer, Option, Schedule, Schema, Stream, Tracer } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"

const Target = Actor.make("Target", {
  protocol: [
    Rpc.make("Ping", { success: Schema.String }),
    Rpc.make("Numbers", { payload: { count: Schema.Int }, success: Schema.Int, stream: true })
  ]
})
const TargetLive = Target.toLayer(Effect.succeed(Target.of({
  Ping: () => Effect.succeed("pong"),
  Numbers: ({ count }) => Stream.range(1, count)
})))

const Watcher = Actor.make("Watcher", {
  protocol: [
    Rpc.make("Watch", { payload: { name: Schema.String } }),
    Rpc.make("Seen", { success: Schema.Array(Schema.String) })
  ]
})
const WatcherLive = Watcher.toLayer(Effect.gen(function*() {
  const context = yield* ActorContext.ActorContext
  const system = yield* ActorSystem.ActorSystem
  const seen: Array<string> = []
  return Watcher.of({
    Watch: ({ name }) =>
      Effect.gen(function*() {
        const ref = yield* Effect.orDie(system.actorOf(Target, name))
        yield* context.watch(ref, (terminated) => Effect.sync(() => seen.push(terminated.name)))
      }),
    Seen: () => Effect.sync(() => [...seen])
  })
}))

const kinds = Layer.mergeAll(TargetLive, WatcherLive)

const Busy = Actor.make("Busy", {
  protocol: [
    Rpc.make("Hang"),
    Rpc.make("Grow"),
    Rpc.make("Work", { payload: { millis: Schema.Int }, success: Schema.Int })
  ]
})
const BusyLive = Busy.toLayer(
  Effect.gen(function*() {
    const context = yield* ActorContext.ActorContext
    return Busy.of({
      Hang: () => Effect.never,
      Grow: () => Effect.orDie(Effect.asVoid(context.spawnChild(Busy, "child"))),
      Work: ({ millis }) => Effect.as(Effect.sleep(millis), millis)
    })
  }),
  { stopGrace: "1 minute" }
)

describe("actors across nodes", () => {
  it.effect("a watch follows a relocation, and ends where the actor stops or its node takes it along", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 11, kinds, dataCenters: { "us-east-1": { nodes: 3 } } })
      yield* world.awaitReady
      const [a, b, c] = [0, 1, 2].map((index) => world.node("us-east-1", index)) as unknown as readonly [
        ReturnType<typeof world.node>,
        ReturnType<typeof world.node>,
        ReturnType<typeof world.node>
      ]
      const watcher = yield* a.system.spawnOn(Watcher, "w", { on: a.id })
      const stays = yield* a.system.spawnOn(Target, "moves", { on: b.id })
      yield* a.system.spawnOn(Target, "dies", { on: b.id, relocatable: false })
      const stopped = yield* a.system.spawnOn(Target, "stops", { on: c.id })
      for (const name of ["moves", "dies", "stops"]) yield* watcher.ask.Watch({ name })
      yield* TestClock.adjust("1 second")
      yield* a.system.stop(stopped)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* watcher.ask.Seen(), ["stops"])

      yield* b.crash
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* stays.ask.Ping(), "pong")
      assert.deepStrictEqual(yield* watcher.ask.Seen(), ["stops", "dies"])

      yield* a.system.stop(stays)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* watcher.ask.Seen(), ["stops", "dies", "moves"])
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("a watch that is minutes old follows a relocation like a new one", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 31, kinds, dataCenters: { "us-east-1": { nodes: 3 } } })
      yield* world.awaitReady
      const [a, b, c] = [world.node("us-east-1", 0), world.node("us-east-1", 1), world.node("us-east-1", 2)]
      const watcher = yield* a.system.spawnOn(Watcher, "w", { on: a.id })
      const left = yield* a.system.spawnOn(Target, "leaves", { on: b.id })
      const lost = yield* a.system.spawnOn(Target, "is lost", { on: c.id })
      for (const name of ["leaves", "is lost"]) yield* watcher.ask.Watch({ name })
      yield* TestClock.adjust("3 minutes")
      yield* world.run(b.leave)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* watcher.ask.Seen(), [])
      assert.strictEqual(yield* world.run(left.ask.Ping()), "pong")
      yield* c.crash
      yield* TestClock.adjust("3 minutes")
      assert.strictEqual(yield* world.run(lost.ask.Ping()), "pong")
      assert.deepStrictEqual(yield* watcher.ask.Seen(), [])
      yield* world.run(a.system.stop(lost))
      yield* world.run(a.system.stop(left))
      yield* TestClock.adjust("10 seconds")
      assert.sameMembers([...yield* watcher.ask.Seen()], ["leaves", "is lost"])
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("a child's name is taken on its node, whatever the directory's numbers say, and nobody else is given the child", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 21, kinds: BusyLive, dataCenters: { "us-east-1": { nodes: 1 } } })
      yield* world.awaitReady
      const { system } = world.node("us-east-1", 0)
      for (const [parent, lives] of [["p", 0], ["q", 3]] as const) {
        // Each life of a name has a higher number: at first that of the child, then one above it.
        for (let life = 0; life < lives; life++) {
          yield* system.stop(yield* system.spawn(Busy, `${parent}/child`))
        }
        const ref = yield* system.spawn(Busy, parent)
        yield* ref.tell.Grow()
        yield* TestClock.adjust("1 second")
        for (let time = 0; time < 3; time++) {
          assert.strictEqual((yield* Effect.flip(system.spawn(Busy, `${parent}/child`)))._tag, "NameTaken")
          const seen = yield* system.inspectActor(ref)
          assert.deepStrictEqual(seen.children.map(({ name, status }) => [name, status]), [[`${parent}/child`, "Idle"]])
        }
      }
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("a stream comes whole from another node, and one that stops listening ends it there", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 12, kinds, dataCenters: { "us-east-1": { nodes: 2 } } })
      yield* world.awaitReady
      const [a, b] = [world.node("us-east-1", 0), world.node("us-east-1", 1)]
      const ref = yield* a.system.spawnOn(Target, "t", { on: b.id })
      const all = yield* Effect.forkChild(Stream.runCollect(ref.ask.Numbers({ count: 50 })), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(all), Array.from({ length: 50 }, (_, n) => n + 1))
      const few = yield* Effect.forkChild(Stream.runCollect(Stream.take(ref.ask.Numbers({ count: 50 }), 2)), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(few), [1, 2])
      assert.strictEqual(yield* ref.ask.Ping(), "pong")
    }))

  it.effect("one on another node or in another datacenter is looked at, restarted, drained and stopped like one here", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({
        seed: 13,
        kinds: BusyLive,
        dataCenters: { "us-east-1": { nodes: 2 }, "eu-west-1": { nodes: 2 } }
      })
      yield* world.awaitReady
      const [a, b, e] = [
        world.node("us-east-1", 0),
        world.node("us-east-1", 1),
        world.node("eu-west-1", 0)
      ]
      const fork = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })
      for (
        const [name, options, home] of [
          ["near", { on: b.id }, "us-east-1"],
          ["far", { dataCenter: "eu-west-1" }, "eu-west-1"]
        ] as const
      ) {
        const spawned = yield* fork(a.system.spawnOn(Busy, name, options))
        yield* TestClock.adjust("1 second")
        const ref = yield* Fiber.join(spawned)
        assert.strictEqual(ref.address.node.dataCenter, home)
        assert.notStrictEqual(ref.address.node.id, a.id)
        const inspected = Effect.gen(function*() {
          const looking = yield* fork(a.system.inspectActor(ref))
          yield* TestClock.adjust("100 millis")
          return yield* Fiber.join(looking)
        })
        // It is stuck, and can be seen all the same, with its child.
        yield* fork(ref.ask.Grow())
        yield* TestClock.adjust("1 second")
        yield* ref.tell.Hang()
        yield* ref.tell.Work({ millis: 1 })
        yield* TestClock.adjust("1 second")
        const seen = yield* inspected
        assert.deepStrictEqual([seen.name, seen.status, seen.waiting], [name, "Busy", 1])
        assert.deepStrictEqual(seen.children.map((child) => child.name), [`${name}/child`])
        assert.deepStrictEqual(yield* a.system.inspect, [])

        // Stopped at once: the grace of its kind is a minute.
        const stopping = yield* fork(a.system.stop(ref, { now: true }))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(stopping)
        const gone = yield* fork(Effect.flip(a.system.inspectActor(ref)))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(gone))._tag, "ActorStopped")

        // A later life of the name: the old reference's stop does not touch it, a new one drains it.
        const again = yield* fork(a.system.spawnOn(Busy, name, options))
        yield* TestClock.adjust("1 second")
        const next = yield* Fiber.join(again)
        const old = yield* fork(a.system.stop(ref, { now: true }))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(old)
        const restarting = yield* fork(a.system.restart(next))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(restarting)
        // An operator's suspension holds wherever the operator is.
        const operate = Effect.fnUntraced(function*(operation: Effect.Effect<void, { readonly _tag: string }>) {
          const operating = yield* fork(operation)
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(operating)
          return (yield* inspected).status
        })
        assert.strictEqual(yield* operate(a.system.suspend(next)), "Suspended")
        assert.strictEqual(yield* operate(a.system.reinstate(next)), "Idle")
        const work = yield* Effect.forEach([100, 200, 300], (millis) => fork(next.ask.Work({ millis })))
        yield* TestClock.adjust("50 millis")
        const draining = yield* fork(a.system.stop(next, { drain: "1 minute" }))
        yield* TestClock.adjust("100 millis")
        assert.isUndefined(draining.pollUnsafe())
        assert.strictEqual(yield* inspected.pipe(Effect.map((seen) => seen.restarts)), 1)
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(draining)
        assert.deepStrictEqual(yield* Effect.forEach(work, (fiber) => Fiber.join(fiber)), [100, 200, 300])
      }
      assert.deepStrictEqual(yield* e.system.inspect, [])
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("looking at and stopping one whose node is cut off fail typed, within their time", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({
        seed: 14,
        kinds: BusyLive,
        dataCenters: { "us-east-1": { nodes: 1 }, "eu-west-1": { nodes: 1 } }
      })
      yield* world.awaitReady
      const a = world.node("us-east-1", 0)
      const ref = yield* world.run(a.system.spawnOn(Busy, "far", { dataCenter: "eu-west-1" }))
      yield* world.partition(["us-east-1"], ["eu-west-1"])
      const looked = yield* world.run(Effect.flip(a.system.inspectActor(ref, { timeout: "2 seconds" })))
      assert.include(["NodeUnreachable", "AskTimeout"], looked._tag)
      const stopped = yield* world.run(Effect.flip(a.system.stop(ref, { now: true })))
      assert.include(["NodeUnreachable", "OutcomeUnknown"], stopped._tag)
      yield* world.heal
      yield* world.run(Effect.retry(a.system.stop(ref, { now: true }), Schedule.spaced("1 second")))
      assert.deepStrictEqual(yield* world.node("eu-west-1", 0).system.inspect, [])
    }))

  it.effect("a pool across nodes streams, follows its routees where they move, and stops them when it shrinks", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 15, kinds, dataCenters: { "us-east-1": { nodes: 3 } } })
      yield* world.awaitReady
      const [a, b] = [world.node("us-east-1", 0), world.node("us-east-1", 1)]
      const pool = yield* world.run(
        a.system.spawnRouter(Target, "t", { size: 3, strategy: "roundRobin", placement: "roundRobin" })
      )
      const hosts = (yield* pool.routees).map((ref) => ref.address.node.id)
      assert.strictEqual(new Set(hosts).size, 3)
      for (let turn = 0; turn < 3; turn++) {
        assert.deepStrictEqual(yield* world.run(Stream.runCollect(pool.ask.Numbers({ count: 3 }))), [1, 2, 3])
      }
      yield* world.run(b.leave)
      yield* TestClock.adjust("2 seconds")
      for (let turn = 0; turn < 3; turn++) assert.strictEqual(yield* world.run(pool.ask.Ping()), "pong")
      assert.strictEqual((yield* pool.routees).length, 3)
      yield* world.run(pool.resize(1))
      assert.isFalse(yield* world.run(a.system.actorExists(Target, "t-3")))
    }))

  it.effect("a spawn whose outcome is unknown is the same spawn when its effect is run again, and meets no name of its own", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({
        seed: 16,
        kinds: BusyLive,
        dataCenters: { "us-east-1": { nodes: 1 }, "eu-west-1": { nodes: 1 } },
        network: { latency: "50 millis" }
      })
      yield* world.awaitReady
      const [a, e] = [world.node("us-east-1", 0), world.node("eu-west-1", 0)]
      const spawn = a.system.spawnOn(Busy, "once", { dataCenter: "eu-west-1" })
      yield* world.run(a.system.spawnOn(Busy, "before", { dataCenter: "eu-west-1" }))
      const first = yield* Effect.forkChild(Effect.flip(spawn), { startImmediately: true })
      // It has arrived, and its answer never will.
      yield* TestClock.adjust("75 millis")
      yield* world.partition(["us-east-1"], ["eu-west-1"])
      yield* TestClock.adjust("1 minute")
      const error = yield* Fiber.join(first)
      assert.isTrue(
        error._tag === "OutcomeUnknown" || (error._tag === "NodeUnreachable" && error.outcome === "Unknown"),
        error.message
      )
      const started = yield* e.system.inspect
      assert.deepStrictEqual(started.map((seen) => seen.name).sort(), ["before", "once"])
      yield* world.heal
      yield* TestClock.adjust("1 minute")
      const other = yield* world.run(Effect.flip(a.system.spawnOn(Busy, "once", { dataCenter: "eu-west-1" })))
      assert.strictEqual(other._tag, "NameTaken")
      const ref = yield* world.run(spawn)
      assert.strictEqual(yield* world.run(ref.ask.Work({ millis: 1 })), 1)
      assert.strictEqual((yield* e.system.inspect).length, 2)
      assert.strictEqual((yield* world.run(Effect.flip(spawn)))._tag, "NameTaken")
    }))

  it.effect("an ask of an actor elsewhere that forwards to one that is gone or cut off is handled once, and says so", () => {
    const relayed: Array<string> = []
    const Relay = Actor.make("Relay", {
      protocol: [Rpc.make("Ping", { success: Schema.String })],
      props: { to: Schema.String }
    })
    const RelayLive = Relay.toLayer(Effect.gen(function*() {
      const context = yield* ActorContext.ActorContext
      const system = yield* ActorSystem.ActorSystem
      const { to } = yield* Relay.props
      const target = yield* system.actorOf(Target, to)
      return Relay.of({
        Ping: () => {
          relayed.push(to)
          return context.forward(target.ask.Ping())
        }
      })
    }))
    return Effect.gen(function*() {
      const world = yield* Simulation.make({
        seed: 18,
        kinds: Layer.mergeAll(TargetLive, RelayLive),
        dataCenters: { "us-east-1": { nodes: 3 } }
      })
      yield* world.awaitReady
      const [a, b, c] = [0, 1, 2].map((index) => world.node("us-east-1", index))
      const spawn = (name: string, on: string) => a!.system.spawnOn(Target, name, { on, relocatable: false })
      const gone = yield* world.run(spawn("gone", c!.id))
      yield* world.run(spawn("far", c!.id))
      const refs = yield* Effect.forEach(
        ["gone", "far"],
        (to) => world.run(a!.system.spawnOn(Relay, `to-${to}`, { on: b!.id, props: { to } }))
      )
      assert.strictEqual(yield* world.run(refs[0]!.ask.Ping()), "pong")
      yield* world.run(a!.system.stop(gone))
      relayed.length = 0
      const first = yield* world.run(Effect.flip(refs[0]!.ask.Ping({ timeout: "20 seconds" })))
      assert.strictEqual(first._tag === "ActorStopped" && first.name, "gone")
      yield* world.partition([b!.id], [c!.id])
      yield* TestClock.adjust("5 seconds")
      const second = yield* world.run(Effect.flip(refs[1]!.ask.Ping({ timeout: "20 seconds" })))
      assert.isTrue(
        second._tag === "AskTimeout" || (second._tag === "NodeUnreachable" && second.outcome === "Unknown"),
        second.message
      )
      assert.deepStrictEqual(relayed, ["gone", "far"])
    })
  })

  it.effect("a handler on another node continues its asker's trace, where its kind asks for spans", () => {
    const spans: Array<Tracer.Span> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    const Traced = Actor.make("Traced", { protocol: [Rpc.make("Go", { success: Schema.Int })] })
    const TracedLive = Traced.toLayer(Effect.succeed(Traced.of({ Go: () => Effect.succeed(1) })), { trace: true })
    return Effect.gen(function*() {
      const world = yield* Simulation.make({
        seed: 17,
        kinds: TracedLive,
        dataCenters: { "us-east-1": { nodes: 1 }, "eu-west-1": { nodes: 1 } }
      })
      yield* world.awaitReady
      const a = world.node("us-east-1", 0)
      const ref = yield* world.run(a.system.spawnOn(Traced, "t", { dataCenter: "eu-west-1" }))
      spans.length = 0
      yield* world.run(Effect.withSpan(Effect.andThen(ref.ask.Go(), ref.tell.Go()), "caller"))
      yield* TestClock.adjust("1 second")
      const [caller, ...handlers] = spans.filter((span) => span.name === "caller" || span.name === "Traced.Go")
      assert.deepStrictEqual([caller!.name, ...handlers.map((span) => span.name)], ["caller", "Traced.Go", "Traced.Go"])
      for (const span of handlers) {
        assert.strictEqual(span.traceId, caller!.traceId)
        assert.strictEqual(Option.getOrUndefined(span.parent)?.spanId, caller!.spanId)
      }
    }).pipe(Effect.provideService(Tracer.Tracer, tracer))
  })
})

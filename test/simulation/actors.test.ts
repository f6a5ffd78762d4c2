// What actors do across nodes: watching one that lives elsewhere, and streams from it.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorSystem } from "effect-troupe/Actor"
import { Simulation } from "effect-troupe/testing"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
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
})

// Joining and leaving while the actors are in use, in a simulated world with everything in it.
import { assert, describe, it } from "@effect/vitest"
import { Actor } from "effect-troupe/Actor"
import { Simulation } from "effect-troupe/testing"
import { Effect, Fiber, Ref, Schema } from "effect"
import { Rpc } from "effect/rpc"

const Counter = Actor.make("Counter", {
  protocol: [Rpc.make("Add", { payload: { by: Schema.Int }, success: Schema.Int })]
})
const CounterLive = Counter.toLayer(Effect.gen(function*() {
  const value = yield* Ref.make(0)
  return Counter.of({ Add: ({ by }) => Ref.updateAndGet(value, (n) => n + by) })
}))

const actors = 30

describe("Under load", () => {
  for (const how of ["leave", "crash"] as const) {
    it.effect(
      `a member that goes (${how}) and comes back: asks fail typed and retryable at worst, and every actor answers after`,
      () =>
        Effect.gen(function*() {
          const world = yield* Simulation.make({
            seed: 11,
            kinds: CounterLive,
            dataCenters: { "us-east-1": { nodes: 3 } },
            network: { latency: "2 millis" }
          })
          yield* world.awaitReady
          const [a, b] = [world.node("us-east-1", 0), world.node("us-east-1", 1)]
          const refs = yield* world.run(Effect.forEach(
            Array.from({ length: actors }, (_, index) => `n-${index}`),
            (name) => a.system.spawnOn(Counter, name),
            { concurrency: 8 }
          ))
          const failures = new Map<string, number>()
          let answered = 0
          let longest = 0
          const lastAnswer = new Map<string, number>()
          let now = 0
          const load = Effect.forEach(refs, (ref) =>
            ref.ask.Add({ by: 1 }, { timeout: "1 second" }).pipe(
              Effect.tap(() =>
                Effect.sync(() => {
                  answered++
                  longest = Math.max(longest, now - (lastAnswer.get(ref.name) ?? now))
                  lastAnswer.set(ref.name, now)
                })
              ),
              Effect.catch((error) =>
                Effect.sync(() => {
                  failures.set(error._tag, (failures.get(error._tag) ?? 0) + 1)
                  assert.isTrue("retryable" in error, error._tag)
                })
              ),
              Effect.andThen(Effect.sleep("100 millis")),
              Effect.forever
            ), { concurrency: "unbounded", discard: true })
          const loading = yield* Effect.forkChild(load, { startImmediately: true })
          const pass = (millis: number) =>
            Effect.gen(function*() {
              for (let at = 0; at < millis; at += 50) {
                yield* world.run(Effect.sleep("50 millis"))
                now += 50
              }
            })
          yield* pass(1_000)
          const going = yield* Effect.forkChild(b[how], { startImmediately: true })
          yield* pass(how === "leave" ? 5_000 : 16_000)
          assert.isDefined(going.pollUnsafe())
          yield* b.restart
          yield* pass(6_000)
          yield* Fiber.interrupt(loading)
          assert.isAbove(answered, 2_000)
          const tags = Array.from(failures.keys())
          for (const tag of tags) {
            assert.include(["ActorStopped", "NodeUnreachable", "AskTimeout"], tag)
          }
          if (how === "leave") assert.deepStrictEqual(tags, [])
          // A departure in order costs moments; a crash costs a lease, its margin and the move.
          assert.isBelow(longest, how === "leave" ? 3_000 : 15_000, JSON.stringify(Object.fromEntries(failures)))
          for (const ref of refs) yield* world.run(ref.ask.Add({ by: 1 }))
          assert.deepStrictEqual(world.violations, [])
        }),
      120_000
    )
  }
})

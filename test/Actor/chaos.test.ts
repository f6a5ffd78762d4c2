// Random life: whatever happens to an actor, each accepted message is handled, refused or a dead letter, scopes close exactly once,
// and at most one handler runs at a time.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorSystem, SystemEvents } from "effect-troupe/Actor"
import { Effect, Exit, Fiber, Layer, Schedule, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const Step = Schema.Literals([
  "tell",
  "slow",
  "crash",
  "ask",
  "askSlow",
  "askCrash",
  "suspend",
  "reinstate",
  "stop",
  "spawn",
  "wait",
  "waitLong"
])

const Subject = Actor.make("Subject", {
  protocol: [
    Rpc.make("Work", { payload: { id: Schema.Int, millis: Schema.Int, crash: Schema.Boolean }, success: Schema.Int })
  ]
})

describe("an actor under random use", () => {
  it.effect.prop(
    "loses no message silently and closes each scope once",
    {
      steps: Schema.Array(Step).check(Schema.isMaxLength(40)),
      backoff: Schema.Boolean,
      passivate: Schema.Boolean,
      bounded: Schema.Boolean,
      slowEnd: Schema.Boolean
    },
    ({ backoff, bounded, passivate, slowEnd, steps }) =>
      Effect.gen(function*() {
        let running = 0
        let opened = 0
        let closed = 0
        const begun = new Set<number>()
        const live = Subject.toLayer(
          Effect.gen(function*() {
            let open = true
            opened++
            yield* Effect.addFinalizer(() =>
              Effect.andThen(
                slowEnd ? Effect.sleep("8 millis") : Effect.void,
                Effect.sync(() => {
                  assert.isTrue(open)
                  open = false
                  closed++
                })
              )
            )
            return Subject.of({
              Work: ({ crash, id, millis }) =>
                Effect.gen(function*() {
                  assert.isTrue(open)
                  assert.strictEqual(running, 0)
                  running++
                  begun.add(id)
                  if (millis > 0) yield* Effect.sleep(millis)
                  if (crash) return yield* Effect.die("crash")
                  return id
                }).pipe(Effect.ensuring(Effect.sync(() => running--)))
            })
          }),
          {
            stopGrace: "20 millis",
            supervision: {
              limit: 3,
              window: "1 second",
              exhausted: "suspend",
              backoff: backoff ? Schedule.spaced("7 millis") : undefined
            },
            mailbox: bounded ? { capacity: 3, overflow: "dropOldest" } : undefined,
            passivation: passivate ? { idle: "15 millis" } : undefined
          }
        )
        yield* Effect.gen(function*() {
          const system = yield* ActorSystem.ActorSystem
          const events = yield* SystemEvents.SystemEvents
          let dead = 0
          yield* Effect.forkChild(
            Stream.runForEach(events.stream, (event) => Effect.sync(() => event._tag === "DeadLetter" && dead++)),
            { startImmediately: true }
          )
          let ref = yield* system.spawn(Subject, "s")
          let ids = 0
          let accepted = 0
          const asks: Array<Fiber.Fiber<Exit.Exit<number, unknown>>> = []
          for (const step of steps) {
            const id = ++ids
            const message = {
              id,
              millis: step === "slow" || step === "askSlow" ? 10 : 0,
              crash: step === "crash" || step === "askCrash"
            }
            switch (step) {
              case "tell":
              case "slow":
              case "crash": {
                const told = yield* Effect.exit(ref.tell.Work(message))
                if (Exit.isSuccess(told)) accepted++
                break
              }
              case "ask":
              case "askSlow":
              case "askCrash":
                asks.push(
                  yield* Effect.forkChild(Effect.exit(ref.ask.Work(message, { timeout: "1 minute" })), {
                    startImmediately: true
                  })
                )
                break
              case "suspend":
              case "reinstate":
                yield* Effect.forkChild(Effect.ignore(system[step](ref)), { startImmediately: true })
                break
              case "stop":
                yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
                break
              case "spawn": {
                const again = yield* Effect.exit(system.spawn(Subject, "s"))
                if (Exit.isSuccess(again)) ref = again.value
                break
              }
              case "wait":
                yield* TestClock.adjust("5 millis")
                break
              case "waitLong":
                yield* TestClock.adjust("50 millis")
            }
          }
          yield* TestClock.adjust("10 seconds")
          const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
          yield* TestClock.adjust("10 seconds")
          yield* Fiber.join(stopping)
          // Every asker has its answer, and no message has two fates or none.
          let asksRefusedUnhandled = 0
          for (const ask of asks) {
            assert.isDefined(ask.pollUnsafe())
            const exit = yield* Fiber.join(ask)
            const error = Exit.isFailure(exit) ? JSON.stringify(exit.cause) : ""
            if (/ActorStopped|MailboxFull/.test(error)) asksRefusedUnhandled++
          }
          assert.isAtLeast(begun.size + dead, accepted)
          assert.isAtMost(begun.size, accepted + asks.length)
          assert.isAtLeast(begun.size + asksRefusedUnhandled + dead, asks.length)
          assert.deepStrictEqual(yield* system.inspect, [])
          assert.strictEqual(running, 0)
        }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
        assert.strictEqual(closed, opened)
      })
  )
})

// Random life: whatever happens to an actor, each accepted message is handled, refused or a dead letter, scopes close exactly once,
// at most one handler runs at a time (but for those that go beside the mailbox), and nothing that can go on is left waiting.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorSystem, SystemEvents } from "effect-troupe/Actor"
import { Effect, Exit, Fiber, Layer, Schedule, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const Step = Schema.Literals([
  "tell",
  "slow",
  "crash",
  "ask",
  "askThenStop",
  "askThenRestart",
  "askThenTell",
  "askThenSpawn",
  "askThenReinstate",
  "askThenSuspend",
  "askInterrupted",
  "suspendThenReinstate",
  "askSlow",
  "askCrash",
  "suspend",
  "reinstate",
  "restart",
  "fork",
  "forkNow",
  "other",
  "stash",
  "stop",
  "stopNow",
  "drain",
  "spawn",
  "wait",
  "waitLong"
])

const Subject = Actor.make("Subject", {
  protocol: [
    Rpc.make("Work", {
      payload: {
        id: Schema.Int,
        millis: Schema.Int,
        mode: Schema.Literals(["plain", "crash", "fork", "forkNow", "stash"])
      },
      success: Schema.Int
    })
  ]
})

/** Shares the workers of the host with the subject, and goes beside its mailbox now and then. */
const Other = Actor.make("Other", { protocol: [Rpc.make("Go", { payload: { millis: Schema.Int } })] })
const OtherLive = Other.toLayer(Effect.gen(function*() {
  const context = yield* ActorContext.ActorContext
  return Other.of({ Go: ({ millis }) => context.fork(millis === 0 ? Effect.void : Effect.sleep(millis)) })
}))

describe("an actor under random use", () => {
  it.effect.prop(
    "loses no message silently and closes each scope once",
    {
      steps: Schema.Array(Step).check(Schema.isMinLength(12), Schema.isMaxLength(40)),
      backoff: Schema.Boolean,
      passivate: Schema.Boolean,
      bounded: Schema.Literals(["no", "dropOldest", "backpressure"]),
      reentrant: Schema.Boolean,
      slowEnd: Schema.Boolean
    },
    ({ backoff, bounded, passivate, reentrant, slowEnd, steps }) =>
      Effect.gen(function*() {
        let running = 0
        let opened = 0
        let closed = 0
        const begun = new Set<number>()
        const aside = new Set<number>()
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
            const context = yield* ActorContext.ActorContext
            return Subject.of({
              Work: ({ id, millis, mode }) =>
                Effect.gen(function*() {
                  assert.isTrue(open)
                  if (!reentrant) assert.strictEqual(running, 0)
                  // Put aside once, and back when another one is done.
                  if (mode === "stash" && !aside.has(id)) {
                    aside.add(id)
                    return yield* context.stash
                  }
                  begun.add(id)
                  if (mode === "fork") return yield* context.fork(Effect.as(Effect.sleep(15), id))
                  if (mode === "forkNow") return yield* context.fork(Effect.succeed(id))
                  running++
                  return yield* Effect.gen(function*() {
                    if (millis > 0) yield* Effect.sleep(millis)
                    if (mode === "crash") return yield* Effect.die("crash")
                    if (mode === "plain") yield* context.unstash
                    return id
                  }).pipe(Effect.ensuring(Effect.sync(() => running--)))
                })
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
            mailbox: bounded === "no" ? undefined : { capacity: 3, overflow: bounded },
            reentrancy: reentrant ? { messages: ["Work"], maxInFlight: 2, timeout: "12 millis" } : undefined,
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
          const other = yield* system.spawn(Other, "o")
          let ids = 0
          let accepted = 0
          const asks: Array<Fiber.Fiber<Exit.Exit<number, unknown>>> = []
          for (const step of steps) {
            const id = ++ids
            const message = {
              id,
              millis: step === "slow" || step === "askSlow" ? 10 : 0,
              mode: step === "crash" || step === "askCrash"
                ? "crash" as const
                : step === "fork" || step === "forkNow" || step === "stash"
                ? step
                : "plain" as const
            }
            switch (step) {
              case "tell":
              case "slow":
              case "fork":
              case "forkNow":
              case "stash":
              case "crash": {
                // With back-pressure its sender may have to wait.
                yield* Effect.forkChild(Effect.tap(ref.tell.Work(message), () => Effect.sync(() => void accepted++)), {
                  startImmediately: true
                })
                break
              }
              // What an asker does next runs on the stack of whoever told it.
              case "askThenStop":
              case "askThenRestart":
              case "askThenTell":
              case "askThenReinstate":
              case "askThenSuspend":
              case "askThenSpawn": {
                const then: Effect.Effect<unknown, unknown> = step === "askThenStop"
                  ? Effect.suspend(() => system.stop(ref))
                  : step === "askThenRestart"
                  ? Effect.suspend(() => system.restart(ref))
                  : step === "askThenReinstate"
                  ? Effect.suspend(() => Effect.andThen(system.suspend(ref), system.reinstate(ref)))
                  : step === "askThenSuspend"
                  ? Effect.suspend(() => system.suspend(ref))
                  : step === "askThenTell"
                  ? Effect.suspend(() =>
                    Effect.tap(
                      ref.tell.Work({ id: -id, millis: 0, mode: id % 2 === 0 ? "crash" : "plain" }),
                      () => Effect.sync(() => void accepted++)
                    )
                  )
                  : Effect.tap(system.spawn(Subject, "s"), (again) => Effect.sync(() => void (ref = again)))
                const asked = ref.ask.Work({ ...message, mode: id % 3 === 0 ? "fork" : "plain", millis: 10 })
                asks.push(
                  yield* Effect.forkChild(Effect.tap(Effect.exit(asked), () => Effect.exit(then)), {
                    startImmediately: true
                  })
                )
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
              case "askInterrupted": {
                const asker = yield* Effect.forkChild(
                  Effect.exit(ref.ask.Work({ ...message, millis: id % 2 === 0 ? 10 : 0 })),
                  {
                    startImmediately: true
                  }
                )
                asks.push(asker)
                yield* Effect.forkChild(Effect.delay(Effect.sync(() => asker.interruptUnsafe()), id % 7), {
                  startImmediately: true
                })
                break
              }
              case "suspendThenReinstate":
                yield* Effect.forkChild(Effect.ignore(Effect.andThen(system.suspend(ref), system.reinstate(ref))), {
                  startImmediately: true
                })
                break
              case "other":
                yield* other.tell.Go({ millis: id % 3 })
                break
              case "suspend":
              case "reinstate":
              case "restart":
                yield* Effect.forkChild(Effect.ignore(system[step](ref)), { startImmediately: true })
                break
              case "stop":
              case "stopNow":
              case "drain":
                yield* Effect.forkChild(
                  system.stop(ref, {
                    now: step === "stopNow",
                    drain: step === "drain" ? "30 millis" : undefined
                  }),
                  { startImmediately: true }
                )
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
          // Whoever is suspended goes on; then nobody has anything left to do.
          for (let time = 0; time < 10; time++) {
            yield* Effect.forkChild(Effect.ignore(system.reinstate(ref)), { startImmediately: true })
            yield* TestClock.adjust("2 seconds")
          }
          for (const { status, waiting, stashed, name } of yield* system.inspect) {
            if (stashed === 0 || name === "o") assert.deepStrictEqual([name, waiting], [name, 0])
            assert.include(["Idle", "Passivated", "Suspended"], status)
          }
          // An asker that is told by the end itself may spawn it anew.
          for (let time = 0; time < 20 && (yield* system.inspect).length > 1; time++) {
            const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
            yield* TestClock.adjust("10 seconds")
            yield* Fiber.join(stopping)
          }
          // Every asker has its answer, and no message has two fates or none.
          let asksRefusedUnhandled = 0
          let interrupted = 0
          for (const ask of asks) {
            assert.isDefined(ask.pollUnsafe())
            const exit = yield* Effect.exit(Fiber.join(ask))
            if (Exit.isFailure(exit)) {
              interrupted++
              continue
            }
            const error = Exit.isFailure(exit.value) ? JSON.stringify(exit.value.cause) : ""
            if (/ActorStopped|MailboxFull|AskTimeout/.test(error)) asksRefusedUnhandled++
          }
          assert.isAtLeast(begun.size + dead, accepted)
          assert.isAtMost(begun.size, accepted + asks.length)
          assert.isAtLeast(begun.size + asksRefusedUnhandled + dead + interrupted, asks.length)
          assert.deepStrictEqual(
            (yield* system.inspect).map(({ detached, name, waiting }) => [name, detached, waiting]),
            [
              ["o", 0, 0]
            ]
          )
          assert.strictEqual(running, 0)
        }).pipe(Effect.provide(Layer.merge(live, OtherLive).pipe(Layer.provideMerge(layerLocal))))
        assert.strictEqual(closed, opened)
      }),
    { arbitrary: { runs: 200 } }
  )
})

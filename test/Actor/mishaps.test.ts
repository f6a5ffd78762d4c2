// Code of the program's own that throws where the runtime calls it, and what outlives the behaviour that set it up: it harms its own actor at most.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, type ActorRef, ActorSystem, Mailbox, Topic } from "effect-troupe/Actor"
import { Effect, Exit, Fiber, Layer, Logger, Schema, Scope } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

/** An actor that does what it is told: one message takes its name and runs what is written there. */
const Doer = Actor.make("Doer", {
  protocol: [Rpc.make("Do", { payload: { what: Schema.String }, success: Schema.String })]
})
type Scripts = Readonly<Record<string, Effect.Effect<string, never, ActorContext.ActorContext | Scope.Scope>>>

const doer = (
  scripts: Scripts,
  options?: Actor.BehaviorOptions<"Do">,
  build: Effect.Effect<unknown, never, ActorContext.ActorContext | Scope.Scope> = Effect.void
) =>
  Doer.toLayer(
    Effect.as(build, Doer.of({ Do: ({ what }) => scripts[what] ?? Effect.succeed(what) })),
    options
  )

const Other = Actor.make("Other", { protocol: [Rpc.make("Ping", { success: Schema.String })] })
const OtherLive = Other.toLayer(Effect.succeed(Other.of({ Ping: () => Effect.succeed("pong") })))

const on = <A, E>(
  kind: Layer.Layer<never, never, ActorSystem.ActorSystem>,
  body: (
    system: ActorSystem.ActorSystem["Service"]
  ) => Effect.Effect<A, E, ActorSystem.ActorSystem | Topic.Topics | Scope.Scope>
) =>
  ActorSystem.ActorSystem.use(body).pipe(
    Effect.provide(Layer.mergeAll(kind, OtherLive, Topic.layer).pipe(Layer.provideMerge(layerLocal)))
  )

const quiet = <A, E, R>(effect: Effect.Effect<A, E, R>, lines: Array<string> = []) =>
  Effect.provide(
    effect,
    Logger.layer([Logger.make(({ message, cause }) => void lines.push(`${String(message)} ${String(cause)}`))])
  )

const begin = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe("code that throws", () => {
  it.effect("decide: the actor stops as Failed, and all others go on", () =>
    quiet(on(
      doer({ die: Effect.die("first") }, {
        supervision: {
          decide: () => {
            throw new Error("no idea")
          }
        }
      }),
      (system) =>
        Effect.gen(function*() {
          const other = yield* system.spawn(Other, "o")
          const ref = yield* system.spawn(Doer, "d")
          yield* ref.tell.Do({ what: "die" })
          yield* settle
          yield* other.tell.Ping()
          const asked = yield* begin(other.ask.Ping())
          yield* settle
          assert.deepStrictEqual(asked.pollUnsafe(), Exit.succeed("pong"))
          assert.strictEqual((yield* Effect.flip(ref.ask.Do({ what: "x" })))._tag, "ActorStopped")
        })
    )))

  it.effect("a queue of one's own: its actor stops as Failed, and all others go on", () =>
    quiet(on(
      doer({}, {
        mailbox: {
          queue: () => {
            const waiting: Array<Mailbox.Waiting> = []
            return {
              get size() {
                return waiting.length
              },
              push: (message) => void waiting.push(message),
              shift: () => {
                throw new Error("lost")
              }
            }
          }
        }
      }),
      (system) =>
        Effect.gen(function*() {
          const other = yield* system.spawn(Other, "o")
          const ref = yield* system.spawn(Doer, "d")
          yield* ref.tell.Do({ what: "x" })
          yield* settle
          const asked = yield* begin(other.ask.Ping())
          yield* other.tell.Ping()
          yield* settle
          assert.deepStrictEqual(asked.pollUnsafe(), Exit.succeed("pong"))
          yield* other.tell.Ping()
          yield* settle
          assert.strictEqual((yield* system.inspectActor(other)).waiting, 0)
        })
    )))

  it.effect("such a queue is no reason not to end: a stop frees the name all the same", () =>
    quiet(on(
      doer({ wait: Effect.never }, {
        stopGrace: 0,
        mailbox: {
          queue: () => {
            let shifts = 0
            const waiting: Array<Mailbox.Waiting> = []
            return {
              get size() {
                return waiting.length
              },
              push: (message) => void waiting.push(message),
              shift: () => {
                if (shifts++ > 0) throw new Error("lost")
                return waiting.shift()!
              }
            }
          }
        }
      }),
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Doer, "d")
          yield* ref.tell.Do({ what: "wait" })
          yield* settle
          yield* Effect.forEach(["a", "b"], (what) => ref.tell.Do({ what }))
          const stopping = yield* begin(system.stop(ref))
          yield* settle
          assert.deepStrictEqual(stopping.pollUnsafe(), Exit.void)
          yield* system.spawn(Doer, "d")
        })
    )))

  it.effect("what is to follow a pipeTo: a failure of the actor", () => {
    let builds = 0
    return quiet(on(
      doer(
        {
          pipe: ActorContext.ActorContext.use((context) =>
            Effect.as(
              context.pipeTo(Effect.sleep("1 second"), () => {
                throw new Error("then")
              }),
              "piped"
            )
          )
        },
        {},
        Effect.sync(() => builds++)
      ),
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Doer, "d")
          yield* ref.ask.Do({ what: "pipe" })
          yield* TestClock.adjust("1 second")
          assert.strictEqual(builds, 2)
        })
    ))
  })

  it.effect("what is to follow a watch: a failure of the watcher, and none of the watched or of others that watch", () => {
    let builds = 0
    const seen: Array<string> = []
    const target: { ref: ActorRef.ActorRef | undefined } = { ref: undefined }
    const watch = (onTerminated: () => Effect.Effect<unknown>) =>
      ActorContext.ActorContext.use((context) =>
        Effect.as(Effect.suspend(() => context.watch(target.ref!, onTerminated)), "watching")
      )
    return quiet(on(
      doer(
        {
          bad: watch(() => {
            throw new Error("terminated")
          }),
          good: watch(() => Effect.sync(() => seen.push("good")))
        },
        {},
        Effect.sync(() => builds++)
      ),
      (system) =>
        Effect.gen(function*() {
          target.ref = yield* system.spawn(Other, "o")
          const bad = yield* system.spawn(Doer, "bad")
          const good = yield* system.spawn(Doer, "good")
          yield* bad.ask.Do({ what: "bad" })
          yield* good.ask.Do({ what: "good" })
          const stopping = yield* begin(system.stop(target.ref))
          yield* settle
          assert.deepStrictEqual(stopping.pollUnsafe(), Exit.void)
          assert.deepStrictEqual(seen, ["good"])
          assert.strictEqual(builds, 3, "bad was built anew")
        })
    ))
  })

  it.effect("a topic's tell: the message is skipped and the subscription goes on", () => {
    const lines: Array<string> = []
    const seen: Array<number> = []
    const numbers = Topic.make<number>("numbers")
    return quiet(
      on(doer({}), () =>
        Effect.gen(function*() {
          yield* numbers.tellTo((n) => {
            if (n === 1) throw new Error("odd")
            return n === 2 ? Effect.die("even") : Effect.sync(() => void seen.push(n))
          })
          yield* Effect.forEach([0, 1, 2, 3], (n) => numbers.publish(n))
          yield* settle
          assert.deepStrictEqual(seen, [0, 3])
          assert.strictEqual(lines.filter((line) => line.includes("was not told")).length, 2)
        })),
      lines
    )
  })
})

describe("what was set up by a behaviour that has ended", () => {
  it.effect("a pipeTo that is done while the children end is not told to the next behaviour", () => {
    const seen: Array<string> = []
    let builds = 0
    const slow = Other.toLayer(
      Effect.as(Effect.addFinalizer(() => Effect.sleep("2 seconds")), Other.of({ Ping: () => Effect.succeed("pong") }))
    )
    return ActorSystem.ActorSystem.use((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Doer, "d")
        yield* ref.ask.Do({ what: "set up" })
        yield* system.restart(ref)
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(builds, 2)
        assert.strictEqual(yield* ref.ask.Do({ what: "x" }), "x")
        assert.deepStrictEqual(seen, [])
        const [look] = yield* system.inspect
        assert.deepStrictEqual([look?.children, look?.timers], [[], []])
        const stopping = yield* begin(system.stop(ref))
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(stopping)
        assert.deepStrictEqual(yield* system.inspect, [])
      })
    ).pipe(Effect.provide(
      Layer.mergeAll(
        doer(
          {
            "set up": Effect.gen(function*() {
              const context = yield* ActorContext.ActorContext
              yield* Effect.orDie(context.spawnChild(Other, "child"))
              yield* context.pipeTo(
                Effect.sleep("1 second"),
                () => Effect.sync(() => seen.push(`piped in behaviour ${builds}`))
              )
              yield* context.pipeTo(
                Effect.gen(function*() {
                  yield* Effect.sleep("1 second")
                  yield* context.timers.every("tick", "1 second", Effect.sync(() => seen.push("tick")))
                  yield* context.receiveTimeout("1 second", Effect.sync(() => seen.push("silence")))
                  yield* Effect.ignore(context.spawnChild(Other, "orphan"))
                }),
                () => Effect.void
              )
              return "done"
            })
          },
          {},
          Effect.sync(() => builds++)
        ),
        slow
      ).pipe(Layer.provideMerge(layerLocal))
    ))
  })

  it.effect("finalizers cannot leave children, timers or watches behind", () => {
    const seen: Array<string> = []
    const failures: Array<string> = []
    return quiet(on(
      doer(
        {},
        {},
        Effect.gen(function*() {
          const context = yield* ActorContext.ActorContext
          yield* Effect.addFinalizer(() =>
            Effect.gen(function*() {
              yield* context.timers.every("tick", "1 second", Effect.sync(() => seen.push("tick")))
              yield* context.timers.once("tock", "1 second", Effect.sync(() => seen.push("tock")))
              const failed = yield* Effect.flip(context.spawnChild(Other, "orphan"))
              failures.push(failed._tag)
              yield* context.pipeTo(Effect.void, () => Effect.sync(() => seen.push("piped")))
            }).pipe(Effect.orDie)
          )
        })
      ),
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Doer, "d")
          yield* system.restart(ref)
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual(seen, [])
          assert.deepStrictEqual((yield* system.inspectActor(ref)).timers, [])
          yield* system.stop(ref)
          assert.deepStrictEqual(yield* system.inspect, [])
          assert.deepStrictEqual(failures, ["StartFailed", "StartFailed"])
        })
    ))
  })
})

describe("a sibling", () => {
  const both = (
    other: { readonly build: Effect.Effect<unknown>; readonly work: Effect.Effect<string> },
    body: (parts: {
      readonly system: ActorSystem.ActorSystem["Service"]
      readonly fail: (error: string) => Effect.Effect<void>
      readonly waiting: ActorRef.ActorRef<typeof Other extends Actor.Kind<infer Rpcs, infer _> ? Rpcs : never>
    }) => Effect.Effect<void, unknown>
  ) => {
    const supervision = {
      strategy: "allForOne",
      decide: (error: unknown) => error === "first" ? "restart" : "suspend"
    } as const
    const Failing = Actor.make("Failing", { protocol: [Rpc.make("Fail", { payload: { error: Schema.String } })] })
    const kinds = Layer.mergeAll(
      Failing.toLayer(Effect.succeed(Failing.of({ Fail: ({ error }) => Effect.die(error) })), { supervision }),
      Other.toLayer(Effect.as(other.build, Other.of({ Ping: () => other.work })), {
        passivation: { idle: "1 minute" }
      }),
      doer({
        children: ActorContext.ActorContext.use((context) =>
          Effect.gen(function*() {
            const failing = yield* context.spawnChild(Failing, "failing")
            const waiting = yield* context.spawnChild(Other, "waiting")
            children = { failing, waiting }
            return "born"
          }).pipe(Effect.orDie)
        )
      })
    )
    let children: Children | undefined
    interface Children {
      readonly failing: ActorRef.ActorRef<typeof Failing extends Actor.Kind<infer Rpcs, infer _> ? Rpcs : never>
      readonly waiting: ActorRef.ActorRef<typeof Other extends Actor.Kind<infer Rpcs, infer _> ? Rpcs : never>
    }
    return quiet(
      ActorSystem.ActorSystem.use((system) =>
        Effect.gen(function*() {
          const parent = yield* system.spawn(Doer, "p")
          const born = yield* begin(parent.ask.Do({ what: "children" }))
          yield* TestClock.adjust("2 seconds")
          yield* Fiber.join(born)
          const { failing, waiting } = children!
          yield* body({
            system,
            waiting,
            fail: (error) => Effect.andThen(Effect.orDie(failing.tell.Fail({ error })), settle)
          })
        })
      ).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))
    )
  }

  it.effect("that is suspended while it is built anew can be passivated once it is reinstated", () =>
    both(
      { build: Effect.sleep("1 second"), work: Effect.succeed("pong") },
      ({ fail, system, waiting }) =>
        Effect.gen(function*() {
          yield* fail("first")
          yield* fail("second")
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* system.inspectActor(waiting)).status, "Suspended")
          yield* system.reinstate(waiting)
          yield* TestClock.adjust("2 minutes")
          assert.strictEqual((yield* system.inspectActor(waiting)).status, "Passivated")
        })
    ))

  it.effect("that is suspended while it waits to be built anew is built anew when it is reinstated", () => {
    let builds = 0
    return both(
      { build: Effect.sync(() => builds++), work: Effect.as(Effect.sleep("1 second"), "worked") },
      ({ fail, system, waiting }) =>
        Effect.gen(function*() {
          const asked = yield* begin(waiting.ask.Ping())
          yield* settle
          yield* fail("first")
          yield* fail("second")
          yield* TestClock.adjust("1 second")
          assert.strictEqual(yield* Fiber.join(asked), "worked")
          assert.deepStrictEqual([builds, (yield* system.inspectActor(waiting)).status], [1, "Suspended"])
          yield* system.reinstate(waiting)
          yield* settle
          assert.strictEqual(builds, 2)
        })
    )
  })
})

describe("nobody is left waiting", () => {
  const waits = { reentrancy: { messages: ["Do"] } } as const

  it.effect("by an unstash beside the mailbox: what was put aside is handled at once", () =>
    on(
      doer({
        aside: ActorContext.ActorContext.use((context) =>
          Effect.suspend(() => context.stashed < 2 && !opened ? context.stash : Effect.succeed("served"))
        ),
        open: ActorContext.ActorContext.use((context) =>
          context.fork(Effect.gen(function*() {
            yield* Effect.sleep("1 second")
            opened = true
            yield* context.unstash
            return "open"
          }))
        )
      }),
      (system) =>
        Effect.gen(function*() {
          opened = false
          const ref = yield* system.spawn(Doer, "d")
          const aside = yield* begin(ref.ask.Do({ what: "aside" }))
          const open = yield* begin(ref.ask.Do({ what: "open" }))
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(open.pollUnsafe(), Exit.succeed("open"))
          assert.deepStrictEqual(aside.pollUnsafe(), Exit.succeed("served"))
        })
    ))
  let opened = false

  it.effect("by whoever suspends and reinstates it in one breath, in the midst of its turn", () =>
    on(doer({}), (system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Doer, "d")
        yield* ref.tell.Do({ what: "before" })
        const breath = yield* begin(Effect.andThen(system.suspend(ref), system.reinstate(ref)))
        yield* settle
        assert.deepStrictEqual(breath.pollUnsafe(), Exit.void)
        const asked = yield* begin(ref.ask.Do({ what: "y" }))
        yield* settle
        assert.deepStrictEqual(asked.pollUnsafe(), Exit.succeed("y"))
        assert.strictEqual((yield* system.inspectActor(ref)).status, "Idle")
      })))

  it.effect("by passivation that had to wait for messages beside the mailbox: it comes with the last of them", () =>
    on(
      doer({ slow: Effect.as(Effect.sleep("1 second"), "slow") }, { ...waits, passivation: { messages: 2 } }),
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Doer, "d")
          yield* ref.tell.Do({ what: "slow" })
          yield* ref.tell.Do({ what: "slow" })
          yield* settle
          assert.strictEqual((yield* system.inspectActor(ref)).detached, 2)
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* system.inspectActor(ref)).status, "Passivated")
        })
    ))

  it.effect("by a handler beside the mailbox that asks for passivation at its end", () =>
    on(
      doer({
        last: ActorContext.ActorContext.use((context) =>
          context.fork(Effect.as(Effect.andThen(Effect.sleep("1 second"), context.passivate), "last"))
        )
      }, { passivation: {} }),
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Doer, "d")
          yield* ref.tell.Do({ what: "last" })
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* system.inspectActor(ref)).status, "Passivated")
        })
    ))
})

// What a behaviour can do to its own actor: become, stash, timers, watch, pipeTo, fork, forward, receive timeout.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, type ActorRef, ActorSystem, Router } from "effect-troupe/Actor"
import { Cause, Clock, Context, Deferred, Effect, Fiber, Layer, Logger, References, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

const on = <A, E, R>(kinds: Layer.Layer<never, never, R>) =>
(
  body: (system: ActorSystem.ActorSystem["Service"]) => Effect.Effect<A, E, ActorSystem.ActorSystem>
) =>
  ActorSystem.ActorSystem.use(body).pipe(
    Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal)) as Layer.Layer<ActorSystem.ActorSystem>)
  )

const Door = Actor.make("Door", {
  protocol: [
    Rpc.make("Open"),
    Rpc.make("Close"),
    Rpc.make("Enter", { payload: { who: Schema.String }, success: Schema.String }),
    Rpc.make("Stashed", { success: Schema.Int }),
    Rpc.make("Crash")
  ]
})

/** A door: who comes while it is closed is put aside. */
const door = (options?: Actor.BehaviorOptions<never>) =>
  Door.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext.ActorContext
      return Door.of({
        Open: () =>
          Effect.andThen(
            Door.become({ Enter: ({ who }) => Effect.succeed(`${who} is in`), Close: () => context.unbecome }),
            context.unstash
          ),
        Close: () => Effect.void,
        Enter: () => context.stash,
        Stashed: () => Effect.sync(() => context.stashed),
        Crash: () => Effect.die("crash")
      })
    }),
    options
  )

describe("become and stash", () => {
  it.effect("become lays handlers over, unbecome takes them off; stashed messages come back before the mailbox", () =>
    on(door())((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Door, "d")
        const ann = yield* Effect.forkChild(ref.ask.Enter({ who: "ann" }), { startImmediately: true })
        const bob = yield* Effect.forkChild(ref.ask.Enter({ who: "bob" }), { startImmediately: true })
        assert.strictEqual(yield* ref.ask.Stashed(), 2)
        yield* ref.tell.Open()
        assert.strictEqual(yield* ref.ask.Enter({ who: "cat" }), "cat is in")
        assert.strictEqual(yield* Fiber.join(ann), "ann is in")
        assert.strictEqual(yield* Fiber.join(bob), "bob is in")
        yield* ref.tell.Close()
        const dan = yield* Effect.forkChild(Effect.flip(ref.ask.Enter({ who: "dan" })), { startImmediately: true })
        assert.strictEqual(yield* ref.ask.Stashed(), 1)
        yield* system.stop(ref)
        assert.strictEqual((yield* Fiber.join(dan))._tag, "ActorStopped")
      })
    ))

  it.effect("become with replace takes the place of what was before, however often, and unbecome goes back to the first", () =>
    Effect.gen(function*() {
      const Light = Actor.make("Light", {
        protocol: [
          Rpc.make("Turn"),
          Rpc.make("Off"),
          Rpc.make("Colour", { success: Schema.String }),
          Rpc.make("Count", { success: Schema.Int })
        ]
      })
      const live = Light.toLayer(Effect.gen(function*() {
        const context = yield* ActorContext.ActorContext
        let turns = 0
        const turn: Effect.Effect<void, never, ActorContext.ActorContext> = Effect.suspend(() =>
          turns++ % 2 === 0
            ? Light.become({ Colour: () => Effect.succeed("red"), Off: () => context.unbecome }, { replace: true })
            : Light.become({ Colour: () => Effect.succeed("green") }, { replace: true })
        )
        return Light.of({
          Turn: () => turn,
          Off: () => Effect.void,
          Colour: () => Effect.succeed("off"),
          Count: () => Effect.sync(() => turns)
        })
      }))
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Light, "l")
          yield* ref.tell.Turn()
          assert.strictEqual(yield* ref.ask.Colour(), "red")
          yield* ref.tell.Turn()
          assert.strictEqual(yield* ref.ask.Colour(), "green")
          // Green has no way off of its own, and red's is gone.
          yield* ref.tell.Off()
          assert.strictEqual(yield* ref.ask.Colour(), "green")
          for (let turn = 0; turn < 1001; turn++) yield* ref.tell.Turn()
          assert.strictEqual(yield* ref.ask.Count(), 1003)
          const { cell } = ref as unknown as {
            readonly cell: { readonly extras: { readonly behaviors: Array<unknown> } }
          }
          assert.strictEqual(cell.extras.behaviors.length, 1)
          yield* ref.tell.Off()
          assert.strictEqual(yield* ref.ask.Colour(), "off")
        })
      )
    }))

  it.effect("a stash has a cap: one too many is refused", () =>
    on(door({ stash: 1 }))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Door, "d")
        const ann = yield* Effect.forkChild(ref.ask.Enter({ who: "ann" }), { startImmediately: true })
        const error = yield* Effect.flip(ref.ask.Enter({ who: "bob" }))
        assert.strictEqual(error._tag === "MailboxFull" && error.capacity, 1)
        yield* ref.tell.Open()
        assert.strictEqual(yield* Fiber.join(ann), "ann is in")
      })
    ))

  it.effect("a restart puts what was stashed back before the mailbox, and forgets what the actor had become", () =>
    on(door())((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Door, "d")
        const ann = yield* Effect.forkChild(ref.ask.Enter({ who: "ann" }), { startImmediately: true })
        yield* ref.tell.Crash()
        assert.strictEqual(yield* ref.ask.Stashed(), 1)
        yield* ref.tell.Open()
        yield* ref.tell.Crash()
        assert.strictEqual(yield* Fiber.join(ann), "ann is in")
        const bob = yield* Effect.forkChild(ref.ask.Enter({ who: "bob" }), { startImmediately: true })
        assert.strictEqual(yield* ref.ask.Stashed(), 1)
        yield* Fiber.interrupt(bob)
      })
    ))

  it.effect.prop(
    "whatever is stashed and unstashed, messages are handled once and in the order of their arrival",
    { plan: Schema.Array(Schema.Literals(["enter", "open", "close"])) },
    ({ plan }) => {
      const handled: Array<number> = []
      const Gate = Actor.make("Gate", {
        protocol: [
          Rpc.make("Enter", { payload: { n: Schema.Int } }),
          Rpc.make("Set", { payload: { open: Schema.Boolean } })
        ]
      })
      const live = Gate.toLayer(Effect.gen(function*() {
        const context = yield* ActorContext.ActorContext
        let open = false
        return Gate.of({
          Enter: ({ n }) => open ? Effect.sync(() => void handled.push(n)) : context.stash,
          Set: (set) =>
            Effect.suspend(() => {
              open = set.open
              return open ? context.unstash : Effect.void
            })
        })
      }))
      return on(live)((system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Gate, "g")
          const entered = plan.filter((step) => step === "enter").length
          let n = 0
          for (const step of plan) {
            yield* step === "enter" ? ref.tell.Enter({ n: n++ }) : ref.tell.Set({ open: step === "open" })
          }
          yield* ref.ask.Set({ open: true })
          yield* settle
          assert.deepStrictEqual(handled, Array.from({ length: entered }, (_, index) => index))
        })
      )
    }
  )
})

const Clockwork = Actor.make("Clockwork", {
  protocol: [
    Rpc.make("Tick"),
    Rpc.make("Once", { payload: { name: Schema.String, millis: Schema.Int } }),
    Rpc.make("Every", { payload: { name: Schema.String, millis: Schema.Int } }),
    Rpc.make("Cancel", { payload: { name: Schema.String } }),
    Rpc.make("ReceiveTimeout", { payload: { millis: Schema.Int } }),
    Rpc.make("Active", { success: Schema.Array(Schema.String) }),
    Rpc.make("Crash")
  ]
})

const clockwork = (log: Array<string>) =>
  Clockwork.toLayer(Effect.gen(function*() {
    const context = yield* ActorContext.ActorContext
    const note = (what: string) => Effect.map(Clock.currentTimeMillis, (now) => void log.push(`${what} ${now}`))
    return Clockwork.of({
      Tick: () => note("tick"),
      Once: ({ millis, name }) => context.timers.once(name, millis, note(name)),
      Every: ({ millis, name }) => context.timers.every(name, millis, note(name)),
      Cancel: ({ name }) => context.timers.cancel(name),
      ReceiveTimeout: ({ millis }) => context.receiveTimeout(millis, note("quiet")),
      Active: () => context.timers.active,
      Crash: () => Effect.die("crash")
    })
  }))

describe("timers", () => {
  it.effect("once and every, by name; a name is replaced; cancel and restart end them", () => {
    const log: Array<string> = []
    return on(clockwork(log))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Clockwork, "c")
        yield* ref.tell.Once({ name: "once", millis: 50 })
        yield* ref.tell.Every({ name: "every", millis: 20 })
        yield* ref.tell.Once({ name: "replaced", millis: 10 })
        yield* ref.tell.Once({ name: "replaced", millis: 30 })
        assert.deepStrictEqual(yield* ref.ask.Active(), ["once", "every", "replaced"])
        yield* TestClock.adjust(65)
        assert.deepStrictEqual(log, ["every 20", "replaced 30", "every 40", "once 50", "every 60"])
        yield* ref.tell.Cancel({ name: "every" })
        yield* TestClock.adjust(100)
        assert.strictEqual(log.length, 5)
        yield* ref.tell.Every({ name: "again", millis: 10 })
        yield* ref.tell.Crash()
        yield* settle
        assert.deepStrictEqual(yield* ref.ask.Active(), [])
        yield* TestClock.adjust(100)
        assert.strictEqual(log.length, 5)
      })
    )
  })

  it.effect("of the ticks that fall due while the actor is busy or suspended, one waits", () => {
    const log: Array<string> = []
    return on(clockwork(log))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Clockwork, "c")
        yield* ref.tell.Every({ name: "every", millis: 10 })
        yield* TestClock.adjust(10)
        yield* system.suspend(ref)
        yield* TestClock.adjust(1000)
        assert.deepStrictEqual(log, ["every 10"])
        assert.strictEqual((yield* system.inspectActor(ref)).waiting, 1)
        yield* system.reinstate(ref)
        yield* settle
        assert.deepStrictEqual(log, ["every 10", "every 1010"])
        yield* TestClock.adjust(20)
        assert.deepStrictEqual(log.slice(2), ["every 1020", "every 1030"])
      })
    )
  })

  it.effect("a receive timeout counts from the last message", () => {
    const log: Array<string> = []
    return on(clockwork(log))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Clockwork, "c")
        yield* ref.tell.ReceiveTimeout({ millis: 100 })
        yield* TestClock.adjust(60)
        yield* ref.tell.Tick()
        yield* TestClock.adjust(99)
        assert.deepStrictEqual(log, ["tick 60"])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(log, ["tick 60", "quiet 160"])
        yield* TestClock.adjust(99)
        assert.strictEqual(log.length, 2)
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(log, ["tick 60", "quiet 160", "quiet 260"])
      })
    )
  })
})

const Plain = Actor.make("Plain", {
  protocol: [Rpc.make("Ping", { success: Schema.String }), Rpc.make("Slow", { success: Schema.String })]
})
const plain = Plain.toLayer(Effect.gen(function*() {
  const { name } = yield* ActorContext.ActorContext
  return Plain.of({
    Ping: () => Effect.succeed(`pong of ${name}`),
    Slow: () => Effect.as(Effect.sleep("1 second"), `slow pong of ${name}`)
  })
}))

describe("watch", () => {
  const Watcher = Actor.make("Watcher", {
    protocol: [
      Rpc.make("Watch", { payload: { name: Schema.String } }),
      Rpc.make("Unwatch", { payload: { name: Schema.String } }),
      Rpc.make("Seen", { success: Schema.Array(Schema.String) })
    ]
  })
  const watcher = Watcher.toLayer(Effect.gen(function*() {
    const context = yield* ActorContext.ActorContext
    const system = yield* ActorSystem.ActorSystem
    const seen: Array<string> = []
    const refs = new Map<string, ActorRef.ActorRef>()
    return Watcher.of({
      Watch: ({ name }) =>
        Effect.gen(function*() {
          const ref = refs.get(name) ?? (yield* Effect.orDie(system.actorOf(Plain, name)))
          refs.set(name, ref)
          yield* context.watch(ref, (terminated) => Effect.sync(() => seen.push(terminated.name)))
        }),
      Unwatch: ({ name }) => context.unwatch(refs.get(name)!),
      Seen: () => Effect.sync(() => [...seen])
    })
  }))

  it.effect("Terminated comes once when the watched actor stops, not when it is unwatched", () =>
    on(Layer.mergeAll(plain, watcher))((system) =>
      Effect.gen(function*() {
        const w = yield* system.spawn(Watcher, "w")
        for (const name of ["a", "b", "c"]) yield* system.spawn(Plain, name)
        for (const name of ["a", "a", "b", "c"]) yield* w.ask.Watch({ name })
        yield* w.ask.Unwatch({ name: "b" })
        for (const name of ["a", "b"]) yield* Effect.flatMap(system.actorOf(Plain, name), (ref) => system.stop(ref))
        yield* settle
        assert.deepStrictEqual(yield* w.ask.Seen(), ["a"])
      })
    ))

  it.effect("one that is gone already is Terminated at once", () =>
    on(Layer.mergeAll(plain, watcher))((system) =>
      Effect.gen(function*() {
        const w = yield* system.spawn(Watcher, "w")
        const a = yield* system.spawn(Plain, "a")
        yield* w.ask.Watch({ name: "a" })
        yield* w.ask.Unwatch({ name: "a" })
        yield* system.stop(a)
        yield* w.ask.Watch({ name: "a" })
        yield* settle
        assert.deepStrictEqual(yield* w.ask.Seen(), ["a"])
      })
    ))
})

const Desk = Actor.make("Desk", {
  protocol: [
    Rpc.make("Relay", { success: Schema.String }),
    Rpc.make("RelaySlow", { success: Schema.String }),
    Rpc.make("Keep"),
    Rpc.make("RelayKept", { success: Schema.String }),
    Rpc.make("Relayed", { success: Schema.Int }),
    Rpc.make("Long", { payload: { millis: Schema.Int }, success: Schema.Int }),
    Rpc.make("Held", { payload: { millis: Schema.Int }, success: Schema.Int }),
    Rpc.make("Count", { success: Schema.Int }),
    Rpc.make("Fetch"),
    Rpc.make("FetchBroken"),
    Rpc.make("Crash"),
    Rpc.make("Fetched", { success: Schema.Array(Schema.String) })
  ]
})
const desk = (options?: Actor.BehaviorOptions<"Long" | "Held">, log: Array<string> = []) =>
  Desk.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext.ActorContext
      const system = yield* ActorSystem.ActorSystem
      const fetched: Array<string> = []
      let count = 0
      let relayed = 0
      let kept: ActorRef.ActorRef<typeof Plain extends Actor.Kind<infer Rpcs, infer _> ? Rpcs : never> | undefined
      const other = Effect.orDie(system.actorOf(Plain, "other"))
      return Desk.of({
        Relay: () => Effect.flatMap(other, (ref) => context.forward(ref.ask.Ping())),
        RelaySlow: () => Effect.flatMap(other, (ref) => context.forward(ref.ask.Slow({ timeout: "100 millis" }))),
        Keep: () => Effect.map(other, (ref) => void (kept = ref)),
        RelayKept: () => {
          relayed++
          return context.forward(kept!.ask.Ping())
        },
        Relayed: () => Effect.sync(() => relayed),
        Long: ({ millis }) => context.fork(Effect.as(Effect.sleep(millis), millis)),
        Held: ({ millis }) => Effect.as(Effect.sleep(millis), millis),
        Count: () => Effect.sync(() => ++count),
        Fetch: () =>
          context.pipeTo(
            Effect.as(
              Effect.onInterrupt(Effect.sleep("1 second"), () => Effect.sync(() => log.push("cut off"))),
              "page"
            ),
            (exit) => Effect.sync(() => fetched.push(exit._tag === "Success" ? exit.value : "failed"))
          ),
        FetchBroken: () =>
          context.pipeTo(
            Effect.andThen(Effect.sleep("1 second"), Effect.fail("no page")),
            (exit) =>
              Effect.sync(() => fetched.push(exit._tag === "Failure" ? String(Cause.squash(exit.cause)) : "page"))
          ),
        Crash: () => Effect.die("crash"),
        Fetched: () => Effect.sync(() => [...fetched])
      })
    }),
    options
  )

describe("beside the mailbox", () => {
  it.effect("fork lets other messages through and still answers its asker", () =>
    on(desk())((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        const long = yield* Effect.forkChild(ref.ask.Long({ millis: 200 }), { startImmediately: true })
        const longer = yield* Effect.forkChild(ref.ask.Long({ millis: 100 }), { startImmediately: true })
        assert.strictEqual(yield* ref.ask.Count(), 1)
        assert.strictEqual((yield* system.inspect)[0]!.detached, 2)
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* Fiber.join(longer), 100)
        assert.isUndefined(long.pollUnsafe())
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* Fiber.join(long), 200)
        assert.strictEqual((yield* system.inspect)[0]!.detached, 0)
      })
    ))

  it.effect("one that goes beside the mailbox and is done at once leaves nothing behind, neither with its own actor nor with another", () =>
    Effect.gen(function*() {
      const Quick = Actor.make("Quick", {
        protocol: [
          Rpc.make("Now", { success: Schema.Int }),
          Rpc.make("Wait", { payload: { millis: Schema.Int } }),
          Rpc.make("Beside", { payload: { millis: Schema.Int } })
        ]
      })
      let running = 0
      let most = 0
      const live = Quick.toLayer(
        Effect.gen(function*() {
          const context = yield* ActorContext.ActorContext
          return Quick.of({
            Now: () => context.fork(Effect.succeed(1)),
            Wait: ({ millis }) =>
              Effect.andThen(Effect.sync(() => void (most = Math.max(most, ++running))), Effect.sleep(millis)).pipe(
                Effect.ensuring(Effect.sync(() => running--))
              ),
            Beside: ({ millis }) => context.fork(Effect.sleep(millis))
          })
        }),
        { reentrancy: { messages: [], maxInFlight: 3, timeout: "1 second" } }
      )
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const [a, b] = [yield* system.spawn(Quick, "a"), yield* system.spawn(Quick, "b")]
          for (let time = 0; time < 10; time++) {
            assert.strictEqual(yield* a.ask.Now(), 1)
            yield* a.tell.Now()
            yield* settle
          }
          assert.deepStrictEqual((yield* system.inspect).map((seen) => seen.detached), [0, 0])
          // Whoever handled them handles one message at a time afterwards, and no old deadline ends it.
          for (const millis of [2000, 2000]) yield* b.tell.Wait({ millis })
          yield* b.tell.Beside({ millis: 10 })
          yield* TestClock.adjust(100)
          assert.strictEqual((yield* system.inspectActor(b)).status, "Busy")
          yield* TestClock.adjust("3900 millis")
          assert.strictEqual(most, 1)
          assert.strictEqual((yield* system.inspectActor(b)).detached, 1)
          yield* TestClock.adjust(10)
          assert.strictEqual((yield* system.inspectActor(b)).detached, 0)
        })
      )
    }))

  it.effect("reentrancy by message, with a cap in flight and a timeout each", () =>
    on(desk({ reentrancy: { messages: ["Held"], maxInFlight: 2, timeout: "1 second" } }))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        const ask = (millis: number) =>
          Effect.forkChild(Effect.exit(ref.ask.Held({ millis }, { timeout: "1 hour" })), { startImmediately: true })
        const first = yield* ask(100)
        const stuck = yield* ask(60_000)
        assert.strictEqual(yield* ref.ask.Count(), 1)
        // The third holds the mailbox, because two are under way.
        const third = yield* ask(300)
        const count = yield* Effect.forkChild(ref.ask.Count(), { startImmediately: true })
        yield* TestClock.adjust(100)
        assert.strictEqual((yield* Fiber.join(first))._tag, "Success")
        assert.isUndefined(count.pollUnsafe())
        yield* TestClock.adjust(200)
        assert.strictEqual((yield* Fiber.join(third))._tag, "Success")
        assert.strictEqual(yield* Fiber.join(count), 2)
        yield* TestClock.adjust(700)
        const exit = yield* Fiber.join(stuck)
        assert.match(String(exit), /longer than reentrancy allows/)
        assert.strictEqual(yield* ref.ask.Count(), 3)
      })
    ))

  it.effect("a handler that took too long is no excuse for those that fail after it", () =>
    on(desk({ reentrancy: { messages: ["Held"], timeout: "1 second" } }))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        const stuck = yield* Effect.forkChild(Effect.exit(ref.ask.Held({ millis: 60_000 }, { timeout: "1 hour" })), {
          startImmediately: true
        })
        yield* TestClock.adjust("2 seconds")
        assert.match(String(yield* Fiber.join(stuck)), /longer than reentrancy allows/)
        assert.notMatch(String(yield* Effect.flip(ref.ask.Crash())), /longer than reentrancy allows/)
        assert.strictEqual((yield* system.inspectActor(ref)).restarts, 1)
      })
    ))

  it.effect("reentrancy off holds the mailbox while a handler suspends; for all messages none does", () =>
    Effect.gen(function*() {
      for (const messages of [undefined, "all"] as const) {
        yield* on(desk(messages === undefined ? undefined : { reentrancy: { messages } }))((system) =>
          Effect.gen(function*() {
            const ref = yield* system.spawn(Desk, "d")
            const held = yield* Effect.forkChild(ref.ask.Held({ millis: 100 }), { startImmediately: true })
            const count = yield* Effect.forkChild(ref.ask.Count(), { startImmediately: true })
            yield* settle
            assert.strictEqual(count.pollUnsafe() !== undefined, messages === "all")
            yield* TestClock.adjust(100)
            assert.strictEqual(yield* Fiber.join(held), 100)
            assert.strictEqual(yield* Fiber.join(count), 1)
          })
        )
      }
    }))

  it.effect("a fork inside of a race or a timeout never lets go of another message's hold on the mailbox", () => {
    const Clerk = Actor.make("Clerk", {
      protocol: [Rpc.make("Beside"), Rpc.make("Hold"), Rpc.make("Next", { success: Schema.String })]
    })
    const log: Array<string> = []
    const live = Clerk.toLayer(
      Effect.gen(function*() {
        const context = yield* ActorContext.ActorContext
        return Clerk.of({
          Beside: () =>
            Effect.andThen(
              Effect.sleep(100),
              Effect.orDie(Effect.timeout(context.fork(Effect.sleep(100)), "10 seconds"))
            ),
          Hold: () => Effect.andThen(Effect.sleep(1000), Effect.sync(() => void log.push("held"))),
          Next: () => Effect.sync(() => String(log.push("next")))
        })
      }),
      { reentrancy: { messages: ["Beside"] } }
    )
    return on(live)((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Clerk, "c")
        yield* ref.tell.Beside()
        yield* ref.tell.Hold()
        yield* ref.tell.Next()
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(log, ["held", "next"])
      })
    )
  })

  it.effect("what is under way when the actor stops is interrupted, and its asker told", () =>
    on(desk())((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        const long = yield* Effect.forkChild(Effect.flip(ref.ask.Long({ millis: 1000 })), { startImmediately: true })
        yield* settle
        yield* system.stop(ref)
        assert.strictEqual((yield* Fiber.join(long))._tag, "HandlerFailed")
      })
    ))

  it.effect("forward keeps the asker: the other answers it, and its failures are the asker's", () =>
    on(Layer.mergeAll(desk(), plain))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        const other = yield* system.spawn(Plain, "other")
        assert.strictEqual(yield* ref.ask.Relay(), "pong of other")
        const late = yield* Effect.forkChild(Effect.flip(ref.ask.RelaySlow()), { startImmediately: true })
        yield* settle
        assert.strictEqual(yield* ref.ask.Count(), 1)
        yield* TestClock.adjust("100 millis")
        const error = yield* Fiber.join(late)
        assert.strictEqual(error._tag === "AskTimeout" && error.name, "other")
        yield* TestClock.adjust("1 second")
        yield* system.stop(other)
        assert.strictEqual(yield* ref.ask.Count(), 2)
      })
    ))

  it.effect("an ask that was forwarded to an actor that is gone fails as that one's, and is not handled a second time", () =>
    on(Layer.mergeAll(desk(), plain))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        const other = yield* system.spawn(Plain, "other")
        yield* ref.ask.Keep()
        yield* system.stop(other)
        const direct = yield* Effect.flip(ref.ask.RelayKept())
        assert.strictEqual(direct._tag === "ActorStopped" && direct.name, "other")
        assert.strictEqual(yield* ref.ask.Relayed(), 1)

        const group = Router.group("g", [ref], { strategy: "roundRobin" })
        const routed = yield* Effect.flip(group.ask.RelayKept())
        assert.strictEqual(routed._tag === "ActorStopped" && routed.name, "other")
        assert.strictEqual(yield* ref.ask.Relayed(), 2)
        assert.strictEqual((yield* group.routees).length, 1)
      })
    ))

  it.effect("pipeTo brings the result or the failure back as a message ahead of others, and dies with the behaviour", () => {
    const log: Array<string> = []
    return on(desk(undefined, log))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Desk, "d")
        yield* ref.tell.Fetch()
        yield* ref.tell.FetchBroken()
        assert.deepStrictEqual(yield* ref.ask.Fetched(), [])
        // It holds no mailbox, and its result comes before what waited longer.
        yield* ref.tell.Held({ millis: 2000 })
        const fetched = yield* Effect.forkChild(ref.ask.Fetched(), { startImmediately: true })
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* Fiber.join(fetched), ["page", "no page"])
        yield* ref.ask.Fetch()
        yield* Effect.flip(ref.ask.Crash())
        yield* settle
        assert.deepStrictEqual(log, ["cut off"])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* ref.ask.Fetched(), [])
      })
    )
  })
})

describe("services", () => {
  class Store extends Context.Service<Store, { readonly saved: Array<string> }>()("test/Store") {}

  it.effect("handlers see the services that their Layer was given, and log with their actor's name", () =>
    Effect.gen(function*() {
      const lines: Array<Record<string, unknown>> = []
      const logger = Logger.make((options) => {
        lines.push({ ...options.fiber.getRef(References.CurrentLogAnnotations) })
      })
      const Saver = Actor.make("Saver", { protocol: [Rpc.make("Save", { payload: { text: Schema.String } })] })
      const live = Saver.toLayer(Effect.succeed(Saver.of({
        Save: ({ text }) =>
          Store.use((store) => Effect.andThen(Effect.log("saved"), Effect.sync(() => void store.saved.push(text))))
      })))
      const saved: Array<string> = []
      const gate = yield* Deferred.make<void>()
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const ref = yield* system.spawn(Saver, "s")
        yield* ref.ask.Save({ text: "x" })
        yield* Deferred.succeed(gate, undefined)
      }).pipe(
        Effect.provide(
          live.pipe(
            Layer.provide(Layer.succeed(Store)({ saved })),
            Layer.provideMerge(layerLocal),
            Layer.provideMerge(Logger.layer([logger]))
          )
        )
      )
      assert.deepStrictEqual(saved, ["x"])
      assert.deepStrictEqual(lines, [{ actor: "s", kind: "Saver" }])
    }))
})

// The life of an actor on one node: start, handling, failure, restart, end.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorHost, ActorSystem, Delivery, Placement, SystemEvents } from "effect-troupe/Actor"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Queue, Ref, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

class Refused extends Schema.TaggedError<Refused>()("Refused", { why: Schema.String }) {}

const Worker = Actor.make("Worker", {
  protocol: [
    Rpc.make("Note", { payload: { text: Schema.String } }),
    Rpc.make("Sleep", { payload: { millis: Schema.Int }, success: Schema.String }),
    Rpc.make("Refuse", { error: Refused }),
    Rpc.make("Crash", { success: Schema.String }),
    Rpc.make("Forever", { success: Schema.String }),
    Rpc.make("StopYourself", { success: Schema.String }),
    Rpc.make("Notes", { success: Schema.Array(Schema.String) })
  ],
  props: { greeting: Schema.String }
})

/** The worker, writing down what happens to it. */
const worker = (log: Array<string>, options?: Actor.BehaviorOptions<never>) =>
  Worker.toLayer(
    Effect.gen(function*() {
      const { greeting } = yield* Worker.props
      const context = yield* ActorContext.ActorContext
      const notes = [greeting]
      log.push("start")
      yield* Effect.addFinalizer(() => Effect.sync(() => log.push("end")))
      return Worker.of({
        Note: ({ text }) => Effect.sync(() => void notes.push(text)),
        Sleep: ({ millis }) =>
          Effect.gen(function*() {
            log.push(`sleep ${millis}`)
            yield* Effect.sleep(millis)
            log.push(`woke ${millis}`)
            return `slept ${millis}`
          }),
        Refuse: () => Effect.fail(new Refused({ why: "on purpose" })),
        Crash: () => Effect.die(new Error("boom")),
        Forever: () => Effect.never,
        StopYourself: () => Effect.as(context.stop, "stopping"),
        Notes: () => Effect.sync(() => [...notes])
      })
    }),
    options
  )

const unused = {
  Note: () => Effect.void,
  Sleep: () => Effect.succeed(""),
  Refuse: () => Effect.void,
  Crash: () => Effect.succeed(""),
  Forever: () => Effect.succeed(""),
  StopYourself: () => Effect.succeed(""),
  Notes: () => Effect.succeed([])
}

const run = <A, E>(
  body: (system: ActorSystem.ActorSystem["Service"], log: Array<string>) => Effect.Effect<
    A,
    E,
    ActorHost.ActorHost | SystemEvents.SystemEvents
  >,
  options?: Actor.BehaviorOptions<never>
) => {
  const log: Array<string> = []
  return ActorSystem.ActorSystem.use((system) => body(system, log)).pipe(
    Effect.provide(worker(log, options).pipe(Layer.provideMerge(layerLocal)))
  )
}

const props = { greeting: "hello" }
const settle = TestClock.adjust(0)

/** What happened since, on the event stream. */
const watchEvents = Effect.gen(function*() {
  const events = yield* SystemEvents.SystemEvents
  const seen: Array<SystemEvents.SystemEvent> = []
  yield* Effect.forkChild(Stream.runForEach(events.stream, (event) => Effect.sync(() => seen.push(event))), {
    startImmediately: true
  })
  return seen
})

describe("handling", () => {
  it.effect("messages are handled one at a time, in the order they were sent, also across suspensions", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        for (const millis of [30, 10, 20]) yield* ref.tell.Sleep({ millis })
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(log, ["start", "sleep 30", "woke 30", "sleep 10", "woke 10", "sleep 20", "woke 20"])
      })
    ))

  it.effect("a typed error goes to the asker and is no failure of the actor", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        yield* ref.tell.Note({ text: "kept" })
        const error = yield* Effect.flip(ref.ask.Refuse())
        assert.deepStrictEqual(error, new Refused({ why: "on purpose" }))
        assert.deepStrictEqual(yield* ref.ask.Notes(), ["hello", "kept"])
        assert.deepStrictEqual(log, ["start"])
      })
    ))

  it.effect("an ask times out on the virtual clock at its moment, and the message is handled all the same", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        const asked = yield* Effect.forkChild(Effect.flip(ref.ask.Sleep({ millis: 900 }, { timeout: "300 millis" })), {
          startImmediately: true
        })
        yield* TestClock.adjust("299 millis")
        assert.isUndefined(asked.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const error = yield* Fiber.join(asked)
        assert.strictEqual(error._tag, "AskTimeout")
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(log, ["start", "sleep 900", "woke 900"])
      })
    ))

  it.effect("an ask waits 5 seconds by default", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        const asked = yield* Effect.forkChild(Effect.flip(ref.ask.Forever()), { startImmediately: true })
        yield* TestClock.adjust("4999 millis")
        assert.isUndefined(asked.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* Fiber.join(asked))._tag, "AskTimeout")
      })
    ))

  it.effect("interrupting an asker interrupts its handler, and is no failure of the actor", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        const asked = yield* Effect.forkChild(ref.ask.Sleep({ millis: 100 }), { startImmediately: true })
        yield* settle
        yield* ref.tell.Note({ text: "behind it" })
        yield* Fiber.interrupt(asked)
        yield* TestClock.adjust("100 millis")
        assert.deepStrictEqual(log, ["start", "sleep 100"])
        assert.deepStrictEqual(yield* ref.ask.Notes(), ["hello", "behind it"])
      })
    ))

  it.effect("a question whose asker is interrupted while it waits is passed over, and those around it are not", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        const ask = (millis: number) => Effect.forkChild(ref.ask.Sleep({ millis }), { startImmediately: true })
        const [first, second, third] = [yield* ask(10), yield* ask(20), yield* ask(30)]
        yield* settle
        yield* Fiber.interrupt(second)
        yield* TestClock.adjust("10 millis")
        yield* TestClock.adjust("30 millis")
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(third)], ["slept 10", "slept 30"])
        assert.deepStrictEqual(log, ["start", "sleep 10", "woke 10", "sleep 30", "woke 30"])
      })
    ))

  it.effect("what a handler does not let be interrupted is done to its end first", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const careful = Worker.toLayer(Effect.sync(() =>
        Worker.of({
          ...unused,
          Sleep: ({ millis }) =>
            Effect.sleep(millis).pipe(
              Effect.andThen(Effect.sync(() => log.push(`done ${millis}`))),
              Effect.uninterruptible,
              Effect.as("slept")
            ),
          Note: ({ text }) => Effect.sync(() => void log.push(text))
        })
      ))
      yield* ActorSystem.ActorSystem.use((system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Worker, "w", { props })
          const asked = yield* Effect.forkChild(ref.ask.Sleep({ millis: 10 }), { startImmediately: true })
          yield* ref.tell.Note({ text: "next" })
          const second = yield* Effect.forkChild(ref.ask.Sleep({ millis: 20 }), { startImmediately: true })
          yield* settle
          yield* Fiber.interrupt(asked)
          yield* settle
          assert.deepStrictEqual(log, [])
          yield* TestClock.adjust("10 millis")
          yield* TestClock.adjust("20 millis")
          yield* Fiber.join(second)
          assert.deepStrictEqual(log, ["done 10", "next", "done 20"])
        })
      ).pipe(Effect.provide(careful.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("a held host takes messages in and handles none until it is released", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const host = yield* ActorHost.ActorHost
        const ref = yield* system.spawn(Worker, "w", { props })
        yield* host.suspend(true)
        yield* ref.tell.Sleep({ millis: 1 })
        yield* ref.tell.Note({ text: "later" })
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(log, ["start"])
        yield* host.suspend(false)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(log, ["start", "sleep 1", "woke 1"])
        assert.deepStrictEqual(yield* ref.ask.Notes(), ["hello", "later"])
      })
    ))
})

describe("failure", () => {
  it.effect("a defect restarts the actor with the same props, name and mailbox; its asker learns of it", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const seen = yield* watchEvents
        const ref = yield* system.spawn(Worker, "w", { props })
        yield* ref.tell.Note({ text: "lost with the restart" })
        const crash = yield* Effect.forkChild(Effect.flip(ref.ask.Crash()), { startImmediately: true })
        yield* ref.tell.Note({ text: "waiting meanwhile" })
        const error = yield* Fiber.join(crash)
        assert.strictEqual(error._tag, "HandlerFailed")
        assert.strictEqual(error._tag === "HandlerFailed" && error.reason, "boom")
        assert.deepStrictEqual(yield* ref.ask.Notes(), ["hello", "waiting meanwhile"])
        assert.deepStrictEqual(log, ["start", "end", "start"])
        yield* settle
        assert.deepStrictEqual(seen.map((event) => event._tag), ["ActorStarted", "ActorRestarted"])
      })
    ))

  it.effect("a handler that throws is a defect like any other", () =>
    Effect.gen(function*() {
      const Thrower = Actor.make("Thrower", { protocol: [Rpc.make("Go", { success: Schema.Int })] })
      const live = Thrower.toLayer(Effect.succeed(Thrower.of({
        Go: () => {
          throw new Error("thrown")
        }
      })))
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const ref = yield* system.spawn(Thrower, "t")
        const error = yield* Effect.flip(ref.ask.Go())
        assert.strictEqual(error._tag === "HandlerFailed" && error.reason, "thrown")
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("more restarts than the limit within the window end it as Failed, and what waits becomes dead letters", () =>
    run(
      (system, log) =>
        Effect.gen(function*() {
          const seen = yield* watchEvents
          const host = yield* ActorHost.ActorHost
          const ended = yield* Effect.scoped(Effect.gen(function*() {
            const terminations = yield* host.terminations
            const ref = yield* system.spawn(Worker, "w", { props })
            for (let crash = 0; crash < 3; crash++) yield* ref.tell.Crash()
            yield* ref.tell.Note({ text: "never" })
            return yield* Queue.take(terminations)
          }))
          assert.strictEqual(ended.reason, "Failed")
          assert.strictEqual(ended.actor.spec.name, "w")
          yield* settle
          assert.deepStrictEqual(seen.map((event) => event._tag), [
            "ActorStarted",
            "ActorRestarted",
            "ActorRestarted",
            "DeadLetter",
            "ActorStopped"
          ])
          assert.deepStrictEqual(log, ["start", "end", "start", "end", "start", "end"])
        }),
      { supervision: { limit: 2, window: "1 minute" } }
    ))

  it.effect("restarts outside the window are forgiven", () =>
    run(
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Worker, "w", { props })
          for (let crash = 0; crash < 5; crash++) {
            yield* ref.tell.Crash()
            yield* TestClock.adjust("31 seconds")
          }
          assert.deepStrictEqual(yield* ref.ask.Notes(), ["hello"])
        }),
      { supervision: { limit: 2, window: "1 minute" } }
    ))
})

describe("the end", () => {
  it.effect("stop finishes the message in hand, refuses the rest, runs finalizers once and frees the name", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const seen = yield* watchEvents
        const ref = yield* system.spawn(Worker, "w", { props })
        const asked = yield* Effect.forkChild(ref.ask.Sleep({ millis: 100 }), { startImmediately: true })
        const refused = yield* Effect.forkChild(Effect.flip(ref.ask.Notes()), { startImmediately: true })
        yield* settle
        const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
        yield* TestClock.adjust("100 millis")
        yield* Fiber.join(stopping)
        assert.strictEqual(yield* Fiber.join(asked), "slept 100")
        assert.strictEqual((yield* Fiber.join(refused))._tag, "ActorStopped")
        assert.deepStrictEqual(log, ["start", "sleep 100", "woke 100", "end"])
        yield* system.stop(ref)
        yield* settle
        assert.deepStrictEqual(seen.map((event) => event._tag), ["ActorStarted", "DeadLetter", "ActorStopped"])
        yield* system.spawn(Worker, "w", { props })
      })
    ))

  it.effect("a handler that never ends is interrupted after the grace, and its asker knows the outcome is unknown", () =>
    run(
      (system, log) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Worker, "w", { props })
          const asked = yield* Effect.forkChild(Effect.flip(ref.ask.Forever({ timeout: "1 hour" })), {
            startImmediately: true
          })
          yield* settle
          const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
          yield* TestClock.adjust("1999 millis")
          assert.isUndefined(stopping.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          yield* Fiber.join(stopping)
          assert.strictEqual((yield* Fiber.join(asked))._tag, "HandlerFailed")
          assert.deepStrictEqual(log, ["start", "end"])
        }),
      { stopGrace: "2 seconds" }
    ))

  it.effect("stop with drain handles what waits first, for as long as it may", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        for (const millis of [10, 20, 30]) yield* ref.tell.Sleep({ millis })
        const stopping = yield* Effect.forkChild(system.stop(ref, { drain: "1 minute" }), { startImmediately: true })
        yield* TestClock.adjust("60 millis")
        yield* Fiber.join(stopping)
        assert.deepStrictEqual(log, [
          "start",
          "sleep 10",
          "woke 10",
          "sleep 20",
          "woke 20",
          "sleep 30",
          "woke 30",
          "end"
        ])
        const again = yield* system.spawn(Worker, "w", { props })
        for (const millis of [10, 20, 30]) yield* again.tell.Sleep({ millis })
        const hurried = yield* Effect.forkChild(system.stop(again, { drain: "15 millis" }), { startImmediately: true })
        yield* TestClock.adjust("60 millis")
        yield* Fiber.join(hurried)
        assert.deepStrictEqual(log.slice(8), ["start", "sleep 10", "woke 10", "sleep 20", "woke 20", "end"])
      })
    ))

  it.effect("stop with now interrupts the message in hand", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        yield* ref.tell.Sleep({ millis: 1000 })
        yield* settle
        yield* system.stop(ref, { now: true })
        assert.deepStrictEqual(log, ["start", "sleep 1000", "end"])
      })
    ))

  it.effect("bad input: a tag that the protocol has not, and a payload that does not fit, are refused and kill nobody", () =>
    Effect.gen(function*() {
      const Strict = Actor.make("Strict", {
        protocol: [Rpc.make("Add", { payload: { n: Schema.Int }, success: Schema.Int })]
      })
      const live = Strict.toLayer(Effect.succeed(Strict.of({ Add: ({ n }) => Effect.succeed(n + 1) })), {
        validate: true
      })
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const delivery = yield* Delivery.Delivery
        const seen = yield* watchEvents
        const ref = yield* system.spawn(Strict, "s")
        const wrong = yield* Effect.flip(ref.ask.Add({ n: "1" as unknown as number }))
        assert.strictEqual(wrong._tag === "InvalidData" && wrong.what, "Strict.Add")
        const message = { kind: Strict.definition, tag: "Subtract", payload: undefined }
        const unknown = yield* Effect.flip(delivery.ask(ref.address, message, 1000))
        assert.strictEqual(unknown._tag === "InvalidData" && unknown.what, "Strict.Subtract")
        yield* delivery.tell(ref.address, message)
        assert.strictEqual(yield* ref.ask.Add({ n: 1 }), 2)
        yield* settle
        assert.deepStrictEqual(seen.map((event) => event._tag), ["ActorStarted", "DeadLetter", "DeadLetter"])
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("an actor may stop itself, and answers the message in hand first", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Worker, "w", { props })
        assert.strictEqual(yield* ref.ask.StopYourself(), "stopping")
        yield* settle
        assert.deepStrictEqual(log, ["start", "end"])
        assert.strictEqual((yield* Effect.flip(ref.ask.Notes()))._tag, "ActorStopped")
      })
    ))

  it.effect("closing the kind's Layer withdraws it: its actors end, the next spawn finds no kind", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const host = yield* ActorHost.ActorHost
      const system = yield* ActorSystem.ActorSystem
      const terminations = yield* host.terminations
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(worker(log))
        const ref = yield* system.spawn(Worker, "w", { props })
        yield* ref.tell.Forever()
        yield* settle
      }))
      assert.strictEqual((yield* Queue.take(terminations)).reason, "Withdrawn")
      assert.deepStrictEqual(log, ["start", "end"])
      assert.deepStrictEqual(host.actors(), [])
      const error = yield* Effect.flip(system.spawn(Worker, "w", { props }))
      assert.strictEqual(error._tag, "KindNotRegistered")
    }).pipe(Effect.scoped, Effect.provide(layerLocal)))

  it.effect("a reference follows its name to the next life", () =>
    run((system) =>
      Effect.gen(function*() {
        const first = yield* system.spawn(Worker, "w", { props })
        yield* system.stop(first)
        yield* system.spawn(Worker, "w", { props: { greeting: "again" } })
        yield* first.tell.Note({ text: "told" })
        assert.deepStrictEqual(yield* first.ask.Notes(), ["again", "told"])
      })
    ))
})

describe("start", () => {
  it.effect("a name is taken once; the same spawn id joins the first", () =>
    run((system, log) =>
      Effect.gen(function*() {
        yield* system.spawn(Worker, "w", { props, id: "one" })
        const again = yield* system.spawn(Worker, "w", { props, id: "one" })
        assert.deepStrictEqual(yield* again.ask.Notes(), ["hello"])
        const error = yield* Effect.flip(system.spawn(Worker, "w", { props }))
        assert.strictEqual(error._tag, "NameTaken")
        assert.deepStrictEqual(log, ["start"])
      })
    ))

  it.effect("one that needs nothing but a name fails, succeeds and is described like any other", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      let broken = true
      const Plain = Actor.make("Plain", { protocol: [] })
      const kinds = Plain.toLayer(
        Effect.gen(function*() {
          yield* Effect.addFinalizer(() => Effect.sync(() => log.push("end")))
          if (broken) return yield* Effect.fail("broken")
          return Plain.of({})
        }),
        { start: { retries: 0 } }
      )
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const host = yield* ActorHost.ActorHost
        const error = yield* Effect.flip(system.spawn(Plain, "p"))
        assert.strictEqual(error._tag === "StartFailed" && error.cause, "broken")
        assert.deepStrictEqual(log, ["end"])
        assert.isUndefined(host.find("p"))
        broken = false
        yield* system.spawn(Plain, "p")
        yield* system.spawn(Plain, "q")
        const [first, second] = host.actors().map((actor) => actor.spec)
        assert.deepStrictEqual({ ...first, id: "" }, { id: "", kind: "Plain", name: "p", props: {}, relocatable: true })
        assert.notStrictEqual(first?.id, second?.id)
        assert.strictEqual(first?.id, host.find("p")?.spec.id)
        assert.isTrue(Schema.is(Placement.SpawnSpec)(first))
        // Whoever repeats it by its id meets the same actor.
        yield* system.spawn(Plain, "p", { id: first!.id })
        assert.strictEqual((yield* Effect.flip(system.spawn(Plain, "p", { id: second!.id })))._tag, "NameTaken")
        assert.deepStrictEqual(log, ["end"])
      }).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))
      assert.deepStrictEqual(log, ["end", "end", "end"])
    }))

  it.effect("a name that is empty, or too long for some connection or store, is refused before anything starts", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const Plain = Actor.make("Plain", {
          protocol: [Rpc.make("Grow", { payload: { name: Schema.String }, success: Schema.String })]
        })
        const live = Plain.toLayer(Effect.gen(function*() {
          const context = yield* ActorContext.ActorContext
          return Plain.of({
            Grow: ({ name }) =>
              context.spawnChild(Plain, name).pipe(
                Effect.match({ onFailure: (error) => error._tag, onSuccess: (ref) => ref.name })
              )
          })
        }))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Layer.build(live)
          for (const name of ["", "x".repeat(1025), "€".repeat(342)]) {
            assert.strictEqual((yield* Effect.flip(system.spawn(Worker, name, { props })))._tag, "InvalidData")
            assert.strictEqual((yield* Effect.flip(system.spawn(Plain, name)))._tag, "InvalidData")
          }
          for (const name of ["x".repeat(1024), "€".repeat(341), " ", "a/b", "__proto__"]) {
            assert.strictEqual((yield* system.spawn(Plain, name)).name, name)
          }
          const ref = yield* system.actorOf(Plain, "x".repeat(1024))
          assert.strictEqual(yield* ref.ask.Grow({ name: "child" }), "InvalidData")
          assert.strictEqual(yield* (yield* system.actorOf(Plain, " ")).ask.Grow({ name: "" }), "InvalidData")
        })).pipe(Effect.provideService(ActorSystem.ActorSystem, system))
        assert.deepStrictEqual(log, [])
      })
    ))

  it.effect("props that do not fit their schema are refused before anything starts", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(system.spawn(Worker, "w", { props: { greeting: 5 as unknown as string } }))
        assert.strictEqual(error._tag, "InvalidData")
        assert.deepStrictEqual(log, [])
      })
    ))

  it.effect("a start that fails is tried again with a fresh scope, then fails StartFailed with its cause", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const Fragile = Actor.make("Fragile", { protocol: [Rpc.make("Ping")] })
      let failures = 0
      const live = Fragile.toLayer(
        Effect.gen(function*() {
          yield* Effect.addFinalizer((exit) => Effect.sync(() => log.push(`end ${exit._tag}`)))
          log.push("start")
          if (failures-- > 0) return yield* Effect.fail("not yet")
          return Fragile.of({ Ping: () => Effect.void })
        }),
        { start: { retries: 2 } }
      )
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const host = yield* ActorHost.ActorHost
        failures = 2
        const late = yield* Effect.forkChild(system.spawn(Fragile, "late"), { startImmediately: true })
        yield* TestClock.adjust("299 millis")
        assert.isUndefined(late.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(late)
        assert.deepStrictEqual(log.splice(0), ["start", "end Failure", "start", "end Failure", "start"])

        failures = 99
        const never = yield* Effect.forkChild(Effect.exit(system.spawn(Fragile, "never")), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        const exit = yield* Fiber.join(never)
        assert.isTrue(Exit.isFailure(exit))
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) as { _tag: string; cause: unknown } : undefined
        assert.strictEqual(error?._tag, "StartFailed")
        assert.strictEqual(error?.cause, "not yet")
        assert.strictEqual(log.filter((line) => line === "start").length, 3)
        assert.strictEqual(log.filter((line) => line.startsWith("end")).length, 3)
        assert.isUndefined(host.find("never"))
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("a spawn that is retried after it failed starts anew each time, and may succeed", () =>
    Effect.gen(function*() {
      let starts = 0
      const Fragile = Actor.make("Fragile", { protocol: [] })
      const live = Fragile.toLayer(
        Effect.suspend(() => ++starts < 3 ? Effect.fail("not yet") : Effect.succeed(Fragile.of({}))),
        { start: { retries: 0 } }
      )
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const ref = yield* Effect.retry(system.spawn(Fragile, "f"), { times: 2 })
        assert.strictEqual(starts, 3)
        yield* system.stop(ref)
        starts = 0
        const again = Effect.suspend(() => system.spawn(Fragile, "f"))
        yield* Effect.catchTag(again, "StartFailed", () => Effect.catchTag(again, "StartFailed", () => again))
        assert.strictEqual(starts, 3)
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("whatever way a start ends, its finalizers run once, the last first, and one of them that fails holds up nothing", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      let way: "die" | "throw" | "fail" | "late" | "well" = "well"
      const Fragile = Actor.make("Fragile", { protocol: [Rpc.make("Crash")] })
      const live = Fragile.toLayer(
        Effect.gen(function*() {
          yield* Effect.addFinalizer(() => Effect.sync(() => void log.push("first")))
          yield* Effect.addFinalizer(() =>
            Effect.andThen(Effect.sync(() => void log.push("broken")), Effect.die("broken"))
          )
          yield* Effect.addFinalizer(() => Effect.sync(() => void log.push("last")))
          if (way === "die") return yield* Effect.die(new Error("dead"))
          if (way === "throw") throw new Error("thrown")
          if (way === "fail") return yield* Effect.fail(new Refused({ why: "failed" }))
          if (way === "late") yield* Effect.sleep("1 minute")
          return Fragile.of({ Crash: () => Effect.die("crash") })
        }),
        { start: { retries: 0, timeout: "1 second" } }
      )
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const expected = {
          die: "dead",
          throw: "thrown",
          fail: "Refused",
          late: "start took longer than 1000 ms"
        } as const
        for (const each of ["die", "throw", "fail", "late"] as const) {
          way = each
          const spawning = yield* Effect.forkChild(Effect.flip(system.spawn(Fragile, each)), { startImmediately: true })
          yield* TestClock.adjust("1 second")
          const error = yield* Fiber.join(spawning)
          const cause = (error._tag === "StartFailed" ? error.cause : undefined) as Error & { readonly _tag?: string }
          assert.strictEqual(error._tag === "StartFailed" && error.name, each)
          assert.strictEqual(cause._tag ?? cause.message, expected[each])
          assert.deepStrictEqual(log.splice(0), ["last", "broken", "first"])
        }
        way = "well"
        const ref = yield* system.spawn(Fragile, "well")
        yield* Effect.flip(ref.ask.Crash())
        yield* settle
        assert.deepStrictEqual(log.splice(0), ["last", "broken", "first"])
        yield* system.stop(ref)
        assert.deepStrictEqual(log, ["last", "broken", "first"])
        assert.deepStrictEqual(yield* system.inspect, [])
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("a start that takes too long fails, and can be stopped while it lasts", () =>
    Effect.gen(function*() {
      const closed = yield* Ref.make(0)
      const Slow = Actor.make("Slow", { protocol: [Rpc.make("Ping")] })
      const live = Slow.toLayer(
        Effect.gen(function*() {
          yield* Effect.addFinalizer(() => Ref.update(closed, (n) => n + 1))
          return yield* Effect.never
        }),
        { start: { timeout: "1 second", retries: 0 } }
      )
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const host = yield* ActorHost.ActorHost
        const slow = yield* Effect.forkChild(Effect.flip(system.spawn(Slow, "slow")), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(slow))._tag, "StartFailed")
        assert.strictEqual(yield* Ref.get(closed), 1)

        const stopped = yield* Effect.forkChild(Effect.flip(system.spawn(Slow, "slow")), { startImmediately: true })
        yield* settle
        yield* host.stop("slow", { placement: Number.MAX_SAFE_INTEGER, reason: "Stopped" })
        assert.strictEqual((yield* Fiber.join(stopped))._tag, "StartFailed")
        assert.strictEqual(yield* Ref.get(closed), 2)
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("targets that one node cannot meet are refused by name", () =>
    run((system) =>
      Effect.gen(function*() {
        const tag = (error: { readonly _tag: string }) => error._tag
        const spawn = (options: ActorSystem.SpawnOnBase) =>
          Effect.map(Effect.flip(system.spawnOn(Worker, "w", { props, ...options })), tag)
        assert.strictEqual(yield* spawn({ dataCenter: "mars-1" }), "RecordNotFound")
        assert.strictEqual(yield* spawn({ role: "ledger" }), "NoEligibleMember")
        assert.strictEqual(yield* spawn({ on: "someone-else" }), "NoEligibleMember")
        yield* system.spawnOn(Worker, "w", { props, dataCenter: "local", on: system.node.id })
        assert.strictEqual(tag(yield* Effect.flip(system.awaitDataCenter("mars-1"))), "DataCenterNotReady")
        const Other = Actor.make("Other", { protocol: [] })
        assert.strictEqual(tag(yield* Effect.flip(system.actorOf(Other, "w"))), "KindMismatch")
        assert.isFalse(yield* system.actorExists(Other, "w"))
        assert.isTrue(yield* system.actorExists(Worker, "w"))
      })
    ))

  it.effect("two starts of one name at the same time: one wins, and the loser hears it", () =>
    run((system) =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const spawn = Effect.andThen(Deferred.await(gate), system.spawn(Worker, "w", { props }))
        const both = yield* Effect.forkChild(
          Effect.all([Effect.exit(spawn), Effect.exit(spawn)], { concurrency: "unbounded" }),
          { startImmediately: true }
        )
        yield* Deferred.succeed(gate, undefined)
        const exits = yield* Fiber.join(both)
        assert.deepStrictEqual(exits.map((exit) => exit._tag).sort(), ["Failure", "Success"])
      })
    ))
})

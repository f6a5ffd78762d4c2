// What becomes of an actor that fails, of its siblings and of its parent.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, type ActorRef, ActorSystem, Supervision } from "effect-troupe/Actor"
import { Cause, Duration, Effect, Fiber, Layer, Schedule, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

const Child = Actor.make("Child", {
  protocol: [
    Rpc.make("Add", { success: Schema.Int }),
    Rpc.make("Parent", { success: Schema.String }),
    Rpc.make("Crash", { payload: { why: Schema.String }, success: Schema.Int }),
    Rpc.make("CrashLater", { payload: { millis: Schema.Int } }),
    Rpc.make("Hang")
  ]
})

class Broken extends Error {
  readonly _tag = "Broken"
}

/** A child that counts and crashes on demand; `log` has its starts and ends. */
const child = (log: Array<string>, options?: Actor.BehaviorOptions<never>) =>
  Child.toLayer(
    Effect.gen(function*() {
      const { name } = yield* ActorContext.ActorContext
      let count = 0
      log.push(`${name} start`)
      yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`${name} end`)))
      return Child.of({
        Add: () => Effect.sync(() => ++count),
        Parent: () => ActorContext.ActorContext.useSync((context) => context.parent?.name ?? "none"),
        CrashLater: ({ millis }) => Effect.andThen(Effect.sleep(millis), Effect.die("later")),
        Hang: () => Effect.never,
        Crash: ({ why }) => Effect.die(why === "broken" ? new Broken(why) : new Error(why))
      })
    }),
    options
  )

const Parent = Actor.make("Parent", {
  protocol: [
    Rpc.make("Spawn", { payload: { name: Schema.String } }),
    Rpc.make("Children", { success: Schema.Array(Schema.String) }),
    Rpc.make("Parent", { success: Schema.String })
  ]
})

const parent = (log: Array<string>, options?: Actor.BehaviorOptions<never>) =>
  Parent.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext.ActorContext
      log.push("parent start")
      yield* Effect.addFinalizer(() => Effect.sync(() => log.push("parent end")))
      return Parent.of({
        Spawn: ({ name }) => Effect.orDie(Effect.asVoid(context.spawnChild(Child, name))),
        Children: () => Effect.map(context.children, (children) => children.map((ref) => ref.name)),
        Parent: () => Effect.sync(() => context.parent?.name ?? "none")
      })
    }),
    options
  )

const withFamily = <A, E>(
  body: (
    system: ActorSystem.ActorSystem["Service"],
    log: Array<string>
  ) => Effect.Effect<A, E, ActorSystem.ActorSystem>,
  childOptions?: Actor.BehaviorOptions<never>,
  parentOptions?: Actor.BehaviorOptions<never>
) => {
  const log: Array<string> = []
  const kinds = Layer.mergeAll(child(log, childOptions), parent(log, parentOptions))
  return ActorSystem.ActorSystem.use((system) => body(system, log)).pipe(
    Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal)))
  )
}

const withChild = <A, E>(
  options: Actor.BehaviorOptions<never>["supervision"],
  body: (
    system: ActorSystem.ActorSystem["Service"],
    log: Array<string>
  ) => Effect.Effect<A, E, ActorSystem.ActorSystem>
) => withFamily(body, { supervision: options })

describe("directives", () => {
  it.effect("resume keeps the state, restart loses it, chosen by the error", () =>
    withChild(
      { decide: (error) => error instanceof Broken ? "resume" : "restart" },
      (system, log) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Child, "c")
          assert.strictEqual(yield* ref.ask.Add(), 1)
          yield* Effect.flip(ref.ask.Crash({ why: "broken" }))
          assert.strictEqual(yield* ref.ask.Add(), 2)
          yield* Effect.flip(ref.ask.Crash({ why: "else" }))
          assert.strictEqual(yield* ref.ask.Add(), 1)
          assert.deepStrictEqual(log, ["c start", "c end", "c start"])
        })
    ))

  it.effect("stop ends it as Failed", () =>
    withChild({ decide: "stop" }, (system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Child, "c")
        yield* Effect.flip(ref.ask.Crash({ why: "x" }))
        yield* settle
        assert.deepStrictEqual(log, ["c start", "c end"])
        assert.strictEqual((yield* Effect.flip(ref.ask.Add()))._tag, "ActorStopped")
      })))

  it.effect("suspend keeps mailbox and state until it is reinstated", () =>
    withChild({ decide: "suspend" }, (system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Child, "c")
        yield* ref.ask.Add()
        yield* Effect.flip(ref.ask.Crash({ why: "x" }))
        const asked = yield* Effect.forkChild(ref.ask.Add(), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.isUndefined(asked.pollUnsafe())
        assert.strictEqual((yield* system.inspect)[0]!.status, "Suspended")
        yield* system.reinstate(ref)
        assert.strictEqual(yield* Fiber.join(asked), 2)
        assert.deepStrictEqual(log, ["c start"])
      })))

  it.effect("one that fails while it is suspended stays so, and is built anew when it is reinstated", () =>
    withChild({}, (system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Child, "c")
        yield* ref.ask.Add()
        yield* ref.tell.CrashLater({ millis: 100 })
        yield* settle
        // On this node it takes effect at once; the message in hand goes on.
        const cell = (ref as unknown as { cell: { suspend: (why: string) => void } }).cell
        cell.suspend("test")
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* system.inspect)[0]!.status, "Suspended")
        yield* system.reinstate(ref)
        assert.strictEqual(yield* ref.ask.Add(), 1)
        assert.deepStrictEqual(log, ["c start", "c end", "c start"])
      })))

  it.effect("a healthy actor can be suspended and reinstated too, and stopped while it is", () =>
    withChild({}, (system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Child, "c")
        yield* system.suspend(ref)
        yield* system.suspend(ref)
        const asked = yield* Effect.forkChild(ref.ask.Add(), { startImmediately: true })
        yield* settle
        assert.isUndefined(asked.pollUnsafe())
        yield* system.reinstate(ref)
        assert.strictEqual(yield* Fiber.join(asked), 1)
        yield* system.reinstate(ref)
        yield* system.suspend(ref)
        yield* system.stop(ref)
        assert.deepStrictEqual(log, ["c start", "c end"])
      })))
})

describe("the budget", () => {
  it.effect("spent, it stops, suspends or escalates as told; where there is no parent, escalating is stopping", () =>
    Effect.gen(function*() {
      for (const exhausted of ["stop", "suspend", "escalate"] as const) {
        yield* withChild({ limit: 2, exhausted }, (system) =>
          Effect.gen(function*() {
            const ref = yield* system.spawn(Child, "c")
            for (let crash = 0; crash < 3; crash++) yield* Effect.flip(ref.ask.Crash({ why: "x" }))
            yield* settle
            const seen = yield* system.inspect
            assert.strictEqual(seen[0]?.status, exhausted === "suspend" ? "Suspended" : undefined)
          }))
      }
      yield* withFamily((system, log) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Parent, "p")
          yield* ref.ask.Spawn({ name: "a" })
          const a = yield* system.actorOf(Child, "p/a")
          yield* Effect.flip(a.ask.Crash({ why: "x" }))
          yield* settle
          log.length = 0
          yield* Effect.flip(a.ask.Crash({ why: "x" }))
          yield* settle
          assert.deepStrictEqual(log, ["p/a end", "parent end", "parent start"])
        }), { supervision: { limit: 1, exhausted: "escalate" } })
    }))

  it.effect("an exponential backoff with jitter and a cap stays in its bounds, and differs from actor to actor", () =>
    withFamily(
      (system, log) =>
        Effect.gen(function*() {
          const pauses: Array<Array<number>> = []
          for (const name of ["a", "b", "c"]) {
            const ref = yield* system.spawn(Child, name)
            const mine: Array<number> = []
            for (const nominal of [100, 200, 400, 400]) {
              const starts = () => log.filter((line) => line === `${name} start`).length
              const before = starts()
              yield* Effect.flip(ref.ask.Crash({ why: "x" }))
              let pause = 0
              while (starts() === before) {
                yield* TestClock.adjust(1)
                pause++
              }
              // `Schedule.jittered`: between four and six fifths.
              assert.isAtLeast(pause, Math.floor(nominal * 0.8))
              assert.isAtMost(pause, Math.ceil(nominal * 1.2))
              mine.push(pause)
            }
            pauses.push(mine)
          }
          assert.strictEqual(new Set(pauses.map((mine) => mine.join())).size, 3)
        }),
      {
        supervision: {
          limit: 100,
          backoff: Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("400 millis")]).pipe(
            Schedule.jittered
          )
        }
      }
    ))

  it.effect("a backoff on a Schedule delays restarts, and starts over after a quiet window", () =>
    withChild(
      { limit: 10, window: "10 seconds", backoff: Schedule.exponential("100 millis") },
      (system, log) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Child, "c")
          const starts = () => log.filter((line) => line === "c start").length
          for (const delay of [100, 200, 400]) {
            const before = starts()
            yield* Effect.flip(ref.ask.Crash({ why: "x" }))
            yield* TestClock.adjust(delay - 1)
            assert.strictEqual(starts(), before)
            yield* TestClock.adjust(1)
            assert.strictEqual(starts(), before + 1)
          }
          yield* TestClock.adjust("11 seconds")
          const before = starts()
          yield* Effect.flip(ref.ask.Crash({ why: "x" }))
          yield* TestClock.adjust(100)
          assert.strictEqual(starts(), before + 1)
        })
    ))

  it.effect("messages wait through the backoff", () =>
    withChild({ backoff: Schedule.spaced("1 second") }, (system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Child, "c")
        yield* Effect.flip(ref.ask.Crash({ why: "x" }))
        const asked = yield* Effect.forkChild(ref.ask.Add(), { startImmediately: true })
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(asked.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(asked), 1)
      })))

  it.effect("a backoff that ends is a spent budget", () =>
    withChild(
      { backoff: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 1 })), exhausted: "suspend" },
      (system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Child, "c")
          yield* Effect.flip(ref.ask.Crash({ why: "x" }))
          yield* TestClock.adjust("1 second")
          yield* Effect.flip(ref.ask.Crash({ why: "x" }))
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* system.inspect)[0]?.status, "Suspended")
          yield* system.reinstate(ref)
          assert.strictEqual(yield* ref.ask.Add(), 1)
        })
    ))

  it("never allows more restarts in any window than its limit, and allows as many", () => {
    fc.assert(fc.property(
      fc.array(fc.integer({ min: 0, max: 300 }), { maxLength: 60 }),
      fc.integer({ min: 0, max: 5 }),
      fc.integer({ min: 1, max: 1000 }),
      (gaps, limit, window) => {
        const supervision = Supervision.make({ limit, window: Duration.millis(window) })
        const restarts: Array<number> = []
        let history: Supervision.History = []
        let now = 0
        for (const gap of gaps) {
          now += gap
          const within = restarts.filter((at) => at > now - window).length
          const [directive, next] = Supervision.decide(supervision, history, now, "x", Cause.die("x"))
          assert.strictEqual(directive, within < limit ? "restart" : "stop")
          if (directive === "restart") restarts.push(now)
          history = next
        }
      }
    ))
  })
})

describe("families", () => {
  it.effect("children stop before their parent's finalizers run, and with their parent's restart", () =>
    withFamily((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Parent, "p")
        yield* ref.ask.Spawn({ name: "a" })
        yield* ref.ask.Spawn({ name: "b" })
        assert.deepStrictEqual(yield* ref.ask.Children(), ["p/a", "p/b"])
        assert.strictEqual(yield* ref.ask.Parent(), "none")
        assert.strictEqual(yield* (yield* system.actorOf(Child, "p/a")).ask.Parent(), "p")
        const [seen] = yield* system.inspect
        assert.deepStrictEqual(seen!.children.map((c) => [c.name, c.status]), [["p/a", "Idle"], ["p/b", "Idle"]])
        yield* system.stop(ref)
        assert.deepStrictEqual(log, ["parent start", "p/a start", "p/b start", "p/a end", "p/b end", "parent end"])
        assert.deepStrictEqual(yield* system.inspect, [])
      })
    ))

  it.effect("one-for-one restarts the failed child alone", () =>
    withFamily((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Parent, "p")
        yield* ref.ask.Spawn({ name: "a" })
        yield* ref.ask.Spawn({ name: "b" })
        const a = yield* system.actorOf(Child, "p/a")
        log.length = 0
        yield* Effect.flip(a.ask.Crash({ why: "x" }))
        yield* settle
        assert.deepStrictEqual(log, ["p/a end", "p/a start"])
      })
    ))

  it.effect("all-for-one restarts its siblings too", () =>
    withFamily((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Parent, "p")
        yield* ref.ask.Spawn({ name: "a" })
        yield* ref.ask.Spawn({ name: "b" })
        const [a, b] = [yield* system.actorOf(Child, "p/a"), yield* system.actorOf(Child, "p/b")]
        yield* b.ask.Add()
        log.length = 0
        yield* Effect.flip(a.ask.Crash({ why: "x" }))
        yield* settle
        assert.sameMembers(log, ["p/a end", "p/a start", "p/b end", "p/b start"])
        assert.strictEqual(yield* b.ask.Add(), 1)
      }), { supervision: { strategy: "allForOne" } }))

  it.effect("all-for-one stops, suspends or resumes all as it would one, and leaves the parent and others' children alone", () =>
    Effect.gen(function*() {
      for (const decide of ["stop", "suspend", "resume"] as const) {
        yield* withFamily((system, log) =>
          Effect.gen(function*() {
            const [p, q] = [yield* system.spawn(Parent, "p"), yield* system.spawn(Parent, "q")]
            for (const name of ["a", "b"]) yield* p.ask.Spawn({ name })
            yield* q.ask.Spawn({ name: "a" })
            const [a, b] = [yield* system.actorOf(Child, "p/a"), yield* system.actorOf(Child, "p/b")]
            yield* b.ask.Add()
            log.length = 0
            yield* Effect.flip(a.ask.Crash({ why: "x" }))
            yield* settle
            const status = (ref: ActorRef.ActorRef) =>
              Effect.map(system.inspectActor(ref), (seen) => seen.children.map((child) => child.status))
            const expected = { stop: [], suspend: ["Suspended", "Suspended"], resume: ["Idle", "Idle"] } as const
            assert.deepStrictEqual(yield* status(p), [...expected[decide]])
            assert.deepStrictEqual(yield* status(q), ["Idle"])
            assert.sameMembers(log, decide === "stop" ? ["p/a end", "p/b end"] : [])
            if (decide === "resume") assert.strictEqual(yield* b.ask.Add(), 2)
          }), { supervision: { strategy: "allForOne", decide } })
      }
    }))

  it.effect("all-for-one does not wait for ever for a sibling's handler, and builds it once", () =>
    withFamily((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Parent, "p")
        yield* ref.ask.Spawn({ name: "a" })
        yield* ref.ask.Spawn({ name: "b" })
        yield* ref.ask.Spawn({ name: "c" })
        const [a, b, c] = [
          yield* system.actorOf(Child, "p/a"),
          yield* system.actorOf(Child, "p/b"),
          yield* system.actorOf(Child, "p/c")
        ]
        yield* b.tell.Hang()
        // This one crashes by itself while it is about to be restarted for another.
        yield* c.tell.CrashLater({ millis: 500 })
        yield* settle
        log.length = 0
        yield* Effect.flip(a.ask.Crash({ why: "x" }))
        yield* TestClock.adjust("1 second")
        assert.sameMembers(log, ["p/a end", "p/a start", "p/c end", "p/c start"])
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual(log.slice(4), ["p/b end", "p/b start"])
        assert.strictEqual(yield* b.ask.Add(), 1)
        assert.strictEqual(yield* c.ask.Add(), 1)
      }), { supervision: { strategy: "allForOne" } }))

  it.effect("escalate ends the child and fails the parent, whose own supervision decides", () =>
    withFamily((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Parent, "p")
        yield* ref.ask.Spawn({ name: "a" })
        yield* ref.ask.Spawn({ name: "b" })
        const a = yield* system.actorOf(Child, "p/a")
        log.length = 0
        yield* Effect.flip(a.ask.Crash({ why: "x" }))
        yield* settle
        assert.sameMembers(log.slice(0, 2), ["p/a end", "p/b end"])
        assert.deepStrictEqual(log.slice(2), ["parent end", "parent start"])
        assert.deepStrictEqual(yield* ref.ask.Children(), [])
      }), { supervision: { decide: "escalate" } }))

  it.effect("a behaviour that spawns itself without end is stopped at a depth, typed", () =>
    Effect.gen(function*() {
      const Doll = Actor.make("Doll", { protocol: [Rpc.make("Ping")] })
      let deepest = 0
      const live = Doll.toLayer(
        Effect.gen(function*() {
          const context = yield* ActorContext.ActorContext
          deepest = Math.max(deepest, context.name.split("/").length)
          yield* context.spawnChild(Doll, "d")
          return Doll.of({ Ping: () => Effect.void })
        }),
        { start: { retries: 0 } }
      )
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const error = yield* Effect.flip(system.spawn(Doll, "d"))
        assert.strictEqual(error._tag, "StartFailed")
        assert.strictEqual(deepest, 65)
        assert.deepStrictEqual(yield* system.inspect, [])
      }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
    }))
})

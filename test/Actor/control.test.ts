// What a system can ask of an actor from outside, whatever the actor does: stop it, restart it, look at it, spawn it once.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, type ActorRef, ActorSystem, Jobs, type Mailbox, SystemEvents } from "effect-troupe/Actor"
import { Deferred, Effect, Fiber, Layer, Schedule, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

const Node = Actor.make("Node", {
  protocol: [
    Rpc.make("Put", { payload: { n: Schema.Int }, success: Schema.Int }),
    Rpc.make("Sleep", { payload: { millis: Schema.Int } }),
    Rpc.make("Hang"),
    Rpc.make("Fork", { payload: { millis: Schema.Int } }),
    Rpc.make("Grow", { payload: { name: Schema.String } }),
    Rpc.make("Tick", { payload: { millis: Schema.Int } }),
    Rpc.make("Quiet", { payload: { millis: Schema.Int } }),
    Rpc.make("Stash"),
    Rpc.make("Crash"),
    Rpc.make("Numbers", { payload: { count: Schema.Int }, success: Schema.Int, stream: true })
  ]
})
type Rpcs = typeof Node extends Actor.Kind<infer R, infer _> ? R : never
type Tag = Rpcs["_tag"]

const live = (log: Array<string>, options?: Actor.BehaviorOptions<Tag>) =>
  Node.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext.ActorContext
      const { name } = context
      let sum = 0
      log.push(`${name} start`)
      yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`${name} end`)))
      return Node.of({
        Put: ({ n }) => Effect.sync(() => sum += n),
        Sleep: ({ millis }) => Effect.sleep(millis),
        Hang: () => Effect.never,
        Fork: ({ millis }) => context.fork(Effect.sleep(millis)),
        Grow: ({ name }) => Effect.orDie(Effect.asVoid(context.spawnChild(Node, name))),
        Tick: ({ millis }) => context.timers.every("tick", millis, Effect.sync(() => log.push("tick"))),
        Quiet: ({ millis }) => context.receiveTimeout(millis, Effect.sync(() => log.push("quiet"))),
        Stash: () => context.stash,
        Crash: () => Effect.die("crash"),
        Numbers: ({ count }) => Stream.range(1, count).pipe(Stream.rechunk(1))
      })
    }),
    options
  )

const run = <A, E>(
  body: (
    system: ActorSystem.ActorSystem["Service"],
    log: Array<string>
  ) => Effect.Effect<A, E, ActorSystem.ActorSystem | SystemEvents.SystemEvents>,
  options?: Actor.BehaviorOptions<Tag>
) => {
  const log: Array<string> = []
  return ActorSystem.ActorSystem.use((system) => body(system, log)).pipe(
    Effect.provide(live(log, options).pipe(Layer.provideMerge(layerLocal)))
  )
}

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe("restart", () => {
  it.effect("builds the behaviour anew after the messages before it, with children stopped and what waits kept", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.ask.Grow({ name: "child" })
        yield* ref.tell.Stash()
        yield* ref.tell.Sleep({ millis: 100 })
        yield* ref.tell.Put({ n: 1 })
        const restarting = yield* fork(system.restart(ref))
        yield* ref.tell.Put({ n: 10 })
        yield* TestClock.adjust(99)
        assert.isUndefined(restarting.pollUnsafe())
        yield* TestClock.adjust(1)
        yield* Fiber.join(restarting)
        assert.deepStrictEqual(log, ["a start", "a/child start", "a/child end", "a end", "a start"])
        // What was told before it is gone with its state, what was told after it is not.
        assert.strictEqual(yield* ref.ask.Put({ n: 0 }), 10)
        const [seen] = yield* system.inspect
        assert.deepStrictEqual([seen!.restarts, seen!.stashed, seen!.children.length], [1, 1, 0])
      })
    ))

  it.effect("uses nothing of the supervision's budget and waits for no backoff", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        for (let time = 0; time < 5; time++) yield* system.restart(ref)
        assert.strictEqual(log.filter((line) => line === "a start").length, 6)
        yield* Effect.flip(ref.ask.Crash())
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* ref.ask.Put({ n: 1 }), 1)
      }), { supervision: { limit: 1, window: "1 hour", backoff: Schedule.spaced("30 seconds") } }))

  it.effect("reinstates one that is suspended, and fails typed for one that is gone", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.ask.Put({ n: 5 })
        yield* system.suspend(ref)
        const asked = yield* fork(ref.ask.Put({ n: 1 }))
        yield* settle
        assert.isUndefined(asked.pollUnsafe())
        yield* system.restart(ref)
        assert.strictEqual(yield* Fiber.join(asked), 1)
        assert.deepStrictEqual(log, ["a start", "a end", "a start"])
        yield* system.stop(ref)
        assert.strictEqual((yield* Effect.flip(system.restart(ref)))._tag, "ActorStopped")
      })
    ))

  it.effect("a handler that never ends holds it up, typed, and goes with `stop`", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.tell.Hang()
        yield* settle
        const late = yield* fork(Effect.flip(system.restart(ref)))
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Fiber.join(late))._tag, "AskTimeout")
        yield* system.stop(ref, { now: true })
        assert.deepStrictEqual(yield* system.inspect, [])
      })
    ))
})

describe("stop", () => {
  it.effect("with now interrupts the children's messages in hand, too, also when it is said later", () =>
    run((system, log) =>
      Effect.gen(function*() {
        for (const late of [false, true]) {
          const ref = yield* system.spawn(Node, "a")
          yield* ref.ask.Grow({ name: "b" })
          const child: ActorRef.ActorRef<Rpcs> = yield* system.actorOf(Node, "a/b")
          yield* child.ask.Grow({ name: "c" })
          const grandchild = yield* system.actorOf(Node, "a/b/c")
          for (const each of [ref, child, grandchild]) yield* each.tell.Hang()
          yield* settle
          if (late) {
            const slowly = yield* fork(system.stop(ref))
            yield* TestClock.adjust("1 second")
            assert.isUndefined(slowly.pollUnsafe())
          }
          yield* system.stop(ref, { now: true })
          yield* settle
          assert.deepStrictEqual(log.splice(0), [
            "a start",
            "a/b start",
            "a/b/c start",
            "a/b/c end",
            "a/b end",
            "a end"
          ])
        }
      })
    ))

  it.effect("said by an asker in the very moment in which a restart cuts its answer off, is the end, after the finalizers", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        const asking = yield* fork(
          Effect.exit(ref.ask.Fork({ millis: 1000 })).pipe(
            Effect.andThen(system.stop(ref)),
            Effect.andThen(Effect.sync(() => log.push("stopped")))
          )
        )
        yield* settle
        yield* ref.tell.Crash()
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(asking)
        assert.deepStrictEqual(log, ["a start", "a end", "stopped"])
        assert.deepStrictEqual(yield* system.inspect, [])
      })
    ))

  it.effect("of a child stops the child alone", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.ask.Grow({ name: "b" })
        const child = yield* system.actorOf(Node, "a/b")
        yield* child.tell.Hang()
        yield* settle
        yield* system.stop(child, { now: true })
        yield* system.stop(child)
        assert.deepStrictEqual(log, ["a start", "a/b start", "a/b end"])
        assert.strictEqual((yield* system.inspectActor(ref)).children.length, 0)
      })
    ))

  const bounds: ReadonlyArray<readonly [string, Mailbox.MailboxOptions<Tag>]> = [
    ["fail", { capacity: 3, overflow: "fail" }],
    ["dropNewest", { capacity: 3, overflow: "dropNewest" }],
    ["dropOldest", { capacity: 3, overflow: "dropOldest" }],
    ["backpressure", { capacity: 3, overflow: "backpressure" }],
    ["priorities", { priority: ({ payload }) => (payload as { readonly n?: number }).n ?? 0 }]
  ]
  for (const [what, mailbox] of bounds) {
    it.effect(`with drain handles all that waits in a mailbox that is full (${what})`, () =>
      run((system) =>
        Effect.gen(function*() {
          const dead: Array<string> = []
          const { stream } = yield* SystemEvents.SystemEvents
          yield* fork(Stream.runForEach(stream, (event) =>
            Effect.sync(() =>
              event._tag === "DeadLetter" && dead.push(event.message)
            )))
          const ref = yield* system.spawn(Node, "a")
          yield* ref.tell.Sleep({ millis: 100 })
          yield* settle
          const asked = yield* Effect.forEach([1, 2, 3], (n) =>
            fork(ref.ask.Put({ n })))
          const stopping = yield* fork(system.stop(ref, { drain: "1 minute" }))
          yield* TestClock.adjust(100)
          yield* Fiber.join(stopping)
          const sums = yield* Effect.forEach(asked, (fiber) => Fiber.join(fiber))
          assert.strictEqual(Math.max(...sums), 6)
          assert.deepStrictEqual(dead, [])
        }), { mailbox }))
  }

  it.effect("with drain waits for what goes on beside the mailbox, too, for as long as it may", () =>
    run((system) =>
      Effect.gen(function*() {
        for (const [drain, answered] of [["1 minute", true], ["50 millis", false]] as const) {
          const ref = yield* system.spawn(Node, "a")
          const beside = yield* fork(Effect.exit(ref.ask.Fork({ millis: 100 })))
          yield* settle
          const stopping = yield* fork(system.stop(ref, { drain }))
          yield* TestClock.adjust(99)
          assert.strictEqual(stopping.pollUnsafe() === undefined, answered)
          yield* TestClock.adjust(1)
          yield* Fiber.join(stopping)
          assert.strictEqual((yield* Fiber.join(beside))._tag, answered ? "Success" : "Failure")
        }
      })
    ))

  it.effect("suspends and drains in turn, also while others go on sending to a full mailbox", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        const sender = yield* fork(Effect.forever(ref.tell.Sleep({ millis: 10 })))
        yield* TestClock.adjust(25)
        const suspending = yield* fork(system.suspend(ref))
        yield* TestClock.adjust(100)
        yield* Fiber.join(suspending)
        assert.strictEqual((yield* system.inspectActor(ref)).status, "Suspended")
        yield* Fiber.interrupt(sender)
      }), { mailbox: { capacity: 3, overflow: "backpressure" } }))
})

describe("inspectActor", () => {
  it.effect("tells state of life, what waits, and the children, of one that does not get to its mailbox, too", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        const status = Effect.map(system.inspectActor(ref), (seen) => seen.status)
        assert.strictEqual(yield* status, "Idle")
        yield* ref.ask.Grow({ name: "b" })
        yield* ref.tell.Tick({ millis: 60_000 })
        yield* ref.tell.Stash()
        yield* ref.tell.Fork({ millis: 1000 })
        yield* ref.tell.Hang()
        yield* ref.tell.Put({ n: 1 })
        yield* settle
        assert.deepStrictEqual(yield* system.inspectActor(ref), {
          name: "a",
          kind: "Node",
          status: "Busy",
          waiting: 1,
          stashed: 1,
          detached: 1,
          restarts: 0,
          timers: ["tick"],
          children: [{
            name: "a/b",
            kind: "Node",
            status: "Idle",
            waiting: 0,
            stashed: 0,
            detached: 0,
            restarts: 0,
            timers: [],
            children: []
          }]
        })
        assert.deepStrictEqual(yield* system.inspect, [yield* system.inspectActor(ref)])
        const stopping = yield* fork(system.stop(ref))
        assert.strictEqual((yield* system.inspect)[0]!.status, "Stopping")
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(stopping)
        assert.strictEqual((yield* Effect.flip(system.inspectActor(ref)))._tag, "ActorStopped")
      })
    ))

  it.effect("a start, a backoff and a pause of its behaviour can be seen", () =>
    Effect.gen(function*() {
      const Slow = Actor.make("Slow", { protocol: [Rpc.make("Crash")] })
      const kinds = Slow.toLayer(Effect.as(Effect.sleep("1 second"), Slow.of({ Crash: () => Effect.die("crash") })), {
        supervision: { backoff: Schedule.spaced("10 seconds") },
        passivation: { idle: "1 minute" }
      })
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const status = Effect.map(system.inspect, ([seen]) => seen!.status)
        const spawning = yield* fork(system.spawn(Slow, "s"))
        assert.strictEqual(yield* status, "Starting")
        yield* TestClock.adjust("1 second")
        const ref = yield* Fiber.join(spawning)
        yield* ref.tell.Crash()
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual(yield* status, "Restarting")
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* status, "Idle")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* status, "Passivated")
      }).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))
    }))
})

describe("a spawn", () => {
  it.effect("that is run again after it failed or was interrupted is the same spawn; after a success it is another one", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      let starts = 0
      const Gated = Actor.make("Gated", { protocol: [] })
      const kinds = Gated.toLayer(Effect.andThen(
        Effect.sync(() => void starts++),
        Effect.as(Deferred.await(gate), Gated.of({}))
      ))
      yield* Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        const spawn = system.spawn(Gated, "g")
        // The caller gives up; the start goes on.
        const patient = yield* fork(spawn.pipe(
          Effect.timeout("1 second"),
          Effect.retry({ times: 2 })
        ))
        yield* TestClock.adjust("1500 millis")
        // One that runs at the same time is another spawn, and another call is one, too.
        assert.strictEqual((yield* Effect.flip(spawn))._tag, "NameTaken")
        assert.strictEqual((yield* Effect.flip(system.spawn(Gated, "g")))._tag, "NameTaken")
        yield* Deferred.succeed(gate, undefined)
        const ref = yield* Fiber.join(patient)
        assert.strictEqual(starts, 1)
        assert.strictEqual(ref.name, "g")
        assert.strictEqual((yield* Effect.flip(system.spawn(Gated, "g")))._tag, "NameTaken")
        yield* system.stop(ref)
        yield* spawn
        assert.strictEqual(
          (yield* Effect.flip(Effect.andThen(system.spawn(Gated, "h"), system.spawn(Gated, "h"))))._tag,
          "NameTaken"
        )
      }).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))
    }))

  it.effect("whose effect has succeeded meets its own name when it is run again", () =>
    run((system) =>
      Effect.gen(function*() {
        const spawn = system.spawn(Node, "a")
        yield* spawn
        const error = yield* Effect.flip(spawn)
        assert.strictEqual(error._tag, "NameTaken")
      })
    ))
})

describe("bad input", () => {
  it.effect("a timer, a receive timeout and a job at no interval run each millisecond, and let the clock go on", () =>
    run((system, log) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.tell.Tick({ millis: 0 })
        yield* TestClock.adjust(5)
        assert.strictEqual(log.filter((line) => line === "tick").length, 5)
        yield* system.restart(ref)
        yield* ref.tell.Quiet({ millis: 0 })
        yield* TestClock.adjust(5)
        assert.strictEqual(log.filter((line) => line === "quiet").length, 5)
        const jobs = yield* Jobs.make
        let fired = 0
        yield* jobs.every("j", -1, Effect.sync(() => fired++))
        yield* TestClock.adjust(5)
        assert.strictEqual(fired, 5)
      }).pipe(Effect.scoped)
    ))

  it.effect("a timeout that is no number is over at once, and other asks keep theirs", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.tell.Hang()
        yield* settle
        const bad = yield* fork(Effect.flip(ref.ask.Put({ n: 1 }, { timeout: Number.NaN })))
        const good = yield* fork(Effect.flip(ref.ask.Put({ n: 1 }, { timeout: 100 })))
        yield* settle
        assert.strictEqual((yield* Fiber.join(bad))._tag, "AskTimeout")
        yield* TestClock.adjust(99)
        assert.isUndefined(good.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* Fiber.join(good))._tag, "AskTimeout")
        yield* system.stop(ref, { now: true })
      })
    ))

  it.effect("a priority that throws costs its message alone: the asker hears it, the sender goes on", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        yield* ref.tell.Put({ n: 13 })
        const error = yield* Effect.flip(ref.ask.Put({ n: 13 }))
        assert.strictEqual(error._tag === "InvalidData" && error.what, "Node.Put")
        assert.strictEqual(yield* ref.ask.Put({ n: 1 }), 1)
        assert.strictEqual((yield* system.inspectActor(ref)).waiting, 0)
      }), {
      mailbox: {
        priority: ({ payload }) => {
          const { n } = payload as { readonly n: number }
          if (n === 13) throw new Error("unlucky")
          return n
        }
      }
    }))

  it.effect("streaming replies go on past a full mailbox and past priorities that know nothing of them", () =>
    run((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Node, "a")
        const got: Array<number> = []
        const reading = yield* fork(
          ref.ask.Numbers({ count: 4 }).pipe(
            Stream.runForEach((n) => Effect.andThen(Effect.sync(() => got.push(n)), Effect.sleep(10)))
          )
        )
        yield* settle
        yield* ref.tell.Sleep({ millis: 15 })
        yield* settle
        yield* ref.tell.Put({ n: 1 })
        assert.strictEqual((yield* Effect.flip(ref.tell.Put({ n: 1 })))._tag, "MailboxFull")
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(reading)
        assert.deepStrictEqual(got, [1, 2, 3, 4])
      }), {
      mailbox: {
        capacity: 1,
        priority: ({ tag }) => {
          if (tag.includes("$")) throw new Error("not of the protocol")
          return 0
        }
      }
    }))
})

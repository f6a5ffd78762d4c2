// Where messages wait: bounds and what happens at them, order, lanes.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorSystem, Delivery, Mailbox, SystemEvents } from "effect-troupe/Actor"
import { Deferred, Effect, Fiber, Layer, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { Told } from "../../src/Actor/internal/Envelope.ts"
import type { Ref } from "../../src/Actor/internal/Ref.ts"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

const Sink = Actor.make("Sink", {
  protocol: [
    Rpc.make("Hold"),
    Rpc.make("Put", { payload: { n: Schema.Int }, success: Schema.Int }),
    Rpc.make("Urgent", { payload: { n: Schema.Int } })
  ]
})
type Tag = "Hold" | "Put" | "Urgent"

/** An actor that is held by its first message until the gate opens, so that others wait. */
const held = <A, E>(
  mailbox: Mailbox.MailboxOptions<Tag> | undefined,
  body: (parts: {
    readonly system: ActorSystem.ActorSystem["Service"]
    readonly gate: Deferred.Deferred<void>
    readonly seen: Array<number>
    readonly dead: Array<string>
  }) => Effect.Effect<A, E, ActorSystem.ActorSystem | Delivery.Delivery>
) =>
  Effect.gen(function*() {
    const gate = yield* Deferred.make<void>()
    const seen: Array<number> = []
    const dead: Array<string> = []
    const live = Sink.toLayer(
      Effect.succeed(Sink.of({
        Hold: () => Deferred.await(gate),
        Put: ({ n }) => Effect.sync(() => seen.push(n)),
        Urgent: ({ n }) => Effect.sync(() => void seen.push(n))
      })),
      { mailbox }
    )
    return yield* Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const events = yield* SystemEvents.SystemEvents
      yield* Effect.forkChild(
        Stream.runForEach(events.stream, (event) =>
          Effect.sync(() => event._tag === "DeadLetter" && dead.push(`${event.message} ${event.reason}`))),
        { startImmediately: true }
      )
      return yield* body({ system, gate, seen, dead })
    }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
  })

const start = Effect.fnUntraced(function*(system: ActorSystem.ActorSystem["Service"]) {
  const ref = yield* system.spawn(Sink, "s")
  yield* ref.tell.Hold()
  yield* settle
  return ref
})

describe("a full mailbox", () => {
  it.effect("fail: the sender gets MailboxFull, typed, and nothing of it is kept", () =>
    held({ capacity: 2 }, ({ gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        yield* ref.tell.Put({ n: 1 })
        yield* ref.tell.Put({ n: 2 })
        const error = yield* Effect.flip(ref.tell.Put({ n: 3 }))
        assert.strictEqual(error._tag === "MailboxFull" && error.capacity, 2)
        assert.strictEqual((yield* Effect.flip(ref.ask.Put({ n: 4 })))._tag, "MailboxFull")
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.deepStrictEqual(seen, [1, 2])
        yield* ref.tell.Put({ n: 5 })
        yield* settle
        assert.deepStrictEqual(seen, [1, 2, 5])
      })))

  it.effect("dropNewest: the newcomer is a dead letter", () =>
    held({ capacity: 2, overflow: "dropNewest" }, ({ dead, gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        for (const n of [1, 2, 3]) yield* ref.tell.Put({ n })
        assert.strictEqual((yield* Effect.flip(ref.ask.Put({ n: 4 })))._tag, "MailboxFull")
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.deepStrictEqual(seen, [1, 2])
        assert.deepStrictEqual(dead, ["Put MailboxOverflow", "Put MailboxOverflow"])
      })))

  it.effect("dropOldest: the one that waited longest is a dead letter, and its asker hears of it", () =>
    held({ capacity: 2, overflow: "dropOldest" }, ({ dead, gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        const asked = yield* Effect.forkChild(Effect.flip(ref.ask.Put({ n: 1 })), { startImmediately: true })
        for (const n of [2, 3, 4]) yield* ref.tell.Put({ n })
        assert.strictEqual((yield* Fiber.join(asked))._tag, "MailboxFull")
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.deepStrictEqual(seen, [3, 4])
        assert.deepStrictEqual(dead, ["Put MailboxOverflow", "Put MailboxOverflow"])
      })))

  it.effect("backpressure: the sender waits for room; an interrupted one is forgotten", () =>
    held({ capacity: 1, overflow: "backpressure" }, ({ gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        yield* ref.tell.Put({ n: 1 })
        const second = yield* Effect.forkChild(ref.tell.Put({ n: 2 }), { startImmediately: true })
        const third = yield* Effect.forkChild(ref.tell.Put({ n: 3 }), { startImmediately: true })
        const fourth = yield* Effect.forkChild(ref.ask.Put({ n: 4 }), { startImmediately: true })
        yield* settle
        assert.isUndefined(second.pollUnsafe())
        yield* Fiber.interrupt(third)
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        yield* Fiber.join(second)
        assert.strictEqual(yield* Fiber.join(fourth), 3)
        assert.deepStrictEqual(seen, [1, 2, 4])
      })))

  it.effect("backpressure: who waits for room leaves with its ask's time, or when it gives up, and nothing of it is kept", () =>
    held({ capacity: 1, overflow: "backpressure" }, ({ gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        const waiting = () => (ref as unknown as Ref).cell!.extras!.waiting!.size
        yield* ref.tell.Put({ n: 1 })
        const begin = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })
        const delivery = yield* Delivery.Delivery
        const put = (n: number) => ({ kind: Sink.definition, tag: "Put", payload: { n } })
        const expiring = yield* begin(Effect.flip(ref.ask.Put({ n: 2 }, { timeout: "1 second" })))
        const delivered = yield* begin(Effect.flip(delivery.ask(ref.address, put(3), 1000)))
        const asker = yield* begin(ref.ask.Put({ n: 4 }, { timeout: "1 minute" }))
        const deliveredAsker = yield* begin(delivery.ask(ref.address, put(5), 60_000))
        const teller = yield* begin(ref.tell.Put({ n: 6 }))
        const last = yield* begin(ref.tell.Put({ n: 7 }))
        assert.strictEqual(waiting(), 6)
        yield* TestClock.adjust("999 millis")
        assert.strictEqual(waiting(), 6)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(waiting(), 4, "at their time, not when there is room")
        assert.strictEqual((yield* Fiber.join(expiring))._tag, "AskTimeout")
        assert.strictEqual((yield* Fiber.join(delivered))._tag, "AskTimeout")
        yield* Fiber.interrupt(asker)
        yield* Fiber.interrupt(deliveredAsker)
        assert.strictEqual(waiting(), 2)
        yield* Fiber.interrupt(teller)
        assert.strictEqual(waiting(), 1)
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(last)
        yield* settle
        assert.deepStrictEqual(seen, [1, 7])
      })))

  it.effect("backpressure: senders that wait when the actor stops are told so", () =>
    held({ capacity: 1, overflow: "backpressure" }, ({ gate, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        yield* ref.tell.Put({ n: 1 })
        const waiting = yield* Effect.forkChild(Effect.flip(ref.tell.Put({ n: 2 })), { startImmediately: true })
        const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        yield* Fiber.join(stopping)
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "ActorStopped")
      })))

  it.effect(
    "ten million messages to a stuck actor take no more room than its cap",
    () =>
      held({ capacity: 1000, overflow: "fail" }, ({ system }) =>
        Effect.gen(function*() {
          const ref = yield* start(system)
          const tell = ref.tell.Put({ n: 1 })
          // The same cell, without an Effect a message: what is measured is the mailbox.
          let accepted = 0
          for (let round = 0; round < 1000; round++) {
            if ((yield* Effect.exit(tell))._tag === "Success") accepted++
          }
          assert.strictEqual(accepted, 1000)
          const cell = (ref as unknown as { cell: { accept: (m: unknown) => number; depth: number } }).cell
          for (let index = 0; index < 10_000_000; index++) cell.accept(tell)
          assert.strictEqual(cell.depth, 1000)
          assert.strictEqual((yield* system.inspect)[0]!.waiting, 1000)
        })),
    60_000
  )
})

describe("order", () => {
  it.effect("priority: the most urgent first, equal ones in order of arrival", () =>
    held(
      { priority: ({ payload }) => ((payload as { n: number } | undefined)?.n ?? 0) % 3 },
      ({ gate, seen, system }) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Sink, "s")
          yield* ref.tell.Hold()
          yield* settle
          for (let n = 0; n < 9; n++) yield* ref.tell.Put({ n })
          yield* Deferred.succeed(gate, undefined)
          yield* settle
          assert.deepStrictEqual(seen, [2, 5, 8, 1, 4, 7, 0, 3, 6])
        }).pipe(Effect.timeout("1 hour"))
    ))

  it.effect("the control lane overtakes, also a full mailbox", () =>
    held({ capacity: 2, control: ["Urgent"] }, ({ gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        yield* ref.tell.Put({ n: 1 })
        yield* ref.tell.Put({ n: 2 })
        yield* ref.tell.Urgent({ n: 10 })
        yield* ref.tell.Urgent({ n: 11 })
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.deepStrictEqual(seen, [10, 11, 1, 2])
      })))

  it.effect("what is asked of the actor in its turn waits for those before it, also where they are dropped meanwhile", () =>
    held({ capacity: 2, overflow: "dropOldest" }, ({ gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        yield* Effect.forEach([1, 2], (n) => ref.tell.Put({ n }))
        const cell = (ref as unknown as Ref).cell!
        cell.accept(new Told("$barrier", undefined))
        yield* Effect.forEach([3, 4, 5], (n) => ref.tell.Put({ n }))
        cell.accept(new Told("$suspend", undefined))
        yield* ref.tell.Put({ n: 6 })
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.deepStrictEqual(seen, [5], "6 came after it was told to suspend")
      })))

  it.effect(
    "a hundred thousand of such requests at a full mailbox cost as much each as one",
    () =>
      held({ capacity: 1 }, ({ gate, seen, system }) =>
        Effect.gen(function*() {
          const ref = yield* start(system)
          yield* ref.tell.Put({ n: 1 })
          const cell = (ref as unknown as Ref).cell!
          for (let n = 0; n < 100_000; n++) cell.accept(new Told("$barrier", undefined))
          assert.strictEqual(cell.depth, 100_001)
          yield* Deferred.succeed(gate, undefined)
          while (cell.depth > 0) yield* settle
          assert.deepStrictEqual(seen, [1])
        })),
    4000
  )

  it.effect("a queue of one's own decides: here the last comes first", () =>
    held({
      queue: () => {
        const stack: Array<Mailbox.Waiting> = []
        return {
          get size() {
            return stack.length
          },
          push: (message) => void stack.push(message),
          shift: () => stack.pop()!
        }
      }
    }, ({ gate, seen, system }) =>
      Effect.gen(function*() {
        const ref = yield* start(system)
        for (const n of [1, 2, 3]) yield* ref.tell.Put({ n })
        yield* Deferred.succeed(gate, undefined)
        yield* settle
        assert.deepStrictEqual(seen, [3, 2, 1])
      })))

  it("the priority queue sorts stably, and drops the oldest of the least urgent", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 80 }), fc.nat(10), (urgencies, drops) => {
        const queue = Mailbox.priorityQueue<{ tag: string; payload: number; urgency: number }>((m) => m.urgency)
        const model = urgencies.map((urgency, payload) => ({ tag: "", payload, urgency }))
        for (const message of model) queue.push(message)
        for (let drop = 0; drop < drops && model.length > 0; drop++) {
          const least = Math.min(...model.map((m) => m.urgency))
          const expected = model.findIndex((m) => m.urgency === least)
          assert.deepStrictEqual(queue.drop!(), model[expected])
          model.splice(expected, 1)
        }
        const sorted = [...model].sort((a, b) => b.urgency - a.urgency || a.payload - b.payload)
        assert.deepStrictEqual(Array.from({ length: queue.size }, () => queue.shift()), sorted)
      })
    )
  })

  it.effect.prop(
    "messages of each sender are handled in the order they were sent, however senders interleave and handlers suspend",
    { plan: Schema.Array(Schema.Struct({ sender: Schema.Literals([0, 1, 2]), slow: Schema.Boolean })) },
    ({ plan }) =>
      Effect.gen(function*() {
        const Log = Actor.make("Log", {
          protocol: [Rpc.make("Line", { payload: { sender: Schema.Int, n: Schema.Int, slow: Schema.Boolean } })]
        })
        const seen: Array<readonly [number, number]> = []
        const live = Log.toLayer(Effect.succeed(Log.of({
          Line: ({ n, sender, slow }) =>
            Effect.andThen(
              slow ? Effect.sleep("1 millis") : Effect.void,
              Effect.sync(() => void seen.push([sender, n]))
            )
        })))
        yield* Effect.gen(function*() {
          const system = yield* ActorSystem.ActorSystem
          const ref = yield* system.spawn(Log, "l")
          yield* Effect.forEach([0, 1, 2], (sender) =>
            Effect.forEach(
              plan.map((entry, n) => ({ ...entry, n })).filter((entry) => entry.sender === sender),
              (entry) => Effect.andThen(ref.tell.Line(entry), entry.slow ? Effect.yieldNow : Effect.void)
            ), {
            concurrency: "unbounded"
          })
          yield* TestClock.adjust("1 minute")
          assert.strictEqual(seen.length, plan.length)
          for (const sender of [0, 1, 2]) {
            const mine = seen.filter(([from]) => from === sender).map(([, n]) => n)
            assert.deepStrictEqual(mine, [...mine].sort((a, b) => a - b))
          }
        }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
      })
  )
})

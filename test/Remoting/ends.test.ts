// What becomes of that which had not left when a session ended: never claimed as sent, and named rightly.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { maxTargets } from "../../src/Remoting/internal/messageTables.ts"
import { layerRecorders, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import { simulatedHarness } from "./support.ts"
import { makeSide } from "./wired.ts"

const put = { kind: Recorder, tag: "Put", payload: { n: 1 } }
const never = { kind: Recorder, tag: "Never", payload: {} }
const parse = (text: string) => ({ kind: Recorder, tag: "Parse", payload: { text } })

const world = Effect.gen(function*() {
  const recorders = yield* Effect.provide(Effect.context<Recorders | Delivery>(), layerRecorders())
  const side = yield* makeSide({ kind: Recorder, delivery: Context.get(recorders, Delivery), dialed: true })
  const { calls, runFork, session } = side
  const call = (number: number) =>
    runFork(
      calls.call(session, Rpc.make(`Call${number}`) as unknown as Rpc.AnyWithProps, undefined, 60_000).pipe(
        Effect.match({
          onFailure: (error) => (error as { readonly outcome: string }).outcome,
          onSuccess: () => "Success"
        })
      )
    )
  return {
    ...side,
    call,
    ask: ({ payload, tag }: typeof never | ReturnType<typeof parse>, name?: string) => side.ask(tag, payload, name),
    tell: (name: string) => side.tell("Put", { n: 1 }, name)
  }
})

describe("what is written after the peer has closed, and before this side knows", () => {
  it.effect("is NotSent, or a dead letter; what was handed over before is Unknown", () =>
    Effect.gen(function*() {
      const { ask, lost, outcomes, session, tell, wire } = yield* world
      ask(never)
      tell("left")
      wire.unsent = 1
      ask(never)
      tell("waits")
      wire.over = true
      wire.unsent = 0
      wire.idle()
      ask(never)
      tell("after")
      wire.idle()
      assert.deepStrictEqual([outcomes, lost()], [[], []], "what has come in still counts")
      session.endUnsafe("closed by the peer")
      assert.deepStrictEqual(outcomes, ["Unknown", "NotSent", "NotSent"])
      assert.deepStrictEqual(lost(), ["waits", "after"])
    }))

  it.effect("is NotSent where it is a call", () =>
    Effect.gen(function*() {
      const { call, session, wire } = yield* world
      const sent = call(1)
      wire.unsent = 1
      const waits = call(2)
      wire.over = true
      wire.unsent = 0
      wire.idle()
      const after = call(3)
      session.endUnsafe("closed by the peer")
      const outcomes = yield* Effect.forEach([sent, waits, after], Fiber.join)
      assert.deepStrictEqual(outcomes, ["Unknown", "NotSent", "NotSent"])
    }))

  it.effect("is NotSent where it is large, unless a piece of it was taken", () =>
    Effect.gen(function*() {
      const { ask, outcomes, session, wire } = yield* world
      ask(parse("1".repeat(900_000)))
      assert.isAbove(wire.taken.length, 0)
      wire.over = true
      wire.idle()
      ask(parse("2".repeat(900_000)), "y")
      session.endUnsafe("closed by the peer")
      assert.deepStrictEqual(outcomes, ["Unknown", "NotSent"])
    }))

  it.effect("is NotSent where it is large and its first piece was not taken", () =>
    Effect.gen(function*() {
      const { ask, outcomes, session, wire } = yield* world
      wire.over = true
      ask(parse("1".repeat(900_000)))
      session.endUnsafe("closed by the peer")
      assert.deepStrictEqual(outcomes, ["NotSent"])
    }))

  it.effect("is a dead letter where this side closes at that moment", () =>
    Effect.gen(function*() {
      const { lost, session, tell, wire } = yield* world
      wire.unsent = 1
      tell("waits")
      wire.over = true
      yield* session.close
      assert.deepStrictEqual(lost(), ["waits"])
    }))

  it.effect("{a} | {b} => so it is when the connection is reset with messages in the outbox", () =>
    Effect.gen(function*() {
      const { a, b, network } = yield* simulatedHarness()
      const delivery = Context.get(a, Delivery)
      const { address } = Context.get(b, Node)
      const to = { kind: Recorder.name, name: "x", node: address, placement: 1, epoch: 1 }
      assert.isTrue(Exit.isSuccess(yield* delivery.ask(to, parse("42"), 5000)))
      yield* TestClock.adjust("1 second")
      const fork = Effect.forkChild(Effect.exit(delivery.ask(to, never, 5000)), { startImmediately: true })
      const asks = [yield* fork, yield* fork, yield* fork]
      yield* delivery.tell({ ...to, name: "y" }, put)
      network.reset(["a"], ["b"])
      const outcomes = yield* Effect.forEach(asks, (fiber) =>
        Effect.map(Fiber.join(fiber), (exit) => {
          const error = Exit.findErrorOption(exit)
          return error._tag === "Some" && error.value._tag === "NodeUnreachable" ? error.value.outcome : "Other"
        }))
      assert.deepStrictEqual(outcomes, ["Unknown", "NotSent", "NotSent"])
      const dead = Context.get(a, Recorders).events.flatMap((event) => event._tag === "DeadLetter" ? [event.to] : [])
      assert.deepStrictEqual(dead, ["y"])
    }))
})

describe("dead letters", () => {
  it.effect("name whom they were for, before and after numbers of targets were forgotten", () =>
    Effect.gen(function*() {
      const { lost, session, tell, wire } = yield* world
      const count = 2 * maxTargets + 1000
      for (let i = 0; i < maxTargets + 10; i++) tell(`${i}`)
      const left = session.outbox.leftBatch
      assert.isAbove(left, 0)
      wire.unsent = 1e6
      for (let i = maxTargets + 10; i < count; i++) tell(`${i}`)
      // by now this one has another number
      tell("0")
      const taken = wire.taken.length
      session.endUnsafe("lost")
      assert.strictEqual(wire.taken.length, taken)
      const expected = Array.from({ length: count }, (_, i) => `${i}`)
      assert.deepStrictEqual(lost(), [...expected.slice(expected.length - lost().length + 1), "0"])
      assert.isAtLeast(lost().length, count - maxTargets - 10)
    }))

  it.effect("name whom they were for, where all that was written is lost", () =>
    Effect.gen(function*() {
      const { lost, session, tell, wire } = yield* world
      wire.unsent = 1e6
      const names = Array.from({ length: 3 * maxTargets + 5 }, (_, i) => `${i}`)
      for (const name of names) tell(name)
      session.endUnsafe("lost")
      assert.deepStrictEqual(lost(), names)
    }))
})

// What becomes of that which had not left when a session ended: never claimed as sent, and named rightly.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import type { AskError } from "../../src/Actor/errors.ts"
import { Resumed } from "../../src/Actor/internal/Envelope.ts"
import { Timeouts } from "../../src/Actor/internal/Timeouts.ts"
import { Node } from "../../src/Actor/Node.ts"
import type { SystemEvent } from "../../src/Actor/SystemEvents.ts"
import { Buffers } from "../../src/Remoting/internal/buffers.ts"
import { Calls } from "../../src/Remoting/internal/calls.ts"
import { maxTargets } from "../../src/Remoting/internal/messageTables.ts"
import { Messages } from "../../src/Remoting/internal/messages.ts"
import { Session } from "../../src/Remoting/internal/session.ts"
import { Turns } from "../../src/Remoting/internal/turns.ts"
import { layerRecorders, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import { simulatedHarness } from "./support.ts"

const identity = {
  system: "test",
  dataCenter: "dc",
  id: "b",
  incarnation: "1",
  host: "b",
  port: 1,
  client: false,
  maxFrameBytes: 1024 * 1024,
  windowBytes: 64 * 1024 * 1024,
  kinds: new Map([[Recorder.name, Recorder.fingerprint]]),
  capabilities: ["parts", "compact"]
}
const at = (name: string) => ({ kind: Recorder.name, name, node: identity, placement: 1, epoch: 1 })
const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
const never = { kind: Recorder, tag: "Never", payload: {} }
const parse = (text: string) => ({ kind: Recorder, tag: "Parse", payload: { text } })

/** A session on a connection that takes and loses frames as it is told. */
const world = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const recorders = yield* Effect.provide(Effect.context<Recorders | Delivery>(), layerRecorders())
  const events: Array<SystemEvent> = []
  const timeouts = new Timeouts(clock, context)
  const runFork = Effect.runForkWith(context)
  const messages = new Messages({
    delivery: Context.get(recorders, Delivery),
    kinds: () => new Map([[Recorder.name, Recorder]]),
    self: identity,
    timeouts,
    publish: (event) => void events.push(event),
    runFork
  })
  const calls = new Calls({ timeouts, runFork, self: "b:1" })
  const wire = { over: false, unsent: 0, taken: [] as Array<Uint8Array>, idle: () => {} }
  const session = new Session({
    connection: {
      peer: "b",
      loopback: true,
      send: () => Effect.void,
      offer: (frame) => {
        if (!wire.over) wire.taken.push(frame.slice())
        return !wire.over
      },
      unsent: () => wire.unsent,
      onIdle: (listener) => {
        wire.idle = listener
      },
      limitInbound: () => {},
      receive: Effect.never,
      close: Effect.void
    },
    self: identity,
    peer: identity,
    dialed: true,
    number: 1,
    outboxBytes: 64 * 1024 * 1024,
    buffers: new Buffers(),
    turns: new Turns(),
    now: () => 0,
    onData: messages.onData,
    onControl: calls.onControl,
    onEnd: (session) => {
      messages.onEnd(session)
      calls.onEnd(session)
    },
    onLost: messages.onLost
  })
  const outcomes: Array<string> = []
  const ask = (message: typeof never, name = "x") =>
    messages.outgoing.ask(
      session,
      at(name),
      new Resumed(message, name, 60_000, (exit) => {
        const error = Exit.findErrorOption(exit as Exit.Exit<unknown, AskError>)
        outcomes.push(error._tag === "Some" && error.value._tag === "NodeUnreachable" ? error.value.outcome : "Other")
      })
    )
  const tell = (name: string, n = 1) => messages.outgoing.tell(session, at(name), put(n))
  const call = (number: number) =>
    runFork(
      calls.call(session, Rpc.make(`Call${number}`) as unknown as Rpc.AnyWithProps, undefined, 60_000).pipe(
        Effect.match({
          onFailure: (error) => (error as { readonly outcome: string }).outcome,
          onSuccess: () => "Success"
        })
      )
    )
  /** to whom */
  const lost = () => events.flatMap((event) => event._tag === "DeadLetter" ? [event.to] : [])
  return { session, wire, ask, tell, call, outcomes, lost }
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
      const to = { ...at("x"), node: Context.get(b, Node).address }
      assert.isTrue(Exit.isSuccess(yield* delivery.ask(to, parse("42"), 5000)))
      yield* TestClock.adjust("1 second")
      const fork = Effect.forkChild(Effect.exit(delivery.ask(to, never, 5000)), { startImmediately: true })
      const asks = [yield* fork, yield* fork, yield* fork]
      yield* delivery.tell({ ...to, name: "y" }, put(1))
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

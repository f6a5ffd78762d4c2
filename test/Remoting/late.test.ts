// Time that is up on one side only, or was none to begin with, or never ends.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Rpc, RpcGroup } from "effect/rpc"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import { InTag } from "../../src/Remoting/internal/messageTables.ts"
import { Buffers } from "../../src/Remoting/internal/buffers.ts"
import { Session } from "../../src/Remoting/internal/session.ts"
import { Turns } from "../../src/Remoting/internal/turns.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import { type ContractNode, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { identityOf, startNode } from "./support.ts"

const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < 2000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("10 millis")
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* Fiber.join(fiber)
  })

const to = (node: ContractNode, name = "x") => ({
  kind: Recorder.name,
  name,
  node: Context.get(node, Node).address,
  placement: 1,
  epoch: 1
})
const never = { kind: Recorder, tag: "Never", payload: {} }
const parse = { kind: Recorder, tag: "Parse", payload: { text: "42" } }
const answered = Exit.succeed(Exit.succeed(42))

/** Two nodes whose way to each other takes as long as `way` says, in milliseconds; connected. */
const world = Effect.gen(function*() {
  const way = { millis: 0, hellos: 0 }
  const network = yield* SimulatedNetwork.make({
    seed: 1,
    latency: () => way.millis,
    onFrame: (_from, _to, frame) => {
      if (frame[0] === FrameType.Hello) way.hellos++
    }
  })
  const a = yield* startNode(network, "a")
  const b = yield* startNode(network, "b")
  const { ask } = Context.get(a, Delivery)
  assert.deepStrictEqual(yield* settle(ask(to(b), parse, 5000)), answered)
  return { a, ask, b, way, interrupted: Context.get(b, Recorders).interrupted }
})

describe("an ask whose time is up", () => {
  it.effect("does not end the connection where its handler is not done yet when the next one comes", () =>
    Effect.gen(function*() {
      const { ask, b, interrupted, way } = yield* world
      const bystander = yield* Effect.forkChild(Effect.exit(ask(to(b, "other"), never, 60_000)), {
        startImmediately: true
      })
      // this one is late, so its time begins later there than here
      way.millis = 80
      const late = yield* Effect.forkChild(Effect.exit(ask(to(b), never, 100)), { startImmediately: true })
      yield* TestClock.adjust("90 millis")
      way.millis = 0
      yield* TestClock.adjust("10 millis")
      const exit = yield* Fiber.join(late)
      assert.include(String(Exit.isFailure(exit) && exit.cause), "no reply")
      assert.deepStrictEqual(interrupted, [])
      assert.deepStrictEqual(yield* settle(ask(to(b, "y"), parse, 5000)), answered)
      assert.strictEqual(way.hellos, 1, "nobody had to dial again")
      assert.isUndefined(bystander.pollUnsafe(), "others still wait")
      yield* TestClock.adjust("200 millis")
      assert.deepStrictEqual(interrupted, ["x"], "its handler has ended too")
    }).pipe(Effect.scoped))

  it.effect("has waited for the connection too, and says how long it was to take", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 1, latency: "200 millis" })
      const a = yield* startNode(network, "a")
      const b = yield* startNode(network, "b")
      const asking = yield* Effect.forkChild(Effect.exit(Context.get(a, Delivery).ask(to(b), never, 2000)), {
        startImmediately: true
      })
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(Context.get(b, Recorders).received.length, 1)
      assert.isUndefined(asking.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isDefined(asking.pollUnsafe())
      const error = Exit.findErrorOption(yield* Fiber.join(asking))
      assert.strictEqual(
        error._tag === "Some" && error.value.message,
        "no reply from x to Never within 2s: the outcome is unknown"
      )
    }).pipe(Effect.scoped))

  it.effect("is refused at once where there is none left, and disturbs nobody", () =>
    Effect.gen(function*() {
      const { ask, b, way } = yield* world
      for (const timeout of [-1, -1000, -0.5, 0, NaN]) {
        const exit = yield* settle(ask(to(b), never, timeout))
        assert.include(String(Exit.isFailure(exit) && exit.cause), "no reply", `${timeout}`)
      }
      assert.deepStrictEqual(yield* settle(ask(to(b), parse, 5000)), answered)
      assert.strictEqual(way.hellos, 1, "nobody had to dial again")
    }).pipe(Effect.scoped))
})

describe("a kind that is withdrawn", () => {
  it("takes no questions any more, and answers those that it has", () => {
    const tag = new InTag({ name: Recorder.name, fingerprint: Recorder.fingerprint, mode: "compact" }, "Parse")
    tag.learn(new Map([[Recorder.name, Recorder]]))
    const { message, success } = tag
    assert.isDefined(success)
    tag.learn(new Map())
    assert.deepStrictEqual([tag.payload, tag.message, tag.success], [undefined, message, success])
  })
})

describe("a peer that asks and does not listen", () => {
  it("is given up before its answers fill the memory here", () => {
    const identity = identityOf("b", { maxFrameBytes: 65_536, windowBytes: 65_536 })
    const ended: Array<string> = []
    const session = new Session({
      connection: {
        peer: "b",
        loopback: true,
        send: () => Effect.void,
        offer: () => true,
        // nothing ever leaves
        unsent: () => 1,
        onIdle: () => {},
        limitInbound: () => {},
        receive: Effect.never,
        close: Effect.void
      },
      self: identity,
      peer: identity,
      dialed: false,
      number: 1,
      outboxBytes: 65_536,
      buffers: new Buffers(),
      turns: new Turns(),
      now: () => 0,
      onData: () => {},
      onControl: () => {},
      onEnd: ({ over }) => void ended.push(over!),
      onLost: () => {}
    })
    const pings = Array.from({ length: 1000 }, () => Uint8Array.of(FrameType.Ping))
    for (let round = 0; round < 60; round++) session.take(pings)
    assert.deepStrictEqual(ended, [])
    for (let round = 0; round < 10; round++) session.take(pings)
    assert.deepStrictEqual(ended, ["protocol violation: asks and does not listen"])
  })
})

describe("a call", () => {
  it.effect("has waited for the connection too when its time is up", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 1, latency: "200 millis" })
      const a = yield* startNode(network, "a")
      const b = yield* startNode(network, "b")
      const group = RpcGroup.make(Rpc.make("Test.Hang"))
      const handlers = group.toLayer({ "Test.Hang": () => Effect.never })
      yield* Context.get(b, Remoting).serve(group).pipe(Effect.provide(handlers))
      const { call } = Context.get(a, Remoting)
      const calling = yield* Effect.forkChild(
        Effect.exit(call(Context.get(b, Node).address, group, "Test.Hang", undefined, { timeout: "2 seconds" })),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(calling.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const exit = calling.pollUnsafe()
      assert.isDefined(exit)
      assert.include(String(Exit.isSuccess(exit!) && Exit.isFailure(exit.value) && exit.value.cause), "Unknown")
    }).pipe(Effect.scoped))

  it.effect("may wait for ever", () =>
    Effect.gen(function*() {
      const { a, b } = yield* world
      const group = RpcGroup.make(Rpc.make("Test.Nobody"))
      const { call } = Context.get(a, Remoting)
      for (const timeout of [Infinity, 1e300]) {
        const exit = yield* settle(call(Context.get(b, Node).address, group, "Test.Nobody", undefined, { timeout }))
        assert.include(String(Exit.isFailure(exit) && exit.cause), "is not served there")
      }
    }).pipe(Effect.scoped))
})

// What comes between: a lease that closes while messages wait or a dial is under way, a reader that fails, what nobody may do twice.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import type { ActorStopped, NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import * as Handshake from "../../src/Remoting/internal/handshake.ts"
import { Op } from "../../src/Remoting/internal/messageTables.ts"
import { Writer } from "../../src/Remoting/internal/wire.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import { type ContractNode, layerRecorders, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { identityOf, simulatedHarness, startNode } from "./support.ts"
import { makeSide } from "./wired.ts"

const never = { kind: Recorder, tag: "Never", payload: {} }
const parse = { kind: Recorder, tag: "Parse", payload: { text: "42" } }
const put = (n: number, text = "") => ({ kind: Recorder, tag: "Put", payload: { n, text } })
const addressOf = (node: ContractNode) => Context.get(node, Node).address
const to = (node: ContractNode, name = "x") => ({
  kind: Recorder.name,
  name,
  node: addressOf(node),
  placement: 1,
  epoch: 1
})
const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.forkChild(Effect.exit(effect), { startImmediately: true })
const unreachable = (exit: Exit.Exit<unknown, unknown>): NodeUnreachable | undefined => {
  const error = Exit.findErrorOption(exit as Exit.Exit<unknown, NodeUnreachable>)
  return error._tag === "Some" && error.value._tag === "NodeUnreachable" ? error.value : undefined
}
const deadLetters = (node: ContractNode) =>
  Context.get(node, Recorders).events.flatMap((event) => event._tag === "DeadLetter" ? [event.to] : [])

describe("a node that is muted", () => {
  it.effect("gets nothing any more of what waited for it: what is NotSent has not been sent, and never will be", () =>
    Effect.gen(function*() {
      const { a, b } = yield* simulatedHarness()
      const { ask, tell } = Context.get(a, Delivery)
      assert.isTrue(Exit.isSuccess(yield* ask(to(b), parse, 5000)))
      yield* TestClock.adjust("1 second")
      const asks = [yield* fork(ask(to(b), never, 60_000)), yield* fork(ask(to(b), never, 60_000))]
      yield* tell(to(b, "y"), put(1))
      const large = yield* fork(ask(to(b, "z"), { ...parse, payload: { text: "1".repeat(500_000) } }, 60_000))
      yield* Context.get(a, Remoting).mute(addressOf(b))
      yield* TestClock.adjust("10 seconds")
      const outcomes = yield* Effect.forEach([...asks, large], Fiber.join)
      assert.deepStrictEqual(outcomes.map((exit) => unreachable(exit)?.outcome), ["Unknown", "NotSent", "NotSent"])
      assert.deepStrictEqual(deadLetters(a), ["y"])
      const received = Context.get(b, Recorders).received.map(({ tag, to }) => `${tag} ${to}`)
      assert.deepStrictEqual(received, ["Parse x", "Never x"])
    }))

  it.effect("gets nothing of whoever waits for room, who is told at once", () =>
    Effect.gen(function*() {
      const { a, b } = yield* simulatedHarness({ remoting: { outboxTimeout: "1 minute" } })
      const { ask, tell } = Context.get(a, Delivery)
      assert.isTrue(Exit.isSuccess(yield* ask(to(b), parse, 5000)))
      const { hold, received } = Context.get(b, Recorders)
      hold(true)
      const text = "x".repeat(60_000)
      let waiting: Fiber.Fiber<Exit.Exit<void, unknown>> | undefined
      for (let n = 0; n < 1000 && waiting === undefined; n++) {
        const telling = yield* fork(tell(to(b), put(n, text)))
        yield* TestClock.adjust("1 millis")
        if (telling.pollUnsafe() === undefined) waiting = telling
      }
      assert.isDefined(waiting)
      yield* Context.get(a, Remoting).mute(addressOf(b))
      yield* TestClock.adjust("1 millis")
      const exit = waiting!.pollUnsafe()
      assert.isDefined(exit, "is told")
      const { outcome, reason } = unreachable(yield* Fiber.join(waiting!))!
      assert.deepStrictEqual([outcome, reason], ["NotSent", "its lease is closed"])
      hold(false)
      yield* TestClock.adjust("1 minute")
      const lost = deadLetters(a).length
      assert.isAbove(lost, 100)
      assert.strictEqual(new Set(received.map(({ payload }) => (payload as { n: number }).n)).size, received.length)
    }))
})

describe("a node whose lease closes while it is dialed", () => {
  it.effect("is not connected to, whenever that is", () =>
    Effect.gen(function*() {
      for (let millis = 5; millis <= 200; millis += 10) {
        const network = yield* SimulatedNetwork.make({ seed: 1, latency: "20 millis" })
        const a = yield* startNode(network, "a")
        const b = yield* startNode(network, "b")
        const { tell } = Context.get(a, Delivery)
        const telling = yield* fork(tell(to(b), put(1)))
        yield* TestClock.adjust(millis)
        yield* Context.get(a, Remoting).shun(addressOf(b))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(telling)
        assert.deepStrictEqual(yield* Context.get(a, Remoting).connected, [], `${millis}`)
        const again = yield* fork(tell(to(b), put(2)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual(unreachable(yield* Fiber.join(again))?.reason, "its lease is closed", `${millis}`)
      }
    }).pipe(Effect.scoped))
})

describe("a node that stops", () => {
  it.effect("lets leave what waits for those it dialed and for those that dialed it", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 1 })
      const scope = yield* Scope.make()
      const a = yield* startNode(network, "a", { scope })
      const b = yield* startNode(network, "b")
      const [from, back] = [Context.get(a, Delivery), Context.get(b, Delivery)]
      assert.isTrue(Exit.isSuccess(yield* from.ask(to(b), parse, 5000)))
      assert.isTrue(Exit.isSuccess(yield* back.ask(to(a), parse, 5000)))
      yield* TestClock.adjust("1 second")
      const asking = yield* fork(back.ask(to(a), parse, 5000))
      for (let n = 0; n < 2000; n++) yield* from.tell(to(b), put(n))
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
      const received = Context.get(b, Recorders).received.filter(({ tag }) => tag === "Put")
      assert.deepStrictEqual(
        received.map(({ payload }) => (payload as { n: number }).n),
        Array.from({ length: 2000 }, (_, n) => n)
      )
      assert.deepStrictEqual(deadLetters(a), [])
      yield* Fiber.join(asking)
    }))
})

describe("a stranger that connects time and again and says nothing", () => {
  it.effect("keeps nobody out who comes from elsewhere", () =>
    Effect.gen(function*() {
      const { a, b, network } = yield* simulatedHarness()
      const { connect } = yield* network.transport("stranger")
      const { host, port } = addressOf(b)
      yield* Effect.forEach(Array.from({ length: 600 }), () =>
        Effect.forkChild(Effect.scoped(Effect.flatMap(connect({ host, port }), ({ receive }) => receive))))
      yield* TestClock.adjust("100 millis")
      const asking = yield* fork(Context.get(a, Delivery).ask(to(b), parse, 2000))
      yield* Effect.repeat(TestClock.adjust("10 millis"), { times: 150 })
      assert.deepStrictEqual(yield* Fiber.join(asking), Exit.succeed(Exit.succeed(42)))
    }))
})

describe("a session", () => {
  it.effect("that nobody reads any more, for whatever reason, is over", () =>
    Effect.gen(function*() {
      const fails = Effect.die(new Error("on purpose"))
      const { delivery } = yield* Effect.map(
        Effect.provide(Effect.context<Delivery>(), layerRecorders()),
        (context) => ({
          delivery: Context.get(context, Delivery)
        })
      )
      const side = yield* makeSide({ kind: Recorder, delivery, dialed: true, receive: fails })
      side.ask("Never", {})
      yield* Effect.exit(side.session.run)
      assert.strictEqual(side.session.over, "this side has failed")
      assert.deepStrictEqual(side.outcomes, ["Unknown"])
    }))
})

describe("an actor that the peer says is gone", () => {
  it.effect("is ActorStopped, whether it was written to before or not; the way to others stays as short as it was", () =>
    Effect.gen(function*() {
      const context = yield* Effect.provide(Effect.context<Delivery>(), layerRecorders())
      const side = yield* makeSide({ kind: Recorder, delivery: Context.get(context, Delivery), dialed: true })
      const { session, wire } = side
      const route = { address: to(yield* startNode(yield* SimulatedNetwork.make({}), "b"), "y"), found: undefined }
      const tell = (name: string) => side.tell("Put", { n: 1 }, name)
      const gone = (name: string) =>
        session.take([
          new Writer().byte(Handshake.FrameType.Data).byte(Op.Gone).text(Recorder.name).text(name).varint(1).varint(1)
            .take()
        ])
      for (const name of ["x", "y"]) tell(name)
      const bytes = () => {
        wire.taken.length = 0
        tell("y")
        return wire.taken[0]!
      }
      const before = bytes()
      const { messages } = side
      messages.outgoing.tell(session, route.address, put(1), route)
      gone("x")
      gone("z")
      for (const name of ["x", "z"]) assert.strictEqual((tell(name) as ActorStopped)._tag, "ActorStopped")
      assert.deepStrictEqual(bytes(), before)
      gone("y")
      const last = messages.outgoing.tell(session, route.address, put(1), route)
      assert.strictEqual((last as ActorStopped)._tag, "ActorStopped")
      side.ask("Never", {}, "y")
      assert.deepStrictEqual(side.outcomes, ["Other"])
    }).pipe(Effect.scoped))
})

describe("a node of many kinds", () => {
  const kinds = new Map(Array.from({ length: 1000 }, (_, i) => [`kind-${i}`.padEnd(200, "x"), "f".repeat(64)]))
  const identity = (id: string) => identityOf(id, { windowBytes: 1024 * 1024, kinds })

  it("says in its handshake what fits there, and the rest is evolving to others", () => {
    const config: Handshake.Config = {
      self: identity("a"),
      nonce: new Uint8Array(Handshake.nonceBytes),
      secrets: [],
      insecure: true,
      peer: "b",
      admit: () => undefined
    }
    const [state, commands] = Handshake.dial(config)
    const hello = commands[0]!
    assert.isTrue(hello._tag === "Send" && hello.frame.length <= Handshake.maxHandshakeBytes)
    if (hello._tag !== "Send") return
    const [, answer] = Handshake.step(Handshake.accept()[0], { ...config, self: identity("b") }, hello.frame)
    const welcome = answer[0]!
    assert.isTrue(welcome._tag === "Send" && welcome.frame.length <= Handshake.maxHandshakeBytes)
    if (welcome._tag !== "Send") return
    const [next] = Handshake.step(state, config, welcome.frame)
    assert.isTrue(next._tag === "AwaitAccepted" && next.peer.kinds.size > 50)
    assert.isAtMost(Handshake.kindsFrame(kinds, 64 * 1024).length, 64 * 1024)
  })
})

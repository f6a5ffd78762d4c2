// Calls, handshake, heartbeats and refusals between nodes, in virtual time.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Redacted, Schema, Scope } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import { type Caller, Remoting } from "../../src/Remoting/Remoting.ts"
import { Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import type { Transport } from "../../src/Remoting/Transport.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { simulatedHarness, startNode } from "./support.ts"

class Odd extends Schema.TaggedError<Odd>()("Odd", { n: Schema.Int }) {}

class Group extends RpcGroup.make(
  Rpc.make("Half", { payload: { n: Schema.Int }, success: Schema.Int, error: Odd }),
  Rpc.make("Hang", {}),
  Rpc.make("Boom", {})
) {}

const interrupted: Array<string> = []
const handlers = Group.toLayer({
  Half: ({ n }) => n % 2 === 0 ? Effect.succeed(n / 2) : Effect.fail(new Odd({ n })),
  Hang: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted.push("Hang"))),
  Boom: () => Effect.die(new Error("kaboom"))
})

const remotingOf = (node: Context.Context<Remoting>) => Context.get(node, Remoting)
const addressOf = (node: Context.Context<Node>) => Context.get(node, Node).address

/** Runs an effect and moves the clock until it is done. */
const settle = <A, E, R>(effect: Effect.Effect<A, E, R>, steps = 100) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < steps && fiber.pollUnsafe() === undefined; i++) yield* pass
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* Fiber.join(fiber)
  })

/** Lets some time and many turns pass. */
const pass = Effect.repeat(TestClock.adjust("10 millis"), { times: 20 })

const failure = <A, E>(exit: Exit.Exit<A, E>): E => {
  assert.isTrue(Exit.isFailure(exit))
  const error = Exit.findErrorOption(exit as Exit.Exit<never, E>)
  assert.isTrue(error._tag === "Some", "a typed failure")
  return (error as { value: E }).value
}

const served = Effect.fnUntraced(function*() {
  const harness = yield* simulatedHarness()
  const scope = yield* Scope.make()
  yield* remotingOf(harness.b).serve(Group).pipe(
    Effect.provide(handlers),
    Scope.provide(scope)
  )
  return { ...harness, scope, remoting: remotingOf(harness.a), b: addressOf(harness.b), nodeB: harness.b }
})

describe("Remoting.call", () => {
  it.effect("answers with success and typed error, here and there", () =>
    Effect.gen(function*() {
      const { remoting, b, nodeB } = yield* served()
      assert.strictEqual(yield* remoting.call(b, Group, "Half", { n: 8 }), 4)
      const error = failure(yield* Effect.exit(remoting.call(b, Group, "Half", { n: 7 })))
      assert.isTrue(error instanceof Odd && error.n === 7)
      assert.strictEqual(yield* remotingOf(nodeB).call(b, Group, "Half", { n: 10 }), 5)
    }))

  it.effect("by endpoint alone reaches whoever is there", () =>
    Effect.gen(function*() {
      const { remoting, b } = yield* served()
      assert.strictEqual(yield* remoting.call({ host: b.host, port: b.port }, Group, "Half", { n: 2 }), 1)
      assert.deepStrictEqual((yield* remoting.connected).map((node) => node.id), ["b"])
    }))

  it.effect("answers, and hearts beat, though no message gets through any more", () =>
    Effect.gen(function*() {
      const { a, b, remoting, nodeB } = yield* served()
      Context.get(nodeB, Recorders).hold(true)
      const to = { kind: Recorder.name, name: "x", node: b, placement: 1, epoch: 1 }
      const put = { kind: Recorder, tag: "Put", payload: { n: 1, text: "x".repeat(60_000) } }
      const full = failure(yield* settle(Effect.forever(Context.get(a, Delivery).tell(to, put)), 2000))
      assert.strictEqual((full as NodeUnreachable).reason, "the outbox is full")
      assert.strictEqual(yield* remoting.call(b, Group, "Half", { n: 8 }), 4)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* remoting.call(b, Group, "Half", { n: 6 }), 3)
      assert.deepStrictEqual((yield* remoting.connected).map((node) => node.id), ["b"])
    }))

  it.effect("a defect of a handler fails that call only", () =>
    Effect.gen(function*() {
      const { remoting, b } = yield* served()
      const hanging = yield* Effect.forkChild(remoting.call(b, Group, "Hang", undefined), { startImmediately: true })
      const died = failure(yield* settle(remoting.call(b, Group, "Boom", undefined)))
      assert.isTrue(died instanceof NodeUnreachable && died.outcome === "Unknown" && died.reason.includes("kaboom"))
      assert.isUndefined(hanging.pollUnsafe())
      yield* Fiber.interrupt(hanging)
    }))

  it.effect("the deadline is Unknown to the caller and interrupts the handler", () =>
    Effect.gen(function*() {
      const { remoting, b } = yield* served()
      interrupted.length = 0
      const late = failure(yield* settle(remoting.call(b, Group, "Hang", undefined, { timeout: "1 second" })))
      assert.strictEqual((late as NodeUnreachable).outcome, "Unknown")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(interrupted, ["Hang"])
    }))

  it.effect("the deadline goes with the call: the handler ends by it where nothing more gets there", () =>
    Effect.gen(function*() {
      const { network, remoting, b } = yield* served()
      interrupted.length = 0
      yield* Effect.forkChild(Effect.exit(remoting.call(b, Group, "Hang", undefined, { timeout: "1 second" })), {
        startImmediately: true
      })
      yield* pass
      network.partition(["a"], ["b"])
      yield* TestClock.adjust("600 millis")
      assert.deepStrictEqual(interrupted, [])
      yield* pass
      yield* pass
      assert.deepStrictEqual(interrupted, ["Hang"])
    }))

  it.effect("interrupting the caller interrupts the handler", () =>
    Effect.gen(function*() {
      const { remoting, b } = yield* served()
      interrupted.length = 0
      const calling = yield* Effect.forkChild(remoting.call(b, Group, "Hang", undefined), { startImmediately: true })
      yield* pass
      yield* Fiber.interrupt(calling)
      yield* pass
      assert.deepStrictEqual(interrupted, ["Hang"])
    }))

  it.effect("a server that stops is a typed failure, not an interruption; what is not served is NotSent", () =>
    Effect.gen(function*() {
      const { remoting, b, scope } = yield* served()
      const hanging = yield* Effect.forkChild(Effect.exit(remoting.call(b, Group, "Hang", undefined)), {
        startImmediately: true
      })
      yield* pass
      yield* Scope.close(scope, Exit.void)
      const stopped = failure(yield* settle(Fiber.join(hanging).pipe(Effect.flatten)))
      assert.strictEqual((stopped as NodeUnreachable).outcome, "Unknown")
      const missing = failure(yield* settle(remoting.call(b, Group, "Half", { n: 2 })))
      assert.strictEqual((missing as NodeUnreachable).outcome, "NotSent")
    }))

  it.effect("{a} | {b} => calls in flight are Unknown within seconds, later ones NotSent, and all is well once healed", () =>
    Effect.gen(function*() {
      const { network, remoting, b } = yield* served()
      assert.strictEqual(yield* remoting.call(b, Group, "Half", { n: 2 }), 1)
      network.partition(["a"], ["b"])
      const cut = failure(yield* settle(remoting.call(b, Group, "Half", { n: 4 }, { timeout: "1 minute" })))
      assert.strictEqual((cut as NodeUnreachable).outcome, "Unknown")
      const down = failure(yield* settle(remoting.call(b, Group, "Half", { n: 4 })))
      assert.strictEqual((down as NodeUnreachable).outcome, "NotSent")
      network.heal()
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* remoting.call(b, Group, "Half", { n: 2 }), 1)
    }))

  it.effect("a group that is not for everybody is NotSent for the others, with the reason, and stays open for its own node", () =>
    Effect.gen(function*() {
      const harness = yield* simulatedHarness()
      const { id } = addressOf(harness.b)
      const admit = (caller: Caller) => caller.client || caller.id !== "c" ? `${caller.id} is not served` : undefined
      yield* remotingOf(harness.b).serve(Group, { admit }).pipe(Effect.provide(handlers))
      const to = addressOf(harness.b)
      const refused = failure(yield* settle(remotingOf(harness.a).call(to, Group, "Half", { n: 2 })))
      assert.isTrue(refused instanceof NodeUnreachable && refused.outcome === "NotSent")
      assert.include(refused.message, "a is not served")
      const c = yield* startNode(harness.network, "c")
      assert.strictEqual(yield* remotingOf(c).call(to, Group, "Half", { n: 2 }), 1)
      assert.strictEqual(yield* remotingOf(harness.b).call({ ...to, id }, Group, "Half", { n: 2 }), 1)
    }))

  it.effect("with latency it takes a round trip of virtual time", () =>
    Effect.gen(function*() {
      const harness = yield* simulatedHarness({ network: { latency: "20 millis" } })
      yield* remotingOf(harness.b).serve(Group).pipe(Effect.provide(handlers))
      const to = addressOf(harness.b)
      yield* settle(remotingOf(harness.a).call(to, Group, "Half", { n: 2 }))
      const calling = yield* Effect.forkChild(remotingOf(harness.a).call(to, Group, "Half", { n: 2 }), {
        startImmediately: true
      })
      yield* TestClock.adjust("39 millis")
      assert.isUndefined(calling.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* Fiber.join(calling), 1)
    }))
})

describe("who is let in", () => {
  const pair = Effect.fnUntraced(function*(a: Parameters<typeof startNode>[2], b: Parameters<typeof startNode>[2]) {
    const network = yield* SimulatedNetwork.make({ seed: 5 })
    const nodeA = yield* startNode(network, "a", a)
    const nodeB = yield* startNode(network, "b", b)
    yield* remotingOf(nodeB).serve(Group).pipe(Effect.provide(handlers))
    const exit = yield* settle(remotingOf(nodeA).call(addressOf(nodeB), Group, "Half", { n: 2 }))
    const refused = (node: Context.Context<Recorders>) =>
      Context.get(node, Recorders).events.flatMap((event) => event._tag === "PeerRefused" ? [event.reason] : [])
    return { exit, a: refused(nodeA), b: refused(nodeB) }
  })
  const secret = (text: string) => ({ remoting: { secret: Redacted.make(text) } })

  it.effect("the same secret", () =>
    Effect.gen(function*() {
      assert.isTrue(Exit.isSuccess((yield* pair(secret("s"), secret("s"))).exit))
    }))

  it.effect("not another secret, nor none: NotSent with that reason, PeerRefused there", () =>
    Effect.gen(function*() {
      for (const [x, y] of [[secret("s"), secret("t")], [secret("s"), {}], [{}, secret("s")]] as const) {
        const { exit, a, b } = yield* pair(x, y)
        const error = failure(exit) as NodeUnreachable
        assert.strictEqual(error.outcome, "NotSent")
        assert.include(error.reason, "authentication failed")
        assert.deepStrictEqual([...a, ...b], ["authentication failed"])
      }
    }))

  it.effect("an old secret while the new one is rolled out, in both directions", () =>
    Effect.gen(function*() {
      const both = { remoting: { secret: Redacted.make("new"), previousSecret: Redacted.make("old") } }
      for (
        const [x, y] of [[secret("old"), both], [both, secret("old")], [both, both], [secret("new"), both]] as const
      ) {
        assert.isTrue(Exit.isSuccess((yield* pair(x, y)).exit))
      }
      assert.isTrue(Exit.isFailure((yield* pair(secret("other"), both)).exit))
    }))

  it.effect("without a secret nobody off loopback, unless allowed by name", () =>
    Effect.gen(function*() {
      const far = (inner: Transport["Service"]): Transport["Service"] => ({
        ...inner,
        connect: (to) => Effect.map(inner.connect(to), (connection) => ({ ...connection, loopback: false }))
      })
      const { exit, a } = yield* pair({ through: far }, {})
      assert.include((failure(exit) as NodeUnreachable).reason, "authentication failed")
      assert.deepStrictEqual(a, ["authentication failed"])
      assert.isTrue(Exit.isSuccess((yield* pair({ through: far, remoting: { allowInsecure: true } }, {})).exit))
      assert.isTrue(Exit.isSuccess((yield* pair({ through: far, ...secret("s") }, secret("s"))).exit))
    }))

  it.effect("each handshake has nonces of its own, so that none that was heard opens another connection", () =>
    Effect.gen(function*() {
      const said: Array<string> = []
      const network = yield* SimulatedNetwork.make({
        seed: 5,
        onFrame: (_from, _to, frame) => {
          if (frame[0] === FrameType.Hello || frame[0] === FrameType.Welcome) {
            said.push(Buffer.from(frame).toString("hex"))
          }
        }
      })
      const nodeA = yield* startNode(network, "a", secret("s"))
      const nodeB = yield* startNode(network, "b", secret("s"))
      yield* remotingOf(nodeB).serve(Group).pipe(Effect.provide(handlers))
      for (let times = 0; times < 5; times++) {
        yield* settle(remotingOf(nodeA).call(addressOf(nodeB), Group, "Half", { n: 2 }))
        network.reset(["a"], ["b"])
        yield* pass
      }
      // a Hello and a Welcome each time, of the same nodes and settings: nothing but the nonce is new
      assert.isAtLeast(said.length, 10)
      assert.strictEqual(new Set(said).size, said.length)
    }))

  it.effect("not another system", () =>
    Effect.gen(function*() {
      const { exit, b } = yield* pair({ system: "one" }, { system: "two" })
      assert.include((failure(exit) as NodeUnreachable).reason, "system: ours one, theirs two")
      assert.deepStrictEqual(b, ["system: ours two, theirs one"])
    }))

  it.effect("not an incarnation whose lease is closed, in either direction", () =>
    Effect.gen(function*() {
      const harness = yield* simulatedHarness()
      const [a, b] = [remotingOf(harness.a), remotingOf(harness.b)]
      yield* a.serve(Group).pipe(Effect.provide(handlers))
      yield* b.serve(Group).pipe(Effect.provide(handlers))
      yield* a.call(addressOf(harness.b), Group, "Half", { n: 2 })
      yield* a.shun(addressOf(harness.b))
      yield* pass
      assert.deepStrictEqual(yield* b.connected, [])
      const out = failure(yield* settle(a.call(addressOf(harness.b), Group, "Half", { n: 2 })))
      assert.include((out as NodeUnreachable).reason, "lease is closed")
      const back = failure(yield* settle(b.call(addressOf(harness.a), Group, "Half", { n: 2 })))
      assert.include((back as NodeUnreachable).reason, "lease is closed")
    }))
})

describe("a node that is muted", () => {
  it.effect("gets and gives no messages, while calls still reach it", () =>
    Effect.gen(function*() {
      const harness = yield* simulatedHarness()
      yield* remotingOf(harness.b).serve(Group).pipe(Effect.provide(handlers))
      const [a, b] = [Context.get(harness.a, Delivery), Context.get(harness.b, Delivery)]
      const at = (node: Context.Context<Node>) => ({
        kind: Recorder.name,
        name: "x",
        node: addressOf(node),
        placement: 1,
        epoch: 1
      })
      const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
      const received = (node: Context.Context<Recorders>) => Context.get(node, Recorders).received.length
      yield* settle(a.tell(at(harness.b), put(1)))
      yield* settle(b.tell(at(harness.a), put(1)))
      const never = { kind: Recorder, tag: "Never", payload: {} }
      const asking = yield* Effect.forkChild(Effect.exit(a.ask(at(harness.b), never, 60_000)), {
        startImmediately: true
      })
      yield* pass
      yield* remotingOf(harness.a).mute(addressOf(harness.b))
      assert.strictEqual(
        (failure(yield* Effect.flatten(Fiber.join(asking)).pipe(Effect.exit)) as NodeUnreachable).outcome,
        "Unknown"
      )
      const refused = failure(yield* settle(a.tell(at(harness.b), put(2)))) as NodeUnreachable
      assert.deepStrictEqual([refused.outcome, refused.reason], ["NotSent", "its lease is closed"])
      yield* settle(b.tell(at(harness.a), put(2)))
      yield* pass
      assert.deepStrictEqual([received(harness.a), received(harness.b)], [1, 2])
      // nor by a connection that comes later
      harness.network.reset(["a"], ["b"])
      yield* pass
      yield* settle(Effect.retry(b.tell(at(harness.a), put(3)), { times: 5 }))
      yield* pass
      assert.deepStrictEqual([received(harness.a), received(harness.b)], [1, 2])
      assert.strictEqual(yield* remotingOf(harness.a).call(addressOf(harness.b), Group, "Half", { n: 2 }), 1)
    }))
})

describe("a node that restarts", () => {
  it.effect("is another incarnation: the old address fails NotSent, the new one works", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 5 })
      const a = yield* startNode(network, "a")
      const scope = yield* Scope.make()
      const old = yield* startNode(network, "b", { scope })
      const delivery = Context.get(a, Delivery)
      const at = (node: Context.Context<Node>) => ({
        kind: Recorder.name,
        name: "x",
        node: addressOf(node),
        placement: 1,
        epoch: 1
      })
      const put = { kind: Recorder, tag: "Put", payload: { n: 1 } }
      yield* delivery.tell(at(old), put)
      network.crash("b")
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 second")
      const fresh = yield* startNode(network, "b", { seed: "b, once more" })
      const [before, after] = [addressOf(old), addressOf(fresh)]
      assert.deepStrictEqual([after.id, after.host, after.port], [before.id, before.host, before.port])
      assert.notStrictEqual(after.incarnation, before.incarnation)
      const refused = failure(yield* settle(delivery.tell(at(old), put))) as NodeUnreachable
      assert.deepStrictEqual([refused.outcome, refused.reason], ["NotSent", "another incarnation answers there"])
      yield* settle(delivery.tell(at(fresh), put))
      yield* pass
      assert.strictEqual(Context.get(fresh, Recorders).received.length, 1)
    }))
})

describe("same seed, same run", () => {
  const run = (seed: number) =>
    Effect.gen(function*() {
      const trace: Array<string> = []
      const network = yield* SimulatedNetwork.make({
        seed,
        latency: "5 millis",
        jitter: "10 millis",
        onFrame: (from, to, frame) => trace.push(`${from} ${to} ${Buffer.from(frame).toString("hex")}`)
      })
      const a = yield* startNode(network, "a")
      const b = yield* startNode(network, "b")
      yield* remotingOf(b).serve(Group).pipe(Effect.provide(handlers))
      for (let n = 0; n < 20; n++) yield* settle(remotingOf(a).call(addressOf(b), Group, "Half", { n: n * 2 }))
      return trace.join("\n")
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(TestClock.layer())))

  it.effect("frames are the same to the byte, and another seed differs", () =>
    Effect.gen(function*() {
      const first = yield* run(1)
      assert.strictEqual(yield* run(1), first)
      assert.isTrue(first.length > 1000)
    }))
})

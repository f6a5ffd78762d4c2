// One address that leads to several nodes, as a load balancer's does: who is wanted is found, never confused with who answers.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Redacted } from "effect"
import { TestClock } from "effect/testing"
import type { NodeAddress } from "../../src/Actor/Address.ts"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import { ClientRpcs } from "../../src/Remoting/ClientRpcs.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import type { Transport } from "../../src/Remoting/Transport.ts"
import { Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { startNode } from "./support.ts"

const shared = { host: "balancer", port: 443 }
const secret = Redacted.make("s")

type Choose = (dial: number, from: string) => string

/** Nodes that all advertise the balancer's address; `choose` says where it leads. */
const behind = Effect.fnUntraced(function*(hosts: ReadonlyArray<string>, choose: Choose) {
  const network = yield* SimulatedNetwork.make({ seed: 3 })
  const balancer = { choose, dials: [] as Array<string> }
  const through = (host: string) => (inner: Transport["Service"]): Transport["Service"] => ({
    ...inner,
    address: shared,
    connect: (to) => {
      if (to.host !== shared.host) return inner.connect(to)
      const chosen = balancer.choose(balancer.dials.length, host)
      balancer.dials.push(chosen)
      return inner.connect({ host: chosen, port: inner.address.port })
    }
  })
  const remoting = { secret, advertisedHost: shared.host, advertisedPort: shared.port }
  const nodes = yield* Effect.forEach(hosts, (host) => startNode(network, host, { remoting, through: through(host) }))
  return { balancer, network, nodes }
})

const addressOf = (node: Context.Context<Node>) => Context.get(node, Node).address
const to = (node: NodeAddress, name = "x") => ({ kind: Recorder.name, name, node, placement: 1, epoch: 1 })
const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
const received = (node: Context.Context<Recorders>) =>
  Context.get(node, Recorders).received.map(({ payload }) => payload)
const refusals = (node: Context.Context<Recorders>) =>
  Context.get(node, Recorders).events.filter((event) => event._tag === "PeerRefused")

const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < 1000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("10 millis")
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* yield* Fiber.join(fiber)
  })

const inTurn = (hosts: ReadonlyArray<string>): Choose => (dial) => hosts[dial % hosts.length]!

describe("one address for many nodes", () => {
  it.effect("each message reaches the very node that it is for, wherever a dial ends", () =>
    Effect.gen(function*() {
      for (const order of ["abcd", "dcba", "aaab", "cdad"]) {
        const { nodes } = yield* behind(["a", "b", "c", "d"], inTurn([...order, "b", "c", "d"]))
        const [a, ...others] = nodes
        for (const [index, other] of others.entries()) {
          for (const n of [1, 2]) {
            yield* settle(Context.get(a!, Delivery).tell(to(addressOf(other)), put(index * 10 + n)))
          }
        }
        yield* TestClock.adjust("1 second")
        for (const [index, other] of others.entries()) {
          assert.deepStrictEqual(received(other), [{ n: index * 10 + 1 }, { n: index * 10 + 2 }])
        }
        assert.deepStrictEqual(received(a!), [])
      }
    }))

  it.effect("who was met on the way is kept, so that a balancer which prefers idle nodes leads on", () =>
    Effect.gen(function*() {
      const open = new Map<string, number>()
      // always the node with the fewest dials so far that stuck
      const { balancer, nodes } = yield* behind(["a", "b", "c", "d"], () => {
        const least = ["b", "c", "d"].sort((x, y) => (open.get(x) ?? 0) - (open.get(y) ?? 0))[0]!
        open.set(least, (open.get(least) ?? 0) + 1)
        return least
      })
      const [a, b, c, d] = nodes
      yield* settle(Context.get(a!, Delivery).tell(to(addressOf(d!)), put(1)))
      assert.deepStrictEqual(balancer.dials, ["b", "c", "d"])
      for (const other of [b!, c!]) yield* settle(Context.get(a!, Delivery).tell(to(addressOf(other)), put(2)))
      assert.strictEqual(balancer.dials.length, 3, "nobody had to be dialed again")
      assert.deepStrictEqual((yield* Context.get(a!, Remoting).connected).map(({ id }) => id).sort(), ["b", "c", "d"])
      for (const node of nodes) assert.deepStrictEqual(refusals(node), [], "meeting another node is no refusal")
    }))

  it.effect("a balancer that never leads there: NotSent after a bounded number of dials, and nobody else got the message", () =>
    Effect.gen(function*() {
      for (const stuck of ["a", "b"]) {
        const { balancer, nodes } = yield* behind(["a", "b", "c"], () => stuck)
        const [a, b, c] = nodes
        const error = yield* Effect.flip(settle(Context.get(a!, Delivery).tell(to(addressOf(c!)), put(1))))
        if (!(error instanceof NodeUnreachable)) return assert.fail(error._tag)
        assert.strictEqual(error.outcome, "NotSent")
        assert.include(error.reason, stuck === "a" ? "node a answers there" : "node c did not answer there")
        assert.strictEqual(balancer.dials.length, 12)
        for (const node of [a!, b!, c!]) assert.deepStrictEqual(received(node), [])
        // and then it backs off instead of dialing for each message
        yield* Effect.flip(Context.get(a!, Delivery).tell(to(addressOf(c!)), put(2)))
        assert.strictEqual(balancer.dials.length, 12)
        // once it leads there, it is reached
        balancer.choose = () => "c"
        yield* TestClock.adjust("3 seconds")
        yield* settle(Context.get(a!, Delivery).tell(to(addressOf(c!)), put(3)))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(received(c!), [{ n: 3 }])
      }
    }))

  it.effect("the same node's next start is not the one that was wanted: refused at once", () =>
    Effect.gen(function*() {
      const { balancer, nodes } = yield* behind(["a", "b"], () => "b")
      const fresh = nodes[1]!
      const old = { ...addressOf(fresh), incarnation: "of an earlier start" }
      const error = yield* Effect.flip(settle(Context.get(nodes[0]!, Delivery).tell(to(old), put(1))))
      assert.isTrue(error instanceof NodeUnreachable && error.reason.includes("another incarnation"))
      assert.strictEqual(balancer.dials.length, 1)
      assert.deepStrictEqual(received(fresh), [])
    }))

  it.effect("a balancer whose choice is down closes the connection: another dial finds one that is up", () =>
    Effect.gen(function*() {
      const { network, nodes, balancer } = yield* behind(["a", "b"], () => "b")
      const close = network.reset
      // the first two connections end before anybody has answered
      balancer.choose = (dial) => {
        if (dial < 2) queueMicrotask(() => close(["a"], ["b"]))
        return "b"
      }
      yield* settle(Context.get(nodes[0]!, Delivery).tell(to(addressOf(nodes[1]!)), put(1)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(received(nodes[1]!), [{ n: 1 }])
      assert.isAtMost(balancer.dials.length, 3)
    }))

  it.effect("a node reached by its own address and by the balancer's stays on its one connection", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 3 })
      const b = yield* startNode(network, "b")
      const a = yield* startNode(network, "a", {
        through: (inner) => ({
          ...inner,
          connect: (to) => inner.connect(to.host === "alias" ? { host: "b", port: addressOf(b).port } : to)
        })
      })
      const never = { kind: Recorder, tag: "Never", payload: {} }
      const asking = yield* Effect.forkChild(
        Effect.exit(Context.get(a, Delivery).ask(to(addressOf(b)), never, 60_000)),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      // by its endpoint only, both one after the other and at once
      const call = Effect.exit(
        Context.get(a, Remoting).call({ host: "alias", port: 1 }, ClientRpcs, "Client.Info", undefined)
      )
      yield* settle(Effect.all([call, call], { concurrency: 2 }))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(asking.pollUnsafe(), "what was asked before is still waited for")
      yield* Fiber.interrupt(asking)
    }))

  it.effect("two dials to one node at once, by different addresses, end in one connection that both use", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 3, latency: "5 millis" })
      const b = yield* startNode(network, "b")
      const a = yield* startNode(network, "a", {
        through: (inner) => ({
          ...inner,
          connect: (to) => inner.connect(to.host === "alias" ? { host: "b", port: addressOf(b).port } : to)
        })
      })
      const ask = Context.get(a, Delivery).ask(
        to(addressOf(b)),
        { kind: Recorder, tag: "Parse", payload: { text: "42" } },
        5000
      )
      const call = Effect.exit(
        Context.get(a, Remoting).call({ host: "alias", port: 1 }, ClientRpcs, "Client.Info", undefined)
      )
      const [answer, called] = yield* settle(Effect.all([ask, call], { concurrency: 2 }))
      assert.deepStrictEqual(answer, Exit.succeed(42))
      assert.include(String(Exit.isFailure(called) && called.cause), "is not served")
    }))
})

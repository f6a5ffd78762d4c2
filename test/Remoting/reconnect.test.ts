// How a node dials again: pauses that grow, differ and are bounded, and what is no message any more once the peer has dialed anew.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import { type ContractNode, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { startNode } from "./support.ts"

const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
const to = (node: ContractNode) => ({
  kind: Recorder.name,
  name: "x",
  node: Context.get(node, Node).address,
  placement: 1,
  epoch: 1
})
const numbers = (node: ContractNode) =>
  Context.get(node, Recorders).received.map(({ payload }) => (payload as { readonly n: number }).n)

/** Steps of a millisecond, with something at each. */
const steps = <A, E, R>(millis: number, each: Effect.Effect<A, E, R>) =>
  Effect.repeat(Effect.andThen(each, TestClock.adjust("1 millis")), { times: millis - 1 })

describe("a peer that cannot be dialed", () => {
  it.effect(
    "is dialed after pauses that double up to a bound, each of another length",
    () =>
      Effect.gen(function*() {
        const network = yield* SimulatedNetwork.make({ seed: 1 })
        const dials: Array<number> = []
        let now = 0
        const a = yield* startNode(network, "a", {
          remoting: { reconnectDelay: "100 millis", reconnectDelayMax: "800 millis" },
          through: (inner) => ({
            ...inner,
            connect: (address) => {
              dials.push(now)
              return inner.connect(address)
            }
          })
        })
        const scope = yield* Scope.make()
        const b = yield* startNode(network, "b", { scope })
        const { tell } = Context.get(a, Delivery)
        const outcomes = new Set<string>()
        const telling = Effect.andThen(
          Effect.forkChild(
            Effect.match(tell(to(b), put(1)), {
              onFailure: (error) => void outcomes.add(error._tag === "NodeUnreachable" ? error.outcome : error._tag),
              onSuccess: () => {}
            }),
            { startImmediately: true }
          ),
          Effect.sync(() => void now++)
        )
        const pauses = () => dials.slice(1).map((at, index) => at - dials[index]!)
        const stop = Effect.suspend(() => {
          network.crash("b")
          dials.length = 0
          return Scope.close(scope, Exit.void)
        })
        yield* steps(10, telling)
        assert.strictEqual(dials.length, 1)
        yield* stop
        yield* steps(20_000, telling)
        assert.deepStrictEqual([...outcomes], ["NotSent"])
        for (const [index, pause] of pauses().entries()) {
          const most = Math.min(100 * 2 ** index, 800)
          assert.isAtLeast(pause, most / 2)
          assert.isAtMost(pause, most + 2)
        }
        const later = pauses().slice(3)
        assert.isAtLeast(later.length, 20)
        assert.isAtLeast(new Set(later).size, 10, "so that many nodes do not come at once")
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect("is dialed quickly again once it was connected", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 2 })
      const dials: Array<number> = []
      let now = 0
      const a = yield* startNode(network, "a", {
        remoting: { reconnectDelay: "100 millis", reconnectDelayMax: "30 seconds" },
        through: (inner) => ({
          ...inner,
          connect: (address) => {
            dials.push(now)
            return inner.connect(address)
          }
        })
      })
      const b = yield* startNode(network, "b")
      const { tell } = Context.get(a, Delivery)
      const telling = Effect.andThen(
        Effect.forkChild(Effect.ignore(tell(to(b), put(1))), { startImmediately: true }),
        Effect.sync(() => void now++)
      )
      /** The pauses while it is refused for so long. */
      const refused = (millis: number) =>
        Effect.gen(function*() {
          network.reject(["a"], ["b"])
          dials.length = 0
          yield* steps(millis, telling)
          network.heal()
          return dials.slice(1).map((at, index) => at - dials[index]!)
        })
      yield* steps(10, telling)
      const before = yield* refused(5000)
      assert.isAbove(before.at(-1)!, 800)
      yield* steps(10_000, telling)
      const [first] = yield* refused(1000)
      assert.isAtMost(first!, 102)
    }).pipe(Effect.scoped), 60_000)
})

describe("a connection that its dialer has given up", () => {
  it.effect("brings nothing any more once the peer has dialed anew, whatever is still on its way", () =>
    Effect.gen(function*() {
      // what goes by the first connection takes longer than pings wait for
      const way = { millis: 0 }
      let hellos = 0
      const network = yield* SimulatedNetwork.make({
        seed: 3,
        latency: (from) => from === "a" ? way.millis : 0,
        onFrame: (_from, _to, frame) => {
          if (frame[0] === FrameType.Hello) hellos++
        }
      })
      const a = yield* startNode(network, "a", { remoting: { pingInterval: "100 millis", pingTimeout: "300 millis" } })
      const b = yield* startNode(network, "b")
      const { tell } = Context.get(a, Delivery)
      yield* tell(to(b), put(1))
      yield* TestClock.adjust("10 millis")
      way.millis = 1500
      for (const n of [2, 3]) yield* tell(to(b), put(n))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Context.get(a, Remoting).connected, [], "it is given up here")
      assert.deepStrictEqual((yield* Context.get(b, Remoting).connected).map(({ id }) => id), ["a"], "and not there")
      way.millis = 0
      yield* tell(to(b), put(4))
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual([numbers(b), hellos], [[1, 4], 2])
      yield* TestClock.adjust("10 seconds")
      yield* tell(to(b), put(5))
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(numbers(b), [1, 4, 5])
    }).pipe(Effect.scoped))
})

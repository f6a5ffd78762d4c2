// Whoever has not proved yet who it is: how many of them a node holds, and for how long.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import { Recorder } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { startNode } from "./support.ts"

const world = Effect.gen(function*() {
  const network = yield* SimulatedNetwork.make({ seed: 1 })
  const a = yield* startNode(network, "a")
  const b = yield* startNode(network, "b")
  const node = Context.get(b, Node).address
  const to = { kind: Recorder.name, name: "x", node, placement: 1, epoch: 1 }
  const ask = Context.get(a, Delivery).ask(to, { kind: Recorder, tag: "Parse", payload: { text: "42" } }, 5000)
  /** Connections from that host that say nothing; each fiber ends when the other side ends its connection. */
  const connect = Effect.fnUntraced(function*(host: string, count: number) {
    const transport = yield* network.transport(host)
    return yield* Effect.forEach(Array.from({ length: count }), () =>
      Effect.forkChild(
        Effect.scoped(Effect.gen(function*() {
          const connection = yield* transport.connect(node)
          return yield* Effect.flip(Effect.forever(connection.receive))
        }))
      ))
  })
  return { ask, b, connect }
})

/** Lets some time and many turns pass. */
const pass = Effect.repeat(TestClock.adjust("1 millis"), { times: 200 })

const open = (fibers: ReadonlyArray<Fiber.Fiber<unknown, unknown>>) =>
  fibers.filter((fiber) => fiber.pollUnsafe() === undefined).length

describe("strangers", () => {
  it.effect("are held up to a number from one address and in all, and for handshakeTimeout", () =>
    Effect.gen(function*() {
      const { ask, b, connect } = yield* world
      yield* ask
      const first = yield* connect("host-0", 100)
      yield* pass
      assert.strictEqual(open(first), 64)
      const others = yield* Effect.forEach(["host-1", "host-2", "host-3", "host-4"], (host) => connect(host, 100))
      yield* pass
      assert.deepStrictEqual(others.map(open), [64, 64, 64, 0])
      // who is known is not one of them
      yield* ask
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(open([...first, ...others.flat()]), 0)
      const later = yield* connect("host-0", 10)
      yield* pass
      assert.strictEqual(open(later), 10)
      assert.deepStrictEqual((yield* Context.get(b, Remoting).connected).map(({ id }) => id), ["a"])
    }).pipe(Effect.scoped))
})

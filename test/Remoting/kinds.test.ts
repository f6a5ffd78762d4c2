// Kinds that nodes tell each other of: in the handshake, and whenever one is registered or withdrawn.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Random, Schema, Scope } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/Actor/Actor.ts"
import * as ActorHost from "../../src/Actor/ActorHost.ts"
import * as ActorSystem from "../../src/Actor/ActorSystem.ts"
import * as Delivery from "../../src/Actor/Delivery.ts"
import * as Placement from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Topology from "../../src/Actor/Topology.ts"
import { FrameType, readKinds } from "../../src/Remoting/internal/handshake.ts"
import { Reader } from "../../src/Remoting/internal/wire.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"

const Box = Actor.make("Box", { protocol: [Rpc.make("Put", { payload: { n: Schema.Int } })] })
const BoxLive = Box.toLayer(Effect.succeed(Box.of({ Put: () => Effect.void })))

class Nothing extends RpcGroup.make(Rpc.make("Nothing", {})) {}

const startNode = Effect.fnUntraced(function*(network: SimulatedNetwork.SimulatedNetwork, host: string) {
  const random = yield* Random.Random.pipe(Random.withSeed(host))
  return yield* Layer.build(
    ActorSystem.layer.pipe(
      Layer.provideMerge(Remoting.layer({})),
      Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
      Layer.provideMerge(ActorHost.layer),
      Layer.provideMerge(Layer.merge(Remoting.layerNode({ system: "shop", id: host }), SystemEvents.layer)),
      Layer.provide(network.layer(host))
    )
  ).pipe(
    Effect.provideService(Random.Random, random),
    Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
  )
})

/** Lets some time and many turns pass. */
const pass = Effect.repeat(TestClock.adjust("10 millis"), { times: 20 })

describe("a kind that is registered while nodes are connected", () => {
  it.effect("is told to all of them with its fingerprint, and so is that it is withdrawn", () =>
    Effect.gen(function*() {
      const told: Array<readonly [string, ReadonlyArray<readonly [string, string]>]> = []
      const network = yield* SimulatedNetwork.make({
        seed: 1,
        onFrame: (from, to, frame) => {
          const reader = new Reader(frame)
          if (reader.byte() === FrameType.Kinds) told.push([`${from} to ${to}`, [...readKinds(reader)]])
        }
      })
      const [a, b, c] = [
        yield* startNode(network, "a"),
        yield* startNode(network, "b"),
        yield* startNode(network, "c")
      ]
      // b is dialed by one and dials the other
      for (const [from, to] of [[a, b], [b, c]] as const) {
        const node = Context.get(to, ActorSystem.ActorSystem).node
        yield* Effect.forkChild(
          Effect.exit(Context.get(from, Remoting.Remoting).call(node, Nothing, "Nothing", undefined))
        )
      }
      yield* pass
      told.length = 0
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(BoxLive, scope).pipe(Effect.provideContext(b))
      yield* pass
      const kinds = [["Box", Box.definition.fingerprint]] as const
      assert.deepStrictEqual([...told].sort(), [["b to a", kinds], ["b to c", kinds]])
      told.length = 0
      yield* Scope.close(scope, Exit.void)
      yield* pass
      assert.deepStrictEqual([...told].sort(), [["b to a", []], ["b to c", []]])
    }).pipe(Effect.scoped))
})

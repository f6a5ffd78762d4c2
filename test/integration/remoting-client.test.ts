// An outsider with a list of endpoints: spawns, tells, asks, finds and stops by name; a node that is gone is passed over.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Redacted, Ref, Schema, Scope } from "effect"
import { Rpc } from "effect/rpc"
import * as Actor from "../../src/Actor/Actor.ts"
import * as ActorHost from "../../src/Actor/ActorHost.ts"
import * as ActorSystem from "../../src/Actor/ActorSystem.ts"
import * as Delivery from "../../src/Actor/Delivery.ts"
import * as Placement from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Topology from "../../src/Actor/Topology.ts"
import * as Client from "../../src/Remoting/Client.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"

const Counter = Actor.make("Counter", {
  protocol: [
    Rpc.make("Add", { payload: { n: Schema.Int } }),
    Rpc.make("Total", { success: Schema.Int })
  ],
  props: { from: Schema.Int }
})

const CounterLive = Counter.toLayer(Effect.gen(function*() {
  const { from } = yield* Counter.props
  const total = yield* Ref.make(from)
  return Counter.of({ Add: ({ n }) => Ref.update(total, (sum) => sum + n), Total: () => Ref.get(total) })
}))

const node = (options: RemotingOptions) =>
  Layer.mergeAll(CounterLive, Client.layerServer).pipe(
    Layer.provideMerge(ActorSystem.layer),
    Layer.provideMerge(Remoting.layer(options)),
    Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
    Layer.provideMerge(ActorHost.layer),
    Layer.provide(Layer.merge(Remoting.layerNode({ system: "shop" }), SystemEvents.layer)),
    Layer.provide(Transport.layerTcp(options))
  )

const start = (options: RemotingOptions, scope: Scope.Scope) =>
  Effect.map(Layer.buildWithScope(node(options), scope), (context) => Context.get(context, ActorSystem.ActorSystem))

const connect = (options: Client.ClientOptions) =>
  Effect.map(Layer.build(Client.layer(options)), (context) => Context.get(context, ActorSystem.ActorSystem))

describe("Client", () => {
  const secret = Redacted.make("let me in")

  it.live("takes an address of either family with its port, and nothing that is none", () =>
    Effect.gen(function*() {
      const server = yield* start({ secret, host: "::1" }, yield* Effect.scope)
      const { host, port } = server.node
      for (const endpoint of [`[${host}]:${port}`, { host, port }]) {
        const system = yield* connect({ system: "shop", endpoints: [endpoint], secret })
        assert.isFalse(yield* system.actorExists(Counter, "nobody"))
      }
      for (const endpoint of ["a:0", "a:99999", ":7000", "a"]) {
        const refused = yield* Effect.exit(connect({ system: "shop", endpoints: [endpoint], secret }))
        assert.include(String(Exit.isFailure(refused) && refused.cause), "not host:port", endpoint)
      }
    }).pipe(Effect.scoped))

  it.live("spawns, tells, asks, finds and stops by name", () =>
    Effect.gen(function*() {
      const server = yield* start({ secret }, yield* Effect.scope)
      const { host, port } = server.node
      const system = yield* connect({ system: "shop", endpoints: [`${host}:${port}`], secret })
      const counter = yield* system.spawnOn(Counter, "c-1", { props: { from: 10 } })
      yield* counter.tell.Add({ n: 5 })
      assert.strictEqual(yield* counter.ask.Total(), 15)
      const found = yield* system.actorOf(Counter, "c-1")
      assert.strictEqual(yield* found.ask.Total(), 15)
      assert.isTrue(yield* system.actorExists(Counter, "c-1"))
      yield* system.stop(found)
      assert.isFalse(yield* system.actorExists(Counter, "c-1"))
      // nothing runs with the outsider, and no member has seen it
      assert.deepStrictEqual((yield* server.members).map((member) => member.node.id), [server.node.id])
    }).pipe(Effect.scoped))

  it.live("passes over a node that is gone, with every kind of balancing", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const first = yield* start({}, scope)
      const second = yield* start({}, yield* Effect.scope)
      const endpoints = [first.node, second.node]
      yield* Scope.close(scope, Exit.void)
      for (const balancing of ["roundRobin", "random", "leastLoad"] as const) {
        const system = yield* connect({ system: "shop", endpoints, balancing, refreshInterval: "1 hour" })
        for (const n of [1, 2, 3]) {
          const counter = yield* system.spawnOn(Counter, `${balancing}-${n}`, { props: { from: n } })
          assert.strictEqual(yield* counter.ask.Total(), n)
        }
      }
    }).pipe(Effect.scoped))

  it.live("spawns only the kinds that the node lets clients spawn, and talks to all", () =>
    Effect.gen(function*() {
      const server = yield* start({ clientKinds: ["Other"] }, yield* Effect.scope)
      const system = yield* connect({ system: "shop", endpoints: [server.node] })
      const refused = yield* Effect.flip(system.spawnOn(Counter, "c-1", { props: { from: 10 } }))
      if (refused._tag !== "KindNotAllowed") return assert.fail(refused._tag)
      assert.deepInclude(refused, { kind: "Counter", caller: "a client", refusedBy: server.node.id })
      assert.isFalse(yield* server.actorExists(Counter, "c-1"))
      yield* server.spawn(Counter, "c-1", { props: { from: 3 } })
      assert.strictEqual(yield* (yield* system.actorOf(Counter, "c-1")).ask.Total(), 3)
    }).pipe(Effect.scoped))

  it.live("is refused without the secret, with another system's name, and without endpoints", () =>
    Effect.gen(function*() {
      const server = yield* start({ secret }, yield* Effect.scope)
      const endpoints = [server.node]
      for (const options of [{ system: "shop", endpoints }, { system: "other", endpoints, secret }]) {
        const system = yield* connect(options)
        const error = yield* Effect.flip(system.actorOf(Counter, "c-1"))
        assert.strictEqual(error._tag, "NodeUnreachable")
      }
      const error = yield* Effect.flip(connect({ system: "shop", endpoints: [] }))
      assert.strictEqual(error.setting, "client.endpoints")
    }).pipe(Effect.scoped))
})

// An outsider in virtual time: which node it asks, what it does when one is gone, and where it learns of others.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Fiber, Layer, Random, Redacted, Ref, Schema, Scope } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/Actor/Actor.ts"
import * as ActorHost from "../../src/Actor/ActorHost.ts"
import * as ActorSystem from "../../src/Actor/ActorSystem.ts"
import type { NodeAddress } from "../../src/Actor/Address.ts"
import * as Delivery from "../../src/Actor/Delivery.ts"
import * as Placement from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Topology from "../../src/Actor/Topology.ts"
import * as Client from "../../src/Remoting/Client.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"

const Counter = Actor.make("Counter", {
  protocol: [
    Rpc.make("Add", { payload: { n: Schema.Int } }),
    Rpc.make("Total", { success: Schema.Int })
  ]
})

const CounterLive = Counter.toLayer(Effect.gen(function*() {
  const total = yield* Ref.make(0)
  return Counter.of({ Add: ({ n }) => Ref.update(total, (sum) => sum + n), Total: () => Ref.get(total) })
}))

const secret = Redacted.make("s")
const port = 7000

/** Nodes that each place on themselves; what they say about their cluster is given. */
const startNode = Effect.fnUntraced(function*(
  network: SimulatedNetwork.SimulatedNetwork,
  host: string,
  members: () => ReadonlyArray<NodeAddress>,
  leaving: ReadonlySet<string> = new Set()
) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const topology = Layer.effect(
    Topology.Topology,
    Effect.map(Topology.Topology, (inner) =>
      Topology.Topology.of({
        ...inner,
        members: Effect.sync(() =>
          members().map((node, age) => ({
            node,
            status: leaving.has(node.id) ? "Leaving" as const : "Up" as const,
            age,
            roles: [],
            kinds: ["Counter"]
          }))
        )
      }))
  ).pipe(Layer.provide(Topology.layerLocal))
  const layer = Layer.mergeAll(CounterLive, Client.layerServer).pipe(
    Layer.provideMerge(ActorSystem.layer),
    Layer.provideMerge(Remoting.layer({ secret })),
    Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, topology)),
    Layer.provideMerge(ActorHost.layer),
    Layer.provide(Layer.merge(Remoting.layerNode({ system: "shop", id: host }), SystemEvents.layer)),
    Layer.provide(network.layer(host))
  )
  const random = yield* Random.Random.pipe(Random.withSeed(host))
  const context = yield* Layer.buildWithScope(layer, scope).pipe(
    Effect.provideService(Random.Random, random),
    Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
  )
  const system = Context.get(context, ActorSystem.ActorSystem)
  const host_ = Context.get(context, ActorHost.ActorHost)
  return { host, system, load: () => host_.load(), crash: Effect.sync(() => network.crash(host)) }
})

const world = Effect.fnUntraced(function*(hosts: ReadonlyArray<string> = ["a", "b", "c"]) {
  const network = yield* SimulatedNetwork.make({ seed: 3 })
  const addresses: Array<NodeAddress> = []
  const nodes = yield* Effect.forEach(hosts, (host) => startNode(network, host, () => addresses))
  for (const { system } of nodes) addresses.push(system.node)
  const connect = Effect.fnUntraced(function*(options: Omit<Client.ClientOptions, "system">) {
    const random = yield* Random.Random.pipe(Random.withSeed("client"))
    const context = yield* Layer.build(
      Client.layerTransport({ system: "shop", secret, ...options }).pipe(Layer.provide(network.layer("client")))
    ).pipe(
      Effect.provideService(Random.Random, random),
      Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
    )
    return Context.get(context, ActorSystem.ActorSystem)
  })
  return { network, nodes, connect }
})

const all = (hosts: ReadonlyArray<string> = ["a", "b", "c"]) => hosts.map((host) => ({ host, port }))
const never = Infinity

const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < 2000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("10 millis")
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* yield* Fiber.join(fiber)
  })

/** Where each of so many new actors went. */
const spread = Effect.fnUntraced(function*(system: ActorSystem.ActorSystem["Service"], count: number, prefix: string) {
  const hosts: Array<string> = []
  for (let n = 0; n < count; n++) {
    hosts.push((yield* settle(system.spawnOn(Counter, `${prefix}-${n}`))).address.node.id)
  }
  return hosts
})

describe("balancing", () => {
  it.effect("roundRobin asks one endpoint after the other, and is the default", () =>
    Effect.gen(function*() {
      const { connect } = yield* world()
      for (const balancing of ["roundRobin", undefined] as const) {
        const system = yield* connect({ endpoints: all(), balancing, refreshInterval: never })
        const [first, second, third, ...rest] = yield* spread(system, 9, String(balancing))
        assert.deepStrictEqual([first, second, third].sort(), ["a", "b", "c"])
        assert.deepStrictEqual(rest, [first, second, third, first, second, third])
      }
    }))

  it.effect("random asks all of them, in no order", () =>
    Effect.gen(function*() {
      const { connect } = yield* world()
      const system = yield* connect({ endpoints: all(), balancing: "random", refreshInterval: never })
      const hosts = yield* spread(system, 60, "r")
      for (const host of ["a", "b", "c"]) {
        const count = hosts.filter((one) => one === host).length
        assert.isTrue(count >= 10 && count <= 30, `${host}: ${count} of 60`)
      }
      assert.isTrue(hosts.some((host, index) => host === hosts[index + 1]), "not in turn")
    }).pipe(Random.withSeed("random")))

  it.effect("leastLoad asks the less loaded of two", () =>
    Effect.gen(function*() {
      const { connect, nodes } = yield* world()
      for (let n = 0; n < 30; n++) yield* settle(nodes[1]!.system.spawn(Counter, `busy-${n}`))
      const system = yield* connect({ endpoints: all(), balancing: "leastLoad", refreshInterval: never })
      const hosts = yield* spread(system, 20, "l")
      assert.notInclude(hosts, "b", "any pair has one with less to do")
      const [a, , c] = nodes.map(({ load }) => load())
      assert.isAtMost(Math.abs(a! - c!), 6, "the others share")
    }).pipe(Random.withSeed("leastLoad")))
})

describe("fail-over", () => {
  it.effect("spawn, tell, ask, exists and stop by name go on by the next endpoint while there is one", () =>
    Effect.gen(function*() {
      const { connect, nodes } = yield* world()
      for (const balancing of ["roundRobin", "random", "leastLoad"] as const) {
        const system = yield* connect({ endpoints: all(), balancing, refreshInterval: never })
        if (balancing === "roundRobin") { for (const node of nodes.slice(0, 2)) yield* node.crash }
        const name = `f-${balancing}`
        const counter = yield* settle(system.spawnOn(Counter, name))
        assert.strictEqual(counter.address.node.id, "c")
        yield* settle(counter.tell.Add({ n: 4 }))
        assert.strictEqual(yield* settle(counter.ask.Total()), 4)
        assert.isTrue(yield* settle(system.actorExists(Counter, name)))
        assert.strictEqual(yield* settle((yield* settle(system.actorOf(Counter, name))).ask.Total()), 4)
        yield* settle(system.stop(counter))
        assert.isFalse(yield* settle(system.actorExists(Counter, name)))
      }
      yield* nodes[2]!.crash
      const system = yield* connect({ endpoints: all(), refreshInterval: never })
      const error = yield* Effect.flip(settle(system.spawnOn(Counter, "nobody")))
      assert.isTrue(error._tag === "NodeUnreachable" && error.outcome === "NotSent")
    }))

  it.effect("one that hangs is passed over after requestTimeout", () =>
    Effect.gen(function*() {
      const { connect, network } = yield* world()
      const system = yield* connect({
        endpoints: all(["a", "b"]),
        requestTimeout: "2 seconds",
        refreshInterval: never
      })
      for (const n of [1, 2]) yield* settle(system.spawnOn(Counter, `before-${n}`))
      network.partition(["client"], ["a"])
      for (const n of [1, 2, 3, 4]) {
        const before = yield* Clock.currentTimeMillis
        assert.strictEqual((yield* settle(system.spawnOn(Counter, `after-${n}`))).address.node.id, "b")
        assert.isAtMost((yield* Clock.currentTimeMillis) - before, 2100)
      }
    }))
})

describe("refresh of endpoints", () => {
  it.effect("nodes tell where else their cluster is: the one that was given may go", () =>
    Effect.gen(function*() {
      const { connect, nodes } = yield* world()
      const system = yield* connect({ endpoints: all(["a"]), refreshInterval: "10 seconds" })
      yield* settle(Effect.sleep("1 second"))
      yield* nodes[0]!.crash
      const hosts = yield* spread(system, 6, "x")
      assert.deepStrictEqual([...new Set(hosts)].sort(), ["b", "c"])
    }))

  it.effect("follows the cluster, at each interval; what was given stays", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 3 })
      const told: Array<NodeAddress> = []
      const leaving = new Set<string>()
      const a = yield* startNode(network, "a", () => told, leaving)
      const b = yield* startNode(network, "b", () => told, leaving)
      const random = yield* Random.Random.pipe(Random.withSeed("client"))
      const context = yield* Layer.build(
        Client.layerTransport({ system: "shop", secret, endpoints: ["a:7000"], refreshInterval: "10 seconds" }).pipe(
          Layer.provide(network.layer("client"))
        )
      ).pipe(Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random)))
      const system = Context.get(context, ActorSystem.ActorSystem)
      assert.deepStrictEqual([...new Set(yield* spread(system, 4, "one"))], ["a"])
      told.push(a.system.node, b.system.node)
      yield* TestClock.adjust("25 seconds")
      assert.deepStrictEqual([...new Set(yield* spread(system, 4, "two"))].sort(), ["a", "b"])
      leaving.add("b")
      yield* TestClock.adjust("25 seconds")
      assert.deepStrictEqual([...new Set(yield* spread(system, 4, "on its way"))], ["a"])
      leaving.clear()
      yield* TestClock.adjust("25 seconds")
      assert.deepStrictEqual([...new Set(yield* spread(system, 4, "back"))].sort(), ["a", "b"])
      told.length = 0
      yield* TestClock.adjust("25 seconds")
      assert.deepStrictEqual([...new Set(yield* spread(system, 4, "three"))], ["a"])
    }))

  it.effect("is not asked for where only the given endpoints are to be dialed", () =>
    Effect.gen(function*() {
      const { connect, nodes } = yield* world()
      const system = yield* connect({ endpoints: all(["a"]), refreshInterval: "1 second", routing: "relay" })
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual([...new Set(yield* spread(system, 4, "x"))], ["a"])
      yield* nodes[0]!.crash
      const error = yield* Effect.flip(settle(system.spawnOn(Counter, "y")))
      assert.strictEqual(error._tag, "NodeUnreachable")
    }))
})

describe("Remoting.client", () => {
  it("is the same Layer by another name", () => {
    assert.strictEqual(Remoting.client, Client.layer)
  })

  it.effect("is no member: nobody sees it, and nothing runs with it", () =>
    Effect.gen(function*() {
      const { connect, nodes } = yield* world(["a"])
      const system = yield* connect({ endpoints: all(["a"]), refreshInterval: never })
      const counter = yield* settle(system.spawnOn(Counter, "x"))
      assert.strictEqual(counter.address.node.id, "a")
      assert.deepStrictEqual((yield* nodes[0]!.system.members).map(({ node }) => node.id), ["a"])
      assert.strictEqual(nodes[0]!.load(), 1)
    }))
})

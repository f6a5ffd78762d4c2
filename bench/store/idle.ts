/**
 * What a cluster in which nothing happens asks of its store: 10 and 100 nodes on a simulated network and a memory store, in
 * virtual time; then with actors, and with more partitions.
 */
import {
  Actor,
  ActorHost,
  ActorSystem,
  Cluster,
  ControlStore,
  Delivery,
  Placement,
  Remoting,
  SystemEvents,
  Topology,
  Transport
} from "effect-troupe"
import { SimulatedNetwork } from "effect-troupe/testing"
import { Context, Duration, Effect, Fiber, Layer, Random, Schema, Scope } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { asked, type Options, report, troupe } from "../harness.ts"

const options = asked<Options>()
const small = options.quick ? 2 : 10
const large = options.quick ? 4 : 100
const many = options.quick ? 20 : 1000

const Idle = Actor.make("Idle", { protocol: [Rpc.make("Get", { success: Schema.Number })] })
const layerIdle = Idle.toLayer(Effect.succeed(Idle.of({ Get: () => Effect.succeed(1) })))

/** The same store, with each call counted. */
const counting = (inner: ControlStore.ControlStoreService, count: () => void): ControlStore.ControlStoreService => {
  const counted =
    <Args extends ReadonlyArray<unknown>, A, E>(call: (...args: Args) => Effect.Effect<A, E>) => (...args: Args) =>
      Effect.andThen(Effect.sync(count), call(...args))
  return {
    ...inner,
    get: counted(inner.get),
    create: counted(inner.create),
    update: counted(inner.update),
    remove: counted(inner.remove),
    list: counted(inner.list)
  }
}

/** Operations a second of a cluster that has been left alone, over half a virtual minute. */
const idle = (nodes: number, more: { readonly actors?: number; readonly partitionCount?: number } = {}) =>
  Effect.gen(function*() {
    let operations = 0
    const backend = yield* ControlStore.makeMemoryBackend
    const network = yield* SimulatedNetwork.make({ seed: 1 })
    const start = Effect.fnUntraced(function*(id: string) {
      const random = yield* Random.Random.pipe(Random.withSeed(id))
      const layer = layerIdle.pipe(
        Layer.provideMerge(ActorSystem.layer),
        Layer.provideMerge(
          Cluster.layer({ partitionCount: more.partitionCount ?? 271, bootstrapTimeout: "2 minutes" })
        ),
        Layer.provideMerge(Remoting.layer()),
        Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
        Layer.provideMerge(ActorHost.layer),
        Layer.provide(Remoting.layerNode({ system: "bench", dataCenter: "dc", id })),
        Layer.provide(Layer.effect(Transport.Transport, network.transport(id))),
        Layer.provide(SystemEvents.layer),
        Layer.provide(Layer.succeed(ControlStore.ControlStore, counting(backend.client(), () => operations++)))
      )
      return yield* Layer.build(layer).pipe(
        Effect.provideService(Random.Random, random),
        Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random)),
        Effect.forkScoped({ startImmediately: true })
      )
    })
    /** Lets time pass until it is done. */
    const pass = Effect.fnUntraced(function*<A, E>(fiber: Fiber.Fiber<A, E>) {
      while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust("100 millis")
      return yield* Fiber.join(fiber)
    })
    // One after the other: who joins at the same time contends for the view, which is not what is measured here.
    const contexts = []
    for (let i = 0; i < nodes; i++) contexts.push(yield* pass(yield* start(`node-${i}`)))
    const system = Context.get(contexts[0]!, ActorSystem.ActorSystem)
    while ((yield* system.members).filter((member) => member.status === "Up").length < nodes) {
      yield* TestClock.adjust("100 millis")
    }
    const spawning = Effect.forEach(
      Array.from({ length: more.actors ?? 0 }),
      (_, i) => system.spawnOn(Idle, `idle-${i}`),
      { concurrency: 50, discard: true }
    )
    yield* pass(yield* Effect.forkChild(spawning, { startImmediately: true }))
    yield* TestClock.adjust("30 seconds")
    operations = 0
    const time = Duration.seconds(30)
    yield* TestClock.adjust(time)
    const rate = operations / Duration.toSeconds(time)
    return rate
    // Left running, on a clock that stands still: closing a node takes time that nobody would let pass.
  }).pipe(Effect.provideService(Scope.Scope, Scope.makeUnsafe()), Effect.provide(TestClock.layer()))

const sides = []
const name = (nodes: number) => `${nodes} idle nodes`
for (
  const [side, rate] of [
    [name(small), idle(small)],
    [name(large), idle(large)],
    [`${small} nodes, ${many.toLocaleString("en")} actors`, idle(small, { actors: many })],
    [`${small} nodes, 10 times the partitions`, idle(small, { partitionCount: 2710 })]
  ] as const
) {
  process.stderr.write(`bench: ${troupe}, ${side}\n`)
  sides.push({ name: side, values: [await Effect.runPromise(rate)] })
}
await report({
  title: "store: what idle nodes ask of it, in virtual time",
  unit: "operations/s",
  sides,
  comparisons: [
    { figure: "store_idle_nodes", of: sides[1]!.name, against: sides[0]!.name },
    { figure: "store_idle_actors", of: sides[2]!.name, against: sides[0]!.name },
    { figure: "store_idle_partitions", of: sides[3]!.name, against: sides[0]!.name }
  ]
})
process.exit(0)

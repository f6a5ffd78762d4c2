/**
 * This runtime through its public surface: two nodes on real sockets, as any deployment composes them, but that there is no
 * cluster to find actors by. The client's `Placement` knows where they are instead; everything a message meets is the same.
 */
import {
  Actor,
  ActorHost,
  ActorSystem,
  type Address,
  Delivery,
  Node,
  Placement,
  Remoting,
  SystemEvents,
  Topology,
  Transport
} from "effect-troupe"
import { Effect, Exit, Layer, ManagedRuntime, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { times } from "../peers/crowd.ts"
import { asking } from "./askers.ts"
import { body, type Client, Counter, type Ready, type ServerOptions, tlsOptions } from "./sides.ts"

const Echo = Actor.make("Echo", {
  protocol: [
    Rpc.make("Ask", { payload: { body: Schema.String }, success: Schema.String }),
    Rpc.make("Tell", { payload: { body: Schema.String } }),
    Rpc.make("Await", { payload: { count: Schema.Number } }),
    Rpc.make("Bulk", { payload: { bytes: Schema.Uint8Array }, success: Schema.Number })
  ]
})

const layerEcho = (counter: Counter) =>
  Echo.toLayer(Effect.sync(() =>
    Echo.of({
      Ask: ({ body }) => Effect.succeed(body),
      Tell: () => Effect.sync(() => counter.arrived()),
      Await: ({ count }) => Effect.callback<void>((resume) => counter.awaiting(count, () => resume(Exit.void))),
      Bulk: ({ bytes }) => Effect.succeed(bytes.length)
    })
  ))

/** Actors are where one is told they are. */
const layerAt = (node: Address.NodeAddress) =>
  Layer.effect(
    Placement.Placement,
    Effect.map(Placement.Placement, (local) =>
      Placement.Placement.of({
        ...local,
        lookup: (kind, name) => Effect.succeed({ kind, name, node, placement: 0, epoch: 0 })
      }))
  ).pipe(Layer.provide(Placement.layerLocal))

const layerNode = (
  placement: Layer.Layer<Placement.Placement, never, ActorHost.ActorHost | Node.Node>,
  options: Remoting.RemotingOptions
) =>
  ActorSystem.layer.pipe(
    Layer.provideMerge(Layer.merge(placement, Topology.layerLocal)),
    Layer.provideMerge(Remoting.layer(options)),
    Layer.provideMerge(Delivery.layerLocal),
    Layer.provideMerge(ActorHost.layer),
    Layer.provideMerge(Remoting.layerNode({ system: "bench", dataCenter: "local" })),
    Layer.provide(Transport.layerTcp(options)),
    Layer.provideMerge(SystemEvents.layer)
  )

const remotingOptions = (options: ServerOptions): Remoting.RemotingOptions => ({
  host: "127.0.0.1",
  maxFrameBytes: options.bulk ? 16 * 1024 * 1024 : 1024 * 1024,
  ...(options.tls ? tlsOptions(options.folder) : undefined)
})

export const serve = async (options: ServerOptions): Promise<Ready> => {
  const runtime = ManagedRuntime.make(
    layerEcho(new Counter()).pipe(Layer.provideMerge(layerNode(Placement.layerLocal, remotingOptions(options))))
  )
  return runtime.runPromise(Effect.gen(function*() {
    const system = yield* ActorSystem.ActorSystem
    for (let i = 0; i < options.actors; i++) yield* system.spawn(Echo, `echo-${i}`)
    return { port: system.node.port, node: system.node }
  }))
}

/** What ours can do beside what every side can. */
export interface TroupeClient extends Client {
  /** One question with that payload, to an actor that nobody else asks: what is behind it to the same one waits for it. */
  readonly bulk: (bytes: Uint8Array) => Promise<void>
}

export const connect = async (options: ServerOptions, { node }: Ready): Promise<TroupeClient> => {
  const runtime = ManagedRuntime.make(layerNode(layerAt(node as Address.NodeAddress), remotingOptions(options)))
  const actors = await runtime.runPromise(Effect.gen(function*() {
    const system = yield* ActorSystem.ActorSystem
    return yield* Effect.forEach(Array.from({ length: options.actors }), (_, i) => system.actorOf(Echo, `echo-${i}`))
  }))
  const at = (index: number) => actors[index % actors.length]!
  await runtime.runPromise(at(0).ask.Ask({ body }))
  return {
    ask: (inFlight, count) => runtime.runPromise(asking(inFlight, count, (asker) => at(asker).ask.Ask({ body }))),
    tell: (count) =>
      runtime.runPromise(Effect.andThen(
        times(count, (i) => at(i).tell.Tell({ body })),
        at(0).ask.Await({ count }, { timeout: "1 minute" })
      )),
    bulk: (bytes) =>
      runtime.runPromise(Effect.asVoid(at(options.actors - 1).ask.Bulk({ bytes }, { timeout: "1 minute" }))),
    close: () => runtime.dispose()
  }
}

/** As many nodes as asked for, each connected to the server and quiet from then on. */
export const connectIdle = async (count: number, options: ServerOptions, ready: Ready): Promise<void> => {
  const server = ready.node as Address.NodeAddress
  const layer = layerNode(layerAt(server), remotingOptions(options))
  for (let i = 0; i < count; i++) {
    const runtime = ManagedRuntime.make(layer)
    await runtime.runPromise(Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const actor = yield* system.actorOf(Echo, "echo-0")
      yield* actor.ask.Ask({ body })
    }))
  }
}

/**
 * Port: what this node sees around it, for people and programs that ask. Nothing here decides anything. Alone it is one member
 * that leads itself (`layerLocal`); the cluster and datacenter rings replace it.
 */
import { Context, Effect, Layer, Option } from "effect"
import type { Duration } from "effect"
import { ActorHost } from "./ActorHost.ts"
import type { Member } from "./Address.ts"
import { DataCenterNotReady } from "./errors.ts"
import { Node } from "./Node.ts"

export class Topology extends Context.Service<Topology, {
  /** this node's view of its own cluster, oldest first */
  readonly members: Effect.Effect<ReadonlyArray<Member>>
  /** is this node the oldest Up member? */
  readonly isLeader: Effect.Effect<boolean>
  /** has this node's datacenter controller refreshed once since start? true where there are no datacenters; never falls back */
  readonly dataCenterReady: Effect.Effect<boolean>
  /** time since the last refresh of the datacenter cache; none before the first, or where there are no datacenters */
  readonly dataCenterLastRefresh: Effect.Effect<Option.Option<Duration.Duration>>
  /** waits until the datacenter is listed here as ACTIVE with a live lease, else fails after the timeout (default 30 s) */
  readonly awaitDataCenter: (name: string, options?: {
    readonly timeout?: Duration.Input | undefined
  }) => Effect.Effect<void, DataCenterNotReady>
}>()("effect-troupe/Actor/Topology") {}

export const makeLocal = Effect.gen(function*() {
  const host = yield* ActorHost
  const { address } = yield* Node
  return Topology.of({
    members: Effect.sync(() => [{ node: address, status: "Up", age: 0, roles: [], kinds: [...host.kinds().keys()] }]),
    isLeader: Effect.succeed(true),
    dataCenterReady: Effect.succeed(true),
    dataCenterLastRefresh: Effect.succeedNone,
    // There is nobody who could ever bring another datacenter, so it does not wait for one.
    awaitDataCenter: (name) =>
      name === address.dataCenter ? Effect.void : Effect.fail(new DataCenterNotReady({ dataCenter: name }))
  })
})

export const layerLocal: Layer.Layer<Topology, never, ActorHost | Node> = Layer.effect(Topology, makeLocal)

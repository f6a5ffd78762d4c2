// Datacenters without sockets and clusters: the real ring on small fakes of what it stands on, in virtual time.
import { Context, Effect, Exit, Latch, Layer, Option, Scope, Stream, SubscriptionRef } from "effect"
import type { RpcGroup } from "effect/rpc"
import type { ActorAddress, Member, NodeAddress } from "../../src/Actor/Address.ts"
import { nodeKey } from "../../src/Actor/Address.ts"
import { ActorNotFound, NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import { Placement, type SpawnSpec, type Target } from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import { Topology } from "../../src/Actor/Topology.ts"
import { Cluster, type ClusterView } from "../../src/Cluster/Cluster.ts"
import * as ControlPlane from "../../src/ControlPlane/ControlPlane.ts"
import * as ControlPlaneStore from "../../src/ControlPlane/ControlPlaneStore.ts"
import { ControlStore } from "../../src/ControlPlane/index.ts"
import * as DataCenters from "../../src/DataCenter/DataCenters.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"

type Handler = (payload: unknown, options: unknown) => Effect.Effect<unknown, { readonly _tag: string }>

/** Which endpoints answer, and how the others fail. */
interface Wire {
  readonly handlers: Map<string, Map<string, Handler>>
  readonly down: Map<string, "NotSent" | "Unknown">
  readonly calls: Array<{ readonly to: string; readonly tag: string; readonly payload: unknown }>
}

const fakeRemoting = (wire: Wire, self: NodeAddress): Remoting["Service"] => {
  const own = `${self.host}:${self.port}`
  const remoting = {
    serve: (group: RpcGroup.Any) =>
      Effect.gen(function*() {
        const context = yield* Effect.context<never>()
        const tags = new Map<string, Handler>()
        for (const [tag, rpc] of (group as unknown as { requests: ReadonlyMap<string, { key: string }> }).requests) {
          const entry = context.mapUnsafe.get(rpc.key) as { readonly handler: Handler }
          tags.set(tag, (payload, options) => entry.handler(payload, options))
        }
        wire.handlers.set(own, tags)
        yield* Effect.addFinalizer(() => Effect.sync(() => wire.handlers.delete(own)))
      }),
    call: (to: { host: string; port: number }, _group: unknown, tag: string, payload: unknown) =>
      Effect.suspend((): Effect.Effect<unknown, { readonly _tag: string }> => {
        const node = `${to.host}:${to.port}`
        wire.calls.push({ to: node, tag, payload })
        const handler = wire.handlers.get(node)?.get(tag)
        const outcome = wire.down.get(node) ?? (handler === undefined ? "NotSent" as const : undefined)
        if (outcome !== undefined || handler === undefined) {
          return Effect.fail(new NodeUnreachable({ node, outcome: outcome ?? "NotSent", reason: "test" }))
        }
        return handler(payload, {})
      }),
    mute: () => Effect.void,
    shun: () => Effect.void,
    connected: Effect.succeed([])
  }
  return remoting as unknown as Remoting["Service"]
}

export interface NodeInWorld {
  readonly address: NodeAddress
  readonly endpoint: string
  readonly dataCenters: DataCenters.DataCenters["Service"]
  readonly placement: Placement["Service"]
  readonly topology: Topology["Service"]
  readonly events: ReadonlyArray<SystemEvents.SystemEvent>
  /** what this node's own cluster was asked to place */
  readonly placed: ReadonlyArray<{ readonly spec: SpawnSpec; readonly target: Target }>
  /** cut from the control plane; `silent`: packets vanish */
  readonly faults: { reachable: boolean; silent: boolean; write: "Normal" | "UnknownApplied" | "UnknownNotApplied" }
  /** while closed, this node hears nothing of operators' wishes */
  readonly wishes: Latch.Latch
  /** may it do exclusive work? */
  readonly lease: { valid: boolean }
  readonly close: Effect.Effect<void>
}

export interface DataCenterInWorld {
  readonly nodes: Array<NodeInWorld>
  readonly view: SubscriptionRef.SubscriptionRef<ClusterView>
  /** names that live in this datacenter's cluster */
  readonly names: Map<string, ActorAddress>
  /** a node that joins becomes Up at once, the oldest leads */
  readonly start: (options?: {
    readonly id?: string
    readonly incarnation?: string
    readonly deafToWishes?: boolean
  }) => Effect.Effect<NodeInWorld>
  readonly remove: (address: NodeAddress) => Effect.Effect<void>
}

export const spec = (name: string, id = `spawn-${name}`): SpawnSpec => ({
  id,
  kind: "Account",
  name,
  props: {},
  relocatable: true
})

export const make = Effect.gen(function*() {
  const backend = yield* ControlStore.makeMemoryBackend
  const wire: Wire = { handlers: new Map(), down: new Map(), calls: [] }
  const outside = yield* ControlPlaneStore.make(backend.client(), { ttl: ControlPlane.defaultTtl })
  let port = 4_000

  const dataCenter = (
    options: DataCenters.DataCenterOptions & { readonly formed?: Effect.Effect<void>; readonly globalStore?: boolean }
  ): Effect.Effect<DataCenterInWorld> =>
    Effect.gen(function*() {
      const { formed = Effect.void, globalStore = true, ...settings } = options
      const name = settings.name!
      const view = yield* SubscriptionRef.make<ClusterView>({ number: 0, members: [] })
      const names = new Map<string, ActorAddress>()
      const nodes: Array<NodeInWorld> = []
      let age = 0

      const remove = (address: NodeAddress) =>
        SubscriptionRef.update(view, ({ number, members }) => ({
          number: number + 1,
          members: members.filter((member) => nodeKey(member.node) !== nodeKey(address))
        }))

      const start: DataCenterInWorld["start"] = Effect.fnUntraced(function*(given = {}) {
        port += 1
        const address: NodeAddress = {
          dataCenter: name,
          id: given.id ?? `${name}-${port}`,
          incarnation: given.incarnation ?? `i${port}`,
          host: "10.0.0.1",
          port
        }
        const key = nodeKey(address)
        const faults: NodeInWorld["faults"] = { reachable: true, silent: false, write: "Normal" }
        const lease = { valid: true }
        const wishes = Latch.makeUnsafe(given.deafToWishes !== true)
        const client = backend.client({
          reachable: () => faults.reachable,
          silent: () => faults.silent,
          write: () => faults.write
        })
        const placed: Array<{ readonly spec: SpawnSpec; readonly target: Target }> = []
        const leader = Effect.map(SubscriptionRef.get(view), ({ members }) => members.find((m) => m.status === "Up"))
        const cluster = Cluster.of({
          self: address,
          view: SubscriptionRef.get(view),
          changes: SubscriptionRef.changes(view),
          leader: Effect.map(leader, Option.fromUndefinedOr),
          isLeader: Effect.map(leader, (member) => member !== undefined && nodeKey(member.node) === key),
          mayAct: () => lease.valid,
          awaitFormed: formed,
          down: () => Effect.void,
          over: Effect.never
        })
        const inner = Placement.of({
          spawn: (actor, target) =>
            Effect.sync(() => {
              placed.push({ spec: actor, target })
              const made: ActorAddress = {
                kind: actor.kind,
                name: actor.name,
                node: address,
                placement: placed.length,
                epoch: 1
              }
              names.set(actor.name, made)
              return made
            }),
          lookup: (kind, actor) =>
            Effect.suspend(() => {
              const found = names.get(actor)
              return found === undefined ? Effect.fail(new ActorNotFound({ name: actor, kind })) : Effect.succeed(found)
            }),
          stop: (actor) => Effect.sync(() => void names.delete(actor.name))
        })
        const topology = Topology.of({
          members: Effect.map(SubscriptionRef.get(view), ({ members }) => members),
          isLeader: cluster.isLeader,
          dataCenterReady: Effect.succeed(true),
          dataCenterLastRefresh: Effect.succeedNone,
          awaitDataCenter: () => Effect.void
        })
        const plane = ControlPlane.layerStore().pipe(
          Layer.provideMerge(Layer.succeed(ControlStore.GlobalStore, {
            ...client,
            watch: (prefix) =>
              prefix === ControlPlaneStore.desiredPrefix
                ? Stream.unwrap(Effect.as(wishes.await, client.watch(prefix)))
                : client.watch(prefix)
          }))
        )
        const below = Layer.mergeAll(
          globalStore
            ? plane
            : Layer.effect(ControlPlane.ControlPlane, ControlPlane.ControlPlane).pipe(Layer.provide(plane)),
          Layer.succeed(Cluster, cluster),
          Layer.succeed(Remoting, fakeRemoting(wire, address)),
          Layer.succeed(Node, Node.of({ system: "test", address })),
          SystemEvents.layer,
          Layer.succeed(Placement, inner),
          Layer.succeed(Topology, topology)
        )
        const scope = yield* Scope.make()
        const member: Member = { node: address, status: "Up", age: ++age, roles: [], kinds: [] }
        yield* SubscriptionRef.update(
          view,
          ({ number, members }) => ({ number: number + 1, members: [...members, member] })
        )
        const events: Array<SystemEvents.SystemEvent> = []
        const built = yield* Layer.buildWithScope(
          DataCenters.layer(settings).pipe(Layer.provide(
            Layer.tap(below, (context) =>
              Context.get(context, SystemEvents.SystemEvents).stream.pipe(
                Stream.runForEach((event) => Effect.sync(() => void events.push(event))),
                Effect.forkIn(scope, { startImmediately: true })
              ))
          )),
          scope
        ).pipe(Effect.catchTag("SettingInvalid", Effect.die))
        const node: NodeInWorld = {
          address,
          endpoint: `10.0.0.1:${port}`,
          dataCenters: Context.get(built, DataCenters.DataCenters),
          placement: Context.get(built, Placement),
          topology: Context.get(built, Topology),
          events,
          placed,
          faults,
          wishes,
          lease,
          // a graceful leave: the rings end from the outside in, then the cluster forgets the member
          close: Effect.andThen(Scope.close(scope, Exit.void), remove(address))
        }
        nodes.push(node)
        return node
      })
      return { nodes, view, names, start, remove }
    })

  return { backend, wire, plane: outside, store: backend.client(), dataCenter }
})

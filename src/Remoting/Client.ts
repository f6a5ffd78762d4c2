/**
 * An `ActorSystem` for outsiders: a command line or a web server that is no member, runs no actors of its own and asks nodes by
 * a list of endpoints. Its references tell and ask like any other; names are placed and found by the node that is asked.
 *
 * Not for: members (`Remoting.layer`). Messages go straight to the node that hosts the actor, or through an endpoint where that node
 * cannot be dialed from here (behind a load balancer, say): in a session of the client and that node all the same.
 */
import { Duration, Effect, Layer, Random, Ref, Schedule } from "effect"
import * as ActorHost from "../Actor/ActorHost.ts"
import * as ActorSystem from "../Actor/ActorSystem.ts"
import * as Delivery from "../Actor/Delivery.ts"
import { KindNotAllowed, NodeUnreachable, SettingInvalid } from "../Actor/errors.ts"
import * as Node from "../Actor/Node.ts"
import { Placement } from "../Actor/Placement.ts"
import * as Settings from "../Actor/Settings.ts"
import * as SystemEvents from "../Actor/SystemEvents.ts"
import * as Topology from "../Actor/Topology.ts"
import { ClientRpcs, type Endpoint } from "./ClientRpcs.ts"
import { parseEndpoint } from "./internal/relay.ts"
import * as Remoting from "./Remoting.ts"
import type { RemotingOptions } from "./Settings.ts"
import * as Transport from "./Transport.ts"

/** How the node to ask is chosen; `leastLoad` asks two at random for their load and takes the lesser. Default `roundRobin`. */
export type Balancing = "roundRobin" | "random" | "leastLoad"

export interface ClientOptions extends RemotingOptions {
  /** the name that the nodes carry too */
  readonly system: string
  /** at least one; each is `{ host, port }` or `host:port`, an address of IPv6 in brackets */
  readonly endpoints: ReadonlyArray<Endpoint | string>
  readonly balancing?: Balancing | undefined
  /**
   * How messages get to the node that hosts an actor: `direct`ly at its advertised address, by a `relay` through an endpoint, or
   * (`auto`, the default) through an endpoint where it cannot be dialed from here. Behind a load balancer `relay` spares the attempts;
   * then nothing but the given endpoints is dialed.
   */
  readonly routing?: "auto" | "direct" | "relay" | undefined
  /** how often the nodes are asked where else their cluster can be reached; default 30 s, infinity for never */
  readonly refreshInterval?: Duration.Input | undefined
  /** what one node gets to answer before the next is asked; default 5 s */
  readonly requestTimeout?: Duration.Input | undefined
}

const parse = (endpoint: Endpoint | string): Endpoint | undefined =>
  typeof endpoint === "string" ? parseEndpoint(endpoint) : endpoint

/** The settings that clients and nodes share. */
const remotingOf = (options: ClientOptions): RemotingOptions => {
  const {
    balancing: _b,
    endpoints: _e,
    refreshInterval: _r,
    requestTimeout: _t,
    routing: _u,
    system: _s,
    ...remoting
  } = options
  return remoting
}

const isUnreachable = (error: unknown): error is NodeUnreachable => error instanceof NodeUnreachable

/** Placement that asks a node, and the next one where that does not answer. */
const makePlacement = Effect.fnUntraced(function*(options: ClientOptions, given: ReadonlyArray<Endpoint>) {
  const remoting = yield* Remoting.Remoting
  const timeout = options.requestTimeout ?? "5 seconds"
  const known = yield* Ref.make(given)
  let turn = 0

  const info = (endpoint: Endpoint) => remoting.call(endpoint, ClientRpcs, "Client.Info", undefined, { timeout })

  /** The endpoints in the order in which to ask them. */
  const order = Effect.gen(function*() {
    const endpoints = yield* Ref.get(known)
    if (options.balancing === undefined || options.balancing === "roundRobin") {
      const first = turn++ % endpoints.length
      return [...endpoints.slice(first), ...endpoints.slice(0, first)]
    }
    const shuffled = yield* Random.shuffle(endpoints)
    const [one, two, ...rest] = shuffled
    if (options.balancing === "random" || one === undefined || two === undefined) return shuffled
    const loads = yield* Effect.forEach(
      [one, two],
      (endpoint) => Effect.match(info(endpoint), { onFailure: () => Infinity, onSuccess: ({ load }) => load }),
      { concurrency: 2 }
    )
    return loads[1]! < loads[0]! ? [two, one, ...rest] : shuffled
  })

  /** Each operation may be repeated, so whoever does not answer is passed over, whatever became of the question. */
  const ask = <A, E>(
    operation: (endpoint: Endpoint) => Effect.Effect<A, E | NodeUnreachable>
  ): Effect.Effect<A, E | NodeUnreachable> =>
    Effect.flatMap(order, (endpoints) => {
      const from = (index: number): Effect.Effect<A, E | NodeUnreachable> =>
        Effect.catch(operation(endpoints[index]!), (error) =>
          isUnreachable(error) && index + 1 < endpoints.length ? from(index + 1) : Effect.fail(error))
      return from(0)
    })

  const refresh = Effect.gen(function*() {
    const { endpoints } = yield* ask(info)
    const all = new Map([...given, ...endpoints].map((endpoint) => [`${endpoint.host}:${endpoint.port}`, endpoint]))
    yield* Ref.set(known, [...all.values()])
  })
  const interval = Duration.fromInputUnsafe(options.refreshInterval ?? "30 seconds")
  if (Duration.isFinite(interval) && options.routing !== "relay") {
    yield* Effect.ignore(refresh).pipe(
      Effect.repeat(Schedule.jittered(Schedule.spaced(interval))),
      Effect.forkScoped
    )
  }

  return Placement.of({
    spawn: (spec, target) =>
      ask((endpoint) => remoting.call(endpoint, ClientRpcs, "Client.Spawn", { spec, target }, { timeout })),
    lookup: (kind, name, { dataCenter, not }) =>
      ask((endpoint) =>
        remoting.call(endpoint, ClientRpcs, "Client.Lookup", {
          kind,
          name,
          ...(dataCenter === undefined ? {} : { dataCenter }),
          ...(not === undefined ? {} : { not })
        }, { timeout })
      ),
    stop: (address) => ask((endpoint) => remoting.call(endpoint, ClientRpcs, "Client.Stop", { address }, { timeout }))
  })
})

/**
 * An `ActorSystem` over a given transport: what `layer` is built of, and what runs in a simulation. `spawn` and `spawnOn` place on
 * the nodes asked; nothing ever runs here.
 */
export const layerTransport = (
  options: ClientOptions
): Layer.Layer<ActorSystem.ActorSystem, SettingInvalid, Transport.Transport> => {
  const endpoints = options.endpoints.map(parse)
  const bad = (reason: string) =>
    Layer.effectDiscard(Effect.fail(new SettingInvalid({ setting: "client.endpoints", reason })))
  const checked = endpoints.length === 0
    ? bad("is empty")
    : endpoints.includes(undefined)
    ? bad("has one that is not host:port")
    : Layer.empty
  const known = endpoints.filter((endpoint) => endpoint !== undefined)
  const gateways = options.routing === "direct"
    ? {}
    : { gateways: { endpoints: known, only: options.routing === "relay" } }
  return ActorSystem.layer.pipe(
    Layer.provide(Layer.effect(Placement, makePlacement(options, known))),
    Layer.provideMerge(Remoting.layerClient(remotingOf(options), gateways)),
    Layer.provideMerge(Layer.mergeAll(Delivery.layerLocal, Topology.layerLocal)),
    Layer.provideMerge(ActorHost.layer),
    Layer.provide(
      Layer.merge(Remoting.layerNode({ system: options.system, dataCenter: "client" }), SystemEvents.layer)
    ),
    Layer.provide(checked)
  )
}

/** An `ActorSystem` for an outsider, on TCP. Binds nothing. */
export const layer = (options: ClientOptions): Layer.Layer<ActorSystem.ActorSystem, SettingInvalid> =>
  layerTransport(options).pipe(Layer.provide(Transport.layerTcpDial(remotingOf(options))))

/** Lets clients in: serves what they ask of this node, by its outermost placement. */
export const layerServer: Layer.Layer<
  never,
  never,
  Remoting.Remoting | Placement | Topology.Topology | ActorHost.ActorHost | Node.Node
> = Layer.effectDiscard(Effect.gen(function*() {
  const remoting = yield* Remoting.Remoting
  const placement = yield* Placement
  const topology = yield* Topology.Topology
  const host = yield* ActorHost.ActorHost
  const { address } = yield* Node.Node
  const maySpawn = (kind: string) =>
    Settings.allows(remoting.clientKinds, kind) ? Effect.void : Effect.fail(
      new KindNotAllowed({ kind, caller: "a client", refusedBy: address.id, dataCenter: address.dataCenter })
    )
  const handlers = ClientRpcs.toLayer({
    "Client.Spawn": ({ spec, target }) => Effect.andThen(maySpawn(spec.kind), placement.spawn(spec, target)),
    "Client.Lookup": ({ dataCenter, kind, name, not }) => placement.lookup(kind, name, { dataCenter, not }),
    "Client.Stop": ({ address }) => placement.stop(address),
    "Client.Info": () =>
      Effect.map(topology.members, (members) => ({
        load: host.load(),
        endpoints: members.filter((member) => member.status === "Up").map(({ node }) => ({
          host: node.host,
          port: node.port
        }))
      }))
  })
  // nodes have calls of their own, with a list of their own
  const admit = (caller: Remoting.Caller) => caller.client ? undefined : "only clients are served"
  yield* Effect.provide(remoting.serve(ClientRpcs, { admit }), handlers)
  yield* remoting.relays
}))

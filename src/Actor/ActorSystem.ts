/**
 * The surface that applications use: spawn, find and stop actors, wherever they run, and see what happens. It never learns in
 * which ring it runs; `Placement`, `Delivery` and `Topology` do.
 */
import { Cause, Context, Duration, Effect, Layer } from "effect"
import type { Option, Schema, Scope, Stream } from "effect"
import type { Rpc } from "effect/rpc"
import type { Kind } from "./Actor.ts"
import { ActorHost } from "./ActorHost.ts"
import { type ActorRef, defaultAskTimeout } from "./ActorRef.ts"
import type { Member, NodeAddress } from "./Address.ts"
import { Delivery } from "./Delivery.ts"
import {
  type AskError,
  type DataCenterNotReady,
  InvalidData,
  type LookupError,
  type SpawnError,
  type StopError
} from "./errors.ts"
import { propsCodec } from "./internal/codecs.ts"
import { type Behavior, hostOf } from "./internal/Host.ts"
import type { Cell } from "./internal/Cell.ts"
import { type Ref, RefRuntime } from "./internal/RefRuntime.ts"
import { statusNames } from "./internal/Status.ts"
import { barrierTag, reinstateTag, suspendTag } from "./internal/systemMessages.ts"
import { Node } from "./Node.ts"
import { type DataCenterSelector, Placement, type SpawnSpec, type Strategy, type Target } from "./Placement.ts"
import * as Router from "./Router.ts"
import { type SystemEvent, SystemEvents } from "./SystemEvents.ts"
import { Topology } from "./Topology.ts"

/** Props are asked for exactly where the kind has some. */
export type PropsOption<Props extends Schema.Struct.Fields> = {} extends Schema.Struct<Props>["Type"]
  ? { readonly props?: Schema.Struct<Props>["Type"] | undefined }
  : { readonly props: Schema.Struct<Props>["Type"] }

/** The options argument may be left out where nothing in it is required. */
export type OptionsArgument<Options> = {} extends Options ? [options?: Options] : [options: Options]

export interface SpawnBase {
  /** the id of this spawn: a repetition with the same id returns the same actor; default: a fresh one for each call */
  readonly id?: string | undefined
  /** default true: the actor is started on another member when its member departs */
  readonly relocatable?: boolean | undefined
}

export interface SpawnOnBase extends SpawnBase {
  /** a datacenter by name or selector; default: this one */
  readonly dataCenter?: string | DataCenterSelector | undefined
  /** only members that carry this role */
  readonly role?: string | undefined
  /** a member's id */
  readonly on?: string | undefined
  /** how to choose among the members that qualify; default `roundRobin` */
  readonly strategy?: Strategy | undefined
}

/** What can be seen of an actor from outside. */
export interface Inspected {
  readonly name: string
  readonly kind: string
  readonly status: typeof statusNames[number]
  /** messages that wait */
  readonly waiting: number
  readonly stashed: number
  /** messages that are handled beside the mailbox */
  readonly detached: number
  readonly restarts: number
  readonly timers: ReadonlyArray<string>
  readonly children: ReadonlyArray<Inspected>
}

const inspect = (cell: Cell): Inspected => {
  const { extras } = cell
  return {
    name: cell.spec.name,
    kind: cell.spec.kind,
    status: statusNames[cell.status],
    waiting: cell.depth,
    stashed: extras?.stash?.size ?? 0,
    detached: extras?.detached.size ?? 0,
    restarts: extras?.restartCount ?? 0,
    timers: [...extras?.timers?.keys() ?? []],
    children: [...extras?.children?.values() ?? []].map(inspect)
  }
}

export class ActorSystem extends Context.Service<ActorSystem, {
  /** the name of the system, and this node */
  readonly name: string
  readonly node: NodeAddress
  /** Starts an actor on this node and waits until its behaviour is built. Its name must be free in the cluster. */
  readonly spawn: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    ...options: OptionsArgument<SpawnBase & PropsOption<Props>>
  ) => Effect.Effect<ActorRef<Rpcs>, SpawnError>
  /** Starts an actor on a member that meets the options, in this or another datacenter. */
  readonly spawnOn: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    ...options: OptionsArgument<SpawnOnBase & PropsOption<Props>>
  ) => Effect.Effect<ActorRef<Rpcs>, SpawnError>
  /** Starts `size` actors of the kind behind one reference; options as for `spawnOn`. Their names are `name-1` and so on. */
  readonly spawnRouter: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options: Omit<SpawnOnBase, "id" | "strategy"> & PropsOption<Props> & {
      readonly size: number
      readonly strategy: Router.Strategy
      /** how members are chosen for the routees; default `local` */
      readonly placement?: Strategy | undefined
    }
  ) => Effect.Effect<Router.Pool<Rpcs>, SpawnError>
  /** Finds an actor by kind and name: in its own datacenter first, then in the others, or only in the one given. */
  readonly actorOf: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options?: { readonly dataCenter?: string | undefined }
  ) => Effect.Effect<ActorRef<Rpcs>, LookupError>
  /** Is there an actor of that kind and name? An actor of another kind under the name is none. */
  readonly actorExists: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options?: { readonly dataCenter?: string | undefined }
  ) => Effect.Effect<boolean, Exclude<LookupError, { readonly _tag: "ActorNotFound" | "KindMismatch" }>>
  /**
   * Stops the actor where the reference last found it: the message in hand is finished, the rest become dead letters, and its
   * finalizers have run when this returns. With `drain` what waits now is handled first, for at most that long; with `now` the
   * message in hand is interrupted at once (on this node; elsewhere it has its kind's grace). Idempotent.
   */
  readonly stop: (ref: ActorRef, options?: {
    readonly drain?: Duration.Input | undefined
    readonly now?: boolean | undefined
  }) => Effect.Effect<void, StopError>
  /** Makes the actor keep its mailbox and handle nothing, once the messages before this are handled. Idempotent. */
  readonly suspend: (ref: ActorRef) => Effect.Effect<void, AskError>
  /** Lets a suspended actor go on with the state it has, or with a new behaviour where it has none. Idempotent. */
  readonly reinstate: (ref: ActorRef) => Effect.Effect<void, AskError>
  /** the actors of this node and their state of life, children beneath their parents */
  readonly inspect: Effect.Effect<ReadonlyArray<Inspected>>
  /** what happens on this node, from the moment of subscription on; a slow subscriber loses the oldest */
  readonly events: Stream.Stream<SystemEvent>
  readonly members: Effect.Effect<ReadonlyArray<Member>>
  readonly isLeader: Effect.Effect<boolean>
  readonly dataCenterReady: Effect.Effect<boolean>
  readonly dataCenterLastRefresh: Effect.Effect<Option.Option<Duration.Duration>>
  /** Waits until the datacenter is listed here as ACTIVE with a live lease; default timeout 30 seconds. */
  readonly awaitDataCenter: (name: string, options?: {
    readonly timeout?: Duration.Input | undefined
  }) => Effect.Effect<void, DataCenterNotReady>
  /** Registers a behaviour for as long as the scope lives. `Kind.toLayer` is the way to call it. */
  readonly register: (behavior: Behavior) => Effect.Effect<void, never, Scope.Scope>
}>()("effect-troupe/Actor/ActorSystem") {}

/** Most spawns name nothing but a strategy. */
const plainTargets: Readonly<Record<Strategy, Target>> = {
  local: { strategy: "local" },
  roundRobin: { strategy: "roundRobin" },
  random: { strategy: "random" },
  leastLoad: { strategy: "leastLoad" }
}

const targetOf = ({ dataCenter, on, role }: SpawnOnBase, strategy: Strategy): Target =>
  dataCenter === undefined && on === undefined && role === undefined ? plainTargets[strategy] : {
    strategy,
    ...(on === undefined ? undefined : { on }),
    ...(role === undefined ? undefined : { role }),
    ...(dataCenter === undefined ? undefined : { dataCenter })
  }

export const make = Effect.gen(function*() {
  const node = yield* Node
  const placement = yield* Placement
  const topology = yield* Topology
  const events = yield* SystemEvents
  const host = hostOf(yield* ActorHost)
  const refs = host.refs = new RefRuntime(host, placement, yield* Delivery)
  const prefix = `${node.address.incarnation}-`
  let spawns = 0

  const place = <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options: SpawnOnBase & { readonly props?: unknown },
    strategy: Strategy
  ): Effect.Effect<ActorRef<Rpcs>, SpawnError> =>
    Effect.suspend((): Effect.Effect<ActorRef<Rpcs>, SpawnError> => {
      const definition = kind.definition
      const props = propsCodec(definition).encode(options.props ?? {})
      if (props._tag === "Failure") {
        return Effect.fail(
          new InvalidData({ what: `props of ${definition.name}`, reason: String(Cause.squash(props.cause)) })
        )
      }
      const { dataCenter, role } = options
      const id = options.id ?? `${prefix}${++spawns}`
      const relocatable = options.relocatable ?? true
      const spec: SpawnSpec = role === undefined
        ? { id, kind: definition.name, name, props: props.value, relocatable }
        : { id, kind: definition.name, name, props: props.value, relocatable, role }
      return Effect.map(placement.spawn(spec, targetOf(options, strategy)), (address) =>
        refs.ref(
          definition,
          name,
          address,
          dataCenter === undefined ? undefined : address.node.dataCenter
        ) as unknown as ActorRef<Rpcs>)
    })

  const signal = (ref: ActorRef, tag: string, timeout: number) =>
    refs.signal(ref as Ref, tag, timeout) as Effect.Effect<void, AskError>

  return ActorSystem.of({
    name: node.system,
    node: node.address,
    spawn: (kind, name, options = {} as never) => place(kind, name, options, "local"),
    spawnOn: (kind, name, options = {} as never) => place(kind, name, options, options.strategy ?? "roundRobin"),
    spawnRouter: (kind, name, options) =>
      Router.makePool({
        name,
        size: options.size,
        strategy: options.strategy,
        tags: kind.definition.messages.keys(),
        spawn: (routee) => place(kind, routee, { ...options, strategy: undefined }, options.placement ?? "local"),
        stop: (ref) => placement.stop(ref.address)
      }),
    actorOf: (kind, name, options = {}) =>
      Effect.map(
        placement.lookup(kind.definition.name, name, { dataCenter: options.dataCenter }),
        (address) => refs.ref(kind.definition, name, address, options.dataCenter) as never
      ),
    actorExists: (kind, name, options = {}) =>
      placement.lookup(kind.definition.name, name, { dataCenter: options.dataCenter }).pipe(
        Effect.as(true),
        Effect.catchTag(["ActorNotFound", "KindMismatch"], () => Effect.succeed(false))
      ),
    stop: (ref, options = {}) => {
      const stop = Effect.suspend(() => {
        if (options.now === true) (ref as Ref).cell?.stop("Stopped", { now: true })
        return placement.stop(ref.address)
      })
      return options.drain === undefined
        ? stop
        // Whether or not all of it was handled in time, it stops.
        : Effect.andThen(Effect.ignore(signal(ref, barrierTag, Duration.toMillis(options.drain))), stop)
    },
    suspend: (ref) => signal(ref, suspendTag, defaultAskTimeout),
    reinstate: (ref) => signal(ref, reinstateTag, defaultAskTimeout),
    inspect: Effect.sync(() => host.cells.all().filter((cell) => cell.extras?.parent === undefined).map(inspect)),
    events: events.stream,
    members: topology.members,
    isLeader: topology.isLeader,
    dataCenterReady: topology.dataCenterReady,
    dataCenterLastRefresh: topology.dataCenterLastRefresh,
    awaitDataCenter: topology.awaitDataCenter,
    register: (behavior) => host.register(behavior)
  })
})

export const layer: Layer.Layer<
  ActorSystem,
  never,
  Node | ActorHost | Placement | Delivery | Topology | SystemEvents
> = Layer.effect(ActorSystem, make)

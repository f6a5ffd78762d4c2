/**
 * The surface that applications use: spawn, find and stop actors, wherever they run, and see what happens. It never learns in
 * which ring it runs; `Placement`, `Delivery` and `Topology` do.
 */
import { Context, Duration, Effect, Layer } from "effect"
import type { Option, Schema, Scope, Stream } from "effect"
import type { Rpc } from "effect/rpc"
import type { Kind } from "./Actor.ts"
import { ActorHost } from "./ActorHost.ts"
import { type ActorRef, type AskOptions, defaultAskTimeout } from "./ActorRef.ts"
import type { Member, NodeAddress } from "./Address.ts"
import { Delivery } from "./Delivery.ts"
import {
  type AskError,
  type DataCenterNotReady,
  type LookupError,
  type NotAllowed,
  type SpawnError,
  type StopError
} from "./errors.ts"
import { type Behavior, hostOf } from "./internal/Host.ts"
import { inspect } from "./internal/inspect.ts"
import type { Ref } from "./internal/Ref.ts"
import { RefRuntime } from "./internal/RefRuntime.ts"
import { noOptions, Spawning, type SpawnOptions } from "./internal/spawning.ts"
import { barrierTag, endTag, inspectTag, reinstateTag, restartTag, suspendTag } from "./internal/systemMessages.ts"
import type { Inspected as Look } from "./Inspected.ts"
import { Node } from "./Node.ts"
import { type DataCenterSelector, Placement, type Strategy } from "./Placement.ts"
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
  /**
   * The id of this spawn: a repetition with the same id, by whomever, returns the same actor instead of `NameTaken`. By default each
   * run of the effect has a fresh one, but for a run after one that failed or was interrupted: that repeats the same spawn. So
   * `Effect.retry(system.spawnOn(...))` never meets its own name after an unknown outcome; a program that calls `spawnOn` anew
   * for each attempt (in a loop, after a crash of its own) gives an id that it can remember.
   */
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

/** What can be seen of an actor from outside; its schema is `Inspected.Inspected`. */
export type Inspected = Look

export class ActorSystem extends Context.Service<ActorSystem, {
  /** the name of the system, and this node */
  readonly name: string
  readonly node: NodeAddress
  /**
   * Starts an actor on this node and waits until its behaviour is built. Fails `NameTaken` where the name is somebody's in the
   * cluster (use `actorOf`), `StartFailed` with the cause where building failed for good, `InvalidData` where the props do not fit or
   * the name is empty or longer than 1,024 bytes, `KindNotRegistered` (retryable) where no Layer of the kind lives here; in a cluster
   * also as `spawnOn`.
   */
  readonly spawn: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    ...options: OptionsArgument<SpawnBase & PropsOption<Props>>
  ) => Effect.Effect<ActorRef<Rpcs>, SpawnError>
  /**
   * Starts an actor on a member that meets the options, in this or another datacenter. Besides what `spawn` fails with:
   * `NoEligibleMember`, `ClusterNotFormed`, `DirectoryRebuilding`, `NodeUnreachable`, `StoreUnavailable` (all retryable) and
   * `OutcomeUnknown` (the actor may have been started: run the same effect again); for another datacenter `DataCenterNotReady`,
   * `StaleRecords`, `RecordNotFound` (retryable), `AmbiguousDataCenter`, `KindNotAllowed`.
   */
  readonly spawnOn: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    ...options: OptionsArgument<SpawnOnBase & PropsOption<Props>>
  ) => Effect.Effect<ActorRef<Rpcs>, SpawnError>
  /**
   * Starts `size` actors (at least 1) of the kind behind one value that chooses among them; options as for `spawnOn`, names `name-1` and
   * so on. Where one of them cannot be started, the others are stopped again and the call fails as that spawn did.
   */
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
  /**
   * Finds an actor by kind and name: in its own datacenter first, then in the others, or only in the one given. `ActorNotFound` where
   * all that were asked say so, `KindMismatch` where the name is another kind's; the rest is retryable and leaves it open. A child
   * is found on its own node only.
   */
  readonly actorOf: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options?: { readonly dataCenter?: string | undefined }
  ) => Effect.Effect<ActorRef<Rpcs>, LookupError>
  /** Is there an actor of that kind and name? An actor of another kind under the name is none. Looks where `actorOf` does. */
  readonly actorExists: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options?: { readonly dataCenter?: string | undefined }
  ) => Effect.Effect<boolean, Exclude<LookupError, { readonly _tag: "ActorNotFound" | "KindMismatch" }>>
  /**
   * Stops the actor, on whatever node or in whatever datacenter the reference last found it: the message in hand is finished within
   * its kind's `stopGrace`, the rest become dead letters, and its children's and its own finalizers have run and its name is free
   * when this returns. With `drain` what waits now is handled first, for at most that long; with `now` the message in hand is
   * interrupted at once, and those of its children (from another node as soon as word of it comes; should that be lost, after the
   * grace). Idempotent: no such actor is success. A later life of the name, in another place, is left alone.
   * An actor stops itself by `ActorContext.stop`; with this one its handler would wait for its own end until the grace is over.
   */
  readonly stop: (ref: ActorRef, options?: {
    /** what waits, and what goes on beside the mailbox, is handled first; default: nothing is. `AskTimeout` and its like are no failure here: then it stops with the rest */
    readonly drain?: Duration.Input | undefined
    readonly now?: boolean | undefined
  }) => Effect.Effect<void, StopError>
  /**
   * Closes the actor's behaviour and builds it anew, once the messages before this are handled; same props, name, mailbox and stash.
   * Children stop. Uses nothing of the supervision's budget, waits for no backoff, and reinstates one that is suspended. Succeeds
   * when it has begun; building that fails is a failure like any other. Not idempotent: asked twice, it restarts twice.
   * Here and below: an actor's node refuses clients (`Remoting.client`) as `NotAllowed`; every node of the system may, in whatever datacenter.
   */
  readonly restart: (ref: ActorRef) => Effect.Effect<void, AskError | NotAllowed>
  /** Makes the actor keep its mailbox and handle nothing, once the messages before this are handled. Idempotent. */
  readonly suspend: (ref: ActorRef) => Effect.Effect<void, AskError | NotAllowed>
  /** Lets a suspended actor go on with the state it has, or with a new behaviour where it has none. Idempotent. */
  readonly reinstate: (ref: ActorRef) => Effect.Effect<void, AskError | NotAllowed>
  /** The actors of this node and their state of life, children beneath their parents; costs a look at each of them. */
  readonly inspect: Effect.Effect<ReadonlyArray<Inspected>>
  /**
   * One actor's state of life and its children's, wherever it runs. It does not wait for the messages before: it answers for one that
   * is stuck or suspended, too. `timeout` defaults to 5 seconds. `ActorStopped` where the actor is nowhere.
   */
  readonly inspectActor: (ref: ActorRef, options?: AskOptions) => Effect.Effect<Inspected, AskError | NotAllowed>
  /** what happens on this node, from the moment of subscription on; a slow subscriber loses the oldest */
  readonly events: Stream.Stream<SystemEvent>
  /** this node's view of its own cluster, oldest first; this node alone where there is none */
  readonly members: Effect.Effect<ReadonlyArray<Member>>
  /** Is this node the oldest member that is Up? For tidying and reports, not for deciding: two may think so for a while. */
  readonly isLeader: Effect.Effect<boolean>
  /** Has this node heard of the datacenters once since it was started? True where there is only one. */
  readonly dataCenterReady: Effect.Effect<boolean>
  /** time since it last heard of them */
  readonly dataCenterLastRefresh: Effect.Effect<Option.Option<Duration.Duration>>
  /** Waits until the datacenter is listed here as ACTIVE with a live lease; default timeout 30 seconds. */
  readonly awaitDataCenter: (name: string, options?: {
    readonly timeout?: Duration.Input | undefined
  }) => Effect.Effect<void, DataCenterNotReady>
  /** Registers a behaviour for as long as the scope lives. `Kind.toLayer` is the way to call it. */
  readonly register: (behavior: Behavior) => Effect.Effect<void, never, Scope.Scope>
}>()("effect-troupe/Actor/ActorSystem") {}

export const make = Effect.gen(function*() {
  const node = yield* Node
  const placement = yield* Placement
  const topology = yield* Topology
  const events = yield* SystemEvents
  const host = hostOf(yield* ActorHost)
  const delivery = yield* Delivery
  const refs = host.refs = new RefRuntime(host, placement, delivery)
  const spawning = new Spawning(host, refs, placement)

  const place = <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    options: SpawnOptions,
    strategy: Strategy
  ) => spawning.spawn(kind.definition, name, options, strategy) as unknown as Effect.Effect<ActorRef<Rpcs>, SpawnError>

  const signal = (ref: ActorRef, tag: string, timeout: number) =>
    refs.signal(ref as Ref, tag, timeout) as Effect.Effect<void, AskError | NotAllowed>

  const stopNow = (ref: Ref, now: boolean): Effect.Effect<void, StopError> =>
    Effect.suspend(() => {
      const { cell } = ref
      // A child is in no directory; it is where its parent is.
      if (cell?.extras?.parent !== undefined) return host.stopAll([cell], "Stopped", { now })
      if (!now) return placement.stop(ref.address)
      if (cell !== undefined) cell.stop("Stopped", { now: true })
      const word = { kind: ref.kind, tag: endTag, payload: { placement: ref.address.placement } }
      return Effect.andThen(
        cell === undefined ? Effect.ignore(delivery.tell(ref.address, word)) : Effect.void,
        placement.stop(ref.address)
      )
    })

  return ActorSystem.of({
    name: node.system,
    node: node.address,
    spawn: (kind, name, options = noOptions as never) => place(kind, name, options, "local"),
    spawnOn: (kind, name, options = noOptions as never) =>
      place(kind, name, options, (options as SpawnOnBase).strategy ?? "roundRobin"),
    spawnRouter: (kind, name, options) =>
      Router.makePool({
        name,
        size: options.size,
        strategy: options.strategy,
        kind: kind.definition,
        spawn: (routee) => place(kind, routee, options, options.placement ?? "local"),
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
    stop: (ref, options = {}) =>
      options.drain === undefined
        ? stopNow(ref as Ref, options.now === true)
        // Whether or not all of it was handled in time, it stops.
        : Effect.andThen(
          Effect.ignore(signal(ref, barrierTag, Duration.toMillis(options.drain))),
          stopNow(ref as Ref, options.now === true)
        ),
    restart: (ref) => signal(ref, restartTag, defaultAskTimeout),
    suspend: (ref) => signal(ref, suspendTag, defaultAskTimeout),
    reinstate: (ref) => signal(ref, reinstateTag, defaultAskTimeout),
    inspect: Effect.sync(() => host.cells.all().filter((cell) => cell.extras?.parent === undefined).map(inspect)),
    inspectActor: (ref, options = {}) =>
      Effect.suspend(() => {
        const { cell } = ref as Ref
        return cell !== undefined && cell.accepts ? Effect.succeed(inspect(cell)) : refs.ask(
          ref as Ref,
          { kind: ref.kind, tag: inspectTag, payload: undefined },
          Duration.toMillis(options.timeout ?? defaultAskTimeout)
        ) as Effect.Effect<Inspected, AskError | NotAllowed>
      }),
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

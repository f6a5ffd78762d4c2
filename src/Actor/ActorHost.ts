/**
 * The actors that live on this node: starts, stops, finds and counts them. The rings around it decide *whether* one may start
 * here; the host does it. Names are unique within a host.
 *
 * Not for: anything about other nodes; the public surface (`ActorSystem`).
 */
import { Context } from "effect"
import type { Effect, Queue, Scope, Stream } from "effect"
import type { ActorAddress } from "./Address.ts"
import type { StartError } from "./errors.ts"
import type { KindDefinition } from "./Kind.ts"
import type { SpawnSpec } from "./Placement.ts"
import type { StopReason } from "./SystemEvents.ts"

/** An actor that this node runs (or starts, or restarts) now. */
export interface HostedActor {
  readonly address: ActorAddress
  readonly spec: SpawnSpec
}

/** An actor that ended here. `reason` tells its directory whether the name is free (`Stopped`, `Failed`) or wants another home. */
export interface Termination {
  readonly actor: HostedActor
  readonly reason: StopReason
}

export class ActorHost extends Context.Service<ActorHost, {
  /**
   * Starts the actor here and waits until its behaviour is built. The same `spec.id` again joins the first start; an actor of
   * that name with another id fails `NameTaken`, unless `placement` is higher than the running one's: then that one is stopped
   * first (reason `Replaced`).
   */
  readonly start: (spec: SpawnSpec, placed: {
    readonly placement: number
    readonly epoch: number
  }) => Effect.Effect<ActorAddress, StartError>
  /** Stops it and waits for its finalizers. No such actor, or one of a higher placement, is success. */
  readonly stop: (name: string, options: {
    readonly placement: number
    readonly reason: StopReason
  }) => Effect.Effect<void>
  /** the actor of that name that runs here now */
  readonly find: (name: string) => HostedActor | undefined
  /** all actors that run here now, children left out */
  readonly actors: () => ReadonlyArray<HostedActor>
  /** number of actors here, for placement by load */
  readonly load: () => number
  /** the kinds registered here, by name */
  readonly kinds: () => ReadonlyMap<string, KindDefinition>
  /** the names of the kinds registered here: now, and after each change */
  readonly kindChanges: Stream.Stream<ReadonlyArray<string>>
  /** every actor that ends from now on; unbounded, nothing is dropped */
  readonly terminations: Effect.Effect<Queue.Dequeue<Termination>, never, Scope.Scope>
  /**
   * Holds or releases the mailboxes of all actors: held ones accept messages and handle none (a lapsed lease). Messages that
   * were accepted are kept.
   */
  readonly suspend: (held: boolean) => Effect.Effect<void>
}>()("effect-troupe/Actor/ActorHost") {}

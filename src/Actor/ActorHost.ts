/**
 * The actors that live on this node: starts, stops, finds and counts them. The rings around it decide *whether* one may start
 * here; the host does it. Names are unique within a host.
 *
 * Not for: anything about other nodes; the public surface (`ActorSystem`).
 */
import { Clock, Context, Effect, Layer, Queue, SubscriptionRef } from "effect"
import type { Scope, Stream } from "effect"
import type { ActorAddress } from "./Address.ts"
import type { StartError } from "./errors.ts"
import { attach, Host } from "./internal/Host.ts"
import type { KindDefinition } from "./Kind.ts"
import { Node } from "./Node.ts"
import type { SpawnSpec } from "./Placement.ts"
import { type StopReason, SystemEvents } from "./SystemEvents.ts"

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
   * that name with another id fails `NameTaken`, unless `placement` is higher than the running one's, and that is nobody's child:
   * then that one is stopped first (reason `Replaced`).
   */
  readonly start: (spec: SpawnSpec, placed: {
    readonly placement: number
    readonly epoch: number
  }) => Effect.Effect<ActorAddress, StartError>
  /**
   * Stops it and waits for its finalizers. No such actor, or one of a higher placement, is success; so is a child, which is left
   * alone: it ends with its parent.
   */
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

export const make = Effect.gen(function*() {
  const node = yield* Node
  const events = yield* SystemEvents
  const host = new Host({
    node: node.address,
    clock: yield* Clock.Clock,
    context: yield* Effect.context<never>(),
    kindNames: yield* SubscriptionRef.make<ReadonlyArray<string>>([]),
    events
  })
  yield* Effect.addFinalizer(() => host.close)
  const service = ActorHost.of({
    start: (spec, placed) => Effect.suspend(() => host.start(spec, placed)),
    stop: (name, options) =>
      Effect.suspend(() => host.cells.get(name)?.isChild ? Effect.void : host.stop(name, options)),
    find: (name) => host.cells.get(name),
    actors: () => host.cells.all().filter((cell) => cell.extras?.parent === undefined),
    load: () => host.cells.size,
    kinds: () => host.kinds,
    kindChanges: SubscriptionRef.changes(host.kindNames),
    terminations: Effect.acquireRelease(
      Effect.tap(Queue.unbounded<Termination>(), (queue) => Effect.sync(() => host.listeners.add(queue))),
      (queue) => Effect.andThen(Effect.sync(() => host.listeners.delete(queue)), Queue.shutdown(queue))
    ),
    suspend: (held) =>
      Effect.sync(() => {
        if (host.queue.held === held) return
        host.queue.hold(held)
        events.publish({ _tag: "WorkHeld", held })
      })
  })
  attach(service, host)
  return service
})

/** Closing it stops whatever still runs here. */
export const layer: Layer.Layer<ActorHost, never, Node | SystemEvents> = Layer.effect(ActorHost, make)

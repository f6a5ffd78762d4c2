/**
 * Membership of this node in its datacenter's cluster, as one totally ordered view; and the Layer that turns a node that can be
 * reached into a member: it joins, keeps its lease, owns partitions of the name space, hosts and relocates actors, and leaves.
 *
 * Not for: consensus and replication (the control store's), carrying messages (remoting's), other datacenters.
 *
 * Invariant: a view with a higher number replaces all lower ones; a member that is gone from it never returns (a restart is
 * another incarnation).
 */
import { Context, Effect, Layer, type Option, type Stream } from "effect"
import type { ActorHost } from "../Actor/ActorHost.ts"
import type { Member, NodeAddress } from "../Actor/Address.ts"
import type { ClusterNotFormed, ProtocolMismatch, SettingInvalid } from "../Actor/errors.ts"
import type { Node } from "../Actor/Node.ts"
import { Placement } from "../Actor/Placement.ts"
import type { SystemEvents } from "../Actor/SystemEvents.ts"
import { Topology } from "../Actor/Topology.ts"
import type { ControlStore } from "../ControlPlane/ControlStore.ts"
import type { Remoting } from "../Remoting/Remoting.ts"
import type { DownRefused } from "./errors.ts"
import { type ClusterOptions, type ClusterSettings, group } from "./ClusterSettings.ts"
import { makeServices } from "./internal/services.ts"
import type { ChangeError } from "./internal/membership.ts"

export type { ClusterOptions, ClusterSettings } from "./ClusterSettings.ts"

export {
  /** The node that cannot be declared dead, and why. */
  DownRefused
} from "./errors.ts"

/** What others may know of a view. */
export interface ClusterView {
  readonly number: number
  /** oldest first; Joining, Up and Leaving members */
  readonly members: ReadonlyArray<Member>
}

export class Cluster extends Context.Service<Cluster, {
  readonly self: NodeAddress
  readonly view: Effect.Effect<ClusterView>
  /** the view now and after each change (members, status, kinds) */
  readonly changes: Stream.Stream<ClusterView>
  /** the oldest Up member */
  readonly leader: Effect.Effect<Option.Option<Member>>
  readonly isLeader: Effect.Effect<boolean>
  /** may this node do exclusive work now: is its lease valid at this moment? */
  readonly mayAct: () => boolean
  /** waits until `minimumMembers` are Up, at most `bootstrapTimeout` */
  readonly awaitFormed: Effect.Effect<void, ClusterNotFormed>
  /**
   * Declares that incarnation dead without waiting for its lease: the word of an operator, or of the platform that has ended its process or
   * machine. Who says so and why is kept in its closed lease and in the log. It is told first, so that one that lives after all stops acting;
   * one that cannot be told *must not* live, else it may act beside its successor until its lease lapses. Idempotent.
   *
   * Fails `DownRefused` where it is no member, or this very one; `Fenced` where this member's own lease is closed; with an error of the store
   * where it is not done, or (`OutcomeUnknown`) perhaps: ask again.
   */
  readonly down: (
    node: { readonly id: string; readonly incarnation: string },
    word: {
      /** a person, or the name of what watches the platform */
      readonly by: string
      readonly reason: string
    }
  ) => Effect.Effect<void, DownError>
  /**
   * Completes, with the reason in words, when this incarnation has ended for good because its lease was closed: its actors are
   * stopped and it never acts again. Only a new start of the node joins again; supervisors of processes wait for this.
   */
  readonly over: Effect.Effect<string>
}>()("effect-troupe/Cluster/Cluster") {}

/** Why a member was not declared dead. */
export type DownError = DownRefused | ChangeError

/** Why a node did not become a member. */
export type JoinError = SettingInvalid | ProtocolMismatch | ChangeError

/** What a member provides, and what it needs. */
export type ClusterLayer = Layer.Layer<
  Cluster | Placement | Topology,
  JoinError,
  ControlStore | Remoting | ActorHost | Node | SystemEvents
>

const provide = (settings: Effect.Effect<ClusterSettings, SettingInvalid>) =>
  Effect.map(
    makeServices(settings),
    ({ cluster, placement, topology }) =>
      Context.make(Cluster, cluster).pipe(Context.add(Placement, placement), Context.add(Topology, topology))
  )

/**
 * Joins the cluster of this node's system and datacenter, and leaves it in order when the Layer closes: takes nothing new, moves
 * its actors, hands its partitions over, closes its own lease; at most `shutdownTimeout` for all of it. Building it waits until this node is
 * Up, not for others. Fails with `ProtocolMismatch` where the cluster has other settings, naming the setting, and with `SettingInvalid` where
 * this node and every Up member refuse each other because of a secret or a certificate.
 */
export const layer = (options: ClusterOptions): ClusterLayer => Layer.effectContext(provide(group.decode(options)))

/** `layer` with its settings from the environment (`TROUPE_ROLES`, `TROUPE_MINIMUM_MEMBERS`, ...). */
export const layerConfig: ClusterLayer = Layer.effectContext(provide(group.config))

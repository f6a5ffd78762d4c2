/**
 * Membership of this node in its datacenter's cluster, as one totally ordered view.
 *
 * Invariant: a view with a higher number replaces all lower ones; a member that is gone from it never returns (a restart is
 * another incarnation).
 */
import { Context } from "effect"
import type { Effect, Option, Stream } from "effect"
import type { Member, NodeAddress } from "../Actor/Address.ts"
import type { ClusterNotFormed } from "../Actor/errors.ts"

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
}>()("effect-troupe/Cluster/Cluster") {}

/**
 * Where things are: a node, a member of a cluster, an actor on a node. Plain data with schemas, because all of it crosses
 * the wire and the control store.
 *
 * Not for: how to get there (`Delivery`), nor who may be where (`Placement`).
 */
import { Schema } from "effect"

/** One start of one node. `id` is stable for a host's lifetime, `incarnation` is new with each start: a restart is another node. */
export const NodeAddress = Schema.Struct({
  dataCenter: Schema.String,
  id: Schema.String,
  incarnation: Schema.String,
  /** the advertised address, not necessarily the one bound */
  host: Schema.String,
  port: Schema.Int
})
export type NodeAddress = typeof NodeAddress.Type

/** Are both the same start of the same node? */
export const sameNode = (a: NodeAddress, b: NodeAddress): boolean => a.id === b.id && a.incarnation === b.incarnation

/** `id@incarnation`: names one start of one node, in keys and logs. */
export const nodeKey = (node: { readonly id: string; readonly incarnation: string }): string =>
  `${node.id}@${node.incarnation}`

/** `host:port`, for people and for dialing. */
export const endpoint = (node: { readonly host: string; readonly port: number }): string => `${node.host}:${node.port}`

/**
 * One placement of one named actor. `placement` is the number that the directory committed before the actor was started
 * (0 where no directory is asked); `epoch` is that of the name's partition then. Both rise, so the newer address wins.
 */
export const ActorAddress = Schema.Struct({
  kind: Schema.String,
  name: Schema.String,
  node: NodeAddress,
  placement: Schema.Int,
  epoch: Schema.Int
})
export type ActorAddress = typeof ActorAddress.Type

/** Status of a member in its cluster's view. */
export const MemberStatus = Schema.Literals(["Joining", "Up", "Leaving", "Dead"])
export type MemberStatus = typeof MemberStatus.Type

/** A node as its cluster sees it. `age` is taken when it becomes Up: the lowest is the oldest. `kinds` follow registration. */
export const Member = Schema.Struct({
  node: NodeAddress,
  status: MemberStatus,
  age: Schema.Int,
  roles: Schema.Array(Schema.String),
  kinds: Schema.Array(Schema.String)
})
export type Member = typeof Member.Type

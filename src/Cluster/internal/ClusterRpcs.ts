/**
 * What members ask of each other. Requests name the partition and the epoch that the caller believes in; a refusal because of
 * a different epoch carries the current owner, so that whoever is behind catches up without asking the store.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ActorAddress, NodeAddress } from "../../Actor/Address.ts"
import {
  ActorNotFound,
  DirectoryRebuilding,
  NodeUnreachable,
  OutcomeUnknown,
  StartError,
  StoreUnavailable
} from "../../Actor/errors.ts"
import { SpawnSpec } from "../../Actor/Placement.ts"
import { StopReason } from "../../Actor/SystemEvents.ts"

/** Not (or no longer) the owner of that partition: ask `owner`, which has it at `epoch`. */
export class Moved extends Schema.TaggedError<Moved>()("Moved", {
  partition: Schema.Int,
  epoch: Schema.Int,
  owner: Schema.optionalKey(NodeAddress)
}) {}

/** The right one to ask, but it may not answer now: its lease has lapsed, it leaves, or it is behind. Ask again shortly. */
export class NotServing extends Schema.TaggedError<NotServing>()("NotServing", {
  node: Schema.String,
  reason: Schema.String
}) {}

/** An order of an owner that has a successor: it must stop giving orders for that partition. Nothing was done. */
export class Superseded extends Schema.TaggedError<Superseded>()("Superseded", {
  partition: Schema.Int,
  epoch: Schema.Int
}) {}

/** One placement of a name as an owner knows it. `first` is the number of the placement that the spawn began with. */
export const Placed = Schema.Struct({
  spec: SpawnSpec,
  first: Schema.Int,
  placement: Schema.Int,
  /** member that runs it, or is to */
  host: Schema.String
})
export type Placed = typeof Placed.Type

export const PartitionEpoch = Schema.Struct({ partition: Schema.Int, epoch: Schema.Int })
export type PartitionEpoch = typeof PartitionEpoch.Type

/** Names in one answer of `Report` or `Entries`, and characters of their specs; more follow after the last one. */
const namesPerAnswer = 500
const charactersPerAnswer = 200_000

/** The names after that one which fit into one answer, at least one, and whether more follow. */
export const pageOf = (
  names: ReadonlyArray<string>,
  after: string | undefined,
  specOf: (name: string) => SpawnSpec | undefined
): { readonly page: ReadonlyArray<string>; readonly more: boolean } => {
  const left = Array.from(names).sort().filter((name) => after === undefined || name > after)
  const page: Array<string> = []
  let characters = 0
  for (const name of left) {
    characters += name.length + JSON.stringify(specOf(name) ?? "").length
    if (page.length > 0 && (page.length >= namesPerAnswer || characters > charactersPerAnswer)) break
    page.push(name)
  }
  return { page, more: page.length < left.length }
}

export const GrantError = Schema.Union([
  Moved,
  NotServing,
  ...StartError.members,
  NodeUnreachable,
  DirectoryRebuilding,
  StoreUnavailable,
  OutcomeUnknown
])
export type GrantError = typeof GrantError.Type

export const StopError = Schema.Union([Moved, NotServing, DirectoryRebuilding, StoreUnavailable])

export class ClusterRpcs extends RpcGroup.make(
  // ---- asked of a partition's owner
  /** Commits the name, starts the actor on the first candidate that takes it, then answers. Idempotent by `spec.id`. */
  Rpc.make("Grant", {
    payload: { ...PartitionEpoch.fields, spec: SpawnSpec, candidates: Schema.Array(Schema.String) },
    success: ActorAddress,
    error: GrantError
  }),
  Rpc.make("Lookup", {
    payload: { ...PartitionEpoch.fields, name: Schema.String, kind: Schema.String },
    success: ActorAddress,
    error: Schema.Union([Moved, NotServing, DirectoryRebuilding, ActorNotFound])
  }),
  /** Stops the actor and frees the name; answered when both are certain. `placement`: any that this actor has had. */
  Rpc.make("Stop", {
    payload: { ...PartitionEpoch.fields, name: Schema.String, placement: Schema.Int },
    error: StopError
  }),
  /** Its host says that this placement has ended. Idempotent; a number that is not the current one is ignored. */
  Rpc.make("Release", {
    payload: { ...PartitionEpoch.fields, name: Schema.String, placement: Schema.Int, reason: StopReason },
    error: StopError
  }),
  /** The table of a partition that this member owned at that epoch and has handed over. */
  Rpc.make("Entries", {
    payload: { ...PartitionEpoch.fields, after: Schema.optionalKey(Schema.String) },
    success: Schema.Struct({ entries: Schema.Array(Placed), more: Schema.optionalKey(Schema.String) }),
    error: Schema.Union([NotServing])
  }),
  // ---- asked of a member, by a partition's owner
  Rpc.make("Start", {
    payload: { ...PartitionEpoch.fields, spec: SpawnSpec, placement: Schema.Int },
    success: ActorAddress,
    error: Schema.Union([...StartError.members, NotServing, Superseded])
  }),
  /** Stops that placement, or any lower one, of the name; answered when it has stopped (or never ran). */
  Rpc.make("Revoke", {
    payload: { ...PartitionEpoch.fields, name: Schema.String, placement: Schema.Int, reason: StopReason },
    error: Superseded
  }),
  /** What the member runs, starts, or has seen end unacknowledged. It takes no order of a lower epoch from then on. */
  Rpc.make("Report", {
    payload: { partitions: Schema.Array(PartitionEpoch), after: Schema.optionalKey(Schema.String) },
    success: Schema.Struct({
      running: Schema.Array(Schema.Struct({ spec: SpawnSpec, placement: Schema.Int, epoch: Schema.Int })),
      ended: Schema.Array(Schema.Struct({ name: Schema.String, placement: Schema.Int, reason: StopReason })),
      /** the last name told, where more follow */
      more: Schema.optionalKey(Schema.String)
    }),
    error: Superseded
  }),
  // ---- asked of any member
  /** The newest view that the member knows, as it stands in the store; asked when the store has lost it. */
  Rpc.make("KnownView", { success: Schema.Struct({ view: Schema.String }) }),
  /** Are you there, do you hold me for alive, and how busy are you? `closed`: your own lease is closed, and this is how you learn. */
  Rpc.make("Ping", {
    payload: { from: Schema.String, view: Schema.Int, closed: Schema.Boolean },
    success: Schema.Struct({ alive: Schema.Boolean, view: Schema.Int, load: Schema.Int })
  })
) {}

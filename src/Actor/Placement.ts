/**
 * Port: where may this actor go, and where is that name? Alone it knows this node only (`layerLocal`); the cluster ring
 * decorates it with members, and the datacenter ring decorates that with datacenters. `ActorSystem` never learns which ring
 * it runs in.
 */
import { Context, Schema } from "effect"
import type { Effect } from "effect"
import { type ActorAddress } from "./Address.ts"
import type { LookupError, SpawnError, StopError } from "./errors.ts"

/**
 * What to start: the same for every path (here, in the cluster, in another datacenter, at a relocation). `props` are encoded
 * by the kind's schema; policies travel by name only.
 */
export const SpawnSpec = Schema.Struct({
  /** the caller's id for this spawn: the same id again returns the same actor, so that a retry does not meet its own name */
  id: Schema.String,
  kind: Schema.String,
  name: Schema.String,
  /** props, encoded as JSON values */
  props: Schema.Unknown,
  role: Schema.optionalKey(Schema.String),
  /** default true: moved to another member when its member departs */
  relocatable: Schema.Boolean
})
export type SpawnSpec = typeof SpawnSpec.Type

/** How a member is chosen among the eligible ones. */
export const Strategy = Schema.Literals(["local", "roundRobin", "random", "leastLoad"])
export type Strategy = typeof Strategy.Type

/** A datacenter by name; region, zone and labels must match too where they are given. */
export const DataCenterSelector = Schema.Struct({
  name: Schema.optionalKey(Schema.String),
  region: Schema.optionalKey(Schema.String),
  zone: Schema.optionalKey(Schema.String),
  labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.String))
})
export type DataCenterSelector = typeof DataCenterSelector.Type

/** Where to start it. Every part given must hold, else `NoEligibleMember`. */
export const Target = Schema.Struct({
  strategy: Strategy,
  /** a member's id */
  on: Schema.optionalKey(Schema.String),
  /** only members that carry this role */
  role: Schema.optionalKey(Schema.String),
  dataCenter: Schema.optionalKey(Schema.Union([Schema.String, DataCenterSelector]))
})
export type Target = typeof Target.Type

export class Placement extends Context.Service<Placement, {
  /** Commits the name, starts the actor, then acknowledges. Idempotent by `spec.id`. */
  readonly spawn: (spec: SpawnSpec, target: Target) => Effect.Effect<ActorAddress, SpawnError>
  /**
   * The current address of a name. With `not`, an address the caller found to be out of date: caches at or below it are
   * passed over.
   */
  readonly lookup: (kind: string, name: string, options: {
    readonly dataCenter?: string | undefined
    readonly not?: ActorAddress | undefined
  }) => Effect.Effect<ActorAddress, LookupError>
  /** Stops the actor and frees its name; acknowledged when both are certain. Idempotent: no such actor is success. */
  readonly stop: (address: ActorAddress) => Effect.Effect<void, StopError>
}>()("effect-troupe/Actor/Placement") {}

/**
 * Port: where may this actor go, and where is that name? Alone it knows this node only (`layerLocal`); the cluster ring
 * decorates it with members, and the datacenter ring decorates that with datacenters. `ActorSystem` never learns which ring
 * it runs in.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { ActorHost } from "./ActorHost.ts"
import { type ActorAddress, sameNode } from "./Address.ts"
import {
  ActorNotFound,
  KindMismatch,
  type LookupError,
  NoEligibleMember,
  RecordNotFound,
  type SpawnError,
  type StopError
} from "./errors.ts"
import { hostOf, placeOn } from "./internal/Host.ts"
import { Node } from "./Node.ts"

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

/** This node and nothing else: it carries no role, and its datacenter is the only one. */
export const makeLocal = Effect.gen(function*() {
  const host = yield* ActorHost
  const { address: self } = yield* Node
  const actors = hostOf(host)

  const nameOf = (target: string | DataCenterSelector): string =>
    typeof target === "string" ? target : target.name ?? JSON.stringify(target)

  const spawn = (spec: SpawnSpec, target: Target): Effect.Effect<ActorAddress, SpawnError> =>
    Effect.suspend((): Effect.Effect<ActorAddress, SpawnError> => {
      if (target.dataCenter !== undefined && nameOf(target.dataCenter) !== self.dataCenter) {
        return Effect.fail(new RecordNotFound({ dataCenter: nameOf(target.dataCenter) }))
      }
      if (target.on !== undefined && target.on !== self.id) {
        return Effect.fail(new NoEligibleMember({ kind: spec.kind, reason: `there is no member ${target.on}` }))
      }
      if (target.role !== undefined) {
        return Effect.fail(new NoEligibleMember({ kind: spec.kind, reason: `no member has the role ${target.role}` }))
      }
      // The name is committed by starting it: one host, one map. The host numbers the lives of a name.
      return actors.start(spec, undefined)
    })

  const lookup: Placement["Service"]["lookup"] = (kind, name, { dataCenter, not }) =>
    Effect.suspend((): Effect.Effect<ActorAddress, LookupError> => {
      if (dataCenter !== undefined && dataCenter !== self.dataCenter) {
        return Effect.fail(new RecordNotFound({ dataCenter }))
      }
      const found = host.find(name)
      if (found === undefined) return Effect.fail(new ActorNotFound({ name, kind }))
      if (found.spec.kind !== kind) {
        return Effect.fail(new KindMismatch({ name, expected: kind, actual: found.spec.kind }))
      }
      const stale = not !== undefined && sameNode(not.node, self) && not.placement >= found.address.placement
      return stale ? Effect.fail(new ActorNotFound({ name, kind })) : Effect.succeed(found.address)
    })

  const placement = Placement.of({
    spawn,
    lookup,
    stop: (address) => actors.stop(address.name, { placement: address.placement, reason: "Stopped" })
  })
  placeOn(placement, actors)
  return placement
})

export const layerLocal: Layer.Layer<Placement, never, ActorHost | Node> = Layer.effect(Placement, makeLocal)

/**
 * What one datacenter asks of another, at any of its nodes: every node serves it, and answers by its own cluster's placement.
 * The tags carry the ring's name, so that other groups can live beside this one.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ActorAddress } from "../Actor/Address.ts"
import { LookupError, SpawnError, StopError } from "../Actor/errors.ts"
import { DataCenterSelector, SpawnSpec, Strategy } from "../Actor/Placement.ts"

export class DataCenterRpcs extends RpcGroup.make(
  /**
   * Starts an actor in the datacenter asked, by its own placement. Idempotent by `spec.id`. The selector comes along and is
   * checked again there: a caller whose records are old cannot place an actor where it must not live, nor into a drained one.
   */
  Rpc.make("DataCenter.Spawn", {
    payload: {
      spec: SpawnSpec,
      selector: DataCenterSelector,
      strategy: Strategy,
      on: Schema.optionalKey(Schema.String),
      role: Schema.optionalKey(Schema.String)
    },
    success: ActorAddress,
    error: SpawnError
  }),
  /** The address of a name in the datacenter asked, and in no other. */
  Rpc.make("DataCenter.Lookup", {
    payload: { kind: Schema.String, name: Schema.String, not: Schema.optionalKey(ActorAddress) },
    success: ActorAddress,
    error: LookupError
  }),
  /** Stops an actor of the datacenter asked and frees its name. Idempotent. */
  Rpc.make("DataCenter.Stop", { payload: { address: ActorAddress }, error: StopError })
) {}

/**
 * What an outsider asks of a node: every node that lets clients in serves it, and answers by its own placement, whatever ring it
 * runs in.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { ActorAddress } from "../Actor/Address.ts"
import { LookupError, SpawnError, StopError } from "../Actor/errors.ts"
import { SpawnSpec, Target } from "../Actor/Placement.ts"

export const Endpoint = Schema.Struct({ host: Schema.String, port: Schema.Int })
export type Endpoint = typeof Endpoint.Type

export class ClientRpcs extends RpcGroup.make(
  /** Idempotent by `spec.id`, so a client may ask another node when one does not answer. */
  Rpc.make("Client.Spawn", { payload: { spec: SpawnSpec, target: Target }, success: ActorAddress, error: SpawnError }),
  Rpc.make("Client.Lookup", {
    payload: {
      kind: Schema.String,
      name: Schema.String,
      dataCenter: Schema.optionalKey(Schema.String),
      not: Schema.optionalKey(ActorAddress)
    },
    success: ActorAddress,
    error: LookupError
  }),
  /** Idempotent. */
  Rpc.make("Client.Stop", { payload: { address: ActorAddress }, error: StopError }),
  /** How busy the node is (actors), and where its cluster can be reached now. */
  Rpc.make("Client.Info", { success: Schema.Struct({ load: Schema.Int, endpoints: Schema.Array(Endpoint) }) })
) {}

/**
 * Calls between nodes: groups of `effect/rpc` served and called on the connections that also carry messages. Cluster and
 * datacenter define their groups and never see a socket.
 *
 * A call is at most once. It fails `NodeUnreachable` with `outcome: "NotSent"` when it certainly did not reach a handler (no
 * connection, wrong incarnation, authentication) and `"Unknown"` when it may have (connection lost or deadline passed in mid-call).
 */
import { Context } from "effect"
import type { Duration, Effect, Scope } from "effect"
import type { Rpc, RpcGroup } from "effect/rpc"
import type { NodeAddress } from "../Actor/Address.ts"
import type { NodeUnreachable } from "../Actor/errors.ts"

/** A node by address alone (an endpoint), or one particular start of a node: any other found there is `NodeUnreachable`. */
export interface Peer {
  readonly host: string
  readonly port: number
  readonly id?: string | undefined
  readonly incarnation?: string | undefined
}

export class Remoting extends Context.Service<Remoting, {
  /** Answers calls of that group for as long as the scope lives. One server a group. */
  readonly serve: <Rpcs extends Rpc.Any>(
    group: RpcGroup.RpcGroup<Rpcs>
  ) => Effect.Effect<void, never, Scope.Scope | Rpc.ToHandler<Rpcs> | Rpc.ServicesServer<Rpcs>>
  /**
   * Calls one rpc of a group at a peer; dials if there is no connection yet. `timeout` defaults to 5 s. Calling this very node
   * works too and stays inside the process.
   */
  readonly call: <Rpcs extends Rpc.Any, const Tag extends Rpcs["_tag"]>(
    to: Peer,
    group: RpcGroup.RpcGroup<Rpcs>,
    tag: Tag,
    payload: Rpc.PayloadConstructor<Rpc.ExtractTag<Rpcs, Tag>>,
    options?: { readonly timeout?: Duration.Input | undefined }
  ) => Effect.Effect<Rpc.Success<Rpc.ExtractTag<Rpcs, Tag>>, Rpc.Error<Rpc.ExtractTag<Rpcs, Tag>> | NodeUnreachable>
  /** Closes every connection to that incarnation and refuses it from now on: its lease is closed. Idempotent. */
  readonly shun: (node: { readonly id: string; readonly incarnation: string }) => Effect.Effect<void>
  /** who is connected now */
  readonly connected: Effect.Effect<ReadonlyArray<NodeAddress>>
}>()("effect-troupe/Remoting/Remoting") {}

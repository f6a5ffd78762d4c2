/**
 * The definition of a kind of actor, without its behaviour: name, protocol, props. What a caller needs to talk to one, and
 * what both ends of a connection need to encode its messages.
 *
 * `Actor.make` builds it with the typed surface on top; this is the part that the rings pass around.
 */
import type { Schema } from "effect"
import { type Rpc, RpcSchema } from "effect/rpc"

/** One message of a protocol. */
export interface MessageDefinition {
  readonly tag: string
  readonly payload: Schema.Top
  readonly success: Schema.Top
  readonly error: Schema.Top
  readonly stream: boolean
}

export interface KindDefinition {
  readonly name: string
  readonly messages: ReadonlyMap<string, MessageDefinition>
  readonly props: Schema.Top
  /** a digest of the protocol's schemas: two sides with the same one understand each other fully */
  readonly fingerprint: string
}

/** The schemas of an rpc, as a message. */
export const messageOf = (rpc: Rpc.AnyWithProps): MessageDefinition => ({
  tag: rpc._tag,
  payload: rpc.payloadSchema,
  success: rpc.successSchema,
  error: rpc.errorSchema,
  stream: RpcSchema.isStreamSchema(rpc.successSchema)
})

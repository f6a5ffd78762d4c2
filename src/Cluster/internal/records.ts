/**
 * What is in the cluster's keys besides the view and the leases. All of it is input: what does not decode is left aside.
 */
import { Effect, Schema } from "effect"
import { NodeAddress } from "../../Actor/Address.ts"
import { Listening } from "../../Remoting/Transport.ts"

/** What a member is: written before it joins, never changed. */
export const MemberRecord = Schema.Struct({
  node: NodeAddress,
  roles: Schema.Array(Schema.String),
  partitionCount: Schema.Int,
  /** where it listens, by which others of its machine judge a refusal */
  listening: Schema.optionalKey(Listening)
})
export type MemberRecord = typeof MemberRecord.Type

/** The cluster itself: made once, raised only when the store had lost it. */
export const ClusterRecord = Schema.Struct({ id: Schema.String, partitionCount: Schema.Int, generation: Schema.Int })
export type ClusterRecord = typeof ClusterRecord.Type

const json = <S extends Schema.Top & { readonly DecodingServices: never }>(schema: S) => {
  const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(schema))
  return (text: string) => decode(text).pipe(Effect.option)
}
export const decodeMember = json(MemberRecord)
export const decodeCluster = json(ClusterRecord)
export const encodeCluster = (record: ClusterRecord) => JSON.stringify(record)
export const decodeKinds = json(Schema.Array(Schema.String))

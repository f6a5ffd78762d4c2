/**
 * What a lease's key holds. Durations and counters only, never a time: no two clocks are compared.
 */
import { Option, Schema } from "effect"

export const LeaseRecord = Schema.Struct({
  state: Schema.Literals(["Held", "Closed"]),
  /** rises with each renewal */
  counter: Schema.Int,
  /** D, in milliseconds: how long its owner may act from the send time of a renewal */
  duration: Schema.Number.check(Schema.isGreaterThan(0)),
  /** which start of which owner (or closer) wrote it, and with which of its writes: so that it knows its own write again */
  writer: Schema.String,
  operation: Schema.Int,
  /** who closed it, and why: for people */
  closed: Schema.optionalKey(Schema.Struct({ by: Schema.String, reason: Schema.String }))
})
export type LeaseRecord = typeof LeaseRecord.Type

const codec = Schema.fromJsonString(LeaseRecord)
const decodeOption = Schema.decodeUnknownOption(codec)

/** undefined: not a lease (foreign or damaged) */
export const decodeLease = (value: string): LeaseRecord | undefined => Option.getOrUndefined(decodeOption(value))
export const encodeLease: (record: LeaseRecord) => string = Schema.encodeSync(codec)

/** How much longer than D an observer waits, in milliseconds: for clock rates within 1 %. */
export const leaseMargin = (duration: number): number => Math.max(250, duration * 0.02)

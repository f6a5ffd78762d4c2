/**
 * What can be seen of an actor from outside: a picture of one moment, with a schema because it crosses the wire.
 *
 * Not for: counts over time (`ActorMetrics`), nor what happened (`SystemEvents`).
 */
import { Schema } from "effect"
import { statusNames } from "./internal/Status.ts"

/** An actor's state of life; docs/cell.md draws them. */
export const ActorStatus = Schema.Literals(statusNames)
export type ActorStatus = typeof ActorStatus.Type

export interface Inspected {
  readonly name: string
  readonly kind: string
  readonly status: ActorStatus
  /** messages that wait, those of the control lane included */
  readonly waiting: number
  readonly stashed: number
  /** messages that are handled beside the mailbox */
  readonly detached: number
  /** of this placement, since it was started */
  readonly restarts: number
  /** names of those that have not run out */
  readonly timers: ReadonlyArray<string>
  /** in the order in which they were started */
  readonly children: ReadonlyArray<Inspected>
}

export const Inspected: Schema.Codec<Inspected> = Schema.Struct({
  name: Schema.String,
  kind: Schema.String,
  status: ActorStatus,
  waiting: Schema.Int,
  stashed: Schema.Int,
  detached: Schema.Int,
  restarts: Schema.Int,
  timers: Schema.Array(Schema.String),
  children: Schema.Array(Schema.suspend((): Schema.Codec<Inspected> => Inspected))
})

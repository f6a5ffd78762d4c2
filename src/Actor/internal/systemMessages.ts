/**
 * Messages that every kind understands besides its own: they travel like any other, so that watching works wherever the actor
 * is. Their tags begin with `$`.
 */
import { Schema } from "effect"
import type { MessageDefinition } from "../Kind.ts"
import { StopReason } from "../SystemEvents.ts"
import type { Cell } from "./Cell.ts"
import type { Envelope } from "./Envelope.ts"
import { Alarm, type Watcher } from "./Extras.ts"

/** Asks for the actor's end: its reason, or null when it still lived after `wait` milliseconds. */
export const watchTag = "$watch"

export const systemDefinitions: ReadonlyArray<MessageDefinition> = [{
  tag: watchTag,
  payload: Schema.Struct({ wait: Schema.Int }) as unknown as Schema.Top,
  success: Schema.NullOr(StopReason),
  error: Schema.Never,
  stream: false
}]

/** Does this message belong to the runtime? If so it is done with. */
export const systemMessage = (cell: Cell, envelope: Envelope): boolean => {
  if (envelope.tag !== watchTag) return false
  const { wait } = envelope.payload as { readonly wait: number }
  const { timeouts } = cell.host
  const watchers = cell.more.watchers ??= new Set()
  const alarm = new Alarm(() => {
    watchers.delete(watcher)
    envelope.succeed(null)
  })
  const watcher: Watcher = {
    ended: (reason) => {
      timeouts.cancel(alarm)
      envelope.succeed(reason)
    }
  }
  watchers.add(watcher)
  timeouts.add(wait, alarm)
  return true
}

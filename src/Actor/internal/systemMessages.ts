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
import { Status } from "./Status.ts"

/** Asks for the actor's end: its reason, or null when it still lived after `wait` milliseconds. */
export const watchTag = "$watch"
/** Suspends the actor, once the messages before it are handled. */
export const suspendTag = "$suspend"
/** Lets a suspended actor go on; the one message that it handles while suspended. */
export const reinstateTag = "$reinstate"
/** Answers when all messages before it have been handled. */
export const barrierTag = "$barrier"

const definition = (tag: string, payload: unknown, success: unknown): MessageDefinition => ({
  tag,
  payload: payload as Schema.Top,
  success: success as Schema.Top,
  error: Schema.Never,
  stream: false
})

export const systemDefinitions: ReadonlyArray<MessageDefinition> = [
  definition(watchTag, Schema.Struct({ wait: Schema.Int }), Schema.NullOr(StopReason)),
  definition(suspendTag, Schema.Void, Schema.Void),
  definition(reinstateTag, Schema.Void, Schema.Void),
  definition(barrierTag, Schema.Void, Schema.Void)
]

const watch = (cell: Cell, envelope: Envelope): void => {
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
}

/** Does this message belong to the runtime? If so it is done with. A suspended cell asks at once, others in turn. */
export const systemMessage = (cell: Cell, envelope: Envelope): boolean => {
  switch (envelope.tag) {
    case watchTag:
      watch(cell, envelope)
      return true
    case suspendTag:
      cell.suspend("asked to")
      envelope.succeed(undefined)
      return true
    case reinstateTag:
      envelope.succeed(undefined)
      cell.reinstate()
      return true
    case barrierTag:
      if (cell.status > Status.Busy) return false
      envelope.succeed(undefined)
      return true
    default:
      return false
  }
}

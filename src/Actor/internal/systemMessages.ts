/**
 * Messages that every kind understands besides its own: they travel like any other, so that watching, stopping and looking at an
 * actor work wherever it is. Their tags begin with `$`.
 *
 * Most wait their turn in the mailbox. Urgent ones take effect where they arrive, because they are for actors that do not get to
 * their mailbox, too.
 *
 * Nodes of the system may send all of them, those of other datacenters too, for whoever operates one may have to operate all. Outsiders
 * may send what `ActorSystem.stop` consists of; the rest is refused where it comes in (remoting), before it is read.
 */
import { Schema } from "effect"
import type { NodeAddress } from "../Address.ts"
import { Inspected } from "../Inspected.ts"
import type { MessageDefinition } from "../Kind.ts"
import { NotAllowed } from "../errors.ts"
import { StopReason } from "../SystemEvents.ts"
import type { Cell } from "./Cell.ts"
import { Asker, type Envelope } from "./Envelope.ts"
import { Alarm, type Watcher } from "./Extras.ts"
import { inspect } from "./inspect.ts"
import { Status } from "./Status.ts"

/** Asks for the actor's end: its reason, or null when it still lived after `wait` milliseconds. */
export const watchTag = "$watch"
/** Suspends the actor, once the messages before it are handled. */
export const suspendTag = "$suspend"
/** Lets a suspended actor go on; the one message that it handles while suspended. */
export const reinstateTag = "$reinstate"
/** Answers when all messages before it have been handled, those beside the mailbox included. */
export const barrierTag = "$barrier"
/** Builds the behaviour anew, once the messages before it are handled. */
export const restartTag = "$restart"
/** Ends the actor at once, if it is nobody's child; urgent. */
export const endTag = "$end"
/** Asks what can be seen of the actor; urgent. */
export const inspectTag = "$inspect"

/** Does the tag belong to the runtime? */
export const isSystemTag = (tag: string): boolean => tag.charCodeAt(0) === 36

/**
 * Is the question to be asked past the messages that are on their way to the actor? `full`: only where those have filled the way;
 * undefined: never, it takes its turn.
 */
export const urgency = (tag: string): "always" | "full" | undefined => {
  switch (tag) {
    case endTag:
    case inspectTag:
      return "always"
    case watchTag:
      return "full"
    default:
      return undefined
  }
}

/** May an outsider send it? */
export const isForClients = (tag: string): boolean => !isSystemTag(tag) || tag === barrierTag || tag === endTag

/** What an outsider is told who sends another one to an actor of this node. */
export const notForClients = (tag: string, name: string, { dataCenter, id }: NodeAddress): NotAllowed =>
  new NotAllowed({ operation: tag.slice(1), name, caller: "a client", refusedBy: id, dataCenter })

const definition = (tag: string, payload: unknown, success: unknown): MessageDefinition => ({
  tag,
  payload: payload as Schema.Top,
  success: success as Schema.Top,
  error: isForClients(tag) ? Schema.Never : NotAllowed,
  stream: false
})

export const systemDefinitions: ReadonlyArray<MessageDefinition> = [
  definition(watchTag, Schema.Struct({ wait: Schema.Int }), Schema.NullOr(StopReason)),
  definition(suspendTag, Schema.Void, Schema.Void),
  definition(reinstateTag, Schema.Void, Schema.Void),
  definition(barrierTag, Schema.Void, Schema.Void),
  definition(restartTag, Schema.Void, Schema.Void),
  definition(endTag, Schema.Struct({ placement: Schema.Int }), Schema.Void),
  definition(inspectTag, Schema.Void, Inspected)
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
  if (envelope instanceof Asker) {
    envelope.carrier = {
      forget: () => {
        timeouts.cancel(alarm)
        watchers.delete(watcher)
      }
    }
  }
}

/** Is this message one that takes effect where it arrives, whatever the actor does? If so it is done with. */
export const urgentMessage = (cell: Cell, envelope: Envelope): boolean => {
  switch (envelope.tag) {
    case endTag:
      // A later life of the name is another actor; a child has its parent's placement, and ends with its parent.
      if ((envelope.payload as { readonly placement: number }).placement === cell.placement && !cell.isChild) {
        cell.stop("Stopped", { now: true })
      }
      envelope.succeed(undefined)
      return true
    case inspectTag:
      envelope.succeed(inspect(cell))
      return true
    case watchTag:
      if (!cell.accepts) return false
      watch(cell, envelope)
      return true
    default:
      return false
  }
}

/** Does this message belong to the runtime? If so it is done with. A suspended cell asks at once, others in turn. */
export const systemMessage = (cell: Cell, envelope: Envelope): boolean => {
  switch (envelope.tag) {
    case suspendTag:
      cell.suspend("asked to")
      envelope.succeed(undefined)
      return true
    case reinstateTag:
      envelope.succeed(undefined)
      cell.reinstate()
      return true
    case restartTag:
      envelope.succeed(undefined)
      cell.renew()
      return true
    case barrierTag:
      if (cell.status > Status.Busy) return false
      // What goes on beside the mailbox is of before, too.
      if (cell.extras !== undefined && cell.extras.detached.size > 0) cell.extras.barriers.push(envelope)
      else envelope.succeed(undefined)
      return true
    default:
      return urgentMessage(cell, envelope)
  }
}

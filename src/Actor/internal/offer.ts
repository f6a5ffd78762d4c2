/** Offering a message to a cell, and what its sender sees of the outcome. */
import { Effect, Exit } from "effect"
import { ActorStopped, type TellError } from "../errors.ts"
import { Accepted, type Cell } from "./Cell.ts"
import { Asked, type Asker, type Envelope } from "./Envelope.ts"
import { Status } from "./Status.ts"

/** A tell: waits where the mailbox says so; `stopped` where the actor takes no messages. */
export const offer = (
  cell: Cell,
  envelope: Envelope,
  stopped: () => Effect.Effect<void, TellError>
): Effect.Effect<void, TellError> => {
  const accepted = cell.accept(envelope)
  return accepted === Accepted.Yes
    ? Exit.void
    : accepted === Accepted.Stopped
    ? stopped()
    : accepted === Accepted.Full
    ? Exit.fail(cell.full())
    : Effect.callback((resume) => {
      const waiter = cell.waitForRoom(envelope, (ended) => resume(ended ? stopped() : Exit.void))
      return Effect.sync(() => waiter.leave())
    })
}

/** An ask: its sender waits for the reply anyhow, so waiting for room is part of that. */
export const offerAsk = (cell: Cell, envelope: Asked | Asker): void => {
  const accepted = cell.accept(envelope)
  if (accepted === Accepted.Yes) return
  if (accepted === Accepted.Full) return envelope.refuse(cell.full())
  const refuse = () => envelope.refuse(new ActorStopped({ name: cell.name }))
  if (accepted === Accepted.Stopped) return refuse()
  const waiter = cell.waitForRoom(envelope, (ended) => {
    if (ended) refuse()
  })
  if (envelope instanceof Asked) envelope.waiter = waiter
  else {
    envelope.carrier = {
      forget: (asker, interrupted) => {
        waiter.leave()
        cell.forget(asker, interrupted)
      }
    }
  }
}

/** messages handled on the stack of their senders, one inside the other; beyond that they wait their turn */
const deepest = 8

/**
 * Handles a message at once, on its sender's stack, where its actor has nothing else to do: for a sender that waits for the
 * answer anyhow, so that it need not suspend. False: nothing has happened, and `offerAsk` is the way.
 */
export const handleNow = (cell: Cell, envelope: Envelope): boolean => {
  const { queue } = cell.registration.host
  if (cell.status !== Status.Idle || queue.held || queue.nested >= deepest) return false
  // A cell that is ready already is not put into the queue.
  cell.status = Status.Ready
  if (cell.accept(envelope) !== Accepted.Yes) {
    cell.status = Status.Idle
    return false
  }
  queue.nested++
  cell.turn(1)
  queue.nested--
  return true
}

/** What few cells ever need, made when it is first needed, so that the others do not pay for it. */
import type { Cause, Effect, Exit, Fiber } from "effect"
import type { ActorAddress } from "../Address.ts"
import type { StartFailed } from "../errors.ts"
import type { History } from "../Supervision.ts"
import type { StopReason } from "../SystemEvents.ts"
import type { Cell, HandlerTable } from "./Cell.ts"
import type { Envelope } from "./Envelope.ts"
import type { StreamSession } from "./streams.ts"
import type { Idleness } from "./Idleness.ts"
import { Ring } from "./Ring.ts"
import { Deadline } from "./Timeouts.ts"
import type { Worker } from "./Worker.ts"

/** A deadline that calls back. */
export class Alarm extends Deadline {
  private readonly ring: () => void
  constructor(ring: () => void) {
    super()
    this.ring = ring
  }
  expire(): void {
    this.ring()
  }
}

/** Somebody who wants to know when the cell has ended. */
export interface Watcher {
  readonly ended: (reason: StopReason) => void
}

export class Extras {
  // ---- life
  startWaiters: Array<(exit: Exit.Exit<ActorAddress, StartFailed>) => void> = []
  stopWaiters: Array<() => void> = []
  stopReason: StopReason = "Stopped"
  /** stopped without the grace */
  hurried = false
  /** why it never started */
  failure: StartFailed | undefined = undefined
  attempts = 0
  restarts: History = []
  restartCount = 0
  /** of the last failure, for the backoff */
  cause: Cause.Cause<unknown> | undefined = undefined
  /** the step function of the supervision's backoff while it counts */
  backoff: ((cause: Cause.Cause<unknown>) => Effect.Effect<unknown, unknown>) | undefined = undefined
  deadline: Deadline | undefined = undefined
  /** of the start, or the pause before one, that is under way */
  starting: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** a scope is being closed: what comes next is decided when that is done */
  closing = false
  /** suspended as soon as it has its new behaviour */
  suspendSoon = false
  /** it failed while suspended: its behaviour is built anew when it is reinstated */
  rebuild = false
  /** restarted because somebody asked: without a backoff */
  renewing = false
  /** the behaviour is given up until the next message */
  passivating = false
  // ---- family
  parent: Cell | undefined = undefined
  children: Map<string, Cell> | undefined = undefined
  watchers: Set<Watcher> | undefined = undefined
  // ---- this incarnation
  /** behaviours beneath the present one */
  readonly behaviors: Array<HandlerTable> = []
  stash: Ring<Envelope> | undefined = undefined
  timers: Map<string, Alarm> | undefined = undefined
  /** told to undo what this incarnation set up outside of its scope: watches of others */
  readonly undo = new Set<() => void>()
  readonly detached = new Set<Worker>()
  /** of them those that are none of the kind's reentrancy */
  unbounded = 0
  /** whoever waits until nothing is detached */
  barriers: Array<Envelope> = []
  streams: Map<number, StreamSession> | undefined = undefined
  /** number of the last stream: a late pull of one of an earlier behaviour must not meet one of this */
  lastStream = 0
  receiveTimeout: { readonly millis: number; readonly alarm: Alarm } | undefined = undefined
  /** what this incarnation watches, and how to stop that */
  watching: Map<string, () => void> | undefined = undefined
  /** how many want it not to be passivated */
  awake = 0
  idleness: Idleness | undefined = undefined
  /** asked to give up its behaviour once it is idle */
  passivateSoon = false
  // ---- senders that wait for room
  waiting: WaitingRoom | undefined = undefined
}

/** A sender that waits until its message is in, or the actor has ended. */
export class Waiter {
  readonly envelope: Envelope
  readonly admitted: (stopped: boolean) => void
  /** where it waits; undefined: it does not any more */
  room: WaitingRoom | undefined = undefined
  previous: Waiter | undefined = undefined
  next: Waiter | undefined = undefined

  constructor(envelope: Envelope, admitted: (stopped: boolean) => void) {
    this.envelope = envelope
    this.admitted = admitted
  }

  /** Nobody wants its message in any more; no effect where it does not wait. */
  leave(): void {
    this.room?.remove(this)
  }
}

/** Senders in the order of their arrival. A linked list, because each may leave at any time, and all of them may. */
export class WaitingRoom {
  size = 0
  private first: Waiter | undefined = undefined
  private last: Waiter | undefined = undefined

  push(waiter: Waiter): void {
    waiter.room = this
    waiter.previous = this.last
    if (this.last === undefined) this.first = waiter
    else this.last.next = waiter
    this.last = waiter
    this.size++
  }

  /** The one who has waited longest; only while `size > 0`. */
  shift(): Waiter {
    const waiter = this.first!
    this.remove(waiter)
    return waiter
  }

  remove(waiter: Waiter): void {
    const { next, previous } = waiter
    if (previous === undefined) this.first = next
    else previous.next = next
    if (next === undefined) this.last = previous
    else next.previous = previous
    waiter.room = waiter.previous = waiter.next = undefined
    this.size--
  }
}

/** A message of the runtime's own that waits for what was in a bounded mailbox before it. */
export interface Later {
  readonly envelope: Envelope
  /** its turn, in messages that have left the mailbox as `Lanes.left` counts them */
  readonly turn: number
}

/** The lane that overtakes: the runtime's own messages, then what was stashed and is back. */
export class Lanes {
  readonly control = new Ring<Envelope>()
  readonly front = new Ring<Envelope>()
  /** bounds, priorities and queues of one's own are for the kind's messages; these stand beside */
  readonly later = new Ring<Later>()
  /** messages that have left the mailbox since there are lanes */
  left = 0
}

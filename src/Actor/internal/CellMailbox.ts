/**
 * The part of a cell that takes messages in and gives them out: the mailbox with its bounds, and the lanes that overtake it.
 *
 * Invariant: a message that was accepted leaves through `poll`, or is dropped as a dead letter.
 */
import { Cause, type Effect } from "effect"
import type { HostedActor } from "../ActorHost.ts"
import type { ActorAddress } from "../Address.ts"
import { InvalidData, MailboxFull, type StartFailed } from "../errors.ts"
import type { MessageQueue } from "../Mailbox.ts"
import type { SpawnSpec } from "../Placement.ts"
import type { Cell, HandlerTable } from "./Cell.ts"
import type { Envelope } from "./Envelope.ts"
import { Extras, Lanes, Waiter, WaitingRoom } from "./Extras.ts"
import type { Host, Registration } from "./Host.ts"
import { Ring } from "./Ring.ts"
import { Status } from "./Status.ts"
import { isSystemTag, systemMessage } from "./systemMessages.ts"
import { Task } from "./Task.ts"
import { reasonOf } from "./words.ts"

/** What became of a message that was offered. */
export const Accepted = {
  Yes: 0,
  /** the actor ends or has ended */
  Stopped: 1,
  /** no room, and the sender is to know */
  Full: 2,
  /** no room, and the sender is to wait: `waitForRoom` */
  Wait: 3
} as const
export type Accepted = typeof Accepted[keyof typeof Accepted]

export abstract class CellMailbox implements HostedActor {
  readonly name: string
  readonly registration: Registration
  readonly placement: number
  readonly epoch: number
  status: Status = Status.Starting
  handlers: HandlerTable | undefined = undefined
  extras: Extras | undefined = undefined
  private mailbox: MessageQueue<Envelope> | undefined = undefined
  private lanes: Lanes | undefined = undefined
  private readonly given: SpawnSpec | undefined

  /** `given` undefined: there is no more to say than its kind, its name and the number of its placement. */
  constructor(
    registration: Registration,
    name: string,
    given: SpawnSpec | undefined,
    placement: number,
    epoch: number
  ) {
    this.registration = registration
    this.name = name
    this.given = given
    this.placement = placement
    this.epoch = epoch
  }

  /** the whole cell */
  protected abstract readonly cell: Cell
  /** Builds the behaviour that a passivated cell gave up. */
  protected abstract awaken(): void

  /** Made on demand: most actors are never asked for it. */
  get address(): ActorAddress {
    const { kind, name } = this
    return { kind, name, node: this.host.node, placement: this.placement, epoch: this.epoch }
  }

  /** As it was asked for; made on demand where that was no more than a name. */
  get spec(): SpawnSpec {
    const { given, host, kind, name, placement } = this
    return given ?? { id: `${host.node.incarnation}+${placement}`, kind, name, props: {}, relocatable: true }
  }

  get kind(): string {
    return this.registration.definition.name
  }

  get host(): Host {
    return this.registration.host
  }

  /** messages that wait */
  get depth(): number {
    const lanes = this.lanes
    return (this.mailbox === undefined ? 0 : this.mailbox.size) +
      (lanes === undefined ? 0 : lanes.control.size + lanes.front.size + lanes.later.size)
  }

  get accepts(): boolean {
    return this.status < Status.Stopping
  }

  get isStarting(): boolean {
    return this.status === Status.Starting
  }

  /** it belongs to another actor, and no directory knows it */
  get isChild(): boolean {
    return this.extras?.parent !== undefined
  }

  /** how many parents it has above it */
  get generation(): number {
    const parent = this.extras?.parent
    return parent === undefined ? 0 : parent.generation + 1
  }

  /** why it never started */
  get failure(): StartFailed | undefined {
    return this.extras?.failure
  }

  get more(): Extras {
    return this.extras ??= new Extras()
  }

  // ---- messages --------------------------------------------------------------------------------------------------------

  /** Offers a message. Only `Yes` means that it is in; what a mailbox drops is in and out again. */
  accept(envelope: Envelope): Accepted {
    if (this.status >= Status.Suspended && this.status !== Status.Restarting) {
      if (this.status >= Status.Stopping) return Accepted.Stopped
      if (systemMessage(this.cell, envelope)) return Accepted.Yes
    }
    const mailbox = this.registration.options.mailbox
    this.registration.counts.waiting++
    if (mailbox === undefined) (this.mailbox ??= new Ring<Envelope>()).push(envelope)
    else {
      let refused: Accepted
      try {
        refused = this.acceptBounded(envelope)
      } catch (defect) {
        this.broken(defect)
        refused = Accepted.Stopped
      }
      if (refused !== Accepted.Yes) {
        this.registration.counts.waiting--
        return refused
      }
    }
    if (this.status === Status.Idle) {
      this.status = Status.Ready
      this.registration.host.queue.wake(this.cell)
    } else if (this.status === Status.Dormant) this.awaken()
    return Accepted.Yes
  }

  private acceptBounded(envelope: Envelope): Accepted {
    const { capacity, control, makeQueue, overflow } = this.registration.options.mailbox!
    if (control.has(envelope.tag)) {
      this.registration.counts.waiting--
      this.lane.control.push(envelope)
      return Accepted.Yes
    }
    const mailbox = this.mailbox ??= makeQueue()
    if (isSystemTag(envelope.tag)) {
      this.registration.counts.waiting--
      const { lane } = this
      lane.later.push({ envelope, turn: lane.left + mailbox.size })
    } else if (mailbox.size < capacity) this.push(mailbox, envelope)
    else if (overflow === "fail") return Accepted.Full
    else if (overflow === "backpressure") return Accepted.Wait
    else if (overflow === "dropNewest") this.drop(envelope)
    else {
      const dropped = mailbox.drop === undefined ? mailbox.shift() : mailbox.drop()
      if (this.lanes !== undefined) this.lanes.left++
      this.push(mailbox, envelope)
      // Last, because its asker may send the next one on this very stack.
      this.drop(dropped)
    }
    return Accepted.Yes
  }

  /** A priority or a queue of the user's own may throw: the message is at fault, not its sender, nor what brought it here. */
  private push(mailbox: MessageQueue<Envelope>, envelope: Envelope): void {
    try {
      mailbox.push(envelope)
    } catch (defect) {
      this.registration.counts.waiting--
      const what = `${this.kind}.${envelope.tag}`
      this.host.log("Warn", `the mailbox of ${this.name} could not take ${what}`, Cause.die(defect))
      this.host.deadLetter(this.cell, envelope.tag, "Undecodable")
      envelope.refuse(
        new InvalidData({ what, reason: `its mailbox could not take it: ${reasonOf(Cause.die(defect))}` })
      )
    }
  }

  /** A queue of the user's own has thrown: nobody knows what is in it any more, and the actor cannot go on without. */
  protected broken(defect: unknown): void {
    this.lose(defect)
    this.cell.stop("Failed", { now: true })
  }

  protected lose(defect: unknown): void {
    this.host.log("Error", `the mailbox of ${this.kind} ${this.name} is broken`, Cause.die(defect))
    this.mailbox = undefined
  }

  private drop(envelope: Envelope): void {
    this.registration.counts.waiting--
    this.host.deadLetter(this.cell, envelope.tag, "MailboxOverflow")
    envelope.refuse(this.full())
  }

  full(): MailboxFull {
    return new MailboxFull({ name: this.name, capacity: this.registration.options.mailbox!.capacity })
  }

  /** Has its sender wait until the message is in, or the actor has ended; whoever gives up before has to `leave`. */
  waitForRoom(envelope: Envelope, admitted: (stopped: boolean) => void): Waiter {
    const waiter = new Waiter(envelope, admitted)
    ;(this.more.waiting ??= new WaitingRoom()).push(waiter)
    return waiter
  }

  private admitWaiting(waiting: WaitingRoom): void {
    const { capacity } = this.registration.options.mailbox!
    while (waiting.size > 0 && this.mailbox!.size < capacity) {
      const { admitted, envelope } = waiting.shift()
      this.registration.counts.waiting++
      this.push(this.mailbox!, envelope)
      admitted(false)
    }
  }

  /** A message of the runtime's own, ahead of all others. */
  signal(effect: Effect.Effect<unknown, unknown>): void {
    if (this.status >= Status.Stopping) return
    this.lane.control.push(new Task(effect))
    this.rouse()
  }

  /** Puts messages before those that wait, in their order. */
  requeue(envelopes: Ring<Envelope>): void {
    const front = this.lane.front
    const later = front.size
    while (envelopes.size > 0) front.push(envelopes.shift())
    for (let index = 0; index < later; index++) front.push(front.shift())
  }

  rouse(): void {
    if (this.status === Status.Idle) {
      this.status = Status.Ready
      this.host.queue.wake(this.cell)
    } else if (this.status === Status.Dormant) this.awaken()
  }

  private get lane(): Lanes {
    return this.lanes ??= new Lanes()
  }

  /** The next message, if any. */
  poll(): Envelope | undefined {
    const lanes = this.lanes
    if (lanes !== undefined) {
      if (lanes.control.size > 0) return lanes.control.shift()
      if (lanes.front.size > 0) return lanes.front.shift()
      if (lanes.later.size > 0 && lanes.later.peek().turn <= lanes.left) return lanes.later.shift().envelope
    }
    const mailbox = this.mailbox
    if (mailbox === undefined || mailbox.size === 0) {
      return lanes !== undefined && lanes.later.size > 0 ? lanes.later.shift().envelope : undefined
    }
    const envelope = mailbox.shift()
    if (lanes !== undefined) lanes.left++
    this.registration.counts.waiting--
    const waiting = this.extras?.waiting
    if (waiting !== undefined && waiting.size > 0) this.admitWaiting(waiting)
    return envelope
  }

  /** What the ended behaviour wanted to be run later is not for the next one. */
  protected forgetTasks(): void {
    const control = this.lanes?.control
    for (let left = control?.size ?? 0; left > 0; left--) {
      const envelope = control!.shift()
      if (!(envelope instanceof Task)) control!.push(envelope)
    }
  }
}

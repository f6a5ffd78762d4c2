/**
 * One actor: its mailbox, its state of life, and the behaviour of its present incarnation.
 *
 * Invariants: one handler at a time, but for those that detached themselves; a behaviour's scope is closed exactly once, before
 * the next behaviour is built; an idle cell holds no fiber; a message that was accepted is handled, refused, or told as a dead
 * letter.
 *
 * The hot path is plain code: a handler's effect that is an `Exit` or a thunk costs no fiber, one that completes at once runs in
 * the dispatcher's turn, one that suspends makes the cell busy until its fiber ends. What a behaviour can do to its own cell is in
 * `ContextOfCell`.
 */
import { Cause, Context, Effect, Exit, type Fiber, References, Schedule, Scope } from "effect"
import { ActorContext } from "../ActorContext.ts"
import type { HostedActor } from "../ActorHost.ts"
import type { ActorAddress } from "../Address.ts"
import { ActorStopped, HandlerFailed, InvalidData, MailboxFull, StartFailed } from "../errors.ts"
import type { MessageQueue } from "../Mailbox.ts"
import type { SpawnSpec } from "../Placement.ts"
import { decide } from "../Supervision.ts"
import type { StopReason } from "../SystemEvents.ts"
import { ContextOfCell } from "./ContextOfCell.ts"
import { type Envelope, Forwarded } from "./Envelope.ts"
import { Alarm, Extras, Lanes, type Waiter } from "./Extras.ts"
import type { Host, Registration } from "./Host.ts"
import { Idleness } from "./Idleness.ts"
import { observedHandlers } from "./observed.ts"
import { Ring } from "./Ring.ts"
import { Status } from "./Status.ts"
import { streamHandlers } from "./streams.ts"
import { systemMessage } from "./systemMessages.ts"
import { Task } from "./Task.ts"
import { reasonOf } from "./words.ts"
import type { Worker } from "./Worker.ts"

export type HandlerTable = Readonly<Record<string, (payload: unknown) => Effect.Effect<unknown, unknown, unknown>>>

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

export class Cell implements HostedActor {
  readonly spec: SpawnSpec
  readonly registration: Registration
  readonly placement: number
  readonly epoch: number
  status: Status = Status.Starting
  handlers: HandlerTable | undefined = undefined
  worker: Worker | undefined = undefined
  extras: Extras | undefined = undefined
  scope: Scope.Closeable | undefined = undefined
  /** the behaviour is being built on the stack: the end waits for it */
  private building = false
  private mailbox: MessageQueue<Envelope> | undefined = undefined
  private lanes: Lanes | undefined = undefined
  private context: Context.Context<never> | undefined = undefined

  constructor(registration: Registration, spec: SpawnSpec, placement: number, epoch: number) {
    this.registration = registration
    this.spec = spec
    this.placement = placement
    this.epoch = epoch
  }

  /** Made on demand: most actors are never asked for it. */
  get address(): ActorAddress {
    const { kind, name } = this.spec
    return { kind, name, node: this.host.node, placement: this.placement, epoch: this.epoch }
  }

  get host(): Host {
    return this.registration.host
  }

  /** messages that wait */
  get depth(): number {
    const lanes = this.lanes
    return (this.mailbox === undefined ? 0 : this.mailbox.size) +
      (lanes === undefined ? 0 : lanes.control.size + lanes.front.size)
  }

  get accepts(): boolean {
    return this.status < Status.Stopping
  }

  get isStarting(): boolean {
    return this.status === Status.Starting
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
      if (systemMessage(this, envelope)) return Accepted.Yes
    }
    const mailbox = this.registration.options.mailbox
    this.registration.counts.waiting++
    if (mailbox === undefined) (this.mailbox ??= new Ring<Envelope>()).push(envelope)
    else {
      const refused = this.acceptBounded(envelope)
      if (refused !== Accepted.Yes) {
        this.registration.counts.waiting--
        return refused
      }
    }
    if (this.status === Status.Idle) {
      this.status = Status.Ready
      this.registration.host.queue.wake(this)
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
    if (mailbox.size < capacity) mailbox.push(envelope)
    else if (overflow === "fail") return Accepted.Full
    else if (overflow === "backpressure") return Accepted.Wait
    else if (overflow === "dropNewest") this.drop(envelope)
    else {
      this.drop(mailbox.drop === undefined ? mailbox.shift() : mailbox.drop())
      mailbox.push(envelope)
    }
    return Accepted.Yes
  }

  private drop(envelope: Envelope): void {
    this.registration.counts.waiting--
    this.host.deadLetter(this, envelope.tag, "MailboxOverflow")
    envelope.refuse(this.full())
  }

  full(): MailboxFull {
    return new MailboxFull({ name: this.spec.name, capacity: this.registration.options.mailbox!.capacity })
  }

  /** A sender that waits until its message is in, or the actor has ended. */
  waitForRoom(envelope: Envelope, admitted: (stopped: boolean) => void): Waiter {
    const waiter: Waiter = { envelope, cancelled: false, admitted }
    ;(this.more.waiting ??= new Ring()).push(waiter)
    return waiter
  }

  private admitWaiting(waiting: Ring<Waiter>): void {
    const { capacity } = this.registration.options.mailbox!
    while (waiting.size > 0 && this.mailbox!.size < capacity) {
      const { admitted, cancelled, envelope } = waiting.shift()
      if (cancelled || envelope.abandoned) continue
      this.mailbox!.push(envelope)
      this.registration.counts.waiting++
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
      this.host.queue.wake(this)
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
    }
    const mailbox = this.mailbox
    if (mailbox === undefined || mailbox.size === 0) return undefined
    const envelope = mailbox.shift()
    this.registration.counts.waiting--
    const waiting = this.extras?.waiting
    if (waiting !== undefined && waiting.size > 0) this.admitWaiting(waiting)
    return envelope
  }

  turn(limit: number): number {
    if (this.status !== Status.Ready) return 0
    const registration = this.registration
    const host = registration.host
    const worker = this.worker = host.lend()
    const handled = worker.turn(this, limit)
    if (worker.fiber === undefined) {
      this.worker = undefined
      host.giveBack(worker)
    } else if (worker.detached) this.worker = undefined
    this.tally(handled)
    this.settle()
    return handled
  }

  /** So many messages more: for metrics, passivation and the receive timeout. */
  tally(handled: number): void {
    const { counts, host } = this.registration
    counts.handled += handled
    if (!counts.dirty) host.counted(this.registration)
    const extras = this.extras
    if (extras === undefined) return
    extras.idleness?.touch(handled)
    if (extras.receiveTimeout !== undefined) this.armReceiveTimeout(extras)
  }

  /** After a turn or a fiber's end: to the queue again, to rest, or on with stopping and restarting. */
  settle(): void {
    if (this.worker !== undefined) {
      if (this.status === Status.Stopping) this.interruptLater(this.worker.fiber!)
      return
    }
    if (this.status === Status.Ready) {
      if (this.depth > 0) this.host.queue.wake(this)
      else {
        this.status = Status.Idle
        if (this.extras !== undefined && this.extras.draining) this.stop(this.extras.stopReason, { drained: true })
        else if (this.extras !== undefined && (this.extras.passivateSoon || this.extras.idleness?.spent === true)) {
          this.extras.passivateSoon = false
          this.passivate()
        }
      }
    } else if (this.status === Status.Restarting) this.restart()
    else if (this.status === Status.Stopping) this.finish()
  }

  /** A message without handler: one of the runtime's own protocol, or one that the kind does not have. */
  unknown(envelope: Envelope): void {
    if (systemMessage(this, envelope)) return
    this.host.deadLetter(this, envelope.tag, "Undecodable")
    envelope.refuse(
      new InvalidData({ what: `${this.spec.kind}.${envelope.tag}`, reason: "the protocol has no such message" })
    )
  }

  /** A handler failed: its typed error goes to the asker, anything else is a failure of the actor. */
  unhandled(envelope: Envelope, exit: Exit.Failure<unknown, unknown>, worker: Worker): void {
    const cause = exit.cause
    if (!Cause.hasDies(cause) && Cause.hasFails(cause)) {
      if (envelope instanceof Task) this.host.log("Warn", `${this.spec.kind} ${this.spec.name}: a task failed`, cause)
      return envelope.reply(exit)
    }
    const died = cause.reasons.find((reason) => reason._tag === "Die")
    if (died !== undefined && died.defect instanceof Forwarded) return envelope.refuse(died.defect.error)
    const over = this.status >= Status.Stopping || (worker.detached && !this.extras!.detached.has(worker))
    envelope.refuse(
      new HandlerFailed({
        name: this.spec.name,
        request: envelope.tag,
        reason: worker.late
          ? "it took longer than reentrancy allows"
          : over
          ? "the actor was stopped or restarted while it handled the message"
          : reasonOf(cause)
      })
    )
    if (!over && !worker.late) this.failed(cause)
  }

  // ---- reentrancy ------------------------------------------------------------------------------------------------------

  /** A handler has suspended: may it go on beside the mailbox? */
  suspended(worker: Worker, envelope: Envelope): void {
    const reentrancy = this.registration.options.reentrancy
    if (reentrancy !== undefined && !worker.detached && reentrancy.applies(envelope.tag)) this.detach(worker)
  }

  /** Lets the worker finish its message beside the others; false: too many do already. */
  detach(worker: Worker): boolean {
    const { detached } = this.more
    const reentrancy = this.registration.options.reentrancy
    if (worker.detached) return true
    if (detached.size >= (reentrancy?.maxInFlight ?? Infinity)) return false
    worker.detached = true
    detached.add(worker)
    if (reentrancy !== undefined && reentrancy.timeout !== Infinity) {
      worker.deadline = new Alarm(() => worker.fiber?.interruptUnsafe())
      this.host.timeouts.add(reentrancy.timeout, worker.deadline)
    }
    // On the stack of a turn the turn itself takes note.
    if (!worker.running) {
      this.worker = undefined
      if (this.status === Status.Busy) this.status = Status.Ready
      this.settle()
    }
    return true
  }

  reattached(worker: Worker): void {
    this.extras!.detached.delete(worker)
  }

  /** Which worker runs in this fiber: a detached one, or the one that holds the mailbox. */
  workerOf(fiber: Fiber.Fiber<unknown, unknown>): Worker | undefined {
    if (this.extras !== undefined) {
      for (const worker of this.extras.detached) if (worker.fiber === fiber) return worker
    }
    return this.worker
  }

  // ---- start -----------------------------------------------------------------------------------------------------------

  /** Builds the behaviour; `whenStarted` tells the result. */
  start(): void {
    const scope = this.scope = Scope.makeUnsafe()
    this.context = undefined
    this.building = true
    const fiber = this.runFork(this.registration.build as Effect.Effect<HandlerTable, unknown>)
    this.building = false
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return this.built(exit, scope)
    const extras = this.more
    extras.starting = fiber
    const timeout = this.registration.options.startTimeout
    const alarm = new Alarm(() => fiber.interruptUnsafe())
    this.host.timeouts.add(timeout, alarm)
    fiber.addObserver((exit) => {
      const late = alarm.list === undefined && timeout !== Infinity
      this.host.timeouts.cancel(alarm)
      extras.starting = undefined
      this.built(
        late && exit._tag === "Failure" ? Exit.die(new Error(`start took longer than ${timeout} ms`)) : exit,
        scope
      )
    })
  }

  private built(exit: Exit.Exit<HandlerTable, unknown>, scope: Scope.Closeable): void {
    if (this.status === Status.Stopping) return this.finish()
    // Kept only while handlers run: an idle cell does without.
    this.context = undefined
    if (exit._tag === "Success") return this.begin(exit.value)
    this.scope = undefined
    this.endIncarnation(scope, exit, () => {
      if (this.status === Status.Stopping) return this.finish()
      if (this.status === Status.Restarting) return this.failed(exit.cause)
      const extras = this.more
      if (++extras.attempts <= this.registration.options.startRetries) {
        const alarm = extras.deadline = new Alarm(() => this.start())
        this.host.timeouts.add(this.registration.options.startDelay(extras.attempts), alarm)
        return
      }
      extras.failure = this.startFailed(Cause.squash(exit.cause))
      extras.stopReason = "Failed"
      this.finish()
    })
  }

  private begin(handlers: HandlerTable): void {
    const { options } = this.registration
    const observed = observedHandlers(this, handlers)
    this.handlers = options.streams === undefined ? observed : streamHandlers(this, observed, options.streams)
    const again = this.status === Status.Restarting
    this.status = this.depth > 0 ? Status.Ready : Status.Idle
    if (this.status === Status.Ready) this.host.queue.wake(this)
    if (options.passivation !== undefined) {
      const idleness = this.more.idleness = new Idleness(this, options.passivation)
      idleness.arm()
    }
    const extras = this.extras
    if (extras?.receiveTimeout !== undefined) this.armReceiveTimeout(extras)
    if (again) return
    this.host.started(this)
    this.tellStarted(Exit.succeed(this.address))
  }

  /** Tells the end of the start; only while `isStarting`. */
  whenStarted(tell: (exit: Exit.Exit<ActorAddress, StartFailed>) => void): void {
    this.more.startWaiters.push(tell)
  }

  private tellStarted(exit: Exit.Exit<ActorAddress, StartFailed>): void {
    const waiters = this.extras?.startWaiters
    if (waiters === undefined || waiters.length === 0) return
    this.extras!.startWaiters = []
    for (const tell of waiters) tell(exit)
  }

  private startFailed(cause: unknown): StartFailed {
    return new StartFailed({ name: this.spec.name, kind: this.spec.kind, cause })
  }

  // ---- failure and restart ---------------------------------------------------------------------------------------------

  /** The behaviour failed: its supervision decides, for itself or for all children of its parent. */
  failed(cause: Cause.Cause<unknown>): void {
    if (this.status >= Status.Stopping) return
    const extras = this.more
    const { supervision } = this.registration.options
    this.registration.counts.failures++
    this.host.counted(this.registration)
    const error = Cause.squash(cause)
    const [directive, history] = decide(supervision, extras.restarts, this.host.timeouts.now(), error, cause)
    if (history.length <= 1) extras.backoff = undefined
    extras.restarts = history
    this.host.log(
      directive === "stop" || directive === "escalate" ? "Error" : "Warn",
      `${this.spec.kind} ${this.spec.name} failed: ${directive}`,
      cause
    )
    const siblings = supervision.strategy === "allForOne" && extras.parent !== undefined
      ? [...extras.parent.extras!.children!.values()].filter((cell) => cell !== this)
      : []
    for (const cell of siblings) cell.obey(directive === "escalate" ? "stop" : directive, cause)
    this.obey(directive, cause)
  }

  private obey(directive: "resume" | "restart" | "stop" | "suspend" | "escalate", cause: Cause.Cause<unknown>): void {
    if (this.status >= Status.Stopping) return
    if (directive === "resume") {
      // A behaviour that could not be built has nothing to resume.
      if (this.status === Status.Restarting) this.stop("Failed")
    } else if (directive === "suspend") this.suspend(reasonOf(cause))
    else if (directive === "restart") {
      if (this.status === Status.Starting) return
      this.more.restartCount++
      this.registration.counts.restarts++
      this.host.restarted(this, reasonOf(cause))
      const before = this.status
      this.status = Status.Restarting
      this.more.cause = cause
      if (this.worker === undefined && before !== Status.Restarting) this.restart()
      else if (before === Status.Restarting && !this.more.closing && this.more.starting === undefined) this.restart()
    } else {
      const parent = this.extras?.parent
      this.stop("Failed")
      if (directive === "escalate" && parent !== undefined) parent.failed(cause)
    }
  }

  private restart(): void {
    const scope = this.scope
    this.scope = undefined
    this.handlers = undefined
    this.endIncarnation(scope, Exit.void, () => {
      if (this.status === Status.Stopping) return this.finish()
      const extras = this.more
      if (extras.passivating) {
        extras.passivating = false
        if (this.depth === 0) {
          this.status = Status.Dormant
          this.host.passivated(this)
          return
        }
        return this.start()
      }
      const { backoff } = this.registration.options.supervision
      if (backoff === undefined) return this.start()
      this.pause(backoff, extras)
    })
  }

  /** One step of the backoff's schedule; where it ends, the budget is spent. */
  private pause(schedule: Schedule.Schedule<unknown, Cause.Cause<unknown>>, extras: Extras): void {
    const cause = extras.cause ?? Cause.empty
    const step = extras.backoff === undefined
      ? Effect.flatMap(Schedule.toStepWithSleep(schedule), (step) => {
        extras.backoff = step
        return step(cause)
      })
      : extras.backoff(cause)
    const fiber = this.host.runFork(Effect.exit(step))
    extras.starting = fiber
    fiber.addObserver((exit) => {
      extras.starting = undefined
      if (this.status === Status.Stopping) return this.finish()
      if (exit._tag === "Success" && exit.value._tag === "Success") return this.start()
      const { exhausted } = this.registration.options.supervision
      this.obey(exhausted, cause)
    })
  }

  // ---- suspension ------------------------------------------------------------------------------------------------------

  /** Keeps the mailbox and handles nothing more; the message in hand is finished. */
  suspend(reason: string): void {
    if (this.status >= Status.Suspended && this.status !== Status.Restarting) return
    if (this.status === Status.Starting) return
    this.status = Status.Suspended
    this.host.suspendedBy(this, reason)
  }

  /** Goes on where it was suspended; builds the behaviour where it has none. */
  reinstate(): void {
    if (this.status !== Status.Suspended) return
    this.host.reinstated(this)
    if (this.handlers === undefined) {
      this.status = Status.Restarting
      return this.start()
    }
    if (this.worker !== undefined) this.status = Status.Busy
    else {
      this.status = Status.Ready
      this.settle()
    }
  }

  // ---- passivation -----------------------------------------------------------------------------------------------------

  /** Gives up its behaviour until the next message, if nothing is in hand. */
  passivate(): boolean {
    const extras = this.more
    if (
      this.status !== Status.Idle || extras.awake > 0 || extras.detached.size > 0 ||
      (extras.children !== undefined && extras.children.size > 0)
    ) return false
    extras.idleness?.disarm()
    extras.idleness = undefined
    extras.passivating = true
    this.status = Status.Restarting
    this.restart()
    return true
  }

  private awaken(): void {
    this.status = Status.Restarting
    this.start()
  }

  // ---- the end ---------------------------------------------------------------------------------------------------------

  /**
   * Ends it. What is in hand may go on for the grace of its kind, unless `now`; what waits becomes dead letters, unless it is
   * drained first.
   */
  stop(
    reason: StopReason,
    how: { readonly now?: boolean; readonly drain?: boolean; readonly drained?: true } = {}
  ): void {
    if (this.status >= Status.Stopping) {
      if (how.now === true) this.worker?.fiber?.interruptUnsafe()
      return
    }
    const extras = this.more
    extras.stopReason = reason
    if (how.drain === true && this.status <= Status.Busy && (this.depth > 0 || this.worker !== undefined)) {
      extras.draining = true
      return
    }
    this.status = Status.Stopping
    const worker = this.worker
    if (worker?.running || this.building || extras.closing) return
    if (extras.starting !== undefined) extras.starting.interruptUnsafe()
    else if (worker === undefined) this.finish()
    else if (how.now === true) worker.fiber!.interruptUnsafe()
    else this.interruptLater(worker.fiber!)
  }

  whenStopped(tell: () => void): void {
    if (this.status === Status.Stopped) tell()
    else this.more.stopWaiters.push(tell)
  }

  private interruptLater(fiber: Fiber.Fiber<unknown, unknown>): void {
    const extras = this.more
    if (extras.deadline?.list !== undefined) return
    const alarm = extras.deadline = new Alarm(() => fiber.interruptUnsafe())
    this.host.timeouts.add(this.registration.options.stopGrace, alarm)
  }

  private finish(): void {
    const extras = this.more
    this.status = Status.Stopping
    if (extras.deadline !== undefined) this.host.timeouts.cancel(extras.deadline)
    if (extras.startWaiters.length > 0) extras.failure ??= this.startFailed("it was stopped while it started")
    if (extras.failure !== undefined) this.tellStarted(Exit.fail(extras.failure))
    this.refuseAll(extras)
    const scope = this.scope
    this.scope = undefined
    this.handlers = undefined
    this.context = undefined
    this.endIncarnation(scope, Exit.void, () => {
      this.status = Status.Stopped
      extras.parent?.extras!.children!.delete(this.spec.name)
      this.host.stopped(this, extras.stopReason)
      for (const watcher of extras.watchers ?? []) watcher.ended(extras.stopReason)
      const waiters = extras.stopWaiters
      extras.stopWaiters = []
      for (const tell of waiters) tell()
    })
  }

  private refuseAll(extras: Extras): void {
    // Those who wait for room first: nothing is let in any more.
    const waiting = extras.waiting
    while (waiting !== undefined && waiting.size > 0) waiting.shift().admitted(true)
    if (extras.stash !== undefined) this.requeue(extras.stash)
    // An error with its stack is dear, and most mailboxes are empty by now.
    const stopped = this.depth === 0 ? undefined : new ActorStopped({ name: this.spec.name })
    for (let envelope = this.poll(); envelope !== undefined; envelope = this.poll()) {
      if (envelope instanceof Task) continue
      this.host.deadLetter(this, envelope.tag, "ActorStopped")
      envelope.refuse(stopped!)
    }
  }

  /** Ends what belongs to one behaviour: detached messages, timers, watches, children, then its scope. */
  private endIncarnation(
    scope: Scope.Closeable | undefined,
    exit: Exit.Exit<unknown, unknown>,
    then: () => void
  ): void {
    const extras = this.extras
    if (extras !== undefined) {
      extras.idleness?.disarm()
      extras.idleness = undefined
      extras.behaviors.length = 0
      this.forgetTasks()
      extras.awake = 0
      extras.passivateSoon = false
      if (extras.stash !== undefined && extras.stash.size > 0) this.requeue(extras.stash)
      for (const alarm of extras.timers?.values() ?? []) this.host.timeouts.cancel(alarm)
      extras.timers = undefined
      if (extras.receiveTimeout !== undefined) this.host.timeouts.cancel(extras.receiveTimeout.alarm)
      extras.receiveTimeout = undefined
      for (const undo of [...extras.undo]) undo()
      extras.streams = undefined
      const detached = [...extras.detached]
      extras.detached.clear()
      for (const worker of detached) worker.fiber?.interruptUnsafe()
      if (extras.children !== undefined && extras.children.size > 0) {
        const children = [...extras.children.values()]
        let left = children.length
        extras.closing = true
        for (const child of children) {
          child.whenStopped(() => {
            if (--left > 0) return
            extras.closing = false
            this.closeScope(scope, exit, then)
          })
          child.stop(extras.stopReason)
        }
        return
      }
    }
    this.closeScope(scope, exit, then)
  }

  /** What the ended behaviour wanted to be run later is not for the next one. */
  private forgetTasks(): void {
    const control = this.lanes?.control
    for (let left = control?.size ?? 0; left > 0; left--) {
      const envelope = control!.shift()
      if (!(envelope instanceof Task)) control!.push(envelope)
    }
  }

  private closeScope(scope: Scope.Closeable | undefined, exit: Exit.Exit<unknown, unknown>, then: () => void): void {
    if (scope === undefined) return then()
    if (scope.state._tag === "Empty") {
      scope.state = { _tag: "Closed", exit }
      return then()
    }
    const extras = this.more
    extras.closing = true
    this.host.runFork(Scope.close(scope, exit)).addObserver((closed) => {
      extras.closing = false
      if (closed._tag === "Failure") {
        this.host.log("Error", `a finalizer of ${this.spec.kind} ${this.spec.name} failed`, closed.cause)
      }
      then()
    })
  }

  // ---- receive timeout -------------------------------------------------------------------------------------------------

  armReceiveTimeout(extras: Extras): void {
    const { alarm, millis } = extras.receiveTimeout!
    this.host.timeouts.cancel(alarm)
    this.host.timeouts.add(millis, alarm)
  }

  // ---- services --------------------------------------------------------------------------------------------------------

  /** With the services that the kind's Layer was given, this actor's own scope, `ActorContext`, and its name on its logs. */
  runFork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    return Effect.runForkWith(this.context ??= this.makeContext())(effect)
  }

  private makeContext(): Context.Context<never> {
    const { annotations, context, options } = this.registration
    const scope = this.scope ?? Scope.makeUnsafe()
    const own: Context.Context<Scope.Scope | ActorContext> = Context.add(
      Context.add(context, Scope.Scope, scope),
      ActorContext,
      new ContextOfCell(this)
    )
    if (!options.annotateLogs) return own as Context.Context<never>
    const { kind, name } = this.spec
    return Context.add(
      own,
      References.CurrentLogAnnotations,
      annotations === undefined ? { actor: name, kind } : { ...annotations, actor: name, kind }
    ) as Context.Context<never>
  }
}

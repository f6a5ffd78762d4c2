/**
 * One actor: its mailbox, its state of life, and the behaviour of its present incarnation.
 *
 * Invariants: one handler at a time; a behaviour's scope is closed exactly once, before the next behaviour is built; an idle
 * cell holds no fiber; a message that was accepted is handled, refused, or told as a dead letter.
 *
 * The hot path is plain code: a handler's effect that is an `Exit` already costs no fiber, one that completes at once runs in
 * the dispatcher's turn, one that suspends makes the cell busy until its fiber ends.
 */
import { Cause, Context, Effect, Exit, type Fiber, Scope } from "effect"
import { ActorContext } from "../ActorContext.ts"
import type { ActorAddress } from "../Address.ts"
import { ActorStopped, HandlerFailed, InvalidData, StartFailed } from "../errors.ts"
import type { HostedActor } from "../ActorHost.ts"
import type { SpawnSpec } from "../Placement.ts"
import type { StopReason } from "../SystemEvents.ts"
import { ContextOfCell } from "./ContextOfCell.ts"
import type { Envelope } from "./Envelope.ts"
import type { Host, Registration } from "./Host.ts"
import { Ring } from "./Ring.ts"
import { Deadline } from "./Timeouts.ts"
import { reasonOf } from "./words.ts"

/** Order matters: from `Stopping` on nothing is accepted. */
export const Status = {
  Starting: 0,
  Idle: 1,
  Ready: 2,
  Busy: 3,
  Restarting: 4,
  Stopping: 5,
  Stopped: 6
} as const
export type Status = typeof Status[keyof typeof Status]

export type HandlerTable = Readonly<Record<string, (payload: unknown) => Effect.Effect<unknown, unknown, unknown>>>

/** What few cells ever need, so that the others do not pay for it. */
class Extras {
  startWaiters: Array<(exit: Exit.Exit<ActorAddress, StartFailed>) => void> = []
  stopWaiters: Array<() => void> = []
  stopReason: StopReason = "Stopped"
  /** why it never started */
  failure: StartFailed | undefined = undefined
  attempts = 0
  /** when it was restarted, within the window */
  restarts: Array<number> = []
  deadline: Deadline | undefined = undefined
  /** of the start that is under way */
  starting: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** a scope is being closed: what comes next is decided when that is done */
  closing = false
}

/** A deadline that calls back. */
class Alarm extends Deadline {
  private readonly ring: () => void
  constructor(ring: () => void) {
    super()
    this.ring = ring
  }
  expire(): void {
    this.ring()
  }
}

/**
 * What handling takes, lent to a cell for a turn and, where a handler suspends, until its fiber ends. So an idle cell is small,
 * and the loop over a mailbox is made once a worker, not once a cell.
 */
export class Worker {
  cell: Cell | undefined = undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** its code is on the stack: what ends or restarts the cell waits for `settle` */
  running = false
  current: Envelope | undefined = undefined
  private upcoming: Effect.Effect<unknown, unknown> | undefined = undefined
  private left = 0

  /** Handles up to `limit` messages; how many it began. */
  turn(cell: Cell, limit: number): number {
    this.cell = cell
    this.left = limit
    this.running = true
    const effect = this.next(cell)
    if (effect !== undefined) {
      // The last message needs no loop around it.
      const run = cell.depth === 0 || this.left === 0 ? effect : this.drain(effect)
      const fiber = cell.runFork(run)
      const exit = fiber.pollUnsafe()
      if (exit === undefined) {
        this.fiber = fiber
        if (cell.status === Status.Ready) cell.status = Status.Busy
        fiber.addObserver(this.onExit)
      } else this.completed(cell, exit)
    }
    this.running = false
    return limit - this.left
  }

  /** Handles what completes without a fiber; the first effect that needs one, else undefined. */
  private next(cell: Cell): Effect.Effect<unknown, unknown> | undefined {
    while (cell.status <= Status.Busy && this.left > 0 && cell.depth > 0 && !cell.registration.host.queue.held) {
      this.left--
      const envelope = cell.take()
      let effect: Effect.Effect<unknown, unknown>
      const handler = cell.handlers![envelope.tag]
      if (handler === undefined) {
        cell.unknown(envelope)
        continue
      }
      this.current = envelope
      try {
        effect = handler(envelope.payload) as Effect.Effect<unknown, unknown>
      } catch (defect) {
        effect = Exit.die(defect)
      }
      if (!Exit.isExit(effect)) return effect
      this.completed(cell, effect)
    }
    return undefined
  }

  /** `first` and then whatever follows in the mailbox, in one fiber. */
  private drain(first: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> {
    this.upcoming = first
    return this.loop
  }

  private readonly loop: Effect.Effect<void, unknown> = Effect.whileLoop({
    while: () => this.upcoming !== undefined,
    body: () => this.upcoming!,
    step: (value) => {
      const cell = this.cell!
      this.completed(cell, Exit.succeed(value))
      this.upcoming = this.next(cell)
    }
  })

  /** The current message's handler has ended; without a current message it was the loop that did. */
  private completed(cell: Cell, exit: Exit.Exit<unknown, unknown>): void {
    const envelope = this.current
    if (envelope === undefined) return
    this.current = undefined
    if (exit._tag === "Success") return envelope.reply(exit)
    this.upcoming = undefined
    cell.unhandled(envelope, exit)
  }

  private readonly onExit = (exit: Exit.Exit<unknown, unknown>): void => {
    const cell = this.cell!
    this.fiber = undefined
    if (cell.status === Status.Busy) cell.status = Status.Ready
    this.running = true
    this.completed(cell, exit)
    this.running = false
    cell.worker = undefined
    cell.registration.host.giveBack(this)
    cell.settle()
  }
}

export class Cell implements HostedActor {
  readonly spec: SpawnSpec
  readonly registration: Registration
  readonly placement: number
  readonly epoch: number
  status: Status = Status.Starting
  handlers: HandlerTable | undefined = undefined
  worker: Worker | undefined = undefined
  /** the behaviour is being built on the stack: the end waits for it */
  private building = false
  private mailbox: Ring<Envelope> | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined
  private context: Context.Context<never> | undefined = undefined
  private extras: Extras | undefined = undefined

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
    return this.mailbox === undefined ? 0 : this.mailbox.size
  }

  get accepts(): boolean {
    return this.status < Status.Stopping
  }

  get isStarting(): boolean {
    return this.status === Status.Starting
  }

  /** why it never started */
  get failure(): StartFailed | undefined {
    return this.extras?.failure
  }

  // ---- messages --------------------------------------------------------------------------------------------------------

  /** Takes the message in; false: the actor ends or has ended, and the message was not accepted. */
  accept(envelope: Envelope): boolean {
    if (this.status >= Status.Stopping) return false
    ;(this.mailbox ??= new Ring()).push(envelope)
    if (this.status === Status.Idle) {
      this.status = Status.Ready
      this.registration.host.queue.wake(this)
    }
    return true
  }

  /** The next message; only while `depth > 0`. */
  take(): Envelope {
    return this.mailbox!.shift()
  }

  turn(limit: number): number {
    if (this.status !== Status.Ready) return 0
    const host = this.registration.host
    const worker = this.worker = host.lend()
    const handled = worker.turn(this, limit)
    if (worker.fiber === undefined) {
      this.worker = undefined
      host.giveBack(worker)
    }
    this.settle()
    return handled
  }

  /** After a turn or a fiber's end: to the queue again, to rest, or on with stopping and restarting. */
  settle(): void {
    if (this.worker !== undefined) {
      if (this.status === Status.Stopping) this.interruptLater(this.worker.fiber!)
      return
    }
    if (this.status === Status.Ready) {
      if (this.depth > 0) this.host.queue.wake(this)
      else this.status = Status.Idle
    } else if (this.status === Status.Restarting) this.restart()
    else if (this.status === Status.Stopping) this.finish()
  }

  /** A message that the protocol does not have. */
  unknown(envelope: Envelope): void {
    this.host.deadLetter(this, envelope.tag, "Undecodable")
    envelope.refuse(
      new InvalidData({ what: `${this.spec.kind}.${envelope.tag}`, reason: "the protocol has no such message" })
    )
  }

  /** A handler failed: its typed error goes to the asker, anything else is a failure of the actor. */
  unhandled(envelope: Envelope, exit: Exit.Failure<unknown, unknown>): void {
    const cause = exit.cause
    if (!Cause.hasDies(cause) && Cause.hasFails(cause)) return envelope.reply(exit)
    envelope.refuse(
      new HandlerFailed({
        name: this.spec.name,
        request: envelope.tag,
        reason: this.status >= Status.Stopping ? "the actor was stopped while it handled the message" : reasonOf(cause)
      })
    )
    if (this.status < Status.Stopping) this.failed(cause)
  }

  // ---- life ------------------------------------------------------------------------------------------------------------

  /** Builds the behaviour; `whenStarted` tells the result. */
  start(): void {
    const scope = this.scope = Scope.makeUnsafe()
    this.context = undefined
    this.building = true
    const fiber = this.runFork(this.registration.build as Effect.Effect<HandlerTable, unknown>)
    this.building = false
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return this.built(exit as Exit.Exit<HandlerTable, unknown>, scope)
    this.more.starting = fiber
    const timeout = this.registration.options.startTimeout
    const alarm = new Alarm(() => fiber.interruptUnsafe())
    this.host.timeouts.add(timeout, alarm)
    fiber.addObserver((exit) => {
      const late = alarm.list === undefined && timeout !== Infinity
      this.host.timeouts.cancel(alarm)
      this.more.starting = undefined
      this.built(
        (late && exit._tag === "Failure"
          ? Exit.die(new Error(`start took longer than ${timeout} ms`))
          : exit) as Exit.Exit<HandlerTable, unknown>,
        scope
      )
    })
  }

  private built(exit: Exit.Exit<HandlerTable, unknown>, scope: Scope.Closeable): void {
    if (this.status === Status.Stopping) return this.finish()
    // Kept only while handlers run: an idle cell does without.
    this.context = undefined
    if (exit._tag === "Success") {
      this.handlers = exit.value
      const restarted = this.status === Status.Restarting
      this.status = this.depth > 0 ? Status.Ready : Status.Idle
      if (this.status === Status.Ready) this.host.queue.wake(this)
      if (restarted) return
      this.host.started(this)
      this.tellStarted(Exit.succeed(this.address))
      return
    }
    this.scope = undefined
    this.afterClose(scope, exit, () => {
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

  /** A defect of the behaviour: afresh, or the end if that happens too often. */
  private failed(cause: Cause.Cause<unknown>): void {
    const extras = this.more
    const { restartLimit, restartWindow } = this.registration.options
    const now = this.host.timeouts.now()
    extras.restarts = extras.restarts.filter((at) => at > now - restartWindow)
    if (extras.restarts.length >= restartLimit) {
      this.host.log("Error", `${this.spec.kind} ${this.spec.name} failed too often and is stopped`, cause)
      this.stop("Failed")
      return
    }
    extras.restarts.push(now)
    this.host.log("Warn", `${this.spec.kind} ${this.spec.name} failed and is restarted`, cause)
    this.host.restarted(this, reasonOf(cause))
    this.status = Status.Restarting
    if (this.worker === undefined) this.restart()
  }

  private restart(): void {
    this.handlers = undefined
    const scope = this.scope
    this.scope = undefined
    if (scope === undefined) return this.start()
    this.afterClose(scope, Exit.void, () => this.status === Status.Stopping ? this.finish() : this.start())
  }

  /** Ends it. What is being handled may go on for the grace of its kind, unless `now`; what waits becomes dead letters. */
  stop(reason: StopReason, now = false): void {
    if (this.status >= Status.Stopping) {
      if (now) this.worker?.fiber?.interruptUnsafe()
      return
    }
    this.status = Status.Stopping
    const extras = this.more
    extras.stopReason = reason
    const worker = this.worker
    if (worker?.running || this.building || extras.closing) return
    if (extras.starting !== undefined) extras.starting.interruptUnsafe()
    else if (worker === undefined) this.finish()
    else if (now) worker.fiber!.interruptUnsafe()
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
    // An error with its stack is dear, and most mailboxes are empty by now.
    const stopped = this.depth === 0 ? undefined : new ActorStopped({ name: this.spec.name })
    while (this.depth > 0) {
      const envelope = this.take()
      this.host.deadLetter(this, envelope.tag, "ActorStopped")
      envelope.refuse(stopped!)
    }
    const scope = this.scope
    this.scope = undefined
    this.handlers = undefined
    this.context = undefined
    const end = () => {
      this.status = Status.Stopped
      this.host.stopped(this, extras.stopReason)
      const waiters = extras.stopWaiters
      extras.stopWaiters = []
      for (const tell of waiters) tell()
    }
    if (scope === undefined) end()
    else this.afterClose(scope, Exit.void, end)
  }

  private afterClose(scope: Scope.Closeable, exit: Exit.Exit<unknown, unknown>, then: () => void): void {
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

  private startFailed(cause: unknown): StartFailed {
    return new StartFailed({ name: this.spec.name, kind: this.spec.kind, cause })
  }

  private get more(): Extras {
    return this.extras ??= new Extras()
  }

  /** With the services that the kind's Layer was given, this actor's own scope, and `ActorContext`. */
  runFork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    const context = this.context ??= Context.add(
      Context.add(this.registration.context, Scope.Scope, this.scope!),
      ActorContext,
      new ContextOfCell(this)
    ) as Context.Context<never>
    return Effect.runForkWith(context)(effect)
  }
}

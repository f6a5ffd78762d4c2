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

export class Cell implements HostedActor {
  readonly address: ActorAddress
  readonly spec: SpawnSpec
  readonly host: Host
  readonly registration: Registration
  status: Status = Status.Starting
  private readonly mailbox = new Ring<Envelope>()
  private handlers: HandlerTable | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined
  private context: Context.Context<never> | undefined = undefined
  private fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private current: Envelope | undefined = undefined
  private upcoming: Effect.Effect<unknown, unknown> | undefined = undefined
  private loop: Effect.Effect<void, unknown> | undefined = undefined
  private left = 0
  /** code of this cell is on the stack: what ends or restarts it waits for `settle` */
  private active = false
  /** a scope is being closed: what comes next is decided when that is done */
  private closing = false
  private extras: Extras | undefined = undefined

  constructor(host: Host, registration: Registration, address: ActorAddress, spec: SpawnSpec) {
    this.host = host
    this.registration = registration
    this.address = address
    this.spec = spec
  }

  get depth(): number {
    return this.mailbox.size
  }

  /** does it take messages in? */
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
    this.mailbox.push(envelope)
    if (this.status === Status.Idle) {
      this.status = Status.Ready
      this.host.queue.wake(this)
    }
    return true
  }

  turn(limit: number): number {
    if (this.status !== Status.Ready) return 0
    this.left = limit
    this.active = true
    const effect = this.next()
    if (effect !== undefined) {
      // The last message needs no loop around it.
      const run = this.mailbox.size === 0 || this.left === 0 ? effect : this.drain(effect)
      const fiber = this.runFork(run)
      const exit = fiber.pollUnsafe()
      if (exit === undefined) {
        this.fiber = fiber
        if (this.status === Status.Ready) this.status = Status.Busy
        fiber.addObserver(this.onExit)
      } else this.completed(exit)
    }
    this.active = false
    this.settle()
    return limit - this.left
  }

  /** Handles what completes without a fiber; the first effect that needs one, else undefined. */
  private next(): Effect.Effect<unknown, unknown> | undefined {
    while (this.status === Status.Ready && this.left > 0 && this.mailbox.size > 0 && !this.host.queue.held) {
      this.left--
      const envelope = this.mailbox.shift()
      let effect: Effect.Effect<unknown, unknown>
      const handler = this.handlers![envelope.tag]
      if (handler === undefined) {
        this.host.deadLetter(this, envelope.tag, "Undecodable")
        envelope.refuse(
          new InvalidData({
            what: `${this.spec.kind}.${envelope.tag}`,
            reason: "the protocol has no such message"
          })
        )
        continue
      }
      this.current = envelope
      try {
        effect = handler(envelope.payload) as Effect.Effect<unknown, unknown>
      } catch (defect) {
        effect = Exit.die(defect)
      }
      if (!Exit.isExit(effect)) return effect
      this.completed(effect)
    }
    return undefined
  }

  /** `first` and then whatever follows in the mailbox, in one fiber. One loop object a cell, made when it is first needed. */
  private drain(first: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> {
    this.upcoming = first
    return this.loop ??= Effect.whileLoop({
      while: () => this.upcoming !== undefined,
      body: () => this.upcoming!,
      step: (value) => {
        this.completed(Exit.succeed(value))
        this.upcoming = this.next()
      }
    })
  }

  /** The current message's handler has ended; without a current message it was the loop that did. */
  private completed(exit: Exit.Exit<unknown, unknown>): void {
    const envelope = this.current
    if (envelope === undefined) return
    this.current = undefined
    if (exit._tag === "Success") return envelope.reply(exit)
    this.upcoming = undefined
    const cause = exit.cause
    if (!Cause.hasDies(cause) && Cause.hasFails(cause)) {
      envelope.reply(exit)
      return
    }
    envelope.refuse(
      new HandlerFailed({
        name: this.spec.name,
        request: envelope.tag,
        reason: this.status >= Status.Stopping ? "the actor was stopped while it handled the message" : reasonOf(cause)
      })
    )
    if (this.status < Status.Stopping) this.failed(cause)
  }

  private readonly onExit = (exit: Exit.Exit<unknown, unknown>): void => {
    this.fiber = undefined
    if (this.status === Status.Busy) this.status = Status.Ready
    this.active = true
    this.completed(exit)
    this.active = false
    this.settle()
  }

  /** After a turn or a fiber's end: to the queue again, to rest, or on with stopping and restarting. */
  private settle(): void {
    if (this.fiber !== undefined) {
      if (this.status === Status.Stopping) this.interruptLater()
      return
    }
    if (this.status === Status.Ready) {
      if (this.mailbox.size > 0) this.host.queue.wake(this)
      else this.status = Status.Idle
    } else if (this.status === Status.Restarting) this.restart()
    else if (this.status === Status.Stopping) this.finish()
  }

  // ---- life ------------------------------------------------------------------------------------------------------------

  /** Builds the behaviour; `whenStarted` tells the result. */
  start(): void {
    const scope = this.scope = Scope.makeUnsafe()
    this.context = undefined
    this.active = true
    const fiber = this.runFork(this.registration.build as Effect.Effect<HandlerTable, unknown>)
    this.active = false
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return this.built(exit as Exit.Exit<HandlerTable, unknown>, scope)
    this.fiber = fiber
    const timeout = this.registration.options.startTimeout
    const alarm = new Alarm(() => fiber.interruptUnsafe())
    this.host.timeouts.add(timeout, alarm)
    fiber.addObserver((exit) => {
      const late = alarm.list === undefined && timeout !== Infinity
      this.host.timeouts.cancel(alarm)
      this.fiber = undefined
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
      this.status = this.mailbox.size > 0 ? Status.Ready : Status.Idle
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
    if (!this.active) this.restart()
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
      if (now) this.fiber?.interruptUnsafe()
      return
    }
    const was = this.status
    this.status = Status.Stopping
    this.more.stopReason = reason
    if (this.active || this.closing) return
    if (this.fiber !== undefined) {
      if (now || was !== Status.Busy) this.fiber.interruptUnsafe()
      else this.interruptLater()
      return
    }
    this.finish()
  }

  whenStopped(tell: () => void): void {
    if (this.status === Status.Stopped) tell()
    else this.more.stopWaiters.push(tell)
  }

  private interruptLater(): void {
    const extras = this.more
    if (extras.deadline?.list !== undefined) return
    const fiber = this.fiber!
    const alarm = extras.deadline = new Alarm(() => fiber.interruptUnsafe())
    this.host.timeouts.add(this.registration.options.stopGrace, alarm)
  }

  private finish(): void {
    const extras = this.more
    this.status = Status.Stopping
    if (extras.deadline !== undefined) this.host.timeouts.cancel(extras.deadline)
    const stopped = new ActorStopped({ name: this.spec.name })
    if (extras.startWaiters.length > 0) extras.failure ??= this.startFailed("it was stopped while it started")
    if (extras.failure !== undefined) this.tellStarted(Exit.fail(extras.failure))
    while (this.mailbox.size > 0) {
      const envelope = this.mailbox.shift()
      this.host.deadLetter(this, envelope.tag, "ActorStopped")
      envelope.refuse(stopped)
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
    this.closing = true
    this.host.runFork(Scope.close(scope, exit)).addObserver((closed) => {
      this.closing = false
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
  private runFork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E> {
    const context = this.context ??= Context.add(
      Context.add(this.registration.context, Scope.Scope, this.scope!),
      ActorContext,
      new ContextOfCell(this)
    ) as Context.Context<never>
    return Effect.runForkWith(context)(effect)
  }
}

/**
 * The part of a cell that lives: starts, fails, restarts, is suspended or passivated.
 *
 * Invariants: the next behaviour is built after all that belonged to the one before has ended; what restarts a cell while its code
 * is on the stack takes effect in `settle`.
 */
import { Cause, Effect, Exit, type Fiber, Schedule, Scope } from "effect"
import { decide, type Directive, type History } from "../Supervision.ts"
import type { HandlerTable } from "./Cell.ts"
import { CellEnd } from "./CellEnd.ts"
import { Alarm, type Extras } from "./Extras.ts"
import { Idleness } from "./Idleness.ts"
import { observedHandlers } from "./observed.ts"
import { Status } from "./Status.ts"
import { streamHandlers } from "./streams.ts"
import { reasonOf } from "./words.ts"

export abstract class CellLife extends CellEnd {
  /** With the actor's own services. */
  abstract runFork<A, E>(effect: Effect.Effect<A, E>): Fiber.Fiber<A, E>
  /** What comes after a turn or a fiber's end. */
  abstract settle(): void

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
    this.handlers = this.dressed(handlers)
    const again = this.status === Status.Restarting
    const suspended = this.extras?.suspendSoon === true
    this.status = suspended ? Status.Suspended : this.depth > 0 ? Status.Ready : Status.Idle
    if (this.status === Status.Ready) this.host.queue.wake(this.cell)
    if (options.passivation !== undefined) {
      const idleness = this.more.idleness = new Idleness(this.cell, options.passivation)
      idleness.arm()
    }
    const extras = this.extras
    if (suspended) {
      extras!.suspendSoon = false
      this.host.suspendedBy(this.cell, "suspended while it restarted")
    }
    if (extras?.receiveTimeout !== undefined) this.armReceiveTimeout(extras)
    if (again) return
    this.host.started(this.cell)
    if (this.extras !== undefined && this.extras.startWaiters.length > 0) this.tellStarted(Exit.succeed(this.address))
  }

  /** Handlers as the behaviour gives them, with what the kind's options and the runtime put around them. */
  dressed(handlers: HandlerTable): HandlerTable {
    const { streams } = this.registration.options
    const observed = observedHandlers(this.cell, handlers)
    return streams === undefined ? observed : streamHandlers(this.cell, observed, streams)
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
    const [directive, history] = this.decided(() =>
      decide(supervision, extras.restarts, this.host.timeouts.now(), error, cause)
    )
    if (history.length <= 1) extras.backoff = undefined
    extras.restarts = history
    this.host.log(
      directive === "stop" || directive === "escalate" ? "Error" : "Warn",
      `${this.kind} ${this.name} failed: ${directive}`,
      cause
    )
    const siblings = supervision.strategy === "allForOne" && extras.parent !== undefined
      ? [...extras.parent.extras!.children!.values()].filter((cell) => cell !== this.cell)
      : []
    for (const cell of siblings) cell.obey(directive === "escalate" ? "stop" : directive, cause)
    this.obey(directive, cause)
  }

  /** A program's own choice that throws must not end the turn of all actors. */
  private decided(choose: () => readonly [Directive, History]): readonly [Directive, History] {
    try {
      return choose()
    } catch (defect) {
      this.host.log("Error", `the supervision of ${this.kind} ${this.name} threw`, Cause.die(defect))
      return ["stop", this.more.restarts]
    }
  }

  obey(directive: Directive, cause: Cause.Cause<unknown>): void {
    if (this.status >= Status.Stopping) return
    if (directive === "resume") {
      // A behaviour that could not be built has nothing to resume.
      if (this.status === Status.Restarting) this.stop("Failed")
    } else if (directive === "suspend") this.suspend(reasonOf(cause))
    else if (directive === "restart") {
      if (this.status === Status.Starting) return
      this.more.restartCount++
      this.registration.counts.restarts++
      this.host.restarted(this.cell, reasonOf(cause))
      const before = this.status
      this.status = Status.Restarting
      this.more.cause = cause
      const { worker } = this
      if (worker !== undefined) {
        // It waits for the message in hand, but not for ever.
        if (!worker.running) this.interruptLater(worker.fiber!)
      } else if (before !== Status.Restarting || !this.settling) this.restart()
    } else {
      const parent = this.extras?.parent
      this.stop("Failed")
      if (directive === "escalate" && parent !== undefined) parent.failed(cause)
    }
  }

  /** A scope is being closed or a behaviour built: what comes next follows from that. */
  private get settling(): boolean {
    const { extras } = this
    return this.building || (extras !== undefined && (extras.closing || extras.starting !== undefined))
  }

  /** `atOnce`: without the supervision's backoff, which starts over. */
  protected restart(atOnce = false): void {
    if (this.extras?.deadline !== undefined) this.host.timeouts.cancel(this.extras.deadline)
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
          this.host.passivated(this.cell)
          return
        }
        return this.start()
      }
      const { backoff } = this.registration.options.supervision
      const asked = atOnce || extras.renewing
      extras.renewing = false
      if (asked) extras.backoff = undefined
      if (backoff === undefined || asked) return this.start()
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
    if (this.status >= Status.Stopping || this.status === Status.Suspended || this.status === Status.Starting) return
    if (this.status === Status.Restarting && this.settling) {
      this.more.suspendSoon = true
      return
    }
    // It waited for the message in hand, to be built anew: that is not forgotten.
    if (this.status === Status.Restarting) this.more.rebuild = true
    this.status = Status.Suspended
    this.host.suspendedBy(this.cell, reason)
  }

  /** Goes on where it was suspended; builds the behaviour where it has none. */
  reinstate(): void {
    if (this.status !== Status.Suspended) return
    this.host.reinstated(this.cell)
    if (this.handlers === undefined || this.more.rebuild) {
      this.more.rebuild = false
      this.status = Status.Restarting
      if (this.worker === undefined) this.restart(true)
      return
    }
    // In the midst of a turn the turn goes on.
    if (this.worker !== undefined) this.status = this.worker.running ? Status.Ready : Status.Busy
    else {
      this.status = Status.Ready
      this.settle()
    }
  }

  /** Builds the behaviour anew because somebody asked, outside of the supervision's budget; the message in hand is finished. */
  renew(): void {
    if (this.status >= Status.Restarting || this.status === Status.Starting) return
    const extras = this.more
    extras.restartCount++
    this.registration.counts.restarts++
    this.host.counted(this.registration)
    this.host.restarted(this.cell, "asked to")
    if (this.status === Status.Suspended) {
      extras.rebuild = true
      return this.reinstate()
    }
    extras.renewing = true
    this.status = Status.Restarting
    if (this.worker === undefined) this.restart()
  }

  // ---- passivation -----------------------------------------------------------------------------------------------------

  /** Gives up its behaviour until the next message, if nothing is in hand. */
  passivate(): boolean {
    const extras = this.more
    if (
      this.status !== Status.Idle || extras.awake > 0 || extras.detached.size > 0 ||
      (extras.children !== undefined && extras.children.size > 0) ||
      (extras.streams !== undefined && extras.streams.size > 0) ||
      (extras.stash !== undefined && extras.stash.size > 0)
    ) return false
    extras.idleness?.disarm()
    extras.idleness = undefined
    extras.passivating = true
    this.status = Status.Restarting
    this.restart()
    return true
  }

  protected awaken(): void {
    this.status = Status.Restarting
    this.start()
  }

  // ---- receive timeout -------------------------------------------------------------------------------------------------

  armReceiveTimeout(extras: Extras): void {
    const { alarm, millis } = extras.receiveTimeout!
    this.host.timeouts.cancel(alarm)
    this.host.timeouts.add(millis, alarm)
  }
}

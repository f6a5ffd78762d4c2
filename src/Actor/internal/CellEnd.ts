/**
 * The part of a cell that ends: an incarnation of it, and all of it.
 *
 * Invariants: a behaviour's scope is closed exactly once, after all that belongs to the behaviour has ended; what ends a cell while
 * its code is on the stack takes effect in `settle`.
 */
import { type Context, Exit, type Fiber, Scope } from "effect"
import type { ActorAddress } from "../Address.ts"
import { ActorStopped, StartFailed } from "../errors.ts"
import type { StopReason } from "../SystemEvents.ts"
import { CellMailbox } from "./CellMailbox.ts"
import { Asked, Asker, type Envelope, takenBack } from "./Envelope.ts"
import { Alarm, type Extras } from "./Extras.ts"
import { followOn } from "./followOn.ts"
import { Status } from "./Status.ts"
import { Task } from "./Task.ts"
import type { Worker } from "./Worker.ts"

export abstract class CellEnd extends CellMailbox {
  worker: Worker | undefined = undefined
  scope: Scope.Closeable | undefined = undefined
  protected context: Context.Context<never> | undefined = undefined
  /** the behaviour is being built on the stack: the end waits for it */
  protected building = false

  // ---- what became of the start ---------------------------------------------------------------------------------------

  /** Tells the end of the start; only while `isStarting`. */
  whenStarted(tell: (exit: Exit.Exit<ActorAddress, StartFailed>) => void): void {
    this.more.startWaiters.push(tell)
  }

  protected tellStarted(exit: Exit.Exit<ActorAddress, StartFailed>): void {
    const waiters = this.extras?.startWaiters
    if (waiters === undefined || waiters.length === 0) return
    this.extras!.startWaiters = []
    for (const tell of waiters) tell(exit)
  }

  protected startFailed(cause: unknown): StartFailed {
    return new StartFailed({ name: this.name, kind: this.kind, cause })
  }

  // ---- the end ---------------------------------------------------------------------------------------------------------

  /** Ends it. What is in hand may go on for the grace of its kind, unless `now`; what waits becomes dead letters. */
  stop(reason: StopReason, how: { readonly now?: boolean } = {}): void {
    if (this.status >= Status.Stopping) {
      if (how.now === true && this.status === Status.Stopping) this.hurry()
      return
    }
    const extras = this.more
    extras.stopReason = reason
    extras.hurried = how.now === true
    this.status = Status.Stopping
    const worker = this.worker
    if (worker?.running || this.building || extras.closing) return
    if (extras.starting !== undefined) extras.starting.interruptUnsafe()
    else if (worker === undefined) this.finish()
    else if (how.now === true) worker.fiber!.interruptUnsafe()
    else this.interruptLater(worker.fiber!)
  }

  /** It ends already: now without the grace. */
  private hurry(): void {
    const extras = this.more
    extras.hurried = true
    this.worker?.fiber?.interruptUnsafe()
    for (const child of extras.children?.values() ?? []) child.stop(extras.stopReason, { now: true })
  }

  whenStopped(tell: () => void): void {
    if (this.status === Status.Stopped) tell()
    else this.more.stopWaiters.push(tell)
  }

  protected interruptLater(fiber: Fiber.Fiber<unknown, unknown>): void {
    const extras = this.more
    if (extras.deadline?.list !== undefined) return
    const alarm = extras.deadline = new Alarm(() => fiber.interruptUnsafe())
    this.host.timeouts.add(this.registration.options.stopGrace, alarm)
  }

  protected finish(): void {
    const extras = this.more
    this.status = Status.Stopping
    if (extras.deadline !== undefined) this.host.timeouts.cancel(extras.deadline)
    if (extras.startWaiters.length > 0) extras.failure ??= this.startFailed("it was stopped while it started")
    const rest = this.refuseAll(extras)
    const scope = this.scope
    this.scope = undefined
    this.handlers = undefined
    this.context = undefined
    this.endIncarnation(scope, Exit.void, () => {
      this.status = Status.Stopped
      extras.parent?.extras!.children!.delete(this.name)
      this.host.stopped(this.cell, extras.stopReason)
      // Whoever tries again finds the name free.
      if (extras.failure !== undefined) this.tellStarted(Exit.fail(extras.failure))
      if (rest.length > 0) followOn(this.cell, rest)
      for (const watcher of extras.watchers ?? []) watcher.ended(extras.stopReason)
      const waiters = extras.stopWaiters
      extras.stopWaiters = []
      for (const tell of waiters) tell()
    })
  }

  /** Refuses all that waits. Tells of an actor that moves are given back instead, to follow it. */
  private refuseAll(extras: Extras): ReadonlyArray<Envelope> {
    // Those who wait for room first: nothing is let in any more.
    const waiting = extras.waiting
    while (waiting !== undefined && waiting.size > 0) waiting.shift().admitted(true)
    if (extras.stash !== undefined) this.requeue(extras.stash)
    const moves = extras.stopReason === "Withdrawn" && extras.parent === undefined
    const rest: Array<Envelope> = []
    // An error with its stack is dear, and most mailboxes are empty by now.
    const stopped = this.depth === 0 ? undefined : new ActorStopped({ name: this.name })
    const next = () => {
      try {
        return this.poll()
      } catch (defect) {
        this.lose(defect)
        return this.poll()
      }
    }
    for (let envelope = next(); envelope !== undefined; envelope = next()) {
      if (envelope instanceof Task || envelope.tag === takenBack) continue
      if (moves && !(envelope instanceof Asked || envelope instanceof Asker)) {
        rest.push(envelope)
        continue
      }
      this.host.deadLetter(this.cell, envelope.tag, "ActorStopped")
      envelope.refuse(stopped!)
    }
    return rest
  }

  /** Ends what belongs to one behaviour: detached messages, timers, watches, children, then its scope. */
  protected endIncarnation(
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
      for (const { alarm } of extras.streams?.values() ?? []) this.host.timeouts.cancel(alarm)
      extras.streams = undefined
      const detached = [...extras.detached]
      extras.detached.clear()
      extras.unbounded = 0
      // Askers are told on this stack, and what they do next may be to stop this very actor: that waits until the scope is closed.
      extras.closing = true
      this.openBarriers()
      for (const worker of detached) worker.fiber?.interruptUnsafe()
      if (extras.children !== undefined && extras.children.size > 0) {
        const children = [...extras.children.values()]
        let left = children.length
        for (const child of children) {
          child.whenStopped(() => {
            if (--left > 0) return
            extras.closing = false
            this.closeScope(scope, exit, then)
          })
          child.stop(extras.stopReason, { now: extras.hurried })
        }
        return
      }
      extras.closing = false
    }
    this.closeScope(scope, exit, then)
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
        this.host.log("Error", `a finalizer of ${this.kind} ${this.name} failed`, closed.cause)
      }
      then()
    })
  }

  /** Nothing is beside the mailbox any more. */
  protected openBarriers(): void {
    const extras = this.extras!
    const { barriers } = extras
    if (barriers.length === 0) return
    extras.barriers = []
    for (const envelope of barriers) envelope.succeed(undefined)
  }
}

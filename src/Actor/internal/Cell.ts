/**
 * One actor. How it takes messages in is in `CellMailbox`, how it ends in `CellEnd`, how it lives in `CellLife`; here is how it handles them.
 *
 * Invariants: one handler at a time, but for those that detached themselves; an idle cell holds no fiber; a message that was
 * accepted is handled, refused, taken back by its asker, or told as a dead letter.
 *
 * The hot path is plain code: a handler's effect that is an `Exit` or a thunk costs no fiber, one that completes at once runs in
 * the dispatcher's turn, one that suspends makes the cell busy until its fiber ends. What a behaviour can do to its own cell is in
 * `ContextOfCell`.
 */
import { Cause, Context, Effect, type Exit, type Fiber, References, Scope } from "effect"
import { ActorContext } from "../ActorContext.ts"
import { HandlerFailed, InvalidData } from "../errors.ts"
import { CellLife } from "./CellLife.ts"
import { ContextOfCell } from "./ContextOfCell.ts"
import { Asked, Asker, type Carrier, type Envelope, Forwarded, type Question, takenBack } from "./Envelope.ts"
import { Alarm, type Extras } from "./Extras.ts"
import { Status } from "./Status.ts"
import { systemMessage } from "./systemMessages.ts"
import { Task } from "./Task.ts"
import { reasonOf } from "./words.ts"
import type { Worker } from "./Worker.ts"

export { Accepted } from "./CellMailbox.ts"

export type HandlerTable = Readonly<Record<string, (payload: unknown) => Effect.Effect<unknown, unknown, unknown>>>

export class Cell extends CellLife implements Carrier {
  protected get cell(): Cell {
    return this
  }

  turn(limit: number): number {
    if (this.status !== Status.Ready) return 0
    const registration = this.registration
    const host = registration.host
    const worker = this.worker = host.lend()
    let handled = 0
    try {
      handled = worker.turn(this, limit)
    } catch (defect) {
      // Handlers are guarded, so it is the mailbox. The worker may be in the midst of anything: it is not given back.
      const ending = this.status >= Status.Stopping
      this.worker = undefined
      this.broken(defect)
      if (ending) this.settle()
      return 1
    }
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
        if (this.extras !== undefined) this.rest(this.extras)
      }
    } else if (this.status === Status.Restarting) this.restart()
    else if (this.status === Status.Stopping) this.finish()
  }

  /** It has nothing to do, but perhaps beside its mailbox: once that is done too, it goes if it was asked to or is to. */
  rest(extras: Extras): void {
    if (extras.detached.size > 0 || !(extras.passivateSoon || extras.idleness?.spent === true)) return
    extras.passivateSoon = false
    this.passivate()
  }

  /** A message without handler: one of the runtime's own protocol, or one that the kind does not have. */
  unknown(envelope: Envelope): void {
    if (envelope.tag === takenBack || systemMessage(this, envelope)) return
    this.host.deadLetter(this, envelope.tag, "Undecodable")
    envelope.refuse(
      new InvalidData({ what: `${this.kind}.${envelope.tag}`, reason: "the protocol has no such message" })
    )
  }

  /** A handler failed: its typed error goes to the asker, anything else is a failure of the actor. */
  unhandled(envelope: Envelope, exit: Exit.Failure<unknown, unknown>, worker: Worker): void {
    const cause = exit.cause
    if (!Cause.hasDies(cause) && Cause.hasFails(cause)) {
      if (envelope instanceof Task) this.host.log("Warn", `${this.kind} ${this.name}: a task failed`, cause)
      else if (!(envelope instanceof Asked || envelope instanceof Asker)) {
        // Nobody else ever hears of it.
        this.host.log("Debug", `${this.kind} ${this.name}: ${envelope.tag}, which was told, failed`, cause)
      }
      return envelope.reply(exit)
    }
    // its asker was interrupted, and so was it: nothing is broken
    if (envelope.tag === takenBack && Cause.hasInterruptsOnly(cause)) return
    const died = cause.reasons.find((reason) => reason._tag === "Die")
    if (died !== undefined && died.defect instanceof Forwarded) return envelope.refuse(died.defect.error)
    const over = this.status >= Status.Restarting || (worker.detached && !this.extras!.detached.has(worker))
    envelope.refuse(
      new HandlerFailed({
        name: this.name,
        request: envelope.tag,
        reason: worker.late
          ? "it took longer than reentrancy allows"
          : over
          ? "the actor was stopped or restarted while it handled the message"
          : reasonOf(cause)
      })
    )
    if (over || worker.late) return
    // Its state is broken, but it is not to run: it is built anew when it may.
    if (this.status === Status.Suspended) this.more.rebuild = true
    else this.failed(cause)
  }

  // ---- reentrancy ------------------------------------------------------------------------------------------------------

  /** A handler has suspended: may it go on beside the mailbox? */
  suspended(worker: Worker, envelope: Envelope): void {
    const reentrancy = this.registration.options.reentrancy
    if (reentrancy !== undefined && !worker.detached && reentrancy.applies(envelope.tag)) this.detach(worker)
  }

  /**
   * Lets the worker finish its message beside the others; false: too many do already. `bounded` false: the kind's reentrancy has nothing
   * to say about it, neither whether there is room nor how long it takes.
   */
  detach(worker: Worker, bounded = true): boolean {
    const extras = this.more
    const { detached } = extras
    const reentrancy = bounded ? this.registration.options.reentrancy : undefined
    if (worker.detached) return true
    if (detached.size - extras.unbounded >= (reentrancy?.maxInFlight ?? Infinity)) return false
    worker.detached = true
    worker.bounded = bounded
    if (!bounded) extras.unbounded++
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
    const extras = this.extras!
    if (!extras.detached.delete(worker)) return
    if (!worker.bounded) extras.unbounded--
    if (extras.detached.size === 0) this.openBarriers()
  }

  /**
   * Its asker was interrupted: passed over where it waits, and its handler interrupted where it runs. One whose time is up is
   * handled all the same, for what it is to do may matter to others.
   */
  forget(question: Question, interrupted: boolean): void {
    if (!interrupted) return
    question.tag = takenBack
    const worker = this.worker?.current === question ? this.worker : this.detachedFor(question)
    if (worker === undefined) return
    // on a turn of its own: the handler's code may be on the stack, and the fiber about to take up the next message
    this.host.runFork(Effect.andThen(
      Effect.yieldNow,
      Effect.sync(() => {
        if (worker.current === question) worker.fiber?.interruptUnsafe()
      })
    ))
  }

  private detachedFor(question: Question): Worker | undefined {
    for (const worker of this.extras?.detached ?? []) if (worker.current === question) return worker
    return undefined
  }

  /**
   * Which worker runs in this fiber: a detached one, or the one that holds the mailbox. A fiber that a handler has made (in a race, by a
   * timeout) is taken for that of the one handler that there is; where there are several nobody knows whose it is.
   */
  workerOf(fiber: Fiber.Fiber<unknown, unknown>): Worker | undefined {
    const { extras, worker } = this
    if (extras === undefined || extras.detached.size === 0) return worker
    for (const other of extras.detached) if (other.fiber === fiber) return other
    return worker !== undefined && (worker.running || worker.fiber === fiber) ? worker : undefined
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
    const { kind, name } = this
    return Context.add(
      own,
      References.CurrentLogAnnotations,
      annotations === undefined ? { actor: name, kind } : { ...annotations, actor: name, kind }
    ) as Context.Context<never>
  }
}

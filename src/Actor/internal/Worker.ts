/**
 * What handling takes, lent to a cell for a turn and, where a handler suspends, until its fiber ends. So an idle cell is small,
 * and the loop over a mailbox is made once a worker, not once a cell.
 *
 * A worker may be detached from its cell (`ActorContext.fork`): then it goes on with its one message beside the others.
 */
import { Effect, Exit, type Fiber } from "effect"
import type { Cell } from "./Cell.ts"
import type { Envelope } from "./Envelope.ts"
import { Status } from "./Status.ts"
import { thunkOf } from "./syncEffect.ts"
import { Task } from "./Task.ts"
import type { Deadline } from "./Timeouts.ts"

export class Worker {
  cell: Cell | undefined = undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** its code is on the stack: what ends or restarts the cell waits for `settle` */
  running = false
  current: Envelope | undefined = undefined
  detached = false
  /** by the kind's reentrancy, while it is detached */
  bounded = true
  /** of a detached message */
  deadline: Deadline | undefined = undefined
  /** the deadline has interrupted it */
  late = false
  private upcoming: Effect.Effect<unknown, unknown> | undefined = undefined
  private left = 0
  /** of `left`, what has not been told to the cell's counts */
  private untold = 0

  /** Handles up to `limit` messages; how many it began. */
  turn(cell: Cell, limit: number): number {
    this.cell = cell
    this.left = this.untold = limit
    this.running = true
    const effect = this.next(cell)
    if (effect !== undefined) {
      // The last message needs no loop around it, and one that may be detached must be alone in its fiber.
      const run = cell.depth === 0 || this.left === 0 || cell.registration.options.reentrancy !== undefined
        ? effect
        : this.drain(effect)
      const fiber = cell.runFork(run)
      const exit = fiber.pollUnsafe()
      if (exit === undefined) {
        this.fiber = fiber
        if (this.current !== undefined) cell.suspended(this, this.current)
        if (!this.detached && cell.status === Status.Ready) cell.status = Status.Busy
        fiber.addObserver(this.onExit)
      } else {
        this.completed(cell, exit)
        // It went beside the mailbox and had no need to: nobody else will ever take it back.
        if (this.detached) this.attach(cell)
      }
    }
    this.running = false
    return this.begun()
  }

  /** It is not beside the mailbox any more. */
  private attach(cell: Cell): void {
    if (this.deadline !== undefined) cell.registration.host.timeouts.cancel(this.deadline)
    this.deadline = undefined
    cell.reattached(this)
    this.detached = false
  }

  /** Messages begun since it was last asked. */
  private begun(): number {
    const begun = this.untold - this.left
    this.untold = this.left
    return begun
  }

  /** Handles what completes without a fiber; the first effect that needs one, else undefined. */
  private next(cell: Cell): Effect.Effect<unknown, unknown> | undefined {
    const { host: { queue }, options: { trace } } = cell.registration
    while (cell.status <= Status.Busy && this.left > 0 && !queue.held) {
      const envelope = cell.poll()
      if (envelope === undefined) return undefined
      this.left--
      const handler = cell.handlers![envelope.tag]
      if (handler === undefined) {
        if (envelope instanceof Task) {
          this.current = envelope
          return envelope.effect
        }
        cell.unknown(envelope)
        continue
      }
      // Without a fiber nobody can ask for it; a store into an old object is dear.
      if (trace) this.current = envelope
      let effect: Effect.Effect<unknown, unknown>
      let thunk: (() => unknown) | undefined
      let value: unknown
      try {
        effect = handler(envelope.payload) as Effect.Effect<unknown, unknown>
        thunk = thunkOf(effect)
        if (thunk !== undefined) value = thunk()
      } catch (defect) {
        thunk = undefined
        effect = Exit.die(defect)
      }
      if (thunk !== undefined) {
        if (trace) this.current = undefined
        envelope.succeed(value)
        continue
      }
      this.current = envelope
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
      const envelope = this.current
      this.current = undefined
      if (envelope !== undefined) envelope.succeed(value)
      this.upcoming = this.detached ? undefined : this.next(this.cell!)
    }
  })

  /** The current message's handler has ended; without a current message it was the loop that did. */
  private completed(cell: Cell, exit: Exit.Exit<unknown, unknown>): void {
    const envelope = this.current
    this.upcoming = undefined
    if (envelope === undefined) return
    this.current = undefined
    if (exit._tag === "Success") envelope.reply(exit)
    else cell.unhandled(envelope, exit, this)
  }

  private readonly onExit = (exit: Exit.Exit<unknown, unknown>): void => {
    const cell = this.cell!
    const host = cell.registration.host
    this.fiber = undefined
    this.late = this.deadline !== undefined && this.deadline.list === undefined
    if (this.deadline !== undefined) host.timeouts.cancel(this.deadline)
    this.deadline = undefined
    if (this.detached) {
      // Still marked, so that `unhandled` knows; the cell has other workers meanwhile.
      this.completed(cell, exit)
      cell.reattached(this)
      this.detached = this.late = false
      host.giveBack(this)
      if (cell.status === Status.Idle) cell.rest(cell.extras!)
      return
    }
    if (cell.status === Status.Busy) cell.status = Status.Ready
    this.running = true
    this.completed(cell, exit)
    this.running = false
    cell.worker = undefined
    cell.tally(this.begun())
    host.giveBack(this)
    cell.settle()
  }
}

/**
 * The one dispatcher of a host: cells that have messages, worked off in turns. A turn is posted through Effect's `Scheduler`
 * service, because virtual time counts what is posted there; a hop between two actors costs no turn of the event loop.
 */
import { Context, Scheduler } from "effect"
import { LastingRing } from "./Ring.ts"

export interface Runnable {
  /** Handles up to `limit` messages; how many it did. */
  readonly turn: (limit: number) => number
}

/** messages of one actor before the next actor has its turn */
export const throughput = 64
/** messages before other work of the event loop has its turn */
export const budget = 8192
/** cells that an empty queue keeps room for */
const roomKept = 16_384

export class RunQueue {
  /** while true cells gather messages and none is handled */
  held = false
  /** when the present run began, in milliseconds: near enough for idleness, and one look at the clock for thousands of messages */
  turnedAt = 0
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private readonly ready = new LastingRing<Runnable>()
  /** turns on the stack that no run has begun: `handleNow` */
  nested = 0
  /** a run is on the stack */
  running = false
  private scheduled = false

  private readonly now: () => number
  private readonly afterRun: () => void

  constructor(context: Context.Context<never>, now: () => number, afterRun: () => void) {
    this.now = now
    this.afterRun = afterRun
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
  }

  /** `cell` has become ready; it may be in the queue once. */
  wake(cell: Runnable): void {
    this.ready.push(cell)
    if (!this.scheduled && !this.held) this.post()
  }

  hold(held: boolean): void {
    this.held = held
    if (!held && !this.scheduled && this.ready.size > 0) this.post()
  }

  /** Makes a run happen soon, even one without cells. */
  kick(): void {
    if (!this.scheduled) this.post()
  }

  private post(): void {
    this.scheduled = true
    this.dispatcher.scheduleTask(this.run, 0)
  }

  private readonly run = (): void => {
    let left = budget
    this.turnedAt = this.now()
    this.running = true
    try {
      while (left > 0 && this.ready.size > 0 && !this.held) left -= this.ready.shift().turn(throughput) + 1
    } finally {
      // Should a turn ever throw, the other cells have theirs all the same.
      this.running = false
      this.scheduled = false
      this.ready.trim(roomKept)
      this.afterRun()
      if (this.ready.size > 0 && !this.held) this.post()
    }
  }
}

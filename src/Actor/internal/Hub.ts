/**
 * One publisher, many subscribers, none of whom can hold it up: each has a buffer of its own, loses the oldest when it is full,
 * and is told how many it lost before it sees what came after.
 */
import { Context, Effect, Exit, Scheduler, Stream } from "effect"
import { Ring } from "./Ring.ts"

class Subscriber<A> {
  readonly buffer = new Ring<A>()
  lost = 0
  private waiting: ((exit: Exit.Exit<void>) => void) | undefined = undefined
  private readonly capacity: number
  private readonly later: (task: () => void) => void

  constructor(capacity: number, later: (task: () => void) => void) {
    this.capacity = capacity
    this.later = later
  }

  /** true: something was lost */
  offer(value: A): boolean {
    const full = this.buffer.size >= this.capacity
    if (full) {
      this.buffer.shift()
      this.lost++
    }
    this.buffer.push(value)
    const waiting = this.waiting
    if (waiting !== undefined) {
      this.waiting = undefined
      // Not on the publisher's stack: it may be in the midst of a change of its own.
      this.later(() => waiting(Exit.void))
    }
    return full
  }

  readonly ready: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.buffer.size > 0) return resume(Exit.void)
    this.waiting = resume
  })
}

export class Hub<A> {
  /** events lost by all subscribers together */
  lost = 0
  private readonly subscribers = new Set<Subscriber<A>>()
  private readonly dispatcher: Scheduler.SchedulerDispatcher

  constructor(context: Context.Context<never>) {
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
  }

  static readonly make = <A>(): Effect.Effect<Hub<A>> =>
    Effect.map(Effect.context<never>(), (context) => new Hub<A>(context))

  get observed(): boolean {
    return this.subscribers.size > 0
  }

  publish(value: A): void {
    for (const subscriber of this.subscribers) if (subscriber.offer(value)) this.lost++
  }

  /** From the moment it is run on. `lost` makes what a subscriber sees in the place of what it lost. */
  stream(capacity: number, lost?: (count: number) => A): Stream.Stream<A> {
    const subscribe = Effect.acquireRelease(
      Effect.sync(() => {
        const subscriber = new Subscriber<A>(capacity, (task) => this.dispatcher.scheduleTask(task, 0))
        this.subscribers.add(subscriber)
        return subscriber
      }),
      (subscriber) => Effect.sync(() => this.subscribers.delete(subscriber))
    )
    return Stream.unwrap(
      Effect.map(subscribe, (subscriber) =>
        Stream.fromPull(Effect.succeed(Effect.map(subscriber.ready, () => {
          const batch: Array<A> = []
          if (subscriber.lost > 0 && lost !== undefined) batch.push(lost(subscriber.lost))
          subscriber.lost = 0
          while (subscriber.buffer.size > 0) batch.push(subscriber.buffer.shift())
          return batch as [A, ...Array<A>]
        }))))
    )
  }
}

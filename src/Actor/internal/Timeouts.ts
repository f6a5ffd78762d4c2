/**
 * All deadlines of one host, with one sleeping fiber: asks, timers, receive timeouts, passivation.
 *
 * Deadlines of the same duration fall due in the order they were set, so each duration has a linked list and only the heads
 * compete, in a heap of lists. Setting and cancelling are O(1) for a known duration; nothing is ever scanned, nothing wakes up
 * before the earliest deadline, and under virtual time each falls due at its exact moment.
 */
import { Cause, type Clock, type Context, Duration, Effect, type Fiber } from "effect"

/** Something that falls due. Extended by whoever waits, so that a deadline costs no object of its own. */
export abstract class Deadline {
  /** the list it waits in; undefined: not waiting */
  list: Line | undefined = undefined
  previous: Deadline | undefined = undefined
  next: Deadline | undefined = undefined
  /** milliseconds on the host's monotonic clock */
  due = 0
  /** Called once when it falls due, unless it was cancelled. What it throws is logged. */
  abstract expire(): void
}

class Line {
  readonly duration: number
  head: Deadline | undefined = undefined
  tail: Deadline | undefined = undefined
  /** lower bound of the head's deadline: its place in the heap, corrected when it comes to the top */
  key = 0
  queued = false
  constructor(duration: number) {
    this.duration = duration
  }
}

/** deadlines that wait for the next reading of the clock, while it is held: most often some dozens of microseconds */
const readings = 31

/** Forgets a deadline, wherever it waits; no effect when it does not. */
export const disarm = (deadline: Deadline): void => {
  const line = deadline.list
  if (line === undefined) return
  const { next, previous } = deadline
  if (previous === undefined) line.head = next
  else previous.next = next
  if (next === undefined) line.tail = previous
  else next.previous = previous
  deadline.list = deadline.previous = deadline.next = undefined
}

export class Timeouts {
  private readonly clock: Clock.Clock
  private readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  private readonly lines = new Map<number, Line>()
  private readonly heap: Array<Line> = []
  private sleeper: Fiber.Fiber<void> | undefined = undefined
  private wakeAt = Infinity
  private closed = false
  private held = 0
  /** the last reading, in milliseconds, and for how many deadlines it still serves */
  private read = 0
  private fresh = 0
  /** those that it has served: what comes before them may have taken long, so their time begins with the next reading */
  private readonly undated: Array<Deadline | undefined> = []
  private served = 0

  constructor(clock: Clock.Clock, context: Context.Context<never>) {
    this.clock = clock
    this.runFork = Effect.runForkWith(context)
  }

  /** milliseconds, monotonic */
  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  /**
   * Until `release` the clock is read for every few deadlines only: for what sets thousands of them in one go. However long that
   * takes, none falls due early; it may be late by what has passed until the next reading, during which nothing could fall due.
   */
  hold(): void {
    this.fresh = 0
    this.held++
  }

  release(): void {
    if (--this.held === 0 && this.served > 0) this.date()
  }

  private near(deadline: Deadline): number {
    if (this.held === 0) return this.now()
    if (this.fresh-- > 0) {
      this.undated[this.served++] = deadline
      return this.read
    }
    this.fresh = readings
    return this.date()
  }

  /** Reads the clock, and moves on those that were set by the reading before. */
  private date(): number {
    const { read, served, undated } = this
    const now = this.read = this.now()
    const passed = now - read
    for (let index = 0; index < served; index++) {
      const deadline = undated[index]!
      undated[index] = undefined
      // unless it was cancelled, or set anew meanwhile and moved on already
      if (deadline.list !== undefined && deadline.due === read + deadline.list.duration) deadline.due += passed
    }
    this.served = 0
    return now
  }

  /**
   * `deadline` falls due in `duration` milliseconds; it must not be waiting already. An infinite duration never does; one that is
   * negative or not a number does at once.
   */
  add(duration: number, deadline: Deadline): void {
    if (this.closed || duration === Infinity) return
    // A NaN would come before all others and never fall due.
    if (!(duration >= 0)) duration = 0
    const due = deadline.due = this.near(deadline) + duration
    let line = this.lines.get(duration)
    if (line === undefined) this.lines.set(duration, line = new Line(duration))
    deadline.list = line
    const tail = line.tail
    line.tail = deadline
    if (tail !== undefined) {
      deadline.previous = tail
      tail.next = deadline
      return
    }
    line.head = deadline
    // A line that was emptied by cancelling is still in the heap, with a key that is a lower bound of this deadline.
    if (line.queued) return
    line.queued = true
    line.key = due
    this.heap.push(line)
    this.siftUp(this.heap.length - 1)
    if (due < this.wakeAt) this.sleep()
  }

  /** Forgets it; no effect when it is not waiting. */
  cancel(deadline: Deadline): void {
    disarm(deadline)
  }

  /** Forgets all; nothing falls due any more. */
  close(): void {
    this.closed = true
    this.sleeper?.interruptUnsafe()
    this.sleeper = undefined
    this.lines.clear()
    this.heap.length = 0
  }

  private sleep(): void {
    this.sleeper?.interruptUnsafe()
    this.sleeper = undefined
    const first = this.heap[0]
    this.wakeAt = first === undefined ? Infinity : first.key
    if (first === undefined || this.closed) return
    const millis = Math.max(0, Math.ceil(first.key - this.now()))
    this.sleeper = this.runFork(Effect.andThen(this.clock.sleep(Duration.millis(millis)), this.wake))
  }

  private readonly wake = Effect.sync(() => {
    this.sleeper = undefined
    const now = this.date()
    while (this.heap.length > 0) {
      const line = this.heap[0]!
      if (line.key > now) break
      const head = line.head
      if (head === undefined) {
        line.queued = false
        this.lines.delete(line.duration)
        this.dropTop()
      } else if (head.due > now) {
        line.key = head.due
        this.siftDown()
      } else {
        this.cancel(head)
        try {
          head.expire()
        } catch (defect) {
          // All that waits on this host waits for the same fiber.
          this.runFork(Effect.logError("what fell due has thrown", Cause.die(defect)))
        }
      }
    }
    // `expire` may have set new deadlines and with them a sleeper.
    if (this.sleeper === undefined) this.sleep()
  })

  private dropTop(): void {
    const last = this.heap.pop()!
    if (this.heap.length === 0) return
    this.heap[0] = last
    this.siftDown()
  }

  private siftUp(index: number): void {
    const heap = this.heap
    const line = heap[index]!
    while (index > 0) {
      const above = (index - 1) >> 1
      if (heap[above]!.key <= line.key) break
      heap[index] = heap[above]!
      index = above
    }
    heap[index] = line
  }

  private siftDown(): void {
    const heap = this.heap
    const line = heap[0]!
    let index = 0
    for (;;) {
      let below = 2 * index + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && heap[below + 1]!.key < heap[below]!.key) below++
      if (heap[below]!.key >= line.key) break
      heap[index] = heap[below]!
      index = below
    }
    heap[index] = line
  }
}

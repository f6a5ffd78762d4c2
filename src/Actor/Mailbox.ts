/**
 * Where an actor's messages wait: how many may, what happens to one too many, and in which order they are handled.
 *
 * The runtime's own messages (timers, `Terminated`, what `pipeTo` brings, the next chunk of a streaming reply) and those named
 * `control` wait in a lane of their own that overtakes all others and is never full. What `ActorSystem` asks of an actor in its turn
 * (`suspend`, `restart`, `stop` with `drain`) waits for as many messages as are there when it comes, and takes no room.
 */

/** A waiting message, as order and custom queues see it. */
export interface Waiting {
  readonly tag: string
  readonly payload: unknown
}

/**
 * - `fail`: the sender gets `MailboxFull`
 * - `dropNewest`: the message becomes a dead letter; an asker gets `MailboxFull`
 * - `dropOldest`: so does the one that has waited longest (with priorities: among the least urgent)
 * - `backpressure`: the sender waits for room
 */
export type Overflow = "fail" | "dropNewest" | "dropOldest" | "backpressure"

/**
 * A queue of one's own. The runtime calls it from one actor at a time and never while it is empty, but for `push`. It decides
 * about order alone: each message that it was given it must give back, once, or nobody learns what became of it. Where `shift` or `drop`
 * throws, the actor ends as `Failed`, and what was in it is lost.
 */
export interface MessageQueue<A extends Waiting = Waiting> {
  /** messages that wait; a getter, read often, so it should be cheap; must not throw */
  readonly size: number
  /** Takes a message. Where it throws, the message becomes a dead letter and its asker gets `InvalidData`. */
  readonly push: (message: A) => void
  /** Takes the next message out; `size > 0` */
  readonly shift: () => A
  /** Takes out the one that goes for `dropOldest`; default: the next one */
  readonly drop?: () => A
}

export interface MailboxOptions<Tag extends string = string> {
  /** messages that may wait, at least 1, those of the control lane not counted; default: no limit */
  readonly capacity?: number | undefined
  /** what happens to one too many; default `fail` */
  readonly overflow?: Overflow | undefined
  /**
   * Urgency of a message: higher goes first, equal ones in order of arrival; NaN counts as 0. Asked once a message. Where it throws,
   * the message becomes a dead letter and its asker gets `InvalidData`.
   */
  readonly priority?: ((message: Waiting) => number) | undefined
  /** messages that overtake all others, in their own order */
  readonly control?: ReadonlyArray<Tag> | undefined
  /** makes the queue of each actor, instead of the built-in ones */
  readonly queue?: (() => MessageQueue) | undefined
}

interface Entry<A> {
  readonly message: A
  readonly urgency: number
  readonly arrival: number
}

/** A binary heap by urgency, then by arrival: a stable priority queue. */
export const priorityQueue = <A extends Waiting>(urgencyOf: (message: A) => number): MessageQueue<A> => {
  const heap: Array<Entry<A>> = []
  let arrivals = 0
  const before = (a: Entry<A>, b: Entry<A>) => a.urgency !== b.urgency ? a.urgency > b.urgency : a.arrival < b.arrival

  const up = (index: number) => {
    const entry = heap[index]!
    while (index > 0) {
      const above = (index - 1) >> 1
      if (!before(entry, heap[above]!)) break
      heap[index] = heap[above]!
      index = above
    }
    heap[index] = entry
  }

  const down = (index: number) => {
    const entry = heap[index]!
    for (;;) {
      let below = 2 * index + 1
      if (below >= heap.length) break
      if (below + 1 < heap.length && before(heap[below + 1]!, heap[below]!)) below++
      if (!before(heap[below]!, entry)) break
      heap[index] = heap[below]!
      index = below
    }
    heap[index] = entry
  }

  const removeAt = (index: number): A => {
    const { message } = heap[index]!
    const last = heap.pop()!
    if (index < heap.length) {
      heap[index] = last
      down(index)
      up(index)
    }
    return message
  }

  return {
    get size() {
      return heap.length
    },
    push: (message) => {
      const urgency = urgencyOf(message)
      heap.push({ message, urgency: Number.isNaN(urgency) ? 0 : urgency, arrival: arrivals++ })
      up(heap.length - 1)
    },
    shift: () => removeAt(0),
    // The oldest of the least urgent. A full mailbox that drops is rare enough for a look at all of it.
    drop: () => {
      let oldest = 0
      for (let index = 1; index < heap.length; index++) {
        const [entry, found] = [heap[index]!, heap[oldest]!]
        if (entry.urgency !== found.urgency ? entry.urgency < found.urgency : entry.arrival < found.arrival) {
          oldest = index
        }
      }
      return removeAt(oldest)
    }
  }
}

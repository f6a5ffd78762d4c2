/**
 * The memory that the store's thread and its owner share beside their messages: the bell that wakes the thread, and a place where it
 * puts the answer to a lone question while its owner is awake.
 *
 * To wake a sleeper takes as long as all the rest of a question but the sync itself. So for a moment neither side sleeps: the thread
 * after such an answer, the owner after a lone question, unless that does not pay (`Vigil`). An edge because it waits.
 */

/** 32-bit cells: how often the bell was rung; how many hints were taken that the file is being written to; what the owner does */
const Cell = { Bell: 0, Hints: 1, Owner: 2 } as const
const Owner = { Asleep: 0, Awake: 1, Answered: 2 } as const

/** What was written by the lone question that had this id. */
export interface Written {
  readonly id: number
  readonly revision: number
}

/** lone questions for which it is not stayed awake after it was in vain, at most */
const longestPause = 64

/** Whether to stay awake: always while it pays, and ever more rarely once it was in vain twice in a row. */
export class Vigil {
  private failures = 0
  private skips = 0

  worthwhile(): boolean {
    if (this.skips === 0) return true
    this.skips--
    return false
  }

  /** It was kept: was the answer there before its end? */
  kept(paid: boolean): void {
    this.failures = paid ? 0 : this.failures + 1
    this.skips = this.failures < 2 ? 0 : Math.min(longestPause, 2 ** (this.failures - 1))
  }
}

/** looks between two readings of the clock, which costs as much as ten of them */
const looks = 32

const watchedFor = (milliseconds: number, seen: () => boolean): boolean => {
  const until = performance.now() + milliseconds
  do {
    for (let i = 0; i < looks; i++) if (seen()) return true
  } while (performance.now() < until)
  return false
}

export class Shared {
  readonly memory: SharedArrayBuffer
  private readonly cells: Int32Array<SharedArrayBuffer>
  private readonly written: Float64Array<SharedArrayBuffer>

  /** the memory of the other side; else new memory */
  constructor(memory = new SharedArrayBuffer(32)) {
    this.memory = memory
    this.cells = new Int32Array(memory, 0, 3)
    this.written = new Float64Array(memory, 16, 2)
  }

  // ---- owner -------------------------------------------------------------------------------------------------------------

  /** Wakes the thread: there is a message for it. */
  ring(): void {
    Atomics.add(this.cells, Cell.Bell, 1)
    Atomics.notify(this.cells, Cell.Bell)
  }

  /** Wakes it because the file is just being written to. */
  hint(): void {
    Atomics.add(this.cells, Cell.Hints, 1)
    this.ring()
  }

  /** From now on one answer may come here instead of by a message. */
  wake(): void {
    Atomics.store(this.cells, Cell.Owner, Owner.Awake)
  }

  /** Looks for so many milliseconds whether an answer has come. */
  watchFor(milliseconds: number): boolean {
    return watchedFor(milliseconds, () => Atomics.load(this.cells, Cell.Owner) === Owner.Answered)
  }

  /** No answer comes here any more; what has come. */
  sleep(): Written | undefined {
    if (Atomics.exchange(this.cells, Cell.Owner, Owner.Asleep) !== Owner.Answered) return undefined
    return { id: this.written[0]!, revision: this.written[1]! }
  }

  // ---- thread ------------------------------------------------------------------------------------------------------------

  get rung(): number {
    return Atomics.load(this.cells, Cell.Bell)
  }

  get hints(): number {
    return Atomics.load(this.cells, Cell.Hints)
  }

  /** Sleeps until the bell has been rung more often than that, for so many milliseconds at most. */
  waitFor(rung: number, milliseconds: number): void {
    Atomics.wait(this.cells, Cell.Bell, rung, milliseconds)
  }

  /** The same awake: has it been? */
  watchBell(rung: number, milliseconds: number): boolean {
    return watchedFor(milliseconds, () => Atomics.load(this.cells, Cell.Bell) !== rung)
  }

  /** Puts the answer here if the owner looks here; false: it must be posted. */
  answer({ id, revision }: Written): boolean {
    // one that was not taken yet must not be written over
    if (Atomics.load(this.cells, Cell.Owner) !== Owner.Awake) return false
    this.written[0] = id
    this.written[1] = revision
    return Atomics.compareExchange(this.cells, Cell.Owner, Owner.Awake, Owner.Answered) === Owner.Awake
  }
}

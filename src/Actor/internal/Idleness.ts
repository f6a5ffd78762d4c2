/**
 * When a cell of a kind with passivation is idle for long enough, has handled enough, or is the least recently used of too
 * many. A turn costs it a few stores: the deadline is not moved, but looks at the last turn when it falls due.
 */
import type { Cell } from "./Cell.ts"
import { Deadline } from "./Timeouts.ts"

export interface Passivation {
  /** milliseconds; Infinity: never for idleness */
  readonly idle: number
  /** messages after which it is passivated when idle; Infinity: never */
  readonly messages: number
  /** of this kind on this node with a behaviour; beyond it the least recently used is passivated */
  readonly cap: number
  readonly recent: RecentlyUsed
}

/** Cells of a kind in the order of their last turn. */
export class RecentlyUsed {
  size = 0
  private oldest: Idleness | undefined = undefined
  private newest: Idleness | undefined = undefined

  push(entry: Idleness): void {
    entry.older = this.newest
    entry.newer = undefined
    if (this.newest === undefined) this.oldest = entry
    else this.newest.newer = entry
    this.newest = entry
    this.size++
  }

  remove(entry: Idleness): void {
    if (entry.older === undefined) this.oldest = entry.newer
    else entry.older.newer = entry.newer
    if (entry.newer === undefined) this.newest = entry.older
    else entry.newer.older = entry.older
    entry.older = entry.newer = undefined
    this.size--
  }

  /** Passivates from the oldest on until no more than `cap` are left; those that have something in hand are passed over. */
  trim(cap: number): void {
    let entry = this.oldest
    while (this.size > cap && entry !== undefined) {
      const { newer } = entry
      entry.cell.passivate()
      entry = newer
    }
  }
}

export class Idleness extends Deadline {
  readonly cell: Cell
  older: Idleness | undefined = undefined
  newer: Idleness | undefined = undefined
  private readonly passivation: Passivation
  private lastTurn: number
  private handled = 0
  private armed = false

  constructor(cell: Cell, passivation: Passivation) {
    super()
    this.cell = cell
    this.passivation = passivation
    this.lastTurn = cell.host.timeouts.now()
  }

  /**
   * It goes as soon as it is idle: after enough messages, or because there are too many. Those that could have gone instead have gone
   * when the last one came.
   */
  get spent(): boolean {
    const { cap, messages, recent } = this.passivation
    return this.handled >= messages || recent.size > cap
  }

  arm(): void {
    this.armed = true
    this.cell.host.timeouts.add(this.passivation.idle, this)
    const { cap, recent } = this.passivation
    if (cap === Infinity) return
    recent.push(this)
    if (recent.size > cap) recent.trim(cap)
  }

  disarm(): void {
    if (!this.armed) return
    this.armed = false
    this.cell.host.timeouts.cancel(this)
    if (this.passivation.cap !== Infinity) this.passivation.recent.remove(this)
  }

  touch(handled: number): void {
    if (!this.armed) return
    const { queue, timeouts } = this.cell.host
    this.lastTurn = queue.running ? queue.turnedAt : timeouts.now()
    this.handled += handled
    const { cap, recent } = this.passivation
    if (cap === Infinity) return
    recent.remove(this)
    recent.push(this)
  }

  expire(): void {
    const { timeouts } = this.cell.host
    const left = this.lastTurn + this.passivation.idle - timeouts.now()
    if (left > 0 || !this.cell.passivate()) timeouts.add(left > 0 ? left : this.passivation.idle, this)
  }
}

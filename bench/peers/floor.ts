/**
 * The floor: what messages cost where an actor is nothing but a ring buffer, a function, and a turn of the event loop when
 * something has come in. No failure, lifecycle, name, protocol or limit.
 */
import { Arrivals, type Crowd } from "./crowd.ts"

const blank = (length: number): Array<undefined> => Array.from({ length }, () => undefined)

/** A queue in an array whose length is a power of two. */
export class Ring<A> {
  private items: Array<A | undefined> = blank(16)
  private head = 0
  size = 0
  push(item: A): void {
    if (this.size === this.items.length) {
      this.items = [...this.items.slice(this.head), ...this.items.slice(0, this.head), ...blank(this.size)]
      this.head = 0
    }
    this.items[(this.head + this.size++) & (this.items.length - 1)] = item
  }
  shift(): A {
    const item = this.items[this.head] as A
    this.items[this.head] = undefined
    this.head = (this.head + 1) & (this.items.length - 1)
    this.size--
    return item
  }
}

interface Add {
  readonly n: number
}

class Cell {
  private readonly ring = new Ring<Add>()
  private readonly handle: (message: Add) => void
  constructor(handle: (message: Add) => void) {
    this.handle = handle
  }
  tell(message: Add): void {
    if (this.ring.size === 0) setImmediate(this.turn)
    this.ring.push(message)
  }
  private readonly turn = (): void => {
    while (this.ring.size > 0) this.handle(this.ring.shift())
  }
}

/** messages between two turns of the event loop */
const burst = 16_000

export const makeFloor = (size: number): Crowd => {
  const arrivals = new Arrivals()
  const cells = Array.from({ length: size }, () => {
    let total = 0
    return new Cell(({ n }) => {
      total += n
      arrivals.arrived()
    })
  })
  return {
    tell: (each, loops) => {
      const total = size * each * loops
      const done = arrivals.expect(total)
      let sent = 0
      const produce = () => {
        for (let i = 0; i < burst && sent < total; i++) cells[Math.floor(sent++ / each) % size]!.tell({ n: 1 })
        if (sent < total) setImmediate(produce)
      }
      produce()
      return done
    }
  }
}

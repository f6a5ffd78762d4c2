/**
 * Who lives here, by name: a hash table in numbers, because a `Map` of a million texts was a third of the cost of a start. A slot
 * has 32 bits of a name's hash in it, so that a free name is known by one look at memory, and growing looks at no name.
 *
 * Invariant: `entries` is in the order of arrival, with gaps where some have left; each slot that is taken points at an entry.
 */
import { secret } from "./secret.edge.ts"

/** slots of a table that is almost empty; a power of two, as all are */
const fewest = 16

export class Names<A extends { readonly name: string }> {
  size = 0
  private readonly salt: number
  private readonly entries: Array<A | undefined> = []
  /** two numbers a slot: a hash, and the place among the entries counted from 1, or 0 where the slot is free */
  private slots = new Int32Array(2 * fewest)
  /** the last of `slots` that begins one */
  private last = 2 * fewest - 2

  /**
   * With another salt other names collide. Names are chosen by whoever may spawn, or send to what is nowhere, so the salt is drawn
   * anew for each table and nobody is told: those who knew it could make every look a look at all names.
   */
  constructor(salt = secret()) {
    this.salt = salt
  }

  get(name: string): A | undefined {
    const place = this.slots[this.find(name, hash(name, this.salt)) + 1]!
    return place === 0 ? undefined : this.entries[place - 1]
  }

  /** Takes it in if its name is free; else gives who has the name. */
  add(entry: A): A | undefined {
    const code = hash(entry.name, this.salt)
    const slot = this.find(entry.name, code)
    const place = this.slots[slot + 1]!
    if (place !== 0) return this.entries[place - 1]
    this.slots[slot] = code
    this.slots[slot + 1] = this.entries.push(entry)
    this.size++
    // At most two thirds of the slots are taken, or the ways to a free one grow long.
    if (3 * this.entries.length > this.slots.length) this.rebuild()
    return undefined
  }

  /** Forgets it; no effect where its name is another's by now. */
  delete(entry: A): void {
    const { last, slots } = this
    let free = this.find(entry.name, hash(entry.name, this.salt))
    const index = slots[free + 1]! - 1
    if (index < 0 || this.entries[index] !== entry) return
    this.entries[index] = undefined
    this.size--
    // Whoever was put behind it for want of a free slot moves up: no search may end too early.
    for (let slot = this.after(free); slots[slot + 1] !== 0; slot = this.after(slot)) {
      const home = slots[slot]! << 1 & last
      if ((slot - home & last) < (slot - free & last)) continue
      slots[free] = slots[slot]!
      slots[free + 1] = slots[slot + 1]!
      free = slot
    }
    slots[free + 1] = 0
  }

  /** All that are here now, in the order of their arrival. */
  all(): Array<A> {
    return this.entries.filter((entry) => entry !== undefined)
  }

  /** The slot of that name, or the free one where it would be. */
  private find(name: string, code: number): number {
    const { entries, slots } = this
    let slot = code << 1 & this.last
    for (let place = slots[slot + 1]!; place !== 0; place = slots[slot + 1]!) {
      if (slots[slot] === code && entries[place - 1]!.name === name) break
      slot = this.after(slot)
    }
    return slot
  }

  private after(slot: number): number {
    return slot + 2 & this.last
  }

  /** Closes the gaps among the entries, and makes as many slots as those that are left want. */
  private rebuild(): void {
    const { entries, slots } = this
    const moved = new Int32Array(entries.length)
    let kept = 0
    for (let index = 0; index < moved.length; index++) {
      const entry = entries[index]
      if (entry === undefined) continue
      entries[kept] = entry
      moved[index] = ++kept
    }
    entries.length = kept
    let count = fewest
    while (count < 2 * kept) count *= 2
    const next = this.slots = new Int32Array(2 * count)
    this.last = 2 * count - 2
    for (let from = 0; from < slots.length; from += 2) {
      const place = slots[from + 1]!
      if (place === 0) continue
      let slot = slots[from]! << 1 & this.last
      while (next[slot + 1] !== 0) slot = this.after(slot)
      next[slot] = slots[from]!
      next[slot + 1] = moved[place - 1]!
    }
  }
}

const hash = (name: string, salt: number): number => {
  let code = salt
  for (let index = 0; index < name.length; index++) code = Math.imul(code ^ name.charCodeAt(index), 0x01000193)
  code = Math.imul(code ^ code >>> 15, 0x2c1b3c6d)
  return code ^ code >>> 13
}

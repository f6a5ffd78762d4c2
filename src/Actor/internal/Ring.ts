/** Growing ring buffers. They allocate nothing before the first element. */

/** One that keeps what room it has taken, for a queue that is used over and over. */
export class LastingRing<A> {
  size = 0
  private buffer: Array<A | undefined> | undefined = undefined
  private head = 0

  push(value: A): void {
    let buffer = this.buffer
    if (buffer === undefined) buffer = this.buffer = [undefined, undefined, undefined, undefined]
    else if (this.size === buffer.length) buffer = this.grow(buffer)
    buffer[(this.head + this.size++) & (buffer.length - 1)] = value
  }

  /** The oldest element; only while `size > 0`. */
  shift(): A {
    const buffer = this.buffer!
    const value = buffer[this.head]!
    buffer[this.head] = undefined
    this.head = (this.head + 1) & (buffer.length - 1)
    this.size--
    return value
  }

  /** The oldest element, left where it is; only while `size > 0`. */
  peek(): A {
    return this.buffer![this.head]!
  }

  /** Gives back what an empty ring has of room beyond that for so many elements. */
  trim(kept: number): void {
    if (this.size > 0 || this.buffer === undefined || this.buffer.length <= kept) return
    this.buffer = undefined
    this.head = 0
  }

  private grow(buffer: Array<A | undefined>): Array<A | undefined> {
    const next = [...buffer.slice(this.head), ...buffer.slice(0, this.head)]
    for (let index = buffer.length; index > 0; index--) next.push(undefined)
    this.head = 0
    return this.buffer = next
  }
}

/** The unbounded mailbox: what a burst took is given back once it is worked off; small buffers are kept for the next message. */
export class Ring<A> extends LastingRing<A> {
  override shift(): A {
    const value = super.shift()
    if (this.size === 0) this.trim(64)
    return value
  }
}

/** A growing ring buffer: the unbounded mailbox, and the run queue. Allocates nothing before the first element. */
export class Ring<A> {
  size = 0
  private buffer: Array<A | undefined> | undefined = undefined
  private head = 0

  push(value: A): void {
    let buffer = this.buffer
    if (buffer === undefined) buffer = this.buffer = Array.from<A | undefined>({ length: 4 })
    else if (this.size === buffer.length) buffer = this.grow(buffer)
    buffer[(this.head + this.size++) & (buffer.length - 1)] = value
  }

  /** The oldest element; only while `size > 0`. */
  shift(): A {
    const buffer = this.buffer!
    const value = buffer[this.head]!
    buffer[this.head] = undefined
    this.head = (this.head + 1) & (buffer.length - 1)
    // What a burst took is given back once it is worked off; small buffers are kept for the next message.
    if (--this.size === 0 && buffer.length > 64) {
      this.buffer = undefined
      this.head = 0
    }
    return value
  }

  private grow(buffer: Array<A | undefined>): Array<A | undefined> {
    const next = Array.from<A | undefined>({ length: buffer.length * 2 })
    const mask = buffer.length - 1
    for (let index = 0; index < this.size; index++) next[index] = buffer[(this.head + index) & mask]
    this.head = 0
    return this.buffer = next
  }
}

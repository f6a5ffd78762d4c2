/**
 * Bytes in and out: unsigned varints (up to 2^53 - 1), UTF-8 texts and blobs with their length in front. Every read checks what
 * is left before it takes memory; anything that does not fit is `Malformed`, thrown here and caught once per frame.
 */

/**
 * The input is not what the protocol says. Never leaves this folder: it ends the connection that sent it. No `Error`, because a
 * stack for each bad frame is what a flood of them would cost.
 */
export class Malformed {
  readonly message: string
  constructor(message: string) {
    this.message = message
  }
}

const truncated = new Malformed("truncated")

/** There is no room in a buffer that must not grow: what is written there is to go another way. */
export const noRoom = new Malformed("no room")

/** Milliseconds as a varint takes them; any number larger than that is as good as for ever. */
export const wholeMillis = (millis: number): number =>
  millis > 0 ? Math.min(Math.ceil(millis), Number.MAX_SAFE_INTEGER) : 0

/** A peer's milliseconds that are not looked at exactly from here on. */
const exactMillis = 0x10000

/**
 * Milliseconds that a peer says, a little more where they are many: deadlines are kept by duration, and of those of some length it is
 * not to choose as many as it likes.
 */
export const peerMillis = (millis: number): number => {
  if (millis < exactMillis) return millis
  const unit = 2 ** (Math.floor(Math.log2(millis)) - 8)
  return Math.ceil(millis / unit) * unit
}

const utf8 = new TextEncoder()
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** A growing buffer. `take` hands its content over and starts anew. */
export class Writer {
  buffer: Uint8Array
  length = 0
  /** its buffer is not to be replaced by a larger one: `noRoom` is thrown instead */
  fixed = false

  /** with a buffer to write into, which is replaced when it is too small */
  constructor(buffer: Uint8Array | number = 256) {
    this.buffer = typeof buffer === "number" ? new Uint8Array(buffer) : buffer
  }

  ensure(more: number): void {
    const needed = this.length + more
    if (needed <= this.buffer.length) return
    if (this.fixed) throw noRoom
    const next = new Uint8Array(Math.max(needed, this.buffer.length * 2))
    next.set(this.buffer.subarray(0, this.length))
    this.buffer = next
  }

  byte(value: number): this {
    this.ensure(1)
    this.buffer[this.length++] = value
    return this
  }

  varint(value: number): this {
    this.ensure(8)
    if (value < 0x80) {
      this.buffer[this.length++] = value
      return this
    }
    if (value < 0x4000) {
      this.buffer[this.length++] = (value & 0x7f) | 0x80
      this.buffer[this.length++] = value >> 7
      return this
    }
    let rest = value
    while (rest > 0x7fffffff) {
      this.buffer[this.length++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    while (rest >= 0x80) {
      this.buffer[this.length++] = (rest & 0x7f) | 0x80
      rest >>>= 7
    }
    this.buffer[this.length++] = rest
    return this
  }

  /** A number of 40 bits in two parts of 16 and 24: as one varint, always of six bytes. */
  number(low: number, high: number): this {
    this.ensure(6)
    const { buffer } = this
    const at = this.length
    buffer[at] = (low & 0x7f) | 0x80
    buffer[at + 1] = ((low >>> 7) & 0x7f) | 0x80
    buffer[at + 2] = (low >>> 14) | ((high & 0x1f) << 2) | 0x80
    buffer[at + 3] = ((high >>> 5) & 0x7f) | 0x80
    buffer[at + 4] = ((high >>> 12) & 0x7f) | 0x80
    buffer[at + 5] = high >>> 19
    this.length = at + 6
    return this
  }

  raw(bytes: Uint8Array): this {
    this.ensure(bytes.length)
    this.buffer.set(bytes, this.length)
    this.length += bytes.length
    return this
  }

  blob(bytes: Uint8Array): this {
    return this.varint(bytes.length).raw(bytes)
  }

  text(value: string): this {
    return this.blob(utf8.encode(value))
  }

  take(): Uint8Array {
    const content = this.buffer.subarray(0, this.length)
    this.buffer = new Uint8Array(256)
    this.length = 0
    return content
  }
}

export class Reader {
  readonly bytes: Uint8Array
  position: number
  /** nothing is read from there on */
  limit: number

  constructor(bytes: Uint8Array, position = 0) {
    this.bytes = bytes
    this.position = position
    this.limit = bytes.length
  }

  get done(): boolean {
    return this.position >= this.limit
  }

  byte(): number {
    if (this.position >= this.limit) throw truncated
    return this.bytes[this.position++]!
  }

  varint(): number {
    const { bytes, limit, position } = this
    if (position + 1 < limit) {
      const first = bytes[position]!
      if (first < 0x80) {
        this.position = position + 1
        return first
      }
      const second = bytes[position + 1]!
      if (second < 0x80) {
        this.position = position + 2
        return (first & 0x7f) | (second << 7)
      }
    }
    return this.longVarint()
  }

  private longVarint(): number {
    let value = 0
    let scale = 1
    for (let i = 0; i < 8; i++) {
      const byte = this.byte()
      value += (byte & 0x7f) * scale
      if (byte < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) throw new Malformed("a number is too large")
        return value
      }
      scale *= 0x80
    }
    throw new Malformed("a number is too long")
  }

  /** the last `number`'s parts */
  low = 0
  high = 0

  /** Reads a number of 40 bits into `low` and `high`. */
  number(): void {
    const { bytes, position } = this
    if (position + 6 <= this.limit) {
      // as this side writes them
      const a = bytes[position]!
      const b = bytes[position + 1]!
      const c = bytes[position + 2]!
      const d = bytes[position + 3]!
      const e = bytes[position + 4]!
      const f = bytes[position + 5]!
      if ((a & b & c & d & e) >= 0x80 && f < 0x20) {
        this.low = (a & 0x7f) | ((b & 0x7f) << 7) | ((c & 3) << 14)
        this.high = ((c & 0x7c) >> 2) | ((d & 0x7f) << 5) | ((e & 0x7f) << 12) | (f << 19)
        this.position = position + 6
        return
      }
    }
    this.anyNumber()
  }

  private anyNumber(): void {
    let low = 0
    let high = 0
    for (let i = 0; i < 8; i++) {
      const byte = this.byte()
      if (i < 4) low |= (byte & 0x7f) << (7 * i)
      else high |= (byte & 0x7f) << (7 * (i - 4))
      if (byte < 0x80) {
        if (high > 0xfff) throw new Malformed("a number is too large")
        this.low = low & 0xffff
        this.high = (low >>> 16) | (high << 12)
        return
      }
    }
    throw new Malformed("a number is too long")
  }

  /** Passes over that many bytes, which must be there; where they began. */
  skip(length: number): number {
    const start = this.position
    if (start + length > this.limit) throw truncated
    this.position = start + length
    return start
  }

  raw(length: number): Uint8Array {
    const start = this.skip(length)
    return this.bytes.subarray(start, start + length)
  }

  blob(): Uint8Array {
    return this.raw(this.varint())
  }

  /** `limit` in bytes */
  text(limit: number): string {
    const length = this.varint()
    if (length > limit) throw new Malformed("a text is too long")
    const bytes = this.raw(length)
    try {
      return strictUtf8.decode(bytes)
    } catch {
      throw new Malformed("a text is not UTF-8")
    }
  }
}

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

const utf8 = new TextEncoder()
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** A growing buffer. `take` hands its content over and starts anew. */
export class Writer {
  buffer: Uint8Array
  length = 0

  /** with a buffer to write into, which is replaced when it is too small */
  constructor(buffer: Uint8Array | number = 256) {
    this.buffer = typeof buffer === "number" ? new Uint8Array(buffer) : buffer
  }

  ensure(more: number): void {
    const needed = this.length + more
    if (needed <= this.buffer.length) return
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

  constructor(bytes: Uint8Array, position = 0) {
    this.bytes = bytes
    this.position = position
  }

  get done(): boolean {
    return this.position >= this.bytes.length
  }

  byte(): number {
    const value = this.bytes[this.position++]
    if (value === undefined) throw new Malformed("truncated")
    return value
  }

  varint(): number {
    const first = this.byte()
    if (first < 0x80) return first
    this.position--
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

  raw(length: number): Uint8Array {
    const end = this.position + length
    if (end > this.bytes.length) throw new Malformed("truncated")
    const bytes = this.bytes.subarray(this.position, end)
    this.position = end
    return bytes
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

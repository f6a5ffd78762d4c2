/**
 * Cuts a stream of bytes into frames: four bytes of length, then that many. The length is checked against the cap before anything is
 * kept, and only bytes that have come take memory, so a header that lies costs nothing.
 */
import { Malformed } from "./wire.ts"

export const headerBytes = 4
/** Pieces of one frame that are kept apart; more are joined, since each costs more than a byte. */
const maxParts = 256

export class Framer {
  limit: number
  private parts: Array<Uint8Array> = []
  private held = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** Is a frame begun and not complete? */
  get partial(): boolean {
    return this.held > 0
  }

  /** The frames that are complete with this chunk. They may share its memory, which nothing else does then. */
  feed(chunk: Uint8Array): Array<Uint8Array> {
    const frames: Array<Uint8Array> = []
    let rest = chunk
    while (rest.length > 0) {
      if (this.held === 0 && rest.length >= headerBytes) {
        // the usual case: the frame, or at least its length, is in one piece
        const length = this.lengthOf(rest)
        if (rest.length >= headerBytes + length) {
          frames.push(rest.subarray(headerBytes, headerBytes + length))
          rest = rest.subarray(headerBytes + length)
          continue
        }
      }
      rest = this.keep(rest, frames)
    }
    // what has begun is not to hold on to the frames before it
    if (frames.length > 0 && this.parts.length > 0) {
      this.parts = this.parts.map((part) => part.buffer === chunk.buffer ? new Uint8Array(part) : part)
    }
    return frames
  }

  private keep(bytes: Uint8Array, frames: Array<Uint8Array>): Uint8Array {
    const wanted = this.held < headerBytes ? headerBytes : headerBytes + this.lengthOf(this.head())
    const taken = bytes.subarray(0, wanted - this.held)
    if (this.parts.push(taken) > maxParts) this.parts = [this.joined(taken.length)]
    this.held += taken.length
    if (this.held === headerBytes && wanted === headerBytes) this.lengthOf(this.head())
    else if (this.held === wanted && wanted > headerBytes) {
      frames.push(this.joined().subarray(headerBytes))
      this.parts = []
      this.held = 0
    }
    return bytes.subarray(taken.length)
  }

  private head(): Uint8Array {
    if (this.parts[0]!.length < headerBytes) this.parts = [this.joined()]
    return this.parts[0]!
  }

  /** `more`: bytes that are not counted yet */
  private joined(more = 0): Uint8Array {
    if (this.parts.length === 1) return this.parts[0]!
    const joined = new Uint8Array(this.held + more)
    let at = 0
    for (const part of this.parts) {
      joined.set(part, at)
      at += part.length
    }
    return joined
  }

  private lengthOf(bytes: Uint8Array): number {
    const length = bytes[0]! * 0x1000000 + (bytes[1]! << 16) + (bytes[2]! << 8) + bytes[3]!
    if (length === 0 || length > this.limit) throw new Malformed(`a frame of ${length} bytes`)
    return length
  }
}

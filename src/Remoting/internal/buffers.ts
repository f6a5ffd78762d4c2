/**
 * Buffers of what leaves, for all sessions of a node: an idle session holds none. After a rush they go bit by bit, since the next
 * one may come soon, and making them anew costs a collection of the whole heap every few hundred.
 *
 * Not for: when a buffer is free again; whoever gives it back knows that nobody reads it any more.
 *
 * Invariant: only buffers of the two sizes that are made here are kept, and of each no more than a bound.
 */
import { pieceBufferBytes } from "./bulk.ts"

/**
 * A batch is sealed when it is above this, in bytes, and leaves, even before the turn ends that it was written in: the peer is to
 * have work meanwhile.
 */
export const batchBytes = 16 * 1024
/** Capacity of a batch's buffer, in bytes: mostly the message that fills it still fits. */
const bufferBytes = batchBytes + 8 * 1024

/** Free buffers that are kept: as much as an outbox may hold by default, and what of it lasts. */
const mostFree = 512
const leastFree = 16

export class Buffers {
  private readonly free: Array<Uint8Array> = []
  private readonly freeOfPieces: Array<Uint8Array> = []
  take(): Uint8Array {
    return this.free.pop() ?? new Uint8Array(bufferBytes)
  }
  takeForPiece(): Uint8Array {
    return this.freeOfPieces.pop() ?? new Uint8Array(pieceBufferBytes)
  }
  give(buffer: Uint8Array): void {
    if (buffer.length === bufferBytes && this.free.length < mostFree) this.free.push(buffer)
    else if (buffer.length === pieceBufferBytes && this.freeOfPieces.length < 64) this.freeOfPieces.push(buffer)
  }
  /** Lets half of those go that nobody uses. */
  trim(): void {
    this.free.length -= Math.max(0, (this.free.length - leastFree) >> 1)
  }
}

/** Memory from the platform and back to it, where its own ways cost too much. */

/** For whoever fills it to the last byte: clearing ten megabytes first would hold up everything else. */
export const unwritten = (bytes: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer as ArrayBuffer)

interface Transferable {
  readonly transfer?: (length: number) => ArrayBuffer
}

/** Gives back memory that nobody looks at any more: what waits for the collector brings about collections of everything. */
export const giveBack = ({ buffer }: Uint8Array): void => void (buffer as Transferable).transfer?.(0)

/** Reads of fewer bytes are left to the collector. */
const least = 16 * 1024

/**
 * What was read into, given back as soon as all frames in it are spent: else ten megabytes that came are ten megabytes for the
 * collector, which goes over the whole heap for every few of them.
 */
export class Slabs {
  /** frames that are not spent, by their memory */
  private readonly left = new WeakMap<ArrayBufferLike, number>()

  /** Frames of one read, whose memory nothing else looks at. */
  hold(read: Uint8Array, frames: ReadonlyArray<Uint8Array>): void {
    const { buffer } = read
    if (read.length < least || buffer.byteLength !== read.length) return
    let count = 0
    for (const frame of frames) if (frame.buffer === buffer) count++
    this.left.set(buffer, count)
  }

  /** Nobody will look at that frame any more. */
  spent(frame: Uint8Array): void {
    const { buffer } = frame
    const left = this.left.get(buffer)
    if (left === undefined) return
    if (left > 1) this.left.set(buffer, left - 1)
    else {
      this.left.delete(buffer)
      giveBack(frame)
    }
  }
}

/**
 * Frames that take fewer bytes on the way: `[type, length of the frame inside, the frame inside deflated]`, for batches and pieces
 * alone. Windows and limits count the frame inside. Both sides must have named the capability; who sends decides.
 */
import type { RemotingSettings } from "../Settings.ts"
import { deflated, inflated } from "./deflate.edge.ts"
import { FrameType, type Identity } from "./handshake.ts"
import { Malformed, type Reader, Writer } from "./wire.ts"

export const deflateCapability = "deflate"

/** A frame inside is no larger, in bytes: a batch with the message that fills it. */
export const maxInside = 256 * 1024

/** After a frame that did not become smaller so many are sent as they are. */
const rest = 16

/** From which size on frames to that peer are deflated, in bytes; undefined: never. */
export const deflateFrom = (settings: RemotingSettings, self: Identity, peer: Identity): number | undefined => {
  const { compression, compressionThreshold } = settings
  return compression === "all" || (compression === "otherDataCenters" && peer.dataCenter !== self.dataCenter)
    ? compressionThreshold
    : undefined
}

export class Deflater {
  private readonly from: number
  private resting = 0

  /** `from`: bytes */
  constructor(from: number) {
    this.from = from
  }

  /** The frame in fewer bytes, with `front` bytes before it in its buffer; undefined where it is to leave as it is. */
  pack(frame: Uint8Array, front: number): Uint8Array | undefined {
    if (frame.length < this.from || frame.length > maxInside || this.resting-- > 0) return undefined
    const content = deflated(frame)
    // less than a tenth saved is not worth the other side's time
    if (content.length * 10 > frame.length * 9) {
      this.resting = rest
      return undefined
    }
    this.resting = 0
    const writer = new Writer(front + 16 + content.length)
    writer.length = front
    writer.byte(FrameType.Deflated).varint(frame.length).raw(content)
    return writer.buffer.subarray(front, writer.length)
  }
}

/** The frame inside. `limit`: bytes of a frame. */
export const unpack = (reader: Reader, limit: number): Uint8Array => {
  const length = reader.varint()
  if (length === 0 || length > Math.min(limit, maxInside)) throw new Malformed(`a deflated frame of ${length} bytes`)
  const frame = inflated(reader.raw(reader.bytes.length - reader.position), length)
  if (frame?.length !== length) throw new Malformed("a deflated frame that is not what it says")
  if (frame[0] !== FrameType.Data && frame[0] !== FrameType.Chunk) throw new Malformed("a deflated frame of no message")
  return frame
}

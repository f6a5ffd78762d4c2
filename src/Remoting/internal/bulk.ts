/**
 * Large messages in pieces: what leaves next, what has come so far, and how many pieces may be under way. Others leave between
 * the pieces; the pieces wait where those under way already make the others late.
 *
 * A piece is `[flags, bytes of its part if it begins one, bytes]`. A message is one part, the operation with its payload, and one
 * for each value that travels beside it (`attached`).
 */
import { giveBack, unwritten } from "./memory.edge.ts"
import { Malformed, type Reader, type Writer } from "./wire.ts"

/** Messages above this leave in pieces, in bytes. */
export const largeBytes = 63 * 1024
/** Content of one piece, in bytes. */
export const pieceBytes = 16 * 1024
/** Of a piece's buffer: content, header, and what the transport puts in front. */
export const pieceBufferBytes = pieceBytes + 64
/** Whoever names this takes messages of several parts, and beginnings of parts. */
export const partsCapability = "parts"
/** Parts of one message. */
export const maxParts = 256

const Flag = { Last: 1, Begins: 2, Abandoned: 4 } as const

interface Stretch {
  readonly bytes: Uint8Array
  readonly length: number
  readonly begins: number | undefined
}

/** A large message on its way out. One at a time and in order; what is behind it to the same actor waits its turn here too. */
export class Bulk {
  /** what leaves, in order; where a part begins, its length */
  private readonly buffers: ReadonlyArray<Stretch>
  readonly length: number
  /** the batch that tells the numbers which this message uses: it goes first */
  readonly after: number
  /** called once, when its last piece has left or it never will */
  readonly done: (bulk: Bulk) => void
  /** bytes that have left */
  left = 0
  cancelled = false
  /** it was given up half way, and the peer knows */
  abandoned = false
  /** because bytes of it were given away by their owner */
  lost = false
  private readonly inParts: boolean
  private buffer = 0
  private offset = 0

  /** `parts`: beside the message itself; undefined for a peer that does not know of parts */
  constructor(
    head: Uint8Array,
    payload: Uint8Array,
    parts: ReadonlyArray<Uint8Array> | undefined,
    after: number,
    done: (bulk: Bulk) => void
  ) {
    this.inParts = parts !== undefined
    this.after = after
    this.done = done
    this.buffers = [
      { bytes: head, length: head.length, begins: this.inParts ? head.length + payload.length : undefined },
      { bytes: payload, length: payload.length, begins: undefined },
      ...(parts ?? []).map((bytes) => ({ bytes, length: bytes.length, begins: bytes.length }))
    ]
    this.length = this.buffers.reduce((sum, { length }) => sum + length, 0)
  }

  /** Has all of it left that ever will? */
  get over(): boolean {
    return this.abandoned || this.left === this.length
  }

  /** Writes the next piece, or that none will follow; `pieceBytes` at most. */
  write(writer: Writer): void {
    // by reference, so its owner may have given it away meanwhile
    this.lost = this.inParts &&
      this.buffers.some(({ bytes, length }, index) => index >= this.buffer && bytes.length !== length)
    if (this.lost || (this.inParts && this.cancelled)) {
      this.abandoned = true
      writer.byte(Flag.Last | Flag.Abandoned)
      return
    }
    const flags = writer.length
    const { begins } = this.buffers[this.buffer]!
    const begun = this.offset === 0 && begins !== undefined
    writer.byte(begun ? Flag.Begins : 0)
    if (begun) writer.varint(begins)
    let room = pieceBytes
    while (room > 0 && this.buffer < this.buffers.length) {
      const { bytes } = this.buffers[this.buffer]!
      const piece = bytes.subarray(this.offset, this.offset + room)
      writer.raw(piece)
      room -= piece.length
      this.left += piece.length
      this.offset += piece.length
      if (this.offset < bytes.length) break
      this.buffer++
      this.offset = 0
      // the next part begins in a piece of its own
      if (this.buffers[this.buffer]?.begins !== undefined) break
    }
    if (this.left === this.length) writer.buffer[flags] = writer.buffer[flags]! | Flag.Last
  }
}

/** A part may take this many times the memory of what has come of it, so that it need not be copied again and again. */
const growth = 64

/** A large message on its way in. Memory follows the bytes that came, not the lengths that were announced. */
export class Assembly {
  private readonly limit: number
  private parts: Array<Uint8Array> = []
  private part: Uint8Array | undefined
  private filled = 0
  /** of the part that is coming; undefined: not announced */
  private wanted: number | undefined
  private total = 0

  /** `limit`: bytes of a whole message */
  constructor(limit: number) {
    this.limit = limit
  }

  /** The parts of the message that this piece completes. */
  take(reader: Reader): ReadonlyArray<Uint8Array> | undefined {
    const flags = reader.byte()
    if ((flags & Flag.Abandoned) !== 0) {
      this.reset()
      return undefined
    }
    if ((flags & Flag.Begins) !== 0) {
      if (this.part !== undefined) throw new Malformed("a part begins in another")
      this.wanted = reader.varint()
      this.filled = 0
      this.part = new Uint8Array(0)
    }
    const piece = reader.raw(reader.bytes.length - reader.position)
    this.total += piece.length
    const announced = this.total - piece.length + Math.max(piece.length, (this.wanted ?? 0) - this.filled)
    if (announced > this.limit) throw new Malformed("a message of too many pieces")
    this.fill(piece)
    const last = (flags & Flag.Last) !== 0
    if (this.filled === this.wanted || (last && this.wanted === undefined)) {
      if (this.parts.push(this.part!.subarray(0, this.filled)) > maxParts) throw new Malformed("too many parts")
      this.part = undefined
      this.wanted = undefined
    }
    if (!last) return undefined
    if (this.part !== undefined) throw new Malformed("a message ends too early")
    const { parts } = this
    this.reset()
    return parts
  }

  reset(): void {
    this.parts = []
    this.part = undefined
    this.wanted = undefined
    this.filled = 0
    this.total = 0
  }

  private fill(piece: Uint8Array): void {
    const { wanted } = this
    const needed = this.filled + piece.length
    if (wanted !== undefined && needed > wanted) throw new Malformed("more than its part has")
    let part = this.part ??= new Uint8Array(0)
    if (needed > part.length) {
      part = unwritten(Math.min(wanted ?? this.limit, needed * growth))
      part.set(this.part.subarray(0, this.filled))
      giveBack(this.part)
      this.part = part
    }
    part.set(piece, this.filled)
    this.filled = needed
  }
}

/** Bytes of pieces under way that are never held back. */
const leastAhead = 16 * 1024
/** The same where the way is long, and where answers are late for a reason that may not be the pieces. */
const leastFarAhead = 1024 * 1024
const leastLateAhead = 256 * 1024
/** milliseconds by which pieces under way may make an answer late, beside a quarter of what it takes anyhow */
const patience = 0.5
/** milliseconds for which the quickest answer counts, at least */
const stretch = 10_000
/** For so many pings after other messages the pieces are held to their least. */
const courtesy = 4

/**
 * How many bytes of pieces may be under way. A ping behind some of them tells when the peer has come so far; where it comes back
 * much later than the quickest one did, the pieces queue up somewhere, and what leaves between them would wait there too. So the
 * bound grows while pings are quick and shrinks when they are not.
 */
export class Pace {
  private readonly most: number
  private ahead = 16 * leastAhead
  private unheard = 0
  private untold = 0
  /** milliseconds, of this stretch of time and of the one before: the way to the peer may change */
  private quickest = Infinity
  private quickestBefore = Infinity
  private since = 0
  /** milliseconds that an answer takes of late */
  private usual = 0
  private floor = leastAhead
  private shrunk = 0
  private questions = 0
  private othersUntil = 0
  private readonly pings: Array<{ readonly bytes: number; readonly at: number; readonly bound: boolean }> = []

  /** `most`: bytes */
  constructor(most: number) {
    this.most = Math.max(most, leastAhead)
  }

  /** Where no answer is to come, one piece may always go: its ping brings one. */
  get mayGo(): boolean {
    return this.pings.length === 0 || this.hasRoom
  }

  private get hasRoom(): boolean {
    return this.unheard < (this.questions < this.othersUntil ? this.floor : this.ahead)
  }

  /** Other messages leave too. */
  others(): void {
    this.othersUntil = this.questions + courtesy
  }

  /** That many bytes have left; true: now a ping should. */
  left(bytes: number, last: boolean): boolean {
    this.unheard += bytes
    this.untold += bytes
    return last || this.untold * 4 >= this.ahead || !this.hasRoom
  }

  /** A ping leaves, of ours or of the heart. */
  asked(now: number): void {
    this.pings.push({ bytes: this.untold, at: now, bound: this.unheard >= this.ahead })
    this.untold = 0
    this.questions++
  }

  /** The peer has come to the oldest ping. */
  heard(now: number): void {
    const ping = this.pings.shift()
    if (ping === undefined) return
    this.unheard -= ping.bytes
    if (ping.bytes === 0) return
    const took = now - ping.at
    if (now - this.since > stretch) {
      this.since = now
      this.quickestBefore = this.quickest
      this.quickest = took
    } else if (took < this.quickest) this.quickest = took
    const quickest = Math.min(this.quickest, this.quickestBefore)
    this.usual += (took - this.usual) / 8
    const floor = this.floor = Math.min(
      this.most,
      Math.max(
        Math.min(leastFarAhead, leastAhead * (1 + quickest)),
        Math.min(leastLateAhead, leastAhead * (1 + this.usual))
      )
    )
    if (took - quickest > patience + quickest / 4) {
      // once for all that were under way together
      if (ping.at < this.shrunk) return
      this.shrunk = now
      this.ahead = Math.max(floor, this.ahead / 2)
    } else if (ping.bound || this.ahead < floor) {
      this.ahead = Math.min(this.most, Math.max(floor, this.ahead + ping.bytes))
    }
  }
}

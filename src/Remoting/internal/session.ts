/**
 * A connection whose two ends know each other, with its two lanes. Control frames leave first; messages are gathered in batches
 * that leave when the transport has nothing unsent: a lone message at once, what piles up meanwhile in one frame. The peer's
 * window bounds what it has not handled yet, so this side never has to stop reading and heartbeats never wait.
 *
 * Not for: what the frames mean. Data goes to `messages`, control to `calls`.
 */
import { Effect } from "effect"
import { NodeUnreachable } from "../../Actor/errors.ts"
import type { Connection } from "../Transport.ts"
import { batchBytes, type Buffers } from "./buffers.ts"
import { Assembly, type Bulk, Pace } from "./bulk.ts"
import { deflateCapability, Deflater, unpack } from "./compression.ts"
import { FrameType, type Identity, readKinds, share } from "./handshake.ts"
import type { Turns } from "./turns.ts"
import { Malformed, Reader, Writer } from "./wire.ts"

/** Bytes that the transport has at a time; what is more waits here, where it can still be overtaken. */
const aheadBytes = 64 * 1024
/** Bytes left free in front of a batch, for the transport to put its header there instead of copying. */
export const frontBytes = 8

/** Control frames that may wait here for a peer that goes on asking. */
const maxUnread = 65_536

export interface SessionOptions {
  readonly connection: Connection
  readonly self: Identity
  readonly peer: Identity
  /** did this side dial? only such a session carries what this node starts; the peer's carry answers */
  readonly dialed: boolean
  /** number of this session in its node, from 1 */
  readonly number: number
  /** frames of messages to that peer are deflated from that size on, in bytes; undefined: none is */
  readonly deflateFrom?: number | undefined
  /** bytes of messages that may wait here before `hasRoom` is false */
  readonly outboxBytes: number
  /** milliseconds, monotonic */
  readonly now: () => number
  /** `parts`: of a large message, of which the reader has the first */
  readonly onData: (session: Session, reader: Reader, parts?: ReadonlyArray<Uint8Array>) => void
  readonly onControl: (session: Session, reader: Reader) => void
  readonly onEnd: (session: Session) => void
  readonly buffers: Buffers
  readonly turns: Turns
  /** batches that never left, for the dead letters in them */
  readonly onLost: (session: Session, batches: ReadonlyArray<Uint8Array>) => void
}

export class Session {
  readonly options: SessionOptions
  readonly connection: Connection
  readonly peer: Identity
  /** the peer's kinds, by name; replaced when it registers more */
  kinds: ReadonlyMap<string, string>
  over: string | undefined
  /** no message goes out or is taken any more, only calls */
  muted = false
  /** milliseconds of the last word from the peer */
  heard: number
  /** milliseconds of the last question for a sign of life */
  private asked: number | undefined
  private control: Array<Uint8Array> = []
  private open: Writer | undefined
  private sealed: Array<Uint8Array> = []
  private bulks: Array<Bulk> = []
  private readonly pace: Pace
  private readonly deflater: Deflater | undefined
  /** the large message that is coming in */
  private readonly assembly: Assembly
  /** buffers that the transport has until nothing is unsent */
  private lent: Array<Uint8Array> = []
  private queuedBytes = 0
  /** of large messages, what has not left */
  private bulkBytes = 0
  /** batches sealed or open so far, and handed to the transport so far: what is above the second certainly did not leave */
  batch = 1
  leftBatch = 0
  private credit: number
  private handled = 0
  private unsettled = 0
  private readonly waiting = new Set<() => void>()
  private readonly waitingWithBulk = new Set<() => void>()
  private flushing = false
  /** The connection takes nothing any more. This side learns why when it has taken what came before that. */
  private refused = false
  /** what was written leaves when the turn ends */
  private inTurn = false
  /** what the two lanes keep about this session */
  data: unknown
  calls: unknown

  constructor(options: SessionOptions) {
    this.options = options
    this.connection = options.connection
    this.peer = options.peer
    this.kinds = options.peer.kinds
    this.heard = options.now()
    this.credit = options.peer.windowBytes
    this.pace = new Pace(options.peer.windowBytes / 2)
    this.assembly = new Assembly(options.self.maxFrameBytes)
    const { deflateFrom } = options
    this.deflater = deflateFrom !== undefined && this.supports(deflateCapability)
      ? new Deflater(deflateFrom)
      : undefined
    this.connection.onIdle(() => this.idle())
  }

  /** Do both sides understand that? Ask once and keep the answer: it does not change. */
  supports(capability: string): boolean {
    return share(this.options.self, this.peer, capability)
  }

  get maxMessageBytes(): number {
    return Math.min(this.peer.maxFrameBytes, this.options.self.maxFrameBytes) - 1
  }

  failure(
    outcome: "NotSent" | "Unknown",
    reason = this.over ?? (this.muted ? "its lease is closed" : "the connection is over")
  ): NodeUnreachable {
    return new NodeUnreachable({ node: `${this.peer.host}:${this.peer.port}`, outcome, reason })
  }

  // ---- out ---------------------------------------------------------------------------------------------------------------

  sendControl(frame: Uint8Array, urgent = false): void {
    if (this.over !== undefined) return
    if (urgent) this.control.unshift(frame)
    else this.control.push(frame)
    if (this.connection.unsent() === 0) this.flush()
  }

  /** Has this control frame not left yet? Takes it back if so. */
  takeBack(frame: Uint8Array): boolean {
    const index = this.control.indexOf(frame)
    if (index >= 0) this.control.splice(index, 1)
    return index >= 0
  }

  get hasRoom(): boolean {
    return this.queuedBytes + (this.open === undefined ? 0 : this.open.length) <= this.options.outboxBytes
  }

  /** Does what is written now wait until the peer has taken what was written before? */
  get stalled(): boolean {
    return this.credit <= 0 || !this.hasRoom
  }

  /** The same for large messages, which have a bound of their own: those that leave meanwhile are not held up by it. */
  get hasBulkRoom(): boolean {
    return this.bulkBytes <= this.options.outboxBytes
  }

  /** Called once when there is room again (`bulk`: for a large message), or the session is over. Returns how to stop. */
  whenRoom(bulk: boolean, listener: () => void): () => void {
    const waiting = bulk ? this.waitingWithBulk : this.waiting
    waiting.add(listener)
    return () => void waiting.delete(listener)
  }

  /** Where the next message of at most `bytes` is written; `wrote` must follow. */
  writer(bytes: number): Writer {
    if (this.open !== undefined && this.open.length - frontBytes + bytes > this.maxMessageBytes) this.seal()
    if (this.open === undefined) {
      this.open = new Writer(this.options.buffers.take())
      this.open.length = frontBytes
      this.open.byte(FrameType.Data)
    }
    return this.open
  }

  /**
   * A lone message leaves at once. What follows before it has left is gathered, as is what is written while frames are taken in,
   * and leaves in batches as they become full.
   */
  wrote(): void {
    if (this.open !== undefined && this.open.length >= batchBytes) {
      this.seal()
      if (this.connection.unsent() < aheadBytes) this.flush()
    } else if (this.options.turns.running) {
      if (!this.inTurn) this.options.turns.wrote(this)
      this.inTurn = true
    } else if (this.connection.unsent() === 0) this.flush()
  }

  /** The frames of a turn are all taken. */
  turnEnded(): void {
    this.inTurn = false
    if (this.connection.unsent() === 0) this.flush()
  }

  private seal(): void {
    const batch = this.open!.buffer.subarray(frontBytes, this.open!.length)
    this.open = undefined
    this.queuedBytes += batch.length
    this.sealed.push(batch)
    this.batch++
  }

  /** The transport has nothing of ours any more. */
  private idle(): void {
    if (this.connection.unsent() === 0) {
      for (const buffer of this.lent) this.options.buffers.give(buffer)
      this.lent = []
    }
    this.flush()
  }

  private flush(): void {
    if (this.over !== undefined || this.flushing || this.refused) return
    this.flushing = true
    const { connection } = this
    this.offerControl()
    let more = !this.refused
    while (more && this.credit > 0 && connection.unsent() < aheadBytes) {
      more = false
      if (this.sealed.length === 0 && this.open !== undefined) this.seal()
      if (this.sealed.length > 0) {
        if (!this.offerBatch()) break
        more = true
      }
      // a piece of what is large after each batch of what is small: neither waits for all of the other
      if (this.sendPiece()) more = true
    }
    this.flushing = false
    if (this.waiting.size > 0 && this.hasRoom) this.wake(this.waiting)
    if (this.waitingWithBulk.size > 0 && this.hasBulkRoom) this.wake(this.waitingWithBulk)
  }

  private offerControl(): void {
    while (this.control.length > 0) {
      const frame = this.control[0]!
      // one above the cap is lost alone
      if (!this.connection.offer(frame) && frame.length <= this.options.self.maxFrameBytes) {
        this.refused = true
        return
      }
      this.control.shift()
    }
  }

  /** False: the connection does not take it, so it has certainly not left. */
  private offerBatch(): boolean {
    const batch = this.sealed[0]!
    if (!this.hand(batch, new Uint8Array(batch.buffer))) return false
    this.sealed.shift()
    this.queuedBytes -= batch.length
    this.credit -= batch.length
    this.leftBatch++
    this.pace.others()
    return true
  }

  /** To the transport, which has the buffer from then on; packed where that helps. */
  private hand(frame: Uint8Array, buffer: Uint8Array): boolean {
    const packed = this.deflater?.pack(frame, frontBytes)
    if (!this.connection.offer(packed ?? frame, frontBytes)) {
      this.refused = true
      // no end of the connection would follow
      if (frame.length > this.options.self.maxFrameBytes) this.endUnsafe("a batch is above the cap of a frame")
      return false
    }
    if (packed === undefined) this.lent.push(buffer)
    else this.options.buffers.give(buffer)
    return true
  }

  /** Queues a large message behind those before it. */
  sendBulk(bulk: Bulk): void {
    this.bulks.push(bulk)
    this.bulkBytes += bulk.length
    if (this.connection.unsent() === 0) this.flush()
  }

  /** The number of the batch that must have left for all that was written so far to be known to the peer. */
  get written(): number {
    return this.open === undefined ? this.batch - 1 : this.batch
  }

  private sendPiece(): boolean {
    const bulk = this.bulks[0]
    if (bulk === undefined || bulk.after > this.leftBatch || !this.pace.mayGo) return false
    if (bulk.cancelled && bulk.left === 0) {
      this.finishBulk(bulk)
      return true
    }
    const writer = new Writer(this.options.buffers.takeForPiece())
    writer.length = frontBytes
    const { left } = bulk
    bulk.write(writer.byte(FrameType.Chunk))
    const piece = writer.buffer.subarray(frontBytes, writer.length)
    if (!this.hand(piece, writer.buffer)) {
      bulk.left = left
      return false
    }
    this.bulkBytes -= bulk.left - left
    this.credit -= piece.length
    if (bulk.over) this.finishBulk(bulk)
    if (this.pace.left(piece.length, this.bulks.length === 0)) this.ping()
    return true
  }

  private finishBulk(bulk: Bulk): void {
    this.bulks.shift()
    this.bulkBytes -= bulk.length - bulk.left
    bulk.done(bulk)
  }

  /** Behind what was handed to the transport so far, so that the answer tells when the peer has come there. */
  private ping(): void {
    this.pace.asked(this.options.now())
    this.connection.offer(Uint8Array.of(FrameType.Ping))
  }

  private onPiece(reader: Reader, length: number): void {
    const parts = this.assembly.take(reader)
    // credit for pieces is given at once, so that the window may be smaller than a message; what they make up is charged again
    this.settled(length)
    if (parts === undefined || this.muted) return
    const first = parts[0]!
    const beside = parts.reduce((sum, part) => sum + part.length, -first.length)
    this.unsettled += first.length + 1 + beside
    this.handled -= first.length + 1 + beside
    const unsettled = this.unsettled
    this.options.onData(this, new Reader(first), parts)
    // what could not be handed over at once is settled as a whole when it is
    if (unsettled - this.unsettled === first.length + 1) this.settled(beside)
  }

  private wake(waiting: Set<() => void>): void {
    const listeners = [...waiting]
    waiting.clear()
    for (const listener of listeners) listener()
  }

  // ---- in ----------------------------------------------------------------------------------------------------------------

  /** Reads until the connection is over. */
  readonly run: Effect.Effect<void> = Effect.suspend(() =>
    this.connection.receive.pipe(
      Effect.flatMap((frames) => Effect.sync(() => this.take(frames))),
      // it waits for the transport each time, which is turn enough for others
      Effect.forever({ disableYield: true }),
      Effect.catch((error) => this.end(error.reason))
    )
  )

  take(frames: ReadonlyArray<Uint8Array>): void {
    this.heard = this.options.now()
    this.asked = undefined
    const { turns } = this.options
    turns.begin()
    try {
      for (const frame of frames) if (this.over === undefined) this.onFrame(frame)
    } finally {
      turns.end()
    }
  }

  private onFrame(frame: Uint8Array): void {
    try {
      const reader = new Reader(frame)
      switch (reader.byte()) {
        case FrameType.Data:
          this.unsettled += frame.length
          this.checkWindow()
          return this.muted ? this.settled(frame.length) : this.options.onData(this, reader)
        case FrameType.Chunk:
          this.unsettled += frame.length
          this.checkWindow()
          this.onPiece(reader, frame.length)
          return this.connection.spent?.(frame)
        case FrameType.Deflated:
          return this.onFrame(unpack(reader, this.options.self.maxFrameBytes))
        case FrameType.Control:
          this.checkListening()
          return this.options.onControl(this, reader)
        case FrameType.Ping:
          this.checkListening()
          return this.sendControl(Uint8Array.of(FrameType.Pong), true)
        case FrameType.Pong:
          this.pace.heard(this.options.now())
          return this.flush()
        case FrameType.Credit:
          return this.onCredit(reader.varint())
        case FrameType.Kinds:
          this.kinds = readKinds(reader)
          return
        default:
          throw new Malformed("unknown frame type")
      }
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      this.endUnsafe(`protocol violation: ${error.message}`)
    }
  }

  /** A peer that knows the window goes at most one frame beyond it, while one large message waits for room in a mailbox. */
  private checkWindow(): void {
    const { maxFrameBytes, windowBytes } = this.options.self
    if (this.unsettled > windowBytes + 2 * maxFrameBytes) throw new Malformed("more than the window")
  }

  /** No peer goes on asking while so many answers wait for it to read them, unless it means to fill this side's memory. */
  private checkListening(): void {
    if (this.control.length > maxUnread) throw new Malformed("asks and does not listen")
  }

  private onCredit(bytes: number): void {
    this.credit = Math.min(this.credit + bytes, this.peer.windowBytes)
    this.flush()
  }

  /** Messages of that many bytes are no longer held here: the peer may send as many again. */
  settled(bytes: number): void {
    this.unsettled -= bytes
    this.handled += bytes
    if (this.handled * 4 < this.options.self.windowBytes) return
    this.sendControl(new Writer().byte(FrameType.Credit).varint(this.handled).take())
    this.handled = 0
  }

  /**
   * One beat of the heart: asks a peer that has been quiet for `quiet` milliseconds, and gives it up where it does not answer
   * within `patience`. Counted from the question, so that a pause of this side is not held against the other.
   */
  beat(now: number, quiet: number, patience: number): void {
    if (this.asked !== undefined) {
      if (now - this.asked >= patience) this.endUnsafe(`no sign of life for ${Math.round(now - this.heard)} ms`)
    } else if (now - this.heard >= quiet) {
      this.asked = now
      this.ping()
    }
  }

  // ---- end ---------------------------------------------------------------------------------------------------------------

  /** Ends it for this side at once; what was not handed to the transport is lost, and told so. Idempotent. */
  endUnsafe(reason: string): void {
    if (this.over !== undefined) return
    this.over = reason
    Effect.runSync(this.connection.close)
    if (this.open !== undefined) this.seal()
    const lost = this.sealed
    this.sealed = []
    const bulks = this.bulks
    this.bulks = []
    this.assembly.reset()
    this.options.onEnd(this)
    if (lost.length > 0) this.options.onLost(this, lost)
    for (const bulk of bulks) bulk.done(bulk)
    this.wake(this.waiting)
    this.wake(this.waitingWithBulk)
  }

  end(reason: string): Effect.Effect<void> {
    return Effect.sync(() => this.endUnsafe(reason))
  }

  /** Hands over all that the peer's window admits, then ends. */
  readonly close: Effect.Effect<void> = Effect.sync(() => {
    if (this.over !== undefined) return
    this.offerControl()
    if (this.open !== undefined) this.seal()
    while (this.sealed.length > 0 && this.credit > 0 && this.offerBatch());
    this.endUnsafe("closed by this side")
  })
}

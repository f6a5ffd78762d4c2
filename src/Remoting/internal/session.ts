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
import { FrameType, type Identity, readKinds, share } from "./handshake.ts"
import { Malformed, Reader, Writer } from "./wire.ts"

/** A batch is sealed when it is above this, in bytes. */
const batchBytes = 64 * 1024
/** Bytes left free in front of a batch, for the transport to put its header there instead of copying. */
export const frontBytes = 8
/** Capacity of a batch's buffer, in bytes: mostly the message that fills it still fits. */
const bufferBytes = batchBytes + 8 * 1024

/** Buffers of batches that have left, for all sessions of a node: an idle session holds none. */
export class Buffers {
  private readonly free: Array<Uint8Array> = []
  take(): Uint8Array {
    return this.free.pop() ?? new Uint8Array(bufferBytes)
  }
  give(buffer: Uint8Array): void {
    if (buffer.length === bufferBytes && this.free.length < 16) this.free.push(buffer)
  }
}

/** Messages above this leave in pieces of as much, in bytes, between which others leave too. */
export const pieceBytes = batchBytes - 1024

/** A large message on its way out. One at a time and in order; what is behind it to the same actor waits its turn here too. */
export class Bulk {
  readonly head: Uint8Array
  readonly payload: Uint8Array
  /** the batch that tells the numbers which this message uses: it goes first */
  readonly after: number
  /** called once, when its last piece has left or it never will */
  readonly done: (bulk: Bulk) => void
  /** bytes that have left */
  left = 0
  cancelled = false

  constructor(head: Uint8Array, payload: Uint8Array, after: number, done: (bulk: Bulk) => void) {
    this.head = head
    this.payload = payload
    this.after = after
    this.done = done
  }

  get length(): number {
    return this.head.length + this.payload.length
  }
}

export interface SessionOptions {
  readonly connection: Connection
  readonly self: Identity
  readonly peer: Identity
  /** did this side dial? only such a session carries what this node starts; the peer's carry answers */
  readonly dialed: boolean
  /** number of this session in its node, from 1 */
  readonly number: number
  /** bytes of messages that may wait here before `hasRoom` is false */
  readonly outboxBytes: number
  /** milliseconds, monotonic */
  readonly now: () => number
  readonly onData: (session: Session, reader: Reader) => void
  readonly onControl: (session: Session, reader: Reader) => void
  readonly onEnd: (session: Session) => void
  readonly buffers: Buffers
  /** a batch that never left, for the dead letters in it */
  readonly onLost: (session: Session, batch: Uint8Array) => void
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
  /** pieces of the large message that is coming in */
  private pieces: Array<Uint8Array> = []
  private piecesLength = 0
  /** buffers that the transport has until nothing is unsent */
  private lent: Array<Uint8Array> = []
  private queuedBytes = 0
  /** batches sealed or open so far, and handed to the transport so far: what is above the second certainly did not leave */
  batch = 1
  leftBatch = 0
  private credit: number
  private handled = 0
  private unsettled = 0
  private readonly waiting = new Set<() => void>()
  private flushing = false
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

  /** Called once when there is room again, or the session is over. Returns how to stop. */
  whenRoom(listener: () => void): () => void {
    this.waiting.add(listener)
    return () => void this.waiting.delete(listener)
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

  wrote(): void {
    if (this.open !== undefined && this.open.length >= batchBytes) this.seal()
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
    if (this.over !== undefined || this.flushing) return
    this.flushing = true
    const { connection } = this
    while (this.control.length > 0) connection.offer(this.control.shift()!)
    let more = true
    while (more && this.credit > 0 && connection.unsent() < batchBytes) {
      more = false
      if (this.sealed.length === 0 && this.open !== undefined) this.seal()
      if (this.sealed.length > 0) {
        this.offer(this.sealed.shift()!)
        more = true
      }
      // a piece of what is large after each batch of what is small: neither waits for all of the other
      if (this.sendPiece()) more = true
    }
    this.flushing = false
    if (this.waiting.size > 0 && this.hasRoom) this.wakeWaiting()
  }

  private offer(batch: Uint8Array): void {
    this.queuedBytes -= batch.length
    this.credit -= batch.length
    this.leftBatch++
    this.connection.offer(batch, frontBytes)
    this.lent.push(new Uint8Array(batch.buffer))
  }

  /** Queues a large message behind those before it. */
  sendBulk(bulk: Bulk): void {
    this.bulks.push(bulk)
    this.queuedBytes += bulk.length
    if (this.connection.unsent() === 0) this.flush()
  }

  /** The number of the batch that must have left for all that was written so far to be known to the peer. */
  get written(): number {
    return this.open === undefined ? this.batch - 1 : this.batch
  }

  private sendPiece(): boolean {
    const bulk = this.bulks[0]
    if (bulk === undefined || bulk.after > this.leftBatch) return false
    if (bulk.cancelled && bulk.left === 0) {
      this.finishBulk(bulk)
      return true
    }
    const writer = new Writer(this.options.buffers.take())
    writer.length = frontBytes
    writer.byte(FrameType.Chunk).byte(bulk.length - bulk.left <= pieceBytes ? 1 : 0)
    const until = Math.min(bulk.length, bulk.left + pieceBytes)
    const headLength = bulk.head.length
    if (bulk.left < headLength) writer.raw(bulk.head.subarray(bulk.left, until))
    writer.raw(bulk.payload.subarray(Math.max(0, bulk.left - headLength), Math.max(0, until - headLength)))
    const piece = writer.buffer.subarray(frontBytes, writer.length)
    this.credit -= piece.length
    bulk.left = until
    this.connection.offer(piece, frontBytes)
    this.lent.push(writer.buffer)
    if (until === bulk.length) this.finishBulk(bulk)
    return true
  }

  private finishBulk(bulk: Bulk): void {
    this.bulks.shift()
    this.queuedBytes -= bulk.length
    bulk.done(bulk)
  }

  private onPiece(reader: Reader, length: number): void {
    const last = reader.byte() === 1
    const piece = reader.raw(reader.bytes.length - reader.position)
    this.piecesLength += piece.length
    if (this.piecesLength > this.options.self.maxFrameBytes) throw new Malformed("a message of too many pieces")
    this.pieces.push(piece)
    // what is put together here has a bound of its own, so that the window cannot be smaller than a message
    this.settled(length)
    if (!last) return
    const message = new Uint8Array(this.piecesLength)
    let at = 0
    for (const part of this.pieces) {
      message.set(part, at)
      at += part.length
    }
    this.pieces = []
    this.piecesLength = 0
    this.unsettled += message.length + 1
    if (this.muted) this.settled(message.length + 1)
    else this.options.onData(this, new Reader(message))
  }

  private wakeWaiting(): void {
    const listeners = [...this.waiting]
    this.waiting.clear()
    for (const listener of listeners) listener()
  }

  // ---- in ----------------------------------------------------------------------------------------------------------------

  /** Reads until the connection is over. */
  readonly run: Effect.Effect<void> = Effect.suspend(() =>
    this.connection.receive.pipe(
      Effect.flatMap((frames) => Effect.sync(() => this.take(frames))),
      Effect.forever,
      Effect.catch((error) => this.end(error.reason))
    )
  )

  take(frames: ReadonlyArray<Uint8Array>): void {
    this.heard = this.options.now()
    this.asked = undefined
    for (const frame of frames) if (this.over === undefined) this.onFrame(frame)
  }

  private onFrame(frame: Uint8Array): void {
    try {
      const reader = new Reader(frame)
      switch (reader.byte()) {
        case FrameType.Data:
          this.unsettled += frame.length
          // a peer that knows the window never goes more than one frame beyond it
          if (this.unsettled > this.options.self.windowBytes + this.options.self.maxFrameBytes) {
            throw new Malformed("more than the window")
          }
          return this.muted ? this.settled(frame.length) : this.options.onData(this, reader)
        case FrameType.Chunk:
          this.unsettled += frame.length
          return this.onPiece(reader, frame.length)
        case FrameType.Control:
          return this.options.onControl(this, reader)
        case FrameType.Ping:
          return this.sendControl(Uint8Array.of(FrameType.Pong), true)
        case FrameType.Pong:
          return
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
      this.sendControl(Uint8Array.of(FrameType.Ping), true)
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
    this.pieces = []
    this.options.onEnd(this)
    for (const batch of lost) this.options.onLost(this, batch)
    for (const bulk of bulks) bulk.done(bulk)
    this.wakeWaiting()
  }

  end(reason: string): Effect.Effect<void> {
    return Effect.sync(() => this.endUnsafe(reason))
  }

  /** Hands over all that the peer's window admits, then ends. */
  readonly close: Effect.Effect<void> = Effect.sync(() => {
    if (this.over !== undefined) return
    while (this.control.length > 0) this.connection.offer(this.control.shift()!)
    if (this.open !== undefined) this.seal()
    while (this.sealed.length > 0 && this.credit > 0) this.offer(this.sealed.shift()!)
    this.endUnsafe("closed by this side")
  })
}

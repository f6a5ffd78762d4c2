/**
 * What leaves on a session, and when. Control frames leave first; messages are gathered in batches that leave when the transport has
 * nothing unsent: a lone message at once, what piles up meanwhile in one frame. Large ones leave piece by piece in between.
 *
 * Not for: what the frames mean, nor what comes in (`session`).
 *
 * Invariant: what the connection did not take has certainly not left, and is there when the session ends. Memory is bounded: what this
 * side starts waits for room, and where answers pile up nothing more is taken from whoever does not read them.
 */
import type { Connection } from "../Transport.ts"
import { batchBytes, type Buffers } from "./buffers.ts"
import { type Bulk, Pace } from "./bulk.ts"
import { deflateCapability, Deflater } from "./compression.ts"
import { FrameType, type Identity, share } from "./handshake.ts"
import type { Taking, Turns } from "./turns.ts"
import { Writer } from "./wire.ts"

/** Bytes that the transport has at a time; what is more waits here, where it can still be overtaken. */
const aheadBytes = 64 * 1024
/** The same with control frames, which leave before data. */
const controlAheadBytes = 2 * aheadBytes
/** Bytes left free in front of a batch, for the transport to put its header there instead of copying. */
export const frontBytes = 8

/** Of the bytes that may wait before senders do, how often that of answers, which nobody can make wait. */
const answersFactor = 8
/** so many bytes are that at least */
const leastOutbox = 1024 * 1024

export interface OutboxOptions {
  readonly connection: Connection
  readonly self: Identity
  readonly peer: Identity
  /** did this side dial? then nobody is to ask it anything here */
  readonly dialed: boolean
  /** frames of messages to that peer are deflated from that size on, in bytes; undefined: none is */
  readonly deflateFrom?: number | undefined
  /** bytes of messages that may wait here before `hasRoom` is false */
  readonly outboxBytes: number
  /** milliseconds, monotonic */
  readonly now: () => number
  readonly buffers: Buffers
  readonly turns: Turns
}

export interface OutboxEvents {
  /** it has become `crowded`, or is so no more */
  readonly onCrowded: () => void
  /** what was to leave is larger than any frame, which ends the session */
  readonly onUnfit: (reason: string) => void
}

export class Outbox implements Taking {
  /** bytes of a message with what goes around it */
  readonly maxMessageBytes: number
  private readonly options: OutboxOptions
  private readonly events: OutboxEvents
  private readonly connection: Connection
  private control: Array<Uint8Array> = []
  private controlBytes = 0
  private open: Writer | undefined
  private sealed: Array<Uint8Array> = []
  private bulks: Array<Bulk> = []
  private readonly pace: Pace
  private readonly deflater: Deflater | undefined
  /** buffers that the transport has until nothing is unsent */
  private lent: Array<Uint8Array> = []
  private queuedBytes = 0
  /** of large messages, what has not left */
  private bulkBytes = 0
  /** bytes of answers, or of what else the peer makes this side say, above which it is to say no more */
  private readonly answersBytes: number
  /** the same of small ones, above which the peer's questions wait */
  private readonly crowdedBytes: number
  /** Too much waits to be read by the peer: nothing is to be taken that makes it more. */
  crowded = false
  /** So much that answers to what was taken before are refused too. */
  overdrawn = false
  /** batches sealed or open so far, and taken by the transport so far: what is above the second certainly did not leave */
  batch = 1
  leftBatch = 0
  private credit: number
  private readonly waiting = new Set<() => void>()
  private readonly waitingWithBulk = new Set<() => void>()
  private flushing = false
  /** The connection takes nothing any more. This side learns why when it has taken what came before that. */
  private refused = false
  private over = false
  /** what was written leaves when the turn ends */
  private inTurn = false

  constructor(options: OutboxOptions, events: OutboxEvents) {
    this.options = options
    this.events = events
    this.connection = options.connection
    const { deflateFrom, dialed, outboxBytes, peer, self } = options
    this.maxMessageBytes = Math.min(peer.maxFrameBytes, self.maxFrameBytes) - 1
    this.answersBytes = answersFactor * Math.max(outboxBytes, leastOutbox) + self.maxFrameBytes
    // what this side starts there never comes up to that
    this.crowdedBytes = dialed ? this.answersBytes : outboxBytes
    this.credit = peer.windowBytes
    this.pace = new Pace(peer.windowBytes / 2)
    this.deflater = deflateFrom !== undefined && share(self, peer, deflateCapability)
      ? new Deflater(deflateFrom)
      : undefined
    this.connection.onIdle(() => this.idle())
  }

  // ---- control -----------------------------------------------------------------------------------------------------------

  sendControl(frame: Uint8Array, urgent = false): void {
    if (this.over) return
    this.controlBytes += frame.length
    if (urgent) this.control.unshift(frame)
    else this.control.push(frame)
    if (this.connection.unsent() === 0) this.flush()
  }

  /** Has this control frame not left yet? Takes it back if so. */
  takeBack(frame: Uint8Array): boolean {
    const index = this.control.indexOf(frame)
    if (index < 0) return false
    this.control.splice(index, 1)
    this.controlBytes -= frame.length
    return true
  }

  /** control frames that the peer has not read */
  get unread(): number {
    return this.control.length
  }

  /** Are those so many bytes that no more answers of calls are to join them? */
  get isUnheard(): boolean {
    return this.controlBytes > this.answersBytes
  }

  /** Behind what was handed to the transport so far, so that the answer tells when the peer has come there. */
  ping(): void {
    this.pace.asked(this.options.now())
    this.connection.offer(Uint8Array.of(FrameType.Ping))
  }

  /** The peer has come to the oldest ping. */
  ponged(): void {
    this.pace.heard(this.options.now())
    this.flush()
  }

  // ---- messages ----------------------------------------------------------------------------------------------------------

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
    if (this.queuedBytes > this.crowdedBytes) this.weigh()
  }

  /** Queues a large message behind those before it. */
  sendBulk(bulk: Bulk): void {
    this.bulks.push(bulk)
    this.bulkBytes += bulk.length
    if (this.bulkBytes > this.answersBytes) this.weigh()
    if (this.connection.unsent() === 0) this.flush()
  }

  /** The number of the batch that must have left for all that was written so far to be known to the peer. */
  get written(): number {
    return this.open === undefined ? this.batch - 1 : this.batch
  }

  /** The peer has taken that many bytes. */
  granted(bytes: number): void {
    this.credit = Math.min(this.credit + bytes, this.options.peer.windowBytes)
    this.flush()
  }

  private weigh(): void {
    const { answersBytes, bulkBytes, crowded, queuedBytes } = this
    this.overdrawn = queuedBytes > answersBytes || bulkBytes > answersBytes
    this.crowded = this.overdrawn || queuedBytes > this.crowdedBytes
    if (crowded !== this.crowded) this.events.onCrowded()
  }

  // ---- leaving -----------------------------------------------------------------------------------------------------------

  /** The transport has nothing of ours any more. */
  private idle(): void {
    if (this.connection.unsent() === 0) {
      for (const buffer of this.lent) this.options.buffers.give(buffer)
      this.lent = []
    }
    this.flush()
  }

  private flush(): void {
    if (this.over || this.flushing || this.refused) return
    this.flushing = true
    const { connection } = this
    this.offerControl(controlAheadBytes)
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
    if (this.crowded) this.weigh()
  }

  /** `ahead`: bytes that the transport may have by then */
  private offerControl(ahead: number): void {
    while (this.control.length > 0 && this.connection.unsent() < ahead) {
      const frame = this.control[0]!
      // one above the cap is lost alone
      if (!this.connection.offer(frame) && frame.length <= this.options.self.maxFrameBytes) {
        this.refused = true
        return
      }
      this.control.shift()
      this.controlBytes -= frame.length
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
      if (frame.length > this.options.self.maxFrameBytes) this.events.onUnfit("a batch is above the cap of a frame")
      return false
    }
    if (packed === undefined) this.lent.push(buffer)
    else this.options.buffers.give(buffer)
    return true
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

  private wake(waiting: Set<() => void>): void {
    const listeners = [...waiting]
    waiting.clear()
    for (const listener of listeners) listener()
  }

  // ---- end ---------------------------------------------------------------------------------------------------------------

  /** Hands over all that the peer's window admits. */
  drain(): void {
    this.offerControl(Infinity)
    if (this.open !== undefined) this.seal()
    while (this.sealed.length > 0 && this.credit > 0 && this.offerBatch());
  }

  /** Of the messages that wait none leaves any more: what never left, in order. */
  drop(): { readonly batches: ReadonlyArray<Uint8Array>; readonly bulks: ReadonlyArray<Bulk> } {
    if (this.open !== undefined) this.seal()
    const { bulks, sealed: batches } = this
    this.sealed = []
    this.bulks = []
    this.queuedBytes = this.bulkBytes = 0
    this.weigh()
    return { batches, bulks }
  }

  /** The same, and no control frame leaves either. */
  end(): ReturnType<Outbox["drop"]> {
    this.over = true
    return this.drop()
  }

  /** Whoever waits for room goes on, and learns that it is over. */
  release(): void {
    this.wake(this.waiting)
    this.wake(this.waitingWithBulk)
  }
}

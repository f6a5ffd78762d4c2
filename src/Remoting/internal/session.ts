/**
 * A connection whose two ends know each other: what comes in goes to its lane, data to `messages`, control to `calls`; what goes out
 * waits in the `outbox`. The peer's window bounds what it has not handled yet, so this side never has to stop reading and heartbeats
 * never wait.
 *
 * Not for: what the frames mean, nor when they leave.
 *
 * Invariant: every byte of a message is charged to the peer's window until it is settled. While the peer does not read what it was
 * answered, what it says on the data lane is kept as it came, within that window.
 */
import { Effect } from "effect"
import { NodeUnreachable } from "../../Actor/errors.ts"
import { Assembly } from "./bulk.ts"
import { unpack } from "./compression.ts"
import { FrameType, type Identity, readKinds, share } from "./handshake.ts"
import { Outbox, type OutboxOptions } from "./outbox.ts"
import { Malformed, Reader, Writer } from "./wire.ts"

/** Control frames that may wait here for a peer that goes on asking. */
const maxUnread = 65_536
/** Tells that may wait here for room in a mailbox, each with a fiber of its own. */
const maxWaiting = 16_384

export interface SessionOptions extends OutboxOptions {
  /** did this side dial? only such a session carries what this node starts; the peer's carry answers */
  readonly dialed: boolean
  /** number of this session in its node, from 1 */
  readonly number: number
  /**
   * Reads what it takes and settles it. It stops early where the session is `full` then, and is called again for the rest when that is
   * over. `parts`: of a large message, of which the reader has the first.
   */
  readonly onData: (session: Session, reader: Reader, parts?: ReadonlyArray<Uint8Array>) => void
  readonly onControl: (session: Session, reader: Reader) => void
  readonly onEnd: (session: Session) => void
  /** batches that never left, in order, for the dead letters in them */
  readonly onLost: (session: Session, batches: ReadonlyArray<Uint8Array>) => void
}

/** What came in and waits until the peer has read more. */
interface Held {
  /** of frames one after the other, from `from` on; of a large message its first part */
  readonly content: Writer
  from: number
  readonly parts: ReadonlyArray<Uint8Array> | undefined
  /** is some of it still charged that was read already? */
  charged: boolean
}

export class Session {
  readonly options: SessionOptions
  readonly connection: SessionOptions["connection"]
  readonly peer: Identity
  readonly outbox: Outbox
  /** the peer's kinds, by name; replaced when it registers more */
  kinds: ReadonlyMap<string, string>
  over: string | undefined
  /** no message goes out or is taken any more, only calls */
  muted = false
  /** milliseconds of the last word from the peer */
  heard: number
  /** milliseconds of the last question for a sign of life */
  private asked: number | undefined
  /** the large message that is coming in */
  private readonly assembly: Assembly
  private handled = 0
  private unsettled = 0
  /** Nothing is to be taken from the data lane: the peer does not read its answers, or too many of its tells wait for room. */
  full = false
  private waiting = 0
  private held: Array<Held> = []
  private resuming = false
  /** what went wrong where it cannot be told, because it was no frame that brought it about; `run` tells it */
  private defect: { readonly error: unknown } | undefined
  /** what the two lanes keep about this session */
  data: unknown
  calls: unknown

  constructor(options: SessionOptions) {
    this.options = options
    this.connection = options.connection
    this.peer = options.peer
    this.kinds = options.peer.kinds
    this.heard = options.now()
    this.assembly = new Assembly(options.self.maxFrameBytes)
    this.outbox = new Outbox(options, {
      onCrowded: () => this.weigh(),
      onUnfit: (reason) => this.endUnsafe(reason)
    })
  }

  /** Do both sides understand that? Ask once and keep the answer: it does not change. */
  supports(capability: string): boolean {
    return share(this.options.self, this.peer, capability)
  }

  /** of what is for the peer */
  failure(
    outcome: "NotSent" | "Unknown",
    reason = this.over ?? (this.muted ? "its lease is closed" : "the connection is over")
  ): NodeUnreachable {
    return new NodeUnreachable({ node: `${this.peer.host}:${this.peer.port}`, outcome, reason })
  }

  /** of what is for the peer, and finds no room */
  overload(reason: string): NodeUnreachable {
    const { host, port } = this.peer
    return new NodeUnreachable({ node: `${host}:${port}`, outcome: "NotSent", reason, overloaded: true })
  }

  /** of what the peer wants of this side, which finds no room here */
  refusal(outcome: "NotSent" | "Unknown", reason: string): NodeUnreachable {
    const { host, port } = this.options.self
    return new NodeUnreachable({ node: `${host}:${port}`, outcome, reason, overloaded: true })
  }

  // ---- in ----------------------------------------------------------------------------------------------------------------

  /** Reads until the connection is over. */
  readonly run: Effect.Effect<void> = Effect.suspend(() =>
    this.connection.receive.pipe(
      Effect.flatMap((frames) => Effect.sync(() => this.take(frames))),
      // it waits for the transport each time, which is turn enough for others
      Effect.forever({ disableYield: true }),
      Effect.catch((error) => this.defect === undefined ? this.end(error.reason) : Effect.die(this.defect.error)),
      // nobody reads any more
      Effect.ensuring(this.end("this side has failed"))
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
          this.unsettled += frame.length - 1
          this.handled++
          this.checkWindow()
          return this.muted ? this.settled(frame.length - 1) : this.onData(reader, undefined)
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
          return this.outbox.sendControl(Uint8Array.of(FrameType.Pong), true)
        case FrameType.Pong:
          return this.outbox.ponged()
        case FrameType.Credit:
          return this.outbox.granted(reader.varint())
        case FrameType.Kinds:
          this.kinds = readKinds(reader)
          return
        default:
          throw new Malformed("unknown frame type")
      }
    } catch (error) {
      this.violated(error)
    }
  }

  private violated(error: unknown): void {
    if (!(error instanceof Malformed)) throw error
    this.endUnsafe(`protocol violation: ${error.message}`)
  }

  private onPiece(reader: Reader, length: number): void {
    const parts = this.assembly.take(reader)
    // credit for pieces is given at once, so that the window may be smaller than a message; what they make up is charged again
    this.settled(length)
    if (parts === undefined || this.muted) return
    const bytes = parts.reduce((sum, part) => sum + part.length, 0)
    this.unsettled += bytes
    this.handled -= bytes
    this.onData(new Reader(parts[0]!), parts)
  }

  private onData(reader: Reader, parts: ReadonlyArray<Uint8Array> | undefined): void {
    const waits = this.held.length > 0 || this.full
    const charged = waits ? false : this.handOver(reader, parts)
    if (reader.done) return
    if (this.options.dialed) throw new Malformed("asks where it was dialed, and more than is taken")
    const last = this.held[this.held.length - 1]
    const rest = reader.bytes.subarray(reader.position)
    // copied: what they came in may be much larger
    if (parts === undefined && last !== undefined && last.parts === undefined) last.content.raw(rest)
    else this.held.push({ content: new Writer(Math.max(256, rest.length)).raw(rest), from: 0, parts, charged })
    // settling may have made room
    if (!this.full) this.resume()
  }

  /** Is some of what was read still charged? Then it is settled by whoever has it, with the parts beside it. */
  private handOver(reader: Reader, parts: ReadonlyArray<Uint8Array> | undefined, charged = false): boolean {
    const { position } = reader
    const { unsettled } = this
    this.options.onData(this, reader, parts)
    const all = unsettled - this.unsettled === reader.position - position && !charged
    if (parts === undefined || !reader.done || !all) return !all
    const beside = parts.reduce((sum, part) => sum + part.length, -parts[0]!.length)
    if (beside > 0) this.settled(beside)
    return false
  }

  private weigh(): void {
    const { full } = this
    this.full = this.outbox.crowded || this.waiting >= maxWaiting
    if (full && !this.full) this.resume()
  }

  /** A tell of the peer waits for room in a mailbox. */
  tellWaits(): void {
    if (++this.waiting === maxWaiting) this.weigh()
  }

  /** It waits no more; `bytes` are its own. */
  tellEnds(bytes: number): void {
    this.settled(bytes)
    if (this.waiting-- === maxWaiting) this.weigh()
  }

  /** What the peer said meanwhile is taken. */
  private resume(): void {
    if (this.resuming || this.held.length === 0) return
    const { turns } = this.options
    this.resuming = true
    turns.begin()
    try {
      while (this.over === undefined && this.held.length > 0 && (!this.full || this.muted)) {
        const held = this.held[0]!
        const reader = new Reader(held.content.buffer.subarray(0, held.content.length), held.from)
        if (this.muted) this.settled(reader.limit - reader.skip(reader.limit - reader.position))
        else held.charged = this.handOver(reader, held.parts, held.charged)
        held.from = reader.position
        if (reader.done) this.held.shift()
      }
    } catch (error) {
      if (error instanceof Malformed) this.violated(error)
      else {
        this.defect = { error }
        this.endUnsafe("this side has failed")
      }
    } finally {
      this.resuming = false
      turns.end()
    }
  }

  /** A peer that knows the window goes at most one frame beyond it, while one large message waits for room in a mailbox. */
  private checkWindow(): void {
    const { maxFrameBytes, windowBytes } = this.options.self
    if (this.unsettled > windowBytes + 2 * maxFrameBytes) throw new Malformed("more than the window")
  }

  /** No peer goes on asking while so many answers wait for it to read them, unless it means to fill this side's memory. */
  private checkListening(): void {
    if (this.outbox.unread > maxUnread) throw new Malformed("asks and does not listen")
  }

  /** Messages of that many bytes are no longer held here: the peer may send as many again. */
  settled(bytes: number): void {
    this.unsettled -= bytes
    this.handled += bytes
    if (this.handled * 4 < this.options.self.windowBytes) return
    this.outbox.sendControl(new Writer().byte(FrameType.Credit).varint(this.handled).take())
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
      this.outbox.ping()
    }
  }

  // ---- end ---------------------------------------------------------------------------------------------------------------

  /** It is muted now: what waited is lost, and told so. Whoever waits for an answer has been told before. */
  mute(): void {
    this.lose(this.outbox.drop())
    this.resume()
    this.outbox.release()
  }

  private lose({ batches, bulks }: ReturnType<Outbox["drop"]>): void {
    if (batches.length > 0) this.options.onLost(this, batches)
    for (const bulk of bulks) bulk.done(bulk)
  }

  /** Ends it for this side at once; what was not handed to the transport is lost, and told so. Idempotent. */
  endUnsafe(reason: string): void {
    if (this.over !== undefined) return
    this.over = reason
    Effect.runSync(this.connection.close)
    const lost = this.outbox.end()
    this.held = []
    this.assembly.reset()
    this.options.onEnd(this)
    this.lose(lost)
    this.outbox.release()
  }

  end(reason: string): Effect.Effect<void> {
    return Effect.sync(() => this.endUnsafe(reason))
  }

  /** Hands over all that the peer's window admits, then ends. */
  readonly close: Effect.Effect<void> = Effect.sync(() => {
    if (this.over !== undefined) return
    this.outbox.drain()
    this.endUnsafe("closed by this side")
  })
}

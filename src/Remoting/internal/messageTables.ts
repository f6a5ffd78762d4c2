/**
 * What the data lane keeps about a session: numbers given and heard, asks in flight and asks being answered, with the operations of
 * the wire and their limits.
 */
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Route, Trace } from "../../Actor/Delivery.ts"
import type { AskError, NotAllowed } from "../../Actor/errors.ts"
import type { Asker, Carrier } from "../../Actor/internal/Envelope.ts"
import type { KindDefinition, MessageDefinition } from "../../Actor/Kind.ts"
import type { DeadLetterReason } from "../../Actor/SystemEvents.ts"
import { type Codec, codecOf, type Mode } from "./codec.ts"
import type { Compact } from "./compact.ts"
import { type Detached, type Places, placesOf } from "./attached.ts"
import { Bulk, maxParts, partsCapability } from "./bulk.ts"
import type { Session } from "./session.ts"
import { Malformed, type Reader, Writer } from "./wire.ts"

export const Op = {
  Kind: 1,
  Tag: 2,
  Target: 3,
  ForgetTargets: 4,
  Tell: 5,
  Ask: 6,
  Success: 7,
  Failure: 8,
  Refused: 9,
  Cancel: 10,
  Gone: 11,
  /** a span's ids, for the next tell or ask */
  Trace: 12,
  /** a target in full, for the message behind it: large ones travel apart, and numbers may be forgotten meanwhile */
  Inline: 13,
  /** what of the next message travels beside it, in further parts */
  Beside: 14
} as const

/** by their number on the wire */
export const modes: ReadonlyArray<Mode> = ["evolving", "exact", "compact"]

export const maxKinds = 1000
export const maxTags = 10_000
/** Targets that one session knows at a time; the sender forgets all and begins anew. */
export const maxTargets = 16_384
/** bytes of UTF-8 */
export const maxName = 1024
/** Asks of one peer that may be unanswered here; more are refused typed. */
export const maxServing = 65_536
/** Bytes of what they say, the same. */
export const maxServingBytes = 64 * 1024 * 1024
/** The number of a target that was told in full. */
export const inlineTarget = maxTargets
/** Room for what goes around a payload. */
export const overhead = 64

export class OutTag {
  readonly number: number
  readonly message: MessageDefinition
  readonly payload: Codec
  readonly success: Codec
  readonly error: Codec
  readonly places: Places | undefined
  /** how to write small payloads where they leave from */
  readonly compact: Compact | undefined
  constructor(number: number, message: MessageDefinition, mode: Mode) {
    this.number = number
    this.message = message
    this.payload = codecOf(message.payload, mode)
    this.success = codecOf(message.success, mode)
    this.error = codecOf(message.error, mode)
    this.places = placesOf(message.payload)
    this.compact = this.payload.compact
  }
}

export interface OutKind {
  readonly number: number
  readonly mode: Mode
  readonly tags: Map<string, OutTag>
}

export interface InKind {
  readonly name: string
  readonly fingerprint: string
  readonly mode: Mode
}

/** A message that the peer may send, and what this node knows of it; looked up anew when kinds are registered or withdrawn. */
export class InTag {
  readonly kind: InKind
  readonly tag: string
  /** those in which it was looked up */
  kinds: ReadonlyMap<string, KindDefinition> | undefined = undefined
  definition: KindDefinition | undefined = undefined
  /** are both sides' schemas the same? */
  same = false
  /** undefined: it cannot be understood now */
  payload: Codec | undefined = undefined
  /** with `success`, of the last definition that could; undefined: none could */
  message: MessageDefinition | undefined = undefined
  success: Codec | undefined = undefined
  /** whoever sends it may not: it is not read */
  readonly closed: boolean

  constructor(kind: InKind, tag: string, closed = false) {
    this.kind = kind
    this.tag = tag
    this.closed = closed
  }

  learn(kinds: ReadonlyMap<string, KindDefinition>): void {
    const { fingerprint, mode, name } = this.kind
    this.kinds = kinds
    const definition = this.definition = kinds.get(name)
    this.same = definition?.fingerprint === fingerprint
    const message = mode === "evolving" || this.same ? definition?.messages.get(this.tag) : undefined
    this.payload = message === undefined || this.closed ? undefined : codecOf(message.payload, mode)
    // answers to what was understood before are owed still
    if (message === undefined) return
    this.message = message
    this.success = codecOf(message.success, mode)
  }
}

export interface InTarget extends Route {
  readonly kind: InKind
}

/** Why a message reaches nobody. */
export class Undeliverable {
  readonly reason: DeadLetterReason
  readonly error: AskError | NotAllowed
  constructor(reason: DeadLetterReason, error: AskError | NotAllowed) {
    this.reason = reason
    this.error = error
  }
}

/** What a reference remembers: the session to its actor's node, and its actor's number there. */
export class Lane {
  readonly tables: Tables
  readonly number: number
  /** of another one the number is to be looked up anew */
  readonly generation: number
  constructor(tables: Tables, number: number) {
    this.tables = tables
    this.number = number
    this.generation = tables.generation
  }
}

export class Tables implements Carrier {
  readonly session: Session
  /** times that targets were forgotten, or are gone */
  generation = 0
  /** the message that was sent last, mostly the next one too */
  lastKind: KindDefinition | undefined = undefined
  lastTag = ""
  lastOut: OutTag | undefined = undefined
  readonly outKinds = new Map<KindDefinition, OutKind>()
  readonly outTags: Array<{ readonly kind: string; readonly tag: string }> = []
  outTargets = new Map<string, number>()
  outNames: Array<string> = []
  /** earlier ones, each with the batch that says that they are forgotten, which may not have left */
  private forgotten: Array<{ readonly batch: number; readonly names: ReadonlyArray<string> }> = []
  /** targets that the peer does not have any more, by key */
  readonly gone = new Set<string>()
  readonly inKinds: Array<InKind> = []
  readonly inTags: Array<InTag> = []
  inTargets: Array<InTarget> = []
  /** of the next message */
  trace: Trace | undefined
  inline: InTarget | undefined
  beside: Omit<Detached, "rest"> | undefined
  /** of the large message that is being read */
  parts: ReadonlyArray<Uint8Array> | undefined
  /** does the peer know of parts? undefined: not asked yet */
  inParts: boolean | undefined
  /** large messages that have not left yet, by target: what follows to the same one must not overtake them */
  readonly bulkTo = new Map<string, number>()
  readonly asks = new Asks()
  /** asks of the peer that are being answered, by slot */
  readonly serving = new Map<number, Asker>()
  /** of their questions */
  private servingBytes = 0

  constructor(session: Session) {
    this.session = session
  }

  /**
   * An ask of that number has come. One that still has its slot here was given up by its asker, whose time was over first. False: it
   * is the later one that has come first, and nobody waits for this one.
   */
  claim(slot: number, use: number): boolean {
    const { serving } = this
    const other = serving.size > 0 ? serving.get(slot) : undefined
    if (other === undefined) return true
    if (other.use === use) throw new Malformed("an ask came twice")
    // uses begin anew some time
    if (((use - other.use) & maxUse) > maxUse >> 1) return false
    other.expire()
    return true
  }

  /** The peer does not have that target any more: whoever remembers its number looks it up anew. */
  targetGone(key: string): void {
    const { gone } = this
    if (gone.size >= maxTargets) gone.clear()
    gone.add(key)
    this.generation++
  }

  /** Numbers of targets begin anew; the peer learns it where `session` writes now. */
  forgetTargets(): void {
    const { batch, leftBatch } = this.session.outbox
    this.forgotten = this.forgotten.filter((earlier) => earlier.batch > leftBatch)
    this.forgotten.push({ batch, names: this.outNames })
    this.outTargets = new Map()
    this.outNames = []
    this.generation++
  }

  /** The targets' names in the batches that have not left: those at their beginning, and after each time that they were forgotten. */
  lostNames(): Array<ReadonlyArray<string>> {
    const { leftBatch } = this.session.outbox
    return [...this.forgotten.filter(({ batch }) => batch > leftBatch).map(({ names }) => names), this.outNames]
  }

  /** `asker` counts as asked until it is answered; its `batch` is the bytes of its question. */
  serve(asker: Asker): void {
    this.serving.set(asker.slot, asker)
    this.servingBytes += asker.batch
  }

  served(asker: Asker): void {
    const { serving } = this
    if (serving.size === 0 || serving.get(asker.slot) !== asker) return
    serving.delete(asker.slot)
    this.servingBytes -= asker.batch
  }

  get servesAll(): boolean {
    return this.serving.size >= maxServing || this.servingBytes > maxServingBytes
  }

  /** Where its time is up the other side knows that by itself, as soon as it has the question. */
  forget(asker: Asker, interrupted: boolean): void {
    if (this.asks.take(asker.slot, asker.use) === undefined) return
    if (interrupted || (asker.cargo instanceof Bulk && !asker.cargo.over)) cancel(this, asker)
  }
}

/** What is kept about that session, from its first message on. */
export const tablesOf = (session: Session): Tables => (session.data ??= new Tables(session)) as Tables

/**
 * Asks in flight. An ask's number is a slot and how often slots were used, so that a late answer never meets another ask; a Map
 * would be built anew again and again while asks come and go.
 */
export class Asks {
  private readonly slots: Array<Asker | undefined> = []
  private readonly free: Array<number> = []
  private uses = 0

  /** Gives it a number; there must be room. */
  put(asker: Asker): void {
    asker.slot = this.free.pop() ?? this.slots.push(undefined) - 1
    // wraps around long after any answer could be late
    asker.use = this.uses = (this.uses + 1) & maxUse
    this.slots[asker.slot] = asker
  }

  get full(): boolean {
    return this.free.length === 0 && this.slots.length >= maxSlots
  }

  /** The ask of that number, which is no longer in flight then. */
  take(slot: number, use: number): Asker | undefined {
    const asker = this.slots[slot]
    if (asker === undefined || asker.use !== use) return undefined
    this.slots[slot] = undefined
    this.free.push(slot)
    return asker
  }

  takeAll(): ReadonlyArray<Asker> {
    const askers = this.slots.filter((asker) => asker !== undefined)
    this.slots.length = 0
    this.free.length = 0
    return askers
  }
}

/** 16 bits */
export const maxSlots = 0x10000
/** 24 bits */
export const maxUse = 0xffffff

/** Tells the peer that an answer is of no use any more. */
const cancel = ({ inParts, session }: Tables, { cargo, slot, use }: Asker) => {
  if (session.over !== undefined) return
  if (cargo instanceof Bulk) {
    cargo.cancelled = true
    // none of it has left, or the rest never will
    if (cargo.left === 0 || (inParts === true && !cargo.over)) return
  }
  session.outbox.writer(overhead).byte(Op.Cancel).number(slot, use)
  session.outbox.wrote()
}

export const traceTo = (writer: Writer, { sampled, spanId, traceId }: Trace) =>
  writer.byte(Op.Trace).text(traceId.slice(0, 64)).text(spanId.slice(0, 64)).byte(sampled ? 1 : 0)

export const writeTrace = (session: Session, trace: Trace) => void traceTo(session.outbox.writer(4 * overhead), trace)

export const targetKey = (to: ActorAddress) => `${to.kind}\u0000${to.name}\u0000${to.placement}\u0000${to.epoch}`

// ---- what travels beside its message ----------------------------------------------------------------------------------------

export const sizeOf = ({ parts }: Pick<Detached, "parts">) => parts.reduce((sum, part) => sum + part.length, 0)

export const besideTo = (head: Writer, { names }: Detached): void => {
  head.byte(Op.Beside).varint(names.length)
  for (const name of names) head.text(name)
}

/** For a peer that knows of parts, at least none. */
export const partsOf = (session: Session, tables: Tables, beside: Detached | undefined) => {
  tables.inParts ??= session.supports(partsCapability)
  return tables.inParts ? beside?.parts ?? [] : undefined
}

export const readBeside = ({ parts = [] }: Tables, reader: Reader): Omit<Detached, "rest"> => {
  const count = reader.varint()
  if (count > maxParts || count !== parts.length - 1) throw new Malformed("other parts than were told")
  return { names: Array.from({ length: count }, () => reader.text(maxName)), parts: parts.slice(1) }
}

export const besideBytes = ({ beside }: Tables): number => beside === undefined ? 0 : sizeOf(beside)

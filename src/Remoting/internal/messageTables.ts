/**
 * What the data lane keeps about a session: numbers given and heard, asks in flight and asks being answered, with the operations of
 * the wire and their limits.
 */
import { Duration, Exit } from "effect"
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Message, Trace } from "../../Actor/Delivery.ts"
import { AskError, AskTimeout } from "../../Actor/errors.ts"
import { Deadline } from "../../Actor/internal/Timeouts.ts"
import type { KindDefinition, MessageDefinition } from "../../Actor/Kind.ts"
import type { DeadLetterReason } from "../../Actor/SystemEvents.ts"
import { type Codec, codecOf, type Mode } from "./codec.ts"
import { Bulk, type Session } from "./session.ts"
import { Writer } from "./wire.ts"

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
  Inline: 13
} as const

export const maxKinds = 1000
export const maxTags = 10_000
/** Targets that one session knows at a time; the sender forgets all and begins anew. */
export const maxTargets = 16_384
/** bytes of UTF-8 */
export const maxName = 1024
/** Asks of one peer that may be unanswered here; more are refused typed. */
export const maxServing = 65_536
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
  constructor(number: number, message: MessageDefinition, mode: Mode) {
    this.number = number
    this.message = message
    this.payload = codecOf(message.payload, mode)
    this.success = codecOf(message.success, mode)
    this.error = codecOf(message.error, mode)
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

export interface InTag {
  readonly kind: InKind
  readonly tag: string
}

export interface InTarget {
  readonly kind: InKind
  readonly address: ActorAddress
}

export interface Undeliverable {
  readonly _tag: "Undeliverable"
  readonly reason: DeadLetterReason
  readonly error: AskError
}

export type Decoded = Undeliverable | {
  readonly _tag: "Decoded"
  readonly message: Message
  readonly definition: MessageDefinition
}

export const undeliverable = (reason: DeadLetterReason, error: AskError): Undeliverable => ({
  _tag: "Undeliverable",
  reason,
  error
})

/** An ask that is being answered here. */
export interface Serving {
  over: boolean
  forget: (() => void) | undefined
}

export const giveUp = (serving: Serving) => {
  serving.over = true
  serving.forget?.()
}

export class Tables {
  readonly outKinds = new Map<KindDefinition, OutKind>()
  readonly outTags: Array<{ readonly kind: string; readonly tag: string }> = []
  outTargets = new Map<string, number>()
  /** the same by the very address, which references keep */
  outAddresses = new Map<ActorAddress, number>()
  outNames: Array<string> = []
  /** targets that the peer does not have any more, by key */
  readonly gone = new Set<string>()
  readonly inKinds: Array<InKind> = []
  readonly inTags: Array<InTag> = []
  inTargets: Array<InTarget> = []
  /** of the next message */
  trace: Trace | undefined
  inline: InTarget | undefined
  /** large messages that have not left yet, by target: what follows to the same one must not overtake them */
  readonly bulkTo = new Map<string, number>()
  readonly asks = new Asks()
  readonly serving = new Map<number, Serving>()
}

/**
 * Asks in flight, by number. A number is a slot and how often the slot was used, so that a late answer never meets another ask;
 * a Map would be built anew again and again while asks come and go.
 */
export class Asks {
  private readonly slots: Array<PendingAsk | undefined> = []
  private readonly free: Array<number> = []
  private uses = 0

  number(): number {
    const slot = this.free.pop() ?? this.slots.push(undefined) - 1
    // wraps around long after any answer could be late
    this.uses = (this.uses + 1) % maxUses
    return this.uses * maxSlots + slot
  }

  set(ask: PendingAsk): void {
    this.slots[ask.number % maxSlots] = ask
  }

  get full(): boolean {
    return this.free.length === 0 && this.slots.length >= maxSlots
  }

  /** The ask of that number, which is no longer in flight then. */
  take(number: number): PendingAsk | undefined {
    const slot = number % maxSlots
    const ask = this.slots[slot]
    if (ask === undefined || ask.number !== number) return undefined
    this.slots[slot] = undefined
    this.free.push(slot)
    return ask
  }

  takeAll(): ReadonlyArray<PendingAsk> {
    const asks = this.slots.filter((ask) => ask !== undefined)
    this.slots.length = 0
    this.free.length = 0
    return asks
  }
}

export const maxSlots = 0x10000
export const maxUses = 0x1000000

export type Answer = (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => void

export class PendingAsk extends Deadline {
  readonly number: number
  readonly session: Session
  readonly tables: Tables
  readonly name: string
  readonly tag: OutTag
  readonly timeout: number
  /** the session's batch that carries it */
  batch = 0
  /** or the large message that is it */
  bulk: Bulk | undefined = undefined
  readonly resume: Answer

  constructor(session: Session, tables: Tables, name: string, tag: OutTag, timeout: number, resume: Answer) {
    super()
    this.number = tables.asks.number()
    this.session = session
    this.tables = tables
    this.name = name
    this.tag = tag
    this.timeout = timeout
    this.resume = resume
  }

  expire(): void {
    this.tables.asks.take(this.number)
    cancel(this)
    this.resume(Exit.fail(
      new AskTimeout({ name: this.name, request: this.tag.message.tag, timeout: Duration.millis(this.timeout) })
    ))
  }
}

export const cancel = ({ bulk, number, session }: PendingAsk) => {
  if (session.over !== undefined) return
  if (bulk !== undefined) {
    bulk.cancelled = true
    if (bulk.left === 0) return
  }
  session.writer(overhead).byte(Op.Cancel).varint(number)
  session.wrote()
}

export const traceTo = (writer: Writer, { sampled, spanId, traceId }: Trace) =>
  writer.byte(Op.Trace).text(traceId.slice(0, 64)).text(spanId.slice(0, 64)).byte(sampled ? 1 : 0)

export const writeTrace = (session: Session, trace: Trace) => void traceTo(session.writer(4 * overhead), trace)

export const targetKey = (to: ActorAddress) => `${to.kind}\u0000${to.name}\u0000${to.placement}\u0000${to.epoch}`

/**
 * Answers, both ways: what becomes of an ask that came in is written to whoever asked, what the peer answers goes to whoever waits.
 *
 * Not for: asks themselves (`outgoing`, `incoming`).
 *
 * Invariant: an ask is answered once, by its success, its typed error or a refusal, and one that cannot be written is refused. An
 * answer to an ask that is not in flight any more is dropped.
 */
import { Exit } from "effect"
import type { Trace } from "../../Actor/Delivery.ts"
import { AskError, FrameTooLarge, HandlerFailed, InvalidData } from "../../Actor/errors.ts"
import { Asker } from "../../Actor/internal/Envelope.ts"
import { attach, type Detached, placesOf } from "./attached.ts"
import { Bulk, largeBytes } from "./bulk.ts"
import { codecOf, reasonOf } from "./codec.ts"
import {
  besideTo,
  type InTag,
  Op,
  type OutTag,
  overhead,
  partsOf,
  sizeOf,
  type Tables,
  tablesOf
} from "./messageTables.ts"
import { put, read, setAside, smallBytes, takenAway } from "./payloads.ts"
import type { Session } from "./session.ts"
import { type Reader, Writer } from "./wire.ts"

/** Whoever asks on the other node. */
export class RemoteAsker extends Asker {
  private readonly session: Session
  private readonly tables: Tables
  private readonly asked: InTag

  constructor(
    session: Session,
    tables: Tables,
    asked: InTag,
    payload: unknown,
    trace: Trace | undefined,
    name: string,
    timeout: number
  ) {
    super(asked.definition!, asked.tag, payload, trace, name, timeout)
    this.session = session
    this.tables = tables
    this.asked = asked
  }

  protected onSuccess(value: unknown): void {
    this.tables.served(this)
    succeed(this.session, this.asked, this, value)
  }

  protected onExit(exit: Exit.Exit<unknown, unknown>): void {
    this.tables.served(this)
    if (Exit.isSuccess(exit)) succeed(this.session, this.asked, this, exit.value)
    else reply(this.session, this.asked, this.slot, this.use, this.name, exit)
  }

  protected onRefused(error: AskError): void {
    this.tables.served(this)
    refuse(this.session, this.slot, this.use, error)
  }
}

/** A handler's success. */
const succeed = (session: Session, tag: InTag, { name, slot, use }: Asker, value: unknown): void => {
  if (session.over !== undefined) return
  if (session.outbox.overdrawn) return refuse(session, slot, use, unread(session))
  const { compact } = tag.success!
  if (compact !== undefined) {
    const writer = session.outbox.writer(smallBytes)
    const start = writer.length
    writer.byte(Op.Success).number(slot, use)
    if (put(session, writer, compact, value)) return session.outbox.wrote()
    writer.length = start
  }
  reply(session, tag, slot, use, name, Exit.succeed(value))
}

/** A handler's exit, of whatever kind and size. */
export const reply = (
  session: Session,
  tag: InTag,
  slot: number,
  use: number,
  name: string,
  exit: Exit.Exit<unknown, unknown>
): void => {
  if (session.over !== undefined) return
  if (session.outbox.overdrawn) return refuse(session, slot, use, unread(session))
  const what = `reply of ${tag.kind.name}.${tag.tag}`
  const tables = tablesOf(session)
  let bytes: Uint8Array
  let beside: Detached | undefined
  let op: number
  try {
    if (Exit.isSuccess(exit)) {
      op = Op.Success
      const places = placesOf(tag.message!.success)
      beside = places === undefined ? undefined : setAside(session, tables, places, exit.value)
      bytes = tag.success!.encode(beside === undefined ? exit.value : beside.rest)
    } else {
      const error = Exit.findErrorOption(exit)
      if (error._tag === "None") {
        const reason = "the handler ended without an answer"
        return refuse(session, slot, use, new HandlerFailed({ name, request: tag.tag, reason }))
      }
      op = Op.Failure
      bytes = codecOf(tag.message!.error, tag.kind.mode).encode(error.value)
    }
  } catch (error) {
    return refuse(session, slot, use, new InvalidData({ what, reason: reasonOf(error), reply: true }))
  }
  const size = bytes.length + (beside === undefined ? 0 : sizeOf(beside))
  if (size + overhead > session.outbox.maxMessageBytes) {
    const limit = session.outbox.maxMessageBytes - overhead
    return refuse(session, slot, use, new FrameTooLarge({ bytes: size, limit, reply: true }))
  }
  if (beside !== undefined || bytes.length > largeBytes) {
    const head = new Writer()
    if (beside !== undefined) besideTo(head, beside)
    head.byte(op).number(slot, use).varint(bytes.length)
    session.outbox.sendBulk(
      new Bulk(head.take(), bytes, partsOf(session, tables, beside), session.outbox.written, (bulk) => {
        if (bulk.lost) refuse(session, slot, use, takenAway(what, { reply: true }))
      })
    )
  } else session.outbox.writer(bytes.length + overhead).byte(op).number(slot, use).blob(bytes)
  session.outbox.wrote()
}

/** So many answers wait for the peer that this one is not to join them. */
const unread = (session: Session) => session.refusal("Unknown", "too many answers wait to be read")

/** Why there will be no answer of the handler's own. */
export const refuse = (session: Session, slot: number, use: number, error: AskError): void => {
  if (session.over !== undefined) return
  const bytes = codecOf(AskError, "evolving").encode(error)
  session.outbox.writer(bytes.length + overhead).byte(Op.Refused).number(slot, use).blob(bytes)
  session.outbox.wrote()
}

/** The peer's answer to an ask of this side, from `start` to where the reader is. */
export const onReply = (tables: Tables, op: number, reader: Reader, start: number): void => {
  const { beside } = tables
  tables.beside = undefined
  const asker = tables.asks.take(reader.low, reader.high)
  // too late: it has timed out or was given up
  if (asker === undefined) return
  const tag = asker.reading as OutTag
  let value: unknown
  try {
    if (op === Op.Success) {
      value = read(tag.success, reader, start)
      if (beside !== undefined) value = attach(placesOf(tag.message.success), value, beside.names, beside.parts)
    } else {
      value = op === Op.Failure
        ? read(tag.error, reader, start)
        : codecOf(AskError, "evolving").decode(reader.bytes.subarray(start, reader.position))
    }
  } catch (error) {
    const what = `reply of ${tag.message.tag}`
    const reason = reasonOf(error)
    return asker.refuse(
      // a refusal does not come from the handler: who can't read why it was refused knows nothing about the outcome
      op === Op.Refused
        ? tables.session.failure("Unknown", `${what}: ${reason}`)
        : new InvalidData({ what, reason, reply: true })
    )
  }
  if (op === Op.Success) asker.succeed(value)
  else if (op === Op.Failure) asker.reply(Exit.fail(value))
  else asker.refuse(value as AskError)
}

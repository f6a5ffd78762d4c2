/**
 * What goes out on the data lane: tells and asks, with the numbers that kinds, tags and targets are given on the way.
 *
 * Not for: the answers to what came in (`replies`), nor when a batch leaves (`session`).
 *
 * Invariant: a number is told before the first message that uses it, in the same session and in order. What follows a large message
 * to the same actor does not overtake it.
 */
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Message, Route } from "../../Actor/Delivery.ts"
import { ActorStopped, FrameTooLarge, InvalidData, type TellError } from "../../Actor/errors.ts"
import { Asker } from "../../Actor/internal/Envelope.ts"
import type { Timeouts } from "../../Actor/internal/Timeouts.ts"
import type { KindDefinition } from "../../Actor/Kind.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { Detached } from "./attached.ts"
import { Bulk, largeBytes } from "./bulk.ts"
import { type Mode, reasonOf } from "./codec.ts"
import { compactCapability } from "./compact.ts"
import {
  besideTo,
  inlineTarget,
  Lane,
  maxKinds,
  maxName,
  maxTags,
  maxTargets,
  modes,
  Op,
  OutTag,
  overhead,
  partsOf,
  sizeOf,
  type Tables,
  tablesOf,
  targetKey,
  traceTo,
  writeTrace
} from "./messageTables.ts"
import { put, setAside, smallBytes, takenAway } from "./payloads.ts"
import type { Session } from "./session.ts"
import { wholeMillis, Writer } from "./wire.ts"

export interface OutgoingOptions {
  readonly timeouts: Timeouts
  readonly publish: SystemEvents["Service"]["publish"]
}

/** It is large, and others are to leave first. */
export const noRoom: unique symbol = Symbol("noRoom")

/** Too large to leave in one go, or behind something large to the same actor, which it must not overtake. */
const goesApart = (tables: Tables, to: ActorAddress, payload: Uint8Array): boolean =>
  payload.length > largeBytes || (tables.bulkTo.size > 0 && tables.bulkTo.has(targetKey(to)))

export class Outgoing {
  readonly options: OutgoingOptions

  constructor(options: OutgoingOptions) {
    this.options = options
  }

  /** The open session that a route was last taken on. */
  sessionOf({ found }: Route): Session | undefined {
    return found instanceof Lane && found.tables.session.over === undefined ? found.tables.session : undefined
  }

  /** Writes it into the session's outbox, which must have room. Undefined: it is there. */
  tell(session: Session, to: ActorAddress, message: Message, route?: Route): TellError | typeof noRoom | undefined {
    const tables = tablesOf(session)
    const tag = this.tag(session, tables, message)
    if (!(tag instanceof OutTag)) return tag
    if (tag.compact !== undefined && tables.bulkTo.size === 0) {
      const target = this.target(session, tables, to, route)
      if (typeof target !== "number") return target
      const writer = session.outbox.writer(smallBytes)
      const start = writer.length
      if (message.trace !== undefined) traceTo(writer, message.trace)
      writer.byte(Op.Tell).varint(target).varint(tag.number)
      if (put(session, writer, tag.compact, message.payload)) {
        session.outbox.wrote()
        return undefined
      }
      writer.length = start
    }
    const beside = tag.places === undefined ? undefined : setAside(session, tables, tag.places, message.payload)
    const payload = this.encode(session, tables, to, tag, message, beside)
    if (!(payload instanceof Uint8Array)) return payload
    if (beside !== undefined || goesApart(tables, to, payload)) {
      if (!session.outbox.hasBulkRoom) return noRoom
      this.sendLarge(
        session,
        tables,
        to,
        message,
        payload,
        beside,
        (head) => head.byte(Op.Tell).varint(inlineTarget).varint(tag.number)
      )
      return undefined
    }
    const target = this.target(session, tables, to, route)
    if (typeof target !== "number") return target
    if (message.trace !== undefined) writeTrace(session, message.trace)
    session.outbox.writer(payload.length + overhead).byte(Op.Tell).varint(target).varint(tag.number).blob(payload)
    session.outbox.wrote()
    return undefined
  }

  /**
   * The same for whoever waits for an answer, and is told here too where it cannot be sent. False: it is large, and there is no
   * room for it yet.
   */
  ask(session: Session, to: ActorAddress, asker: Asker, route?: Route): boolean {
    const tables = tablesOf(session)
    const tag = this.tag(session, tables, asker)
    if (!(tag instanceof OutTag) || tables.asks.full) {
      asker.refuse(tag instanceof OutTag ? session.overload("too many asks in flight") : tag)
      return true
    }
    const error = this.write(session, tables, to, asker, tag, route)
    if (error !== undefined) {
      tables.asks.take(asker.slot, asker.use)
      if (error === noRoom) return false
      asker.refuse(error)
      return true
    }
    asker.carrier = tables
    asker.reading = tag
    this.options.timeouts.add(asker.timeout, asker)
    // last, because what it sets going may end the session
    session.outbox.wrote()
    return true
  }

  /** Gives an ask its number and writes it; undefined: it is in the outbox. */
  private write(
    session: Session,
    tables: Tables,
    to: ActorAddress,
    asker: Asker,
    tag: OutTag,
    route: Route | undefined
  ): TellError | typeof noRoom | undefined {
    const timeout = wholeMillis(asker.timeout)
    tables.asks.put(asker)
    if (tag.compact !== undefined && tables.bulkTo.size === 0) {
      const target = this.target(session, tables, to, route)
      if (typeof target !== "number") return target
      const writer = session.outbox.writer(smallBytes)
      const start = writer.length
      if (asker.trace !== undefined) traceTo(writer, asker.trace)
      writer.byte(Op.Ask).varint(target).varint(tag.number).number(asker.slot, asker.use).varint(timeout)
      if (put(session, writer, tag.compact, asker.payload)) {
        asker.batch = session.outbox.batch
        return undefined
      }
      writer.length = start
    }
    const beside = tag.places === undefined ? undefined : setAside(session, tables, tag.places, asker.payload)
    const payload = this.encode(session, tables, to, tag, asker, beside)
    if (!(payload instanceof Uint8Array)) return payload
    if (beside !== undefined || goesApart(tables, to, payload)) {
      if (!session.outbox.hasBulkRoom) return noRoom
      asker.cargo = this.sendLarge(
        session,
        tables,
        to,
        asker,
        payload,
        beside,
        (head) =>
          head.byte(Op.Ask).varint(inlineTarget).varint(tag.number).number(asker.slot, asker.use).varint(timeout)
      )
      return undefined
    }
    const target = this.target(session, tables, to, route)
    if (typeof target !== "number") return target
    if (asker.trace !== undefined) writeTrace(session, asker.trace)
    const writer = session.outbox.writer(payload.length + overhead).byte(Op.Ask).varint(target).varint(tag.number)
    writer.number(asker.slot, asker.use).varint(timeout).blob(payload)
    asker.batch = session.outbox.batch
    return undefined
  }

  /** Queues a message that leaves in pieces. */
  private sendLarge(
    session: Session,
    tables: Tables,
    to: ActorAddress,
    message: Message,
    payload: Uint8Array,
    beside: Detached | undefined,
    operation: (head: Writer) => Writer
  ): Bulk {
    const key = targetKey(to)
    const { trace } = message
    const head = new Writer()
    if (trace !== undefined) traceTo(head, trace)
    if (beside !== undefined) besideTo(head, beside)
    head.byte(Op.Inline).text(to.kind).text(to.name).varint(to.placement).varint(to.epoch)
    operation(head).varint(payload.length)
    const bulk = new Bulk(head.take(), payload, partsOf(session, tables, beside), session.outbox.written, (bulk) => {
      const others = tables.bulkTo.get(key)! - 1
      if (others === 0) tables.bulkTo.delete(key)
      else tables.bulkTo.set(key, others)
      // an ask fails typed; a message that nobody waits for is a dead letter
      if (message instanceof Asker) {
        if (bulk.lost && tables.asks.take(message.slot, message.use) !== undefined) {
          message.refuse(takenAway(message.tag))
        }
      } else if (bulk.left < bulk.length) {
        this.options.publish({
          _tag: "DeadLetter",
          to: to.name,
          kind: to.kind,
          message: message.tag,
          reason: bulk.lost ? "Undecodable" : "NodeLost"
        })
      }
    })
    tables.bulkTo.set(key, (tables.bulkTo.get(key) ?? 0) + 1)
    session.outbox.sendBulk(bulk)
    session.outbox.wrote()
    return bulk
  }

  private encode(
    session: Session,
    tables: Tables,
    to: ActorAddress,
    tag: OutTag,
    message: Message,
    beside: Detached | undefined
  ): Uint8Array | ActorStopped | InvalidData | FrameTooLarge {
    if (tables.gone.size > 0 && tables.gone.has(targetKey(to))) return new ActorStopped({ name: to.name })
    let payload: Uint8Array
    try {
      payload = tag.payload.encode(beside === undefined ? message.payload : beside.rest)
    } catch (error) {
      return new InvalidData({ what: `${message.kind.name}.${message.tag}`, reason: reasonOf(error) })
    }
    // UTF-16 units may be three bytes each
    if (to.name.length * 3 > maxName) return new InvalidData({ what: "name", reason: "is too long" })
    const bytes = payload.length + (beside === undefined ? 0 : sizeOf(beside))
    if (bytes + overhead > session.outbox.maxMessageBytes) {
      return new FrameTooLarge({ bytes, limit: session.outbox.maxMessageBytes - overhead })
    }
    return payload
  }

  private tag(session: Session, tables: Tables, message: Message): OutTag | InvalidData {
    const { kind, tag } = message
    if (tables.lastTag === tag && tables.lastKind === kind && tables.lastOut !== undefined) return tables.lastOut
    const out = this.findTag(session, tables, kind, tag)
    if (out instanceof OutTag) {
      tables.lastKind = kind
      tables.lastTag = tag
      tables.lastOut = out
    }
    return out
  }

  private findTag(session: Session, tables: Tables, kind: KindDefinition, tag: string): OutTag | InvalidData {
    let known = tables.outKinds.get(kind)
    if (known === undefined) {
      // Equal fingerprints on both sides admit a layout by position; else fields are told by name.
      const mode: Mode = session.kinds.get(kind.name) !== kind.fingerprint
        ? "evolving"
        : session.supports(compactCapability)
        ? "compact"
        : "exact"
      known = { number: tables.outKinds.size, mode, tags: new Map() }
      if (known.number >= maxKinds) {
        return new InvalidData({ what: kind.name, reason: "too many kinds on a connection" })
      }
      tables.outKinds.set(kind, known)
      session.outbox.writer(2 * maxName).byte(Op.Kind).text(kind.name).text(kind.fingerprint).byte(modes.indexOf(mode))
    }
    let out = known.tags.get(tag)
    if (out === undefined) {
      const message = kind.messages.get(tag)
      if (message === undefined) {
        return new InvalidData({ what: `${kind.name}.${tag}`, reason: "is not in the protocol" })
      }
      out = new OutTag(tables.outTags.length, message, known.mode)
      if (out.number >= maxTags) return new InvalidData({ what: kind.name, reason: "too many tags on a connection" })
      tables.outTags.push({ kind: kind.name, tag })
      known.tags.set(tag, out)
      session.outbox.writer(2 * maxName).byte(Op.Tag).varint(known.number).text(tag)
    }
    return out
  }

  /** The actor's number on this session, which its peer knows from then on. */
  private target(
    session: Session,
    tables: Tables,
    to: ActorAddress,
    route: Route | undefined
  ): number | InvalidData | ActorStopped {
    if (route === undefined) return this.findTarget(session, tables, to)
    const { found } = route
    if (found instanceof Lane && found.tables === tables && found.generation === tables.generation) return found.number
    const number = this.findTarget(session, tables, to)
    if (typeof number === "number") route.found = new Lane(tables, number)
    return number
  }

  private findTarget(session: Session, tables: Tables, to: ActorAddress): number | InvalidData | ActorStopped {
    const key = targetKey(to)
    if (tables.gone.size > 0 && tables.gone.has(key)) return new ActorStopped({ name: to.name })
    let number = tables.outTargets.get(key)
    if (number === undefined) {
      // UTF-16 units may be three bytes each
      if (to.name.length * 3 > maxName) return new InvalidData({ what: "name", reason: "is too long" })
      if (tables.outNames.length >= maxTargets) {
        session.outbox.writer(1).byte(Op.ForgetTargets)
        tables.forgetTargets()
      }
      number = tables.outNames.length
      tables.outTargets.set(key, number)
      tables.outNames.push(to.name)
      session.outbox.writer(3 * maxName).byte(Op.Target).text(to.kind).text(to.name).varint(to.placement).varint(
        to.epoch
      )
    }
    return number
  }
}

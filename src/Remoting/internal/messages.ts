/**
 * The data lane: tell, ask, reply. Kinds, tags and targets are told once per session and are numbers from then on; payloads are
 * bytes by the message's own schemas. What comes in goes to the local `Delivery`; what it does not take is a dead letter here
 * and, for an ask, a typed reply there.
 */
import { Effect, Exit, Fiber } from "effect"
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Delivery, Message, Route, Trace } from "../../Actor/Delivery.ts"
import {
  ActorStopped,
  AskError,
  FrameTooLarge,
  HandlerFailed,
  InvalidData,
  ProtocolMismatch,
  type TellError
} from "../../Actor/errors.ts"
import { Asker, Brought } from "../../Actor/internal/Envelope.ts"
import type { Timeouts } from "../../Actor/internal/Timeouts.ts"
import type { KindDefinition } from "../../Actor/Kind.ts"
import type { DeadLetterReason, SystemEvents } from "../../Actor/SystemEvents.ts"
import { type Codec, codecOf, type Mode, reasonOf } from "./codec.ts"
import type { Compact } from "./compact.ts"
import { attach, detach, type Detached, type Places, placesOf } from "./attached.ts"
import { Bulk, largeBytes, partsCapability } from "./bulk.ts"
import { frontBytes, type Session } from "./session.ts"
import { Malformed, Reader, Writer } from "./wire.ts"
import {
  besideBytes,
  besideTo,
  inlineTarget,
  InTag,
  type InTarget,
  Lane,
  maxKinds,
  maxName,
  maxServing,
  maxTags,
  maxTargets,
  Op,
  OutTag,
  overhead,
  partsOf,
  readBeside,
  sizeOf,
  Tables,
  targetKey,
  traceTo,
  Undeliverable,
  writeTrace
} from "./messageTables.ts"

/** Whoever names this understands kinds whose plain messages are compact. */
export const compactCapability = "compact"
/** by their number on the wire */
const modes: ReadonlyArray<Mode> = ["evolving", "exact", "compact"]
/** Messages below this are written where they leave from, in bytes. */
const smallBytes = 4096

export interface MessagesOptions {
  /** the local one */
  readonly delivery: Delivery["Service"]
  readonly kinds: () => ReadonlyMap<string, KindDefinition>
  readonly self: ActorAddress["node"]
  readonly timeouts: Timeouts
  readonly publish: SystemEvents["Service"]["publish"]
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
}

/** It is large, and others are to leave first. */
export const noRoom: unique symbol = Symbol("noRoom")

export class Messages {
  readonly options: MessagesOptions

  constructor(options: MessagesOptions) {
    this.options = options
  }

  private tables(session: Session): Tables {
    return (session.data ??= new Tables(session)) as Tables
  }

  // ---- out -----------------------------------------------------------------------------------------------------------------

  /** The open session that a route was last taken on. */
  sessionOf({ found }: Route): Session | undefined {
    return found instanceof Lane && found.tables.session.over === undefined ? found.tables.session : undefined
  }

  /** Writes it into the session's outbox, which must have room. Undefined: it is there. */
  tell(session: Session, to: ActorAddress, message: Message, route?: Route): TellError | typeof noRoom | undefined {
    const tables = this.tables(session)
    const tag = this.tag(session, tables, message)
    if (!(tag instanceof OutTag)) return tag
    if (tag.compact !== undefined && tables.bulkTo.size === 0 && tables.gone.size === 0) {
      const target = this.target(session, tables, to, route)
      if (typeof target !== "number") return target
      const writer = session.writer(smallBytes)
      const start = writer.length
      if (message.trace !== undefined) traceTo(writer, message.trace)
      writer.byte(Op.Tell).varint(target).varint(tag.number)
      if (this.put(session, writer, tag.compact, message.payload)) {
        session.wrote()
        return undefined
      }
      writer.length = start
    }
    const beside = tag.places === undefined ? undefined : this.detach(session, tables, tag.places, message.payload)
    const payload = this.encode(session, tables, to, tag, message, beside)
    if (!(payload instanceof Uint8Array)) return payload
    if (
      beside !== undefined || payload.length > largeBytes ||
      (tables.bulkTo.size > 0 && tables.bulkTo.has(targetKey(to)))
    ) {
      if (!session.hasBulkRoom) return noRoom
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
    session.writer(payload.length + overhead).byte(Op.Tell).varint(target).varint(tag.number).blob(payload)
    session.wrote()
    return undefined
  }

  /**
   * The same for whoever waits for an answer, and is told here too where it cannot be sent. False: it is large, and there is no
   * room for it yet.
   */
  ask(session: Session, to: ActorAddress, asker: Asker, route?: Route): boolean {
    const tables = this.tables(session)
    const tag = this.tag(session, tables, asker)
    if (!(tag instanceof OutTag) || tables.asks.full) {
      asker.refuse(tag instanceof OutTag ? session.failure("NotSent", "too many asks in flight") : tag)
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
    session.wrote()
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
    // any number larger than that is as good as for ever
    const timeout = Math.min(Math.ceil(asker.timeout), Number.MAX_SAFE_INTEGER)
    tables.asks.put(asker)
    if (tag.compact !== undefined && tables.bulkTo.size === 0 && tables.gone.size === 0) {
      const target = this.target(session, tables, to, route)
      if (typeof target !== "number") return target
      const writer = session.writer(smallBytes)
      const start = writer.length
      if (asker.trace !== undefined) traceTo(writer, asker.trace)
      writer.byte(Op.Ask).varint(target).varint(tag.number).number(asker.slot, asker.use).varint(timeout)
      if (this.put(session, writer, tag.compact, asker.payload)) {
        asker.batch = session.batch
        return undefined
      }
      writer.length = start
    }
    const beside = tag.places === undefined ? undefined : this.detach(session, tables, tag.places, asker.payload)
    const payload = this.encode(session, tables, to, tag, asker, beside)
    if (!(payload instanceof Uint8Array)) return payload
    if (
      beside !== undefined || payload.length > largeBytes ||
      (tables.bulkTo.size > 0 && tables.bulkTo.has(targetKey(to)))
    ) {
      if (!session.hasBulkRoom) return noRoom
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
    const writer = session.writer(payload.length + overhead).byte(Op.Ask).varint(target).varint(tag.number)
    writer.number(asker.slot, asker.use).varint(timeout).blob(payload)
    asker.batch = session.batch
    return undefined
  }

  /** Writes a small value with its length in front. False: it goes another way, or nowhere, and the writer is to be set back. */
  private put(session: Session, writer: Writer, compact: Compact, value: unknown): boolean {
    const at = writer.length
    writer.length = at + 2
    writer.fixed = true
    try {
      compact.write(writer, value)
    } catch {
      return false
    } finally {
      writer.fixed = false
    }
    const bytes = writer.length - at - 2
    if (bytes >= smallBytes || writer.length - frontBytes > session.maxMessageBytes) return false
    writer.buffer[at] = (bytes & 0x7f) | 0x80
    writer.buffer[at + 1] = bytes >> 7
    return true
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
    const bulk = new Bulk(head.take(), payload, partsOf(session, tables, beside), session.written, (bulk) => {
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
    session.sendBulk(bulk)
    session.wrote()
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
    if (bytes + overhead > session.maxMessageBytes) {
      return new FrameTooLarge({ bytes, limit: session.maxMessageBytes - overhead })
    }
    return payload
  }

  /** What of the value travels beside its message, where the peer knows of that. */
  private detach(session: Session, tables: Tables, places: Places, value: unknown): Detached | undefined {
    tables.inParts ??= session.supports(partsCapability)
    return tables.inParts ? detach(places, value) : undefined
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
      session.writer(2 * maxName).byte(Op.Kind).text(kind.name).text(kind.fingerprint).byte(modes.indexOf(mode))
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
      session.writer(2 * maxName).byte(Op.Tag).varint(known.number).text(tag)
    }
    return out
  }

  /** The actor's number on this session, which its peer knows from then on. */
  private target(
    session: Session,
    tables: Tables,
    to: ActorAddress,
    route: Route | undefined
  ): number | InvalidData {
    if (route === undefined) return this.findTarget(session, tables, to)
    const { found } = route
    if (found instanceof Lane && found.tables === tables && found.generation === tables.generation) return found.number
    const number = this.findTarget(session, tables, to)
    if (typeof number === "number") route.found = new Lane(tables, number)
    return number
  }

  private findTarget(session: Session, tables: Tables, to: ActorAddress): number | InvalidData {
    const key = targetKey(to)
    let number = tables.outTargets.get(key)
    if (number === undefined) {
      // UTF-16 units may be three bytes each
      if (to.name.length * 3 > maxName) return new InvalidData({ what: "name", reason: "is too long" })
      if (tables.outNames.length >= maxTargets) {
        tables.outTargets = new Map()
        tables.outNames = []
        tables.generation++
        session.writer(1).byte(Op.ForgetTargets)
      }
      number = tables.outNames.length
      tables.outTargets.set(key, number)
      tables.outNames.push(to.name)
      session.writer(3 * maxName).byte(Op.Target).text(to.kind).text(to.name).varint(to.placement).varint(to.epoch)
    }
    return number
  }

  // ---- in ------------------------------------------------------------------------------------------------------------------

  readonly onData = (session: Session, reader: Reader, parts?: ReadonlyArray<Uint8Array>): void => {
    const tables = this.tables(session)
    tables.parts = parts
    const { timeouts } = this.options
    let settled = 1
    timeouts.hold()
    try {
      while (!reader.done) {
        const from = reader.position
        if (this.operation(session, tables, reader, from)) settled += reader.position - from
      }
    } finally {
      timeouts.release()
    }
    session.settled(settled)
  }

  /** One operation; false where its bytes stay charged until later. */
  private operation(session: Session, tables: Tables, reader: Reader, from: number): boolean {
    switch (reader.byte()) {
      case Op.Kind: {
        if (tables.inKinds.length >= maxKinds) throw new Malformed("too many kinds")
        const name = reader.text(maxName)
        const fingerprint = reader.text(maxName)
        tables.inKinds.push({ name, fingerprint, mode: modes[reader.byte()] ?? "evolving" })
        return true
      }
      case Op.Tag: {
        if (tables.inTags.length >= maxTags) throw new Malformed("too many tags")
        tables.inTags.push(new InTag(at(tables.inKinds, reader.varint()), reader.text(maxName)))
        return true
      }
      case Op.Target:
        if (tables.inTargets.length >= maxTargets) throw new Malformed("too many targets")
        tables.inTargets.push(this.readTarget(tables, reader))
        return true
      case Op.Inline:
        tables.inline = this.readTarget(tables, reader)
        return true
      case Op.ForgetTargets:
        tables.inTargets = []
        return true
      case Op.Tell: {
        const target = targetOf(tables, reader.varint())
        const tag = at(tables.inTags, reader.varint())
        const start = reader.skip(reader.varint())
        return this.onTell(session, tables, target, tag, reader, start, from)
      }
      case Op.Ask: {
        const target = targetOf(tables, reader.varint())
        const tag = at(tables.inTags, reader.varint())
        reader.number()
        const timeout = reader.varint()
        this.onAsk(session, tables, target, tag, timeout, reader, reader.skip(reader.varint()))
        return true
      }
      case Op.Success:
      case Op.Failure:
      case Op.Refused: {
        const op = reader.bytes[from]!
        reader.number()
        this.onReply(tables, op, reader, reader.skip(reader.varint()))
        return true
      }
      case Op.Beside:
        tables.beside = readBeside(tables, reader)
        return true
      case Op.Cancel: {
        reader.number()
        const serving = tables.serving.get(reader.low)
        if (serving === undefined || serving.use !== reader.high) return true
        tables.serving.delete(reader.low)
        serving.abandon()
        return true
      }
      case Op.Trace:
        tables.trace = { traceId: reader.text(64), spanId: reader.text(64), sampled: reader.byte() === 1 }
        return true
      case Op.Gone: {
        const kind = reader.text(maxName)
        const name = reader.text(maxName)
        if (tables.gone.size >= maxTargets) tables.gone.clear()
        tables.gone.add(`${kind}\u0000${name}\u0000${reader.varint()}\u0000${reader.varint()}`)
        return true
      }
      default:
        throw new Malformed("unknown operation")
    }
  }

  private readTarget(tables: Tables, reader: Reader): InTarget {
    const kind = reader.text(maxName)
    const address: ActorAddress = {
      kind,
      name: reader.text(maxName),
      node: this.options.self,
      placement: reader.varint(),
      epoch: reader.varint()
    }
    const known = at(tables.inKinds, tables.inKinds.findIndex((known) => known.name === kind))
    return { kind: known, address, found: undefined }
  }

  /** The payload, from `start` to where the reader is, as this node's own definition has it; or why it can't be. */
  private decode(tables: Tables, target: InTarget, tag: InTag, reader: Reader, start: number): unknown {
    const { beside } = tables
    tables.beside = undefined
    const kinds = this.options.kinds()
    if (tag.kinds !== kinds) tag.learn(kinds)
    const { message, payload } = tag
    if (message === undefined || payload === undefined) return this.unknown(tag, target)
    try {
      const rest = read(payload, reader, start)
      return beside === undefined ? rest : attach(placesOf(message.payload), rest, beside.names, beside.parts)
    } catch (error) {
      // where the protocols differ, the difference is the reason
      return tag.same
        ? new Undeliverable(
          "Undecodable",
          new InvalidData({ what: `${tag.kind.name}.${tag.tag}`, reason: reasonOf(error) })
        )
        : this.unknown(tag, target)
    }
  }

  private unknown({ definition, kind, tag }: InTag, { address }: InTarget): Undeliverable {
    return definition === undefined
      ? new Undeliverable("NoSuchActor", new ActorStopped({ name: address.name }))
      : new Undeliverable(
        "Undecodable",
        new ProtocolMismatch({
          what: `${kind.name}.${tag}`,
          ours: kind.fingerprint,
          theirs: definition.fingerprint
        })
      )
  }

  private deadLetter(target: InTarget, tag: string, reason: DeadLetterReason) {
    this.options.publish({ _tag: "DeadLetter", to: target.address.name, kind: target.kind.name, message: tag, reason })
  }

  private onTell(
    session: Session,
    tables: Tables,
    target: InTarget,
    tag: InTag,
    reader: Reader,
    start: number,
    from: number
  ): boolean {
    const { trace } = tables
    tables.trace = undefined
    const bytes = reader.position - from + besideBytes(tables)
    const payload = this.decode(tables, target, tag, reader, start)
    if (payload instanceof Undeliverable) {
      this.deadLetter(target, tag.tag, payload.reason)
      if (payload.reason === "NoSuchActor") this.gone(session, target)
      return true
    }
    const message = new Brought(tag.definition!, tag.tag, payload, trace)
    const tried = this.options.delivery.tryTell?.(target, message)
    if (tried !== undefined && Exit.isSuccess(tried)) return true
    return this.tellSlowly(session, target, message, tried, bytes)
  }

  /** A message that did not go straight in. */
  private tellSlowly(
    session: Session,
    target: InTarget,
    message: Message,
    tried: Exit.Exit<void, TellError> | undefined,
    bytes: number
  ): boolean {
    const { delivery, runFork } = this.options
    const done = (exit: Exit.Exit<void, TellError>) => {
      if (Exit.isSuccess(exit)) return
      const error = Exit.findErrorOption(exit)
      const stopped = error._tag === "None" || error.value._tag === "ActorStopped"
      this.deadLetter(
        target,
        message.tag,
        stopped ? "ActorStopped" : error.value._tag === "MailboxFull" ? "MailboxOverflow" : "Undecodable"
      )
      if (stopped) this.gone(session, target)
    }
    if (tried !== undefined) {
      done(tried)
      return true
    }
    const fiber = runFork(delivery.tell(target.address, message))
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      done(exit)
      return true
    }
    // The mailbox has no room yet: until it takes the message, its bytes count against the peer's window.
    fiber.addObserver((exit) => {
      done(exit)
      session.settled(bytes)
    })
    return false
  }

  /** Lets the sender know that this placement is over, so that it looks the name up again instead of sending into the void. */
  private gone(session: Session, { address, kind }: InTarget): void {
    // without a directory a name may come back under the same numbers
    if (address.placement === 0 || session.over !== undefined) return
    const writer = session.writer(3 * maxName).byte(Op.Gone).text(kind.name).text(address.name)
    writer.varint(address.placement).varint(address.epoch)
    session.wrote()
  }

  private onAsk(
    session: Session,
    tables: Tables,
    target: InTarget,
    tag: InTag,
    timeout: number,
    reader: Reader,
    start: number
  ): void {
    const { high, low } = reader
    const { serving } = tables
    if (serving.size > 0 && serving.has(low)) throw new Malformed("an ask came twice")
    const { trace } = tables
    tables.trace = undefined
    const payload = serving.size >= maxServing
      ? new Undeliverable("MailboxOverflow", session.failure("NotSent", "too many unanswered asks"))
      : this.decode(tables, target, tag, reader, start)
    if (payload instanceof Undeliverable) {
      if (payload.reason !== "NoSuchActor") this.deadLetter(target, tag.tag, payload.reason)
      return this.refuse(session, low, high, payload.error)
    }
    const asker = new RemoteAsker(this, session, tables, tag, payload, trace, target.address.name, timeout)
    asker.slot = low
    asker.use = high
    if (this.options.delivery.tryAsk?.(target, asker) === true) {
      if (!asker.over) serving.set(low, asker)
    } else this.askSlowly(tables, target, asker)
  }

  private askSlowly({ serving }: Tables, target: InTarget, asker: Asker): void {
    const { delivery, runFork } = this.options
    const fiber = runFork(delivery.ask(target.address, asker, asker.timeout))
    const answer = (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => {
      if (Exit.isSuccess(exit)) return asker.reply(exit.value)
      const error = Exit.findErrorOption(exit)
      asker.refuse(error._tag === "Some" ? error.value : new ActorStopped({ name: asker.name }))
    }
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return answer(exit)
    serving.set(asker.slot, asker)
    asker.carrier = { forget: () => fiber.interruptUnsafe() }
    this.options.timeouts.add(asker.timeout, asker)
    fiber.addObserver(answer)
  }

  /** A handler's success. */
  succeed(session: Session, tag: InTag, { name, slot, use }: Asker, value: unknown): void {
    if (session.over !== undefined) return
    const { compact } = tag.success!
    if (compact !== undefined) {
      const writer = session.writer(smallBytes)
      const start = writer.length
      writer.byte(Op.Success).number(slot, use)
      if (this.put(session, writer, compact, value)) return session.wrote()
      writer.length = start
    }
    this.reply(session, tag, slot, use, name, Exit.succeed(value))
  }

  reply(
    session: Session,
    tag: InTag,
    slot: number,
    use: number,
    name: string,
    exit: Exit.Exit<unknown, unknown>
  ): void {
    if (session.over !== undefined) return
    const what = `reply of ${tag.kind.name}.${tag.tag}`
    const tables = this.tables(session)
    let bytes: Uint8Array
    let beside: Detached | undefined
    let op: number
    try {
      if (Exit.isSuccess(exit)) {
        op = Op.Success
        const places = placesOf(tag.message!.success)
        beside = places === undefined ? undefined : this.detach(session, tables, places, exit.value)
        bytes = tag.success!.encode(beside === undefined ? exit.value : beside.rest)
      } else {
        const error = Exit.findErrorOption(exit)
        if (error._tag === "None") {
          const reason = "the handler ended without an answer"
          return this.refuse(session, slot, use, new HandlerFailed({ name, request: tag.tag, reason }))
        }
        op = Op.Failure
        bytes = codecOf(tag.message!.error, tag.kind.mode).encode(error.value)
      }
    } catch (error) {
      return this.refuse(session, slot, use, new InvalidData({ what, reason: reasonOf(error) }))
    }
    const size = bytes.length + (beside === undefined ? 0 : sizeOf(beside))
    if (size + overhead > session.maxMessageBytes) {
      const limit = session.maxMessageBytes - overhead
      return this.refuse(session, slot, use, new FrameTooLarge({ bytes: size, limit }))
    }
    if (beside !== undefined || bytes.length > largeBytes) {
      const head = new Writer()
      if (beside !== undefined) besideTo(head, beside)
      head.byte(op).number(slot, use).varint(bytes.length)
      session.sendBulk(
        new Bulk(head.take(), bytes, partsOf(session, tables, beside), session.written, (bulk) => {
          if (bulk.lost) this.refuse(session, slot, use, takenAway(what))
        })
      )
    } else session.writer(bytes.length + overhead).byte(op).number(slot, use).blob(bytes)
    session.wrote()
  }

  refuse(session: Session, slot: number, use: number, error: AskError): void {
    if (session.over !== undefined) return
    const bytes = codecOf(AskError, "evolving").encode(error)
    session.writer(bytes.length + overhead).byte(Op.Refused).number(slot, use).blob(bytes)
    session.wrote()
  }

  private onReply(tables: Tables, op: number, reader: Reader, start: number): void {
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
      return asker.refuse(new InvalidData({ what: `reply of ${tag.message.tag}`, reason: reasonOf(error) }))
    }
    if (op === Op.Success) asker.succeed(value)
    else if (op === Op.Failure) asker.reply(Exit.fail(value))
    else asker.refuse(value as AskError)
  }

  // ---- end -----------------------------------------------------------------------------------------------------------------

  readonly onEnd = (session: Session): void => {
    const tables = this.tables(session)
    for (const asker of tables.asks.takeAll()) {
      const { batch, cargo } = asker
      const unsent = cargo instanceof Bulk ? cargo.left === 0 : batch > session.leftBatch
      asker.refuse(session.failure(unsent ? "NotSent" : "Unknown"))
    }
    const serving = [...tables.serving.values()]
    tables.serving.clear()
    for (const asker of serving) asker.abandon()
  }

  /** The messages of a batch that never left are dead letters; its asks have failed `NotSent` already. */
  readonly onLost = (session: Session, batch: Uint8Array): void => {
    const tables = this.tables(session)
    const reader = new Reader(batch, 1)
    let names = tables.outNames
    while (!reader.done) {
      switch (reader.byte()) {
        case Op.Kind:
          reader.blob()
          reader.blob()
          reader.byte()
          break
        case Op.Tag:
          reader.varint()
          reader.blob()
          break
        case Op.Target:
        case Op.Gone:
          reader.blob()
          reader.blob()
          reader.varint()
          reader.varint()
          break
        case Op.ForgetTargets:
          names = tables.outNames
          break
        case Op.Tell: {
          const to = names[reader.varint()] ?? "unknown"
          const { kind, tag } = tables.outTags[reader.varint()]!
          reader.blob()
          this.options.publish({ _tag: "DeadLetter", to, kind, message: tag, reason: "NodeLost" })
          break
        }
        case Op.Trace:
          reader.blob()
          reader.blob()
          reader.byte()
          break
        case Op.Ask:
          for (let i = 0; i < 4; i++) reader.varint()
          reader.blob()
          break
        case Op.Cancel:
          reader.varint()
          break
        default:
          reader.varint()
          reader.blob()
      }
    }
  }
}

/** Whoever asks on the other node. */
class RemoteAsker extends Asker {
  private readonly messages: Messages
  private readonly session: Session
  private readonly tables: Tables
  private readonly asked: InTag

  constructor(
    messages: Messages,
    session: Session,
    tables: Tables,
    asked: InTag,
    payload: unknown,
    trace: Trace | undefined,
    name: string,
    timeout: number
  ) {
    super(asked.definition!, asked.tag, payload, trace, name, timeout)
    this.messages = messages
    this.session = session
    this.tables = tables
    this.asked = asked
  }

  private served(): void {
    const { serving } = this.tables
    if (serving.size > 0 && serving.get(this.slot) === this) serving.delete(this.slot)
  }

  protected onSuccess(value: unknown): void {
    this.served()
    this.messages.succeed(this.session, this.asked, this, value)
  }

  protected onExit(exit: Exit.Exit<unknown, unknown>): void {
    this.served()
    if (Exit.isSuccess(exit)) this.messages.succeed(this.session, this.asked, this, exit.value)
    else this.messages.reply(this.session, this.asked, this.slot, this.use, this.name, exit)
  }

  protected onRefused(error: AskError): void {
    this.served()
    this.messages.refuse(this.session, this.slot, this.use, error)
  }
}

/** What is between `start` and where the reader is, which it has passed over. */
const read = ({ compact, decode }: Codec, reader: Reader, start: number): unknown => {
  const { limit, position } = reader
  if (compact === undefined) return decode(reader.bytes.subarray(start, position))
  reader.position = start
  reader.limit = position
  try {
    const value = compact.read(reader)
    if (reader.position !== position) throw new Malformed("more than one value")
    return value
  } finally {
    reader.position = position
    reader.limit = limit
  }
}

const targetOf = (tables: Tables, number: number): InTarget => {
  if (number !== inlineTarget) return at(tables.inTargets, number)
  const { inline } = tables
  tables.inline = undefined
  if (inline === undefined) throw new Malformed("a target that was never given")
  return inline
}

const at = <A>(values: ReadonlyArray<A>, index: number): A => {
  const value = values[index]
  if (value === undefined) throw new Malformed("a number that was never given")
  return value
}

const takenAway = (what: string) => new InvalidData({ what, reason: "its bytes were given away before they had left" })

/**
 * The data lane: tell, ask, reply. Kinds, tags and targets are told once per session and are numbers from then on; payloads are
 * bytes by the message's own schemas. What comes in goes to the local `Delivery`; what it does not take is a dead letter here
 * and, for an ask, a typed reply there.
 */
import { Effect, Exit, Fiber } from "effect"
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Delivery, Message } from "../../Actor/Delivery.ts"
import {
  ActorStopped,
  AskError,
  FrameTooLarge,
  HandlerFailed,
  InvalidData,
  ProtocolMismatch,
  type TellError
} from "../../Actor/errors.ts"
import { type Timeouts } from "../../Actor/internal/Timeouts.ts"
import type { KindDefinition, MessageDefinition } from "../../Actor/Kind.ts"
import type { DeadLetterReason, SystemEvents } from "../../Actor/SystemEvents.ts"
import { codecOf, type Mode, reasonOf } from "./codec.ts"
import { Bulk, pieceBytes, type Session } from "./session.ts"
import { Malformed, Reader, Writer } from "./wire.ts"
import {
  type Answer,
  cancel,
  type Decoded,
  giveUp,
  inlineTarget,
  type InTag,
  type InTarget,
  maxKinds,
  maxName,
  maxServing,
  maxTags,
  maxTargets,
  Op,
  OutTag,
  overhead,
  PendingAsk,
  type Serving,
  Tables,
  targetKey,
  traceTo,
  undeliverable,
  writeTrace
} from "./messageTables.ts"

export interface MessagesOptions {
  /** the local one */
  readonly delivery: Delivery["Service"]
  readonly kinds: () => ReadonlyMap<string, KindDefinition>
  readonly self: ActorAddress["node"]
  readonly timeouts: Timeouts
  readonly publish: SystemEvents["Service"]["publish"]
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
}

export class Messages {
  readonly options: MessagesOptions

  constructor(options: MessagesOptions) {
    this.options = options
  }

  private tables(session: Session): Tables {
    return (session.data ??= new Tables()) as Tables
  }

  // ---- out -----------------------------------------------------------------------------------------------------------------

  /** Writes it into the session's outbox, which must have room. Undefined: it is there. */
  tell(session: Session, to: ActorAddress, message: Message): TellError | undefined {
    const tables = this.tables(session)
    const tag = this.tag(session, tables, message)
    if (!(tag instanceof OutTag)) return tag
    const payload = this.encode(session, tables, to, tag, message)
    if (!(payload instanceof Uint8Array)) return payload
    if (payload.length > pieceBytes || (tables.bulkTo.size > 0 && tables.bulkTo.has(targetKey(to)))) {
      this.sendLarge(
        session,
        tables,
        to,
        message,
        payload,
        false,
        (head) => head.byte(Op.Tell).varint(inlineTarget).varint(tag.number)
      )
      return undefined
    }
    const target = this.target(session, tables, to)
    if (message.trace !== undefined) writeTrace(session, message.trace)
    session.writer(payload.length + overhead).byte(Op.Tell).varint(target).varint(tag.number).blob(payload)
    session.wrote()
    return undefined
  }

  /** The same with an answer. Returns how to forget it. */
  ask(session: Session, to: ActorAddress, message: Message, timeout: number, resume: Answer): () => void {
    const tables = this.tables(session)
    const tag = this.tag(session, tables, message)
    const payload = tag instanceof OutTag ? this.encode(session, tables, to, tag, message) : tag
    if (!(payload instanceof Uint8Array) || !(tag instanceof OutTag)) {
      resume(Exit.fail(payload as AskError))
      return () => {}
    }
    if (tables.asks.full) {
      resume(Exit.fail(session.failure("NotSent", "too many asks in flight")))
      return () => {}
    }
    const ask = new PendingAsk(session, tables, to.name, tag, timeout, resume)
    tables.asks.set(ask)
    this.options.timeouts.add(timeout, ask)
    if (payload.length > pieceBytes || (tables.bulkTo.size > 0 && tables.bulkTo.has(targetKey(to)))) {
      ask.bulk = this.sendLarge(
        session,
        tables,
        to,
        message,
        payload,
        true,
        (head) =>
          head.byte(Op.Ask).varint(inlineTarget).varint(tag.number).varint(ask.number).varint(Math.ceil(timeout))
      )
    } else {
      const target = this.target(session, tables, to)
      if (message.trace !== undefined) writeTrace(session, message.trace)
      const writer = session.writer(payload.length + overhead).byte(Op.Ask).varint(target).varint(tag.number)
      writer.varint(ask.number).varint(Math.ceil(timeout)).blob(payload)
      ask.batch = session.batch
      session.wrote()
    }
    return () => {
      if (tables.asks.take(ask.number) === undefined) return
      this.options.timeouts.cancel(ask)
      cancel(ask)
    }
  }

  /** Queues a message that leaves in pieces. */
  private sendLarge(
    session: Session,
    tables: Tables,
    to: ActorAddress,
    message: Message,
    payload: Uint8Array,
    asked: boolean,
    operation: (head: Writer) => Writer
  ): Bulk {
    const key = targetKey(to)
    const { trace } = message
    const head = new Writer()
    if (trace !== undefined) traceTo(head, trace)
    head.byte(Op.Inline).text(to.kind).text(to.name).varint(to.placement).varint(to.epoch)
    operation(head).varint(payload.length)
    const bulk = new Bulk(head.take(), payload, session.written, ({ left }) => {
      const others = tables.bulkTo.get(key)! - 1
      if (others === 0) tables.bulkTo.delete(key)
      else tables.bulkTo.set(key, others)
      // an ask fails typed; a message that nobody waits for is a dead letter
      if (asked || session.over === undefined || left === bulk.length) return
      this.options.publish({
        _tag: "DeadLetter",
        to: to.name,
        kind: to.kind,
        message: message.tag,
        reason: "NodeLost"
      })
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
    message: Message
  ): Uint8Array | ActorStopped | InvalidData | FrameTooLarge {
    if (tables.gone.size > 0 && tables.gone.has(targetKey(to))) return new ActorStopped({ name: to.name })
    let payload: Uint8Array
    try {
      payload = tag.payload.encode(message.payload)
    } catch (error) {
      return new InvalidData({ what: `${message.kind.name}.${message.tag}`, reason: reasonOf(error) })
    }
    // UTF-16 units may be three bytes each
    if (to.name.length * 3 > maxName) return new InvalidData({ what: "name", reason: "is too long" })
    if (payload.length + overhead > session.maxMessageBytes) {
      return new FrameTooLarge({ bytes: payload.length, limit: session.maxMessageBytes - overhead })
    }
    return payload
  }

  private tag(session: Session, tables: Tables, { kind, tag }: Message): OutTag | InvalidData {
    let known = tables.outKinds.get(kind)
    if (known === undefined) {
      // Equal fingerprints on both sides admit the compact layout; else fields are told by name.
      const mode: Mode = session.kinds.get(kind.name) === kind.fingerprint ? "exact" : "evolving"
      known = { number: tables.outKinds.size, mode, tags: new Map() }
      if (known.number >= maxKinds) {
        return new InvalidData({ what: kind.name, reason: "too many kinds on a connection" })
      }
      tables.outKinds.set(kind, known)
      session.writer(2 * maxName).byte(Op.Kind).text(kind.name).text(kind.fingerprint).byte(mode === "exact" ? 1 : 0)
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

  private target(session: Session, tables: Tables, to: ActorAddress): number {
    let number = tables.outAddresses.get(to)
    if (number !== undefined) return number
    const key = targetKey(to)
    number = tables.outTargets.get(key)
    if (number === undefined) {
      if (tables.outNames.length >= maxTargets) {
        tables.outTargets = new Map()
        tables.outAddresses.clear()
        tables.outNames = []
        session.writer(1).byte(Op.ForgetTargets)
      }
      number = tables.outNames.length
      tables.outTargets.set(key, number)
      tables.outNames.push(to.name)
      session.writer(3 * maxName).byte(Op.Target).text(to.kind).text(to.name).varint(to.placement).varint(to.epoch)
    }
    if (tables.outAddresses.size >= maxTargets) tables.outAddresses.clear()
    tables.outAddresses.set(to, number)
    return number
  }

  // ---- in ------------------------------------------------------------------------------------------------------------------

  readonly onData = (session: Session, reader: Reader): void => {
    const tables = this.tables(session)
    let settled = 1
    while (!reader.done) {
      const from = reader.position
      if (this.operation(session, tables, reader, from)) settled += reader.position - from
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
        tables.inKinds.push({ name, fingerprint, mode: reader.byte() === 1 ? "exact" : "evolving" })
        return true
      }
      case Op.Tag: {
        if (tables.inTags.length >= maxTags) throw new Malformed("too many tags")
        tables.inTags.push({ kind: at(tables.inKinds, reader.varint()), tag: reader.text(maxName) })
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
        const payload = reader.blob()
        return this.onTell(session, tables, target, tag, payload, reader.position - from)
      }
      case Op.Ask: {
        const target = targetOf(tables, reader.varint())
        const tag = at(tables.inTags, reader.varint())
        const number = reader.varint()
        const timeout = reader.varint()
        this.onAsk(session, tables, target, tag, number, timeout, reader.blob())
        return true
      }
      case Op.Success:
      case Op.Failure:
      case Op.Refused:
        reader.position--
        this.onReply(tables, reader.byte(), reader.varint(), reader.blob())
        return true
      case Op.Cancel: {
        const number = reader.varint()
        const serving = tables.serving.get(number)
        tables.serving.delete(number)
        if (serving !== undefined) giveUp(serving)
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
    return { kind: at(tables.inKinds, tables.inKinds.findIndex((known) => known.name === kind)), address }
  }

  /** The message as this node's own definition has it, or why it can't be. */
  private decode(tables: Tables, { address }: InTarget, { kind, tag }: InTag, payload: Uint8Array): Decoded {
    const { trace } = tables
    tables.trace = undefined
    const what = `${kind.name}.${tag}`
    const definition = this.options.kinds().get(kind.name)
    if (definition === undefined) return undeliverable("NoSuchActor", new ActorStopped({ name: address.name }))
    const same = kind.fingerprint === definition.fingerprint
    const mismatch = () => new ProtocolMismatch({ what, ours: kind.fingerprint, theirs: definition.fingerprint })
    const message = definition.messages.get(tag)
    if (message === undefined || (kind.mode === "exact" && !same)) return undeliverable("Undecodable", mismatch())
    try {
      const value = codecOf(message.payload, kind.mode).decode(payload)
      const decoded = trace === undefined
        ? { kind: definition, tag, payload: value }
        : { kind: definition, tag, payload: value, trace }
      return { _tag: "Decoded", message: decoded, definition: message }
    } catch (error) {
      // where the protocols differ, the difference is the reason
      return undeliverable("Undecodable", same ? new InvalidData({ what, reason: reasonOf(error) }) : mismatch())
    }
  }

  private deadLetter(target: InTarget, tag: string, reason: DeadLetterReason) {
    this.options.publish({ _tag: "DeadLetter", to: target.address.name, kind: target.kind.name, message: tag, reason })
  }

  private onTell(
    session: Session,
    tables: Tables,
    target: InTarget,
    tag: InTag,
    payload: Uint8Array,
    bytes: number
  ): boolean {
    const decoded = this.decode(tables, target, tag, payload)
    if (decoded._tag === "Undeliverable") {
      this.deadLetter(target, tag.tag, decoded.reason)
      if (decoded.reason === "NoSuchActor") this.gone(session, target)
      return true
    }
    const { delivery, runFork } = this.options
    const tried = delivery.tryTell?.(target.address, decoded.message)
    if (tried !== undefined && Exit.isSuccess(tried)) return true
    const done = (exit: Exit.Exit<void, TellError>) => {
      if (Exit.isSuccess(exit)) return
      const error = Exit.findErrorOption(exit)
      const stopped = error._tag === "None" || error.value._tag === "ActorStopped"
      this.deadLetter(
        target,
        tag.tag,
        stopped ? "ActorStopped" : error.value._tag === "MailboxFull" ? "MailboxOverflow" : "Undecodable"
      )
      if (stopped) this.gone(session, target)
    }
    if (tried !== undefined) {
      done(tried)
      return true
    }
    const fiber = runFork(delivery.tell(target.address, decoded.message))
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
    number: number,
    timeout: number,
    payload: Uint8Array
  ): void {
    if (tables.serving.has(number)) throw new Malformed("an ask came twice")
    const decoded = tables.serving.size >= maxServing
      ? undeliverable("MailboxOverflow", session.failure("NotSent", "too many unanswered asks"))
      : this.decode(tables, target, tag, payload)
    if (decoded._tag === "Undeliverable") {
      if (decoded.reason !== "NoSuchActor") this.deadLetter(target, tag.tag, decoded.reason)
      return this.refuse(session, number, decoded.error)
    }
    const { definition } = decoded
    const { delivery, runFork } = this.options
    const serving: Serving = { over: false, forget: undefined }
    tables.serving.set(number, serving)
    const answer = (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => {
      // the asker has given it up, or is gone
      if (serving.over) return
      serving.over = true
      tables.serving.delete(number)
      if (Exit.isSuccess(exit)) return this.reply(session, number, target, definition, tag, exit.value)
      const error = Exit.findErrorOption(exit)
      this.refuse(
        session,
        number,
        error._tag === "Some" ? error.value : new ActorStopped({ name: target.address.name })
      )
    }
    serving.forget = delivery.tryAsk?.(target.address, decoded.message, timeout, answer)
    if (serving.forget !== undefined) return
    const fiber = runFork(delivery.ask(target.address, decoded.message, timeout))
    serving.forget = () => fiber.interruptUnsafe()
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) answer(exit)
    else fiber.addObserver(answer)
  }

  private reply(
    session: Session,
    number: number,
    target: InTarget,
    codec: MessageDefinition,
    tag: InTag,
    exit: Exit.Exit<unknown, unknown>
  ): void {
    const what = `reply of ${tag.kind.name}.${tag.tag}`
    let bytes: Uint8Array
    let op: number
    try {
      if (Exit.isSuccess(exit)) {
        op = Op.Success
        bytes = codecOf(codec.success, tag.kind.mode).encode(exit.value)
      } else {
        const error = Exit.findErrorOption(exit)
        if (error._tag === "None") {
          const reason = "the handler ended without an answer"
          return this.refuse(
            session,
            number,
            new HandlerFailed({ name: target.address.name, request: tag.tag, reason })
          )
        }
        op = Op.Failure
        bytes = codecOf(codec.error, tag.kind.mode).encode(error.value)
      }
    } catch (error) {
      return this.refuse(session, number, new InvalidData({ what, reason: reasonOf(error) }))
    }
    if (bytes.length + overhead > session.maxMessageBytes) {
      const limit = session.maxMessageBytes - overhead
      return this.refuse(session, number, new FrameTooLarge({ bytes: bytes.length, limit }))
    }
    if (bytes.length > pieceBytes) {
      const head = new Writer().byte(op).varint(number).varint(bytes.length).take()
      session.sendBulk(new Bulk(head, bytes, session.written, () => {}))
      session.wrote()
      return
    }
    session.writer(bytes.length + overhead).byte(op).varint(number).blob(bytes)
    session.wrote()
  }

  private refuse(session: Session, number: number, error: AskError): void {
    if (session.over !== undefined) return
    const bytes = codecOf(AskError, "evolving").encode(error)
    session.writer(bytes.length + overhead).byte(Op.Refused).varint(number).blob(bytes)
    session.wrote()
  }

  private onReply(tables: Tables, op: number, number: number, payload: Uint8Array): void {
    const ask = tables.asks.take(number)
    // too late: it has timed out or was given up
    if (ask === undefined) return
    this.options.timeouts.cancel(ask)
    try {
      ask.resume(
        op === Op.Refused
          ? Exit.fail(codecOf(AskError, "evolving").decode(payload) as AskError)
          : Exit.succeed(
            op === Op.Success
              ? Exit.succeed(ask.tag.success.decode(payload))
              : Exit.fail(ask.tag.error.decode(payload))
          )
      )
    } catch (error) {
      ask.resume(Exit.fail(new InvalidData({ what: `reply of ${ask.tag.message.tag}`, reason: reasonOf(error) })))
    }
  }

  // ---- end -----------------------------------------------------------------------------------------------------------------

  readonly onEnd = (session: Session): void => {
    const tables = this.tables(session)
    for (const ask of tables.asks.takeAll()) {
      this.options.timeouts.cancel(ask)
      const unsent = ask.bulk === undefined ? ask.batch > session.leftBatch : ask.bulk.left === 0
      ask.resume(Exit.fail(session.failure(unsent ? "NotSent" : "Unknown")))
    }
    const serving = [...tables.serving.values()]
    tables.serving.clear()
    for (const one of serving) giveUp(one)
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

/**
 * What comes in on the data lane: reads the operations of a batch and hands tells and asks to the local `Delivery`. What it does
 * not take is a dead letter here and, for an ask, a typed refusal there.
 *
 * Not for: how an answer is written or read (`replies`).
 *
 * Invariant: every byte of a batch is settled with the peer's window once, at once or when a mailbox has taken its message. What
 * cannot be read ends the session; what cannot be understood is lost alone.
 */
import { type Effect, Exit, type Fiber } from "effect"
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Delivery, Message } from "../../Actor/Delivery.ts"
import {
  ActorStopped,
  type AskError,
  InvalidData,
  NotAllowed,
  ProtocolMismatch,
  type TellError
} from "../../Actor/errors.ts"
import { type Asker, Brought } from "../../Actor/internal/Envelope.ts"
import { isForClients, notForClients } from "../../Actor/internal/systemMessages.ts"
import type { Timeouts } from "../../Actor/internal/Timeouts.ts"
import type { KindDefinition } from "../../Actor/Kind.ts"
import type { DeadLetterReason, SystemEvents } from "../../Actor/SystemEvents.ts"
import { attach, placesOf } from "./attached.ts"
import { reasonOf } from "./codec.ts"
import {
  besideBytes,
  inlineTarget,
  InTag,
  type InTarget,
  maxKinds,
  maxName,
  maxTags,
  maxTargets,
  modes,
  Op,
  readBeside,
  type Tables,
  tablesOf,
  Undeliverable
} from "./messageTables.ts"
import { read } from "./payloads.ts"
import { onReply, refuse, RemoteAsker, reply } from "./replies.ts"
import type { Session } from "./session.ts"
import { Malformed, peerMillis, type Reader } from "./wire.ts"

export interface IncomingOptions {
  /** the local one */
  readonly delivery: Delivery["Service"]
  readonly kinds: () => ReadonlyMap<string, KindDefinition>
  readonly self: ActorAddress["node"]
  readonly timeouts: Timeouts
  readonly publish: SystemEvents["Service"]["publish"]
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
}

export class Incoming {
  readonly options: IncomingOptions

  constructor(options: IncomingOptions) {
    this.options = options
  }

  readonly onData = (session: Session, reader: Reader, parts?: ReadonlyArray<Uint8Array>): void => {
    const tables = tablesOf(session)
    tables.parts = parts
    const { timeouts } = this.options
    let settled = 0
    timeouts.hold()
    try {
      while (!reader.done && !session.full) {
        const from = reader.position
        if (this.operation(session, tables, reader, from)) settled += reader.position - from
      }
    } finally {
      timeouts.release()
      // of a message that was read, or is never to be
      tables.parts = tables.beside = undefined
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
        const kind = at(tables.inKinds, reader.varint())
        const tag = reader.text(maxName)
        tables.inTags.push(new InTag(kind, tag, session.peer.client && !isForClients(tag)))
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
        const timeout = peerMillis(reader.varint())
        this.onAsk(session, tables, target, tag, timeout, reader, reader.skip(reader.varint()), from)
        return true
      }
      case Op.Success:
      case Op.Failure:
      case Op.Refused: {
        const op = reader.bytes[from]!
        reader.number()
        onReply(tables, op, reader, reader.skip(reader.varint()))
        return true
      }
      case Op.Beside:
        tables.beside = readBeside(tables, reader)
        return true
      case Op.Cancel: {
        reader.number()
        const serving = tables.serving.get(reader.low)
        if (serving === undefined || serving.use !== reader.high) return true
        tables.served(serving)
        serving.abandon()
        return true
      }
      case Op.Trace:
        tables.trace = { traceId: reader.text(64), spanId: reader.text(64), sampled: reader.byte() === 1 }
        return true
      case Op.Gone: {
        const kind = reader.text(maxName)
        const name = reader.text(maxName)
        tables.targetGone(`${kind}\u0000${name}\u0000${reader.varint()}\u0000${reader.varint()}`)
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

  private unknown({ closed, definition, kind, message, tag }: InTag, { address }: InTarget): Undeliverable {
    return definition === undefined
      ? new Undeliverable("NoSuchActor", new ActorStopped({ name: address.name }))
      : closed && message !== undefined
      ? new Undeliverable("NotAllowed", notForClients(tag, address.name, this.options.self))
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
    session.tellWaits()
    fiber.addObserver((exit) => {
      done(exit)
      session.tellEnds(bytes)
    })
    return false
  }

  /** Lets the sender know that this placement is over, so that it looks the name up again instead of sending into the void. */
  private gone(session: Session, { address, kind }: InTarget): void {
    // without a directory a name may come back under the same numbers
    if (address.placement === 0 || session.over !== undefined) return
    const writer = session.outbox.writer(3 * maxName).byte(Op.Gone).text(kind.name).text(address.name)
    writer.varint(address.placement).varint(address.epoch)
    session.outbox.wrote()
  }

  private onAsk(
    session: Session,
    tables: Tables,
    target: InTarget,
    tag: InTag,
    timeout: number,
    reader: Reader,
    start: number,
    from: number
  ): void {
    const { high, low } = reader
    const { trace } = tables
    tables.trace = undefined
    if (!tables.claim(low, high)) return
    const bytes = reader.position - from + besideBytes(tables)
    const payload = tables.servesAll
      ? new Undeliverable("MailboxOverflow", session.refusal("NotSent", "too many unanswered asks"))
      : this.decode(tables, target, tag, reader, start)
    if (payload instanceof Undeliverable) {
      if (payload.reason !== "NoSuchActor") this.deadLetter(target, tag.tag, payload.reason)
      return payload.error instanceof NotAllowed
        ? reply(session, tag, low, high, target.address.name, Exit.fail(payload.error))
        : refuse(session, low, high, payload.error)
    }
    const asker = new RemoteAsker(session, tables, tag, payload, trace, target.address.name, timeout)
    asker.slot = low
    asker.use = high
    asker.batch = bytes
    if (this.options.delivery.tryAsk?.(target, asker) === true) {
      if (!asker.over) tables.serve(asker)
    } else this.askSlowly(tables, target, asker)
  }

  private askSlowly(tables: Tables, target: InTarget, asker: Asker): void {
    const { delivery, runFork } = this.options
    const fiber = runFork(delivery.ask(target.address, asker, asker.timeout))
    const answer = (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => {
      if (Exit.isSuccess(exit)) return asker.reply(exit.value)
      const error = Exit.findErrorOption(exit)
      asker.refuse(error._tag === "Some" ? error.value : new ActorStopped({ name: asker.name }))
    }
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return answer(exit)
    tables.serve(asker)
    asker.carrier = { forget: () => fiber.interruptUnsafe() }
    this.options.timeouts.add(asker.timeout, asker)
    fiber.addObserver(answer)
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

/**
 * The data lane: tell, ask, reply. Kinds, tags and targets are told once per session and are numbers from then on; payloads are
 * bytes by the message's own schemas. `Outgoing` writes, `Incoming` reads; here is what becomes of both when a session ends.
 *
 * Not for: calls between nodes, which have a lane of their own (`calls`).
 *
 * Invariant: when a session is over, each ask on it has failed, `NotSent` only where it certainly did not leave, and each tell that
 * did not leave is a dead letter.
 */
import { Bulk } from "./bulk.ts"
import { Incoming, type IncomingOptions } from "./incoming.ts"
import { Op, type Tables, tablesOf } from "./messageTables.ts"
import { Outgoing, type OutgoingOptions } from "./outgoing.ts"
import type { Session } from "./session.ts"
import { Reader } from "./wire.ts"

export interface MessagesOptions extends OutgoingOptions, IncomingOptions {}

export class Messages {
  readonly options: MessagesOptions
  readonly outgoing: Outgoing
  readonly onData: Incoming["onData"]

  constructor(options: MessagesOptions) {
    this.options = options
    this.outgoing = new Outgoing(options)
    this.onData = new Incoming(options).onData
  }

  readonly onEnd = (session: Session): void => {
    const tables = tablesOf(session)
    for (const asker of tables.asks.takeAll()) {
      const { batch, cargo } = asker
      const unsent = cargo instanceof Bulk ? cargo.left === 0 : batch > session.outbox.leftBatch
      asker.refuse(session.failure(unsent ? "NotSent" : "Unknown"))
    }
    const serving = [...tables.serving.values()]
    tables.serving.clear()
    for (const asker of serving) asker.abandon()
  }

  /** The messages of batches that never left are dead letters; their asks have failed `NotSent` already. In order, and all of them. */
  readonly onLost = (session: Session, batches: ReadonlyArray<Uint8Array>): void => {
    const tables = tablesOf(session)
    const names = tables.lostNames()
    for (const batch of batches) this.lose(tables, batch, names)
  }

  private lose(tables: Tables, batch: Uint8Array, names: Array<ReadonlyArray<string>>): void {
    const reader = new Reader(batch, 1)
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
          names.shift()
          break
        case Op.Tell: {
          const to = names[0]?.[reader.varint()] ?? "unknown"
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

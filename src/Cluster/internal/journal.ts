/**
 * The journal of this incarnation as an owner of names: one write in flight, and all that waits meanwhile goes into the next one
 * (group commit). And the reader of journals that others left.
 *
 * Invariant: an append is acknowledged only when its record is in the store; after a seal nothing is appended any more.
 */
import { Deferred, Effect, Option, Queue, Schedule } from "effect"
import { Fenced, type InvalidData, type OutcomeUnknown, StoreUnavailable } from "../../Actor/errors.ts"
import * as Record from "./journalRecord.ts"
import type { Membership } from "./membership.ts"

export interface Journal {
  /**
   * Waits until the changes are in the store, in this order. `StoreUnavailable`: certainly not written. `Fenced`: this
   * incarnation has a successor, and will never write again.
   */
  readonly append: (changes: ReadonlyArray<Record.Change>) => Effect.Effect<void, StoreUnavailable | Fenced>
  /** Seals the journal of an incarnation whose lease is closed, and returns all that it ever wrote. Tries until it is certain. */
  readonly seal: (nodeKey: string) => Effect.Effect<ReadonlyArray<Record.Change>>
}

interface Pending {
  readonly changes: ReadonlyArray<Record.Change>
  readonly done: Deferred.Deferred<void, StoreUnavailable | Fenced>
}

/** Changes that one record takes at most; its size is capped by the store's own limit as well. */
const maxChanges = 256
/** Share of the largest value that the store takes which one record may fill. */
const fill = 0.5

const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)

export const make = Effect.fnUntraced(function*(membership: Membership) {
  const { keys, store } = membership
  const maxBytes = Math.floor(store.capabilities.maxValueBytes * fill)
  const queue = yield* Queue.unbounded<Pending>()
  let sequence = 0
  let operation = 0

  const fenced = () =>
    new Fenced({ what: `journal of ${membership.key}`, ours: membership.key, current: "sealed by a successor" })

  /** Whose record is under that number? `Mine`, another's (a seal), or nobody's as far as this read can tell. */
  const inspect = (number: number, mine: number) =>
    store.get(keys.journal(membership.key, number)).pipe(
      Effect.flatMap((entry) =>
        Option.isNone(entry)
          ? Effect.succeed("Absent" as const)
          : Effect.map(
            Record.decode(entry.value.value),
            (record) =>
              Option.isSome(record) && record.value._tag !== "Sealed" && record.value.operation === mine
                ? "Mine" as const
                : "Another" as const
          )
      )
    )

  /** One record under the next number. Once an outcome was unknown it goes on until it is settled. */
  const write = (record: Record.JournalRecord & { readonly operation: number }) =>
    Effect.gen(function*() {
      const number = sequence + 1
      const value = Record.encode(record)
      let unsettled = false
      const attempt: Effect.Effect<void, StoreUnavailable | OutcomeUnknown | InvalidData | Fenced> = Effect.gen(
        function*() {
          if (membership.isOver()) return yield* fenced()
          if (!membership.mayAct()) {
            return yield* new StoreUnavailable({ operation: "journal", reason: "this member's lease has lapsed" })
          }
          const written = yield* Effect.result(store.create(keys.journal(membership.key, number), value))
          if (written._tag === "Success") return
          const error = written.failure
          if (error._tag === "OutcomeUnknown") unsettled = true
          if (error._tag !== "RevisionConflict") return yield* error
          const whose = yield* inspect(number, record.operation)
          if (whose === "Mine") return
          if (whose === "Another") return yield* fenced()
          unsettled = true
          return yield* new StoreUnavailable({
            operation: "journal",
            reason: "a conflict that a read does not explain"
          })
        }
      )
      yield* Effect.retry(
        attempt,
        ($) => $(backoff).pipe(Schedule.while(({ input }) => unsettled && input._tag !== "Fenced"))
      ).pipe(
        Effect.catchTag(["OutcomeUnknown", "InvalidData"], (error) =>
          // certainly not written: an unknown outcome never gets here unsettled
          Effect.fail(new StoreUnavailable({ operation: "journal", reason: error.reason })))
      )
      sequence = number
    })

  const sizeOf = (changes: ReadonlyArray<Record.Change>): number => JSON.stringify(changes).length * 2
  const flush = Effect.gen(function*() {
    const waiting = yield* Queue.takeBetween(queue, 1, maxChanges)
    while (waiting.length > 0) {
      const batch: Array<Pending> = []
      let count = 0
      let bytes = 0
      while (waiting.length > 0) {
        const size = sizeOf(waiting[0]!.changes)
        if (batch.length > 0 && (count + waiting[0]!.changes.length > maxChanges || bytes + size > maxBytes)) break
        const next = waiting.shift()!
        batch.push(next)
        count += next.changes.length
        bytes += size
      }
      const exit = yield* Effect.exit(
        write({ _tag: "Batch", operation: ++operation, changes: batch.flatMap((pending) => pending.changes) })
      )
      for (const pending of batch) Deferred.doneUnsafe(pending.done, exit)
    }
  })
  yield* Effect.forkScoped(Effect.forever(flush))

  const append: Journal["append"] = (changes) =>
    changes.length === 0 ? Effect.void : Effect.suspend(() => {
      const done = Deferred.makeUnsafe<void, StoreUnavailable | Fenced>()
      Queue.offerUnsafe(queue, { changes, done })
      return Deferred.await(done)
    })

  const sealOnce = (nodeKey: string) =>
    Effect.gen(function*() {
      const prefix = keys.journalPrefix(nodeKey)
      const entries = yield* store.list(prefix)
      const records: Array<Record.Numbered> = []
      for (const entry of entries) {
        const record = yield* Record.decode(entry.value)
        if (Option.isNone(record)) {
          yield* Effect.logError(
            `journal record ${entry.key} cannot be read: its names are lost unless members run them`
          )
          records.push({
            sequence: Number(entry.key.slice(prefix.length)),
            record: { _tag: "Batch", operation: 0, changes: [] }
          })
        } else records.push({ sequence: Number(entry.key.slice(prefix.length)), record: record.value })
      }
      const reading = Record.read(records)
      if (reading._tag === "Sealed") return reading.changes
      if (reading._tag === "Hole") {
        return yield* new StoreUnavailable({ operation: "read a journal", reason: "the listing has a hole" })
      }
      // Winning the next number proves that the listing was complete, and that nothing will follow.
      yield* store.create(
        keys.journal(nodeKey, reading.last + 1),
        Record.encode({ _tag: "Sealed", by: membership.key })
      )
      return reading.changes
    })
  const seal: Journal["seal"] = (nodeKey) =>
    sealOnce(nodeKey).pipe(
      Effect.tapError((error) => Effect.logDebug(`journal of ${nodeKey} is not sealed yet: ${error._tag}`)),
      Effect.retry(backoff),
      // the schedule has no end: nothing comes here
      Effect.catch(() => Effect.never)
    )
  return { append, seal } satisfies Journal
})

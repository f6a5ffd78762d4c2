/**
 * The journal of this incarnation as an owner of names: one write in flight, and all that waits meanwhile goes into the next one
 * (group commit). Now and then what is live is repeated in pages and what came before is dropped. And the reader of journals
 * that others left.
 *
 * Invariants: an append is acknowledged only when its record is in the store; after a seal nothing is appended any more; nothing is
 * dropped before the pages that repeat it are complete.
 */
import { Clock, Deferred, Effect, Option, Queue, Schedule } from "effect"
import { Fenced, type InvalidData, type OutcomeUnknown, StoreUnavailable } from "../../Actor/errors.ts"
import type { Revision } from "../../ControlPlane/ControlStore.ts"
import * as Record from "./journalRecord.ts"
import type { Membership } from "./membership.ts"

export interface Journal {
  /** Writes all that is live again: the store has lost some of it. */
  readonly rewrite: Effect.Effect<void>
  /** numbers in use and names in them, for metrics and tests */
  readonly size: () => { readonly records: number; readonly names: number }
  /**
   * Waits until the changes are in the store, in this order. `StoreUnavailable`: certainly not written. `InvalidData`: larger
   * than the store takes. `Fenced`: this incarnation has a successor, and will never write again.
   */
  readonly append: (changes: ReadonlyArray<Record.Change>) => Effect.Effect<void, AppendError>
  /** Seals the journal of an incarnation whose lease is closed, and returns all that it ever wrote. Tries until it is certain. */
  readonly seal: (nodeKey: string) => Effect.Effect<ReadonlyArray<Record.Change>>
}

export type AppendError = StoreUnavailable | InvalidData | Fenced

interface Pending {
  readonly changes: ReadonlyArray<Record.Change>
  readonly done: Deferred.Deferred<void, AppendError>
}

/** Changes that one record takes at most; its size is capped by the store's own limit as well. */
const maxChanges = 256
/** Records beyond those that pages would need, after which pages are written. */
const slack = 64
/** How long a hole in a listing is taken for a stale replica's, in milliseconds; after that for a loss. */
const holePatience = 20_000
/** Share of the largest value that the store takes which one record may fill. */
const fill = 0.75
/** Characters of a change besides its texts: field names, numbers, punctuation. */
const fixedCharacters = 220

const backoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)

/**
 * `isNeeded`: must that partition's entries at that epoch still be found here? `maySettle`: false while a table of this owner still
 * rests on older journals, because then a removal in this one has something to remove there.
 */
export const make = Effect.fnUntraced(function*(membership: Membership, tables: {
  readonly isNeeded: (partition: number, epoch: number) => boolean
  readonly maySettle: () => boolean
}) {
  const { keys, store } = membership
  const maxBytes = Math.floor(store.capabilities.maxValueBytes * fill)
  const scope = yield* Effect.scope
  const queue = yield* Queue.unbounded<Pending>()
  let sequence = 0
  let operation = 0
  /** lowest number that is not dropped yet */
  let base = 1
  const revisions = new Map<number, Revision>()
  /** what the records so far amount to, by name */
  const committed = new Map<string, Record.Change & { readonly _tag: "Put" }>()
  const note = (changes: ReadonlyArray<Record.Change>) => {
    for (const change of changes) {
      if (change._tag === "Put") committed.set(change.placed.spec.name, change)
      else if ((committed.get(change.name)?.placed.placement ?? Infinity) <= change.placement) {
        committed.delete(change.name)
      }
    }
  }

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
            (record) => {
              if (Option.isNone(record) || record.value._tag === "Sealed" || record.value.operation !== mine) {
                return "Another" as const
              }
              revisions.set(number, entry.value.revision)
              return "Mine" as const
            }
          )
      )
    )

  /** One record under the next number. Once an outcome was unknown it goes on until it is settled. */
  const write = (record: Exclude<Record.JournalRecord, { readonly _tag: "Sealed" }>) =>
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
          if (written._tag === "Success") {
            revisions.set(number, written.success)
            return
          }
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
        Effect.catchTag("OutcomeUnknown", (error) =>
          // certainly not written: an unknown outcome never gets here unsettled
          Effect.fail(new StoreUnavailable({ operation: "journal", reason: error.reason })))
      )
      sequence = number
      note(record.changes)
    })

  /** Bytes that the changes take at most, without writing them out twice: a character takes three bytes or fewer. */
  const sizeOf = (changes: ReadonlyArray<Record.Change>): number => {
    let characters = 0
    for (const change of changes) {
      characters += change._tag === "Removed"
        ? fixedCharacters + change.name.length
        : fixedCharacters + change.placed.host.length + change.placed.spec.name.length + change.placed.spec.id.length +
          change.placed.spec.kind.length + (change.placed.spec.role?.length ?? 0) +
          (JSON.stringify(change.placed.spec.props)?.length ?? 0)
    }
    return characters * 3
  }
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

  // ---- pages

  const isDue = () =>
    sequence - base >= slack + 2 * Math.ceil(committed.size / maxChanges) && membership.mayAct() && tables.maySettle()
  const drop = (upTo: number) =>
    Effect.gen(function*() {
      for (let number = base; number < upTo; number++) {
        const revision = revisions.get(number)
        if (revision !== undefined) {
          // Whether this one is dropped now or stays as rubbish changes nothing for a reader.
          yield* Effect.ignore(store.remove(keys.journal(membership.key, number), revision))
          revisions.delete(number)
        }
        base = number + 1
      }
    })
  /** One page at a time, between the batches, each with what is live at its own moment. */
  let forced = false
  const paging = Effect.gen(function*() {
    if (!forced && !isDue()) return
    const from = sequence + 1
    for (const [name, change] of committed) {
      if (!tables.isNeeded(change.partition, change.epoch)) committed.delete(name)
    }
    const names = Array.from(committed.keys())
    let at = 0
    do {
      const changes: Array<Record.Change> = []
      let bytes = 0
      while (at < names.length && changes.length < maxChanges) {
        const change = committed.get(names[at]!)
        const size = change === undefined ? 0 : sizeOf([change])
        if (changes.length > 0 && bytes + size > maxBytes) break
        if (change !== undefined) changes.push(change)
        bytes += size
        at++
      }
      yield* write({ _tag: "Page", operation: ++operation, from, last: at >= names.length, changes })
      if (Queue.sizeUnsafe(queue) > 0) yield* flush
    } while (at < names.length)
    forced = false
    yield* Effect.forkIn(drop(from), scope)
  }).pipe(Effect.catch((error) => Effect.logDebug(`the journal is compacted later: ${error._tag}`)))

  yield* Effect.forkScoped(Effect.forever(Effect.andThen(flush, paging)))

  const append: Journal["append"] = (changes) =>
    changes.length === 0 ? Effect.void : Effect.suspend(() => {
      const done = Deferred.makeUnsafe<void, AppendError>()
      Queue.offerUnsafe(queue, { changes, done })
      return Deferred.await(done)
    })

  /** `lenient`: what is missing is lost for good, after it was looked for long enough; members may still run it. */
  const sealOnce = (nodeKey: string, lenient: boolean) =>
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
      const reading = Record.read(records, lenient)
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
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  /** journals being sealed, since when */
  const sealing = new Map<string, number>()
  const seal: Journal["seal"] = (nodeKey) =>
    Effect.suspend(() => {
      const lenient = now() - (sealing.get(nodeKey) ?? now()) > holePatience
      if (!sealing.has(nodeKey)) sealing.set(nodeKey, now())
      return Effect.andThen(
        lenient
          ? Effect.logError(`the journal of ${nodeKey} has a hole that does not close: the store has lost part of it`)
          : Effect.void,
        sealOnce(nodeKey, lenient)
      )
    }).pipe(
      Effect.tap(() => Effect.sync(() => sealing.delete(nodeKey))),
      Effect.tapError((error) => Effect.logDebug(`journal of ${nodeKey} is not sealed yet: ${error._tag}`)),
      Effect.retry(backoff),
      // the schedule has no end: nothing comes here
      Effect.catch(() => Effect.never)
    )
  const rewrite = Effect.suspend(() => {
    forced = true
    // an empty batch wakes the writer
    const done = Deferred.makeUnsafe<void, AppendError>()
    Queue.offerUnsafe(queue, { changes: [], done })
    return Effect.ignore(Deferred.await(done))
  })

  return {
    append,
    rewrite,
    seal,
    size: () => ({ records: sequence - base + 1, names: committed.size })
  } satisfies Journal
})

/**
 * What is in an owner's journal, and what a reader makes of it. Pure.
 *
 * A journal is a row of numbered keys of one incarnation, each written once: batches of changes, at last a seal. Whoever wins
 * the next number writes next, so an owner's late write and its successor's seal cannot both succeed.
 *
 * `Page`s repeat what is live, so that older numbers can be dropped: a reader begins at the `from` of the last complete run.
 */
import { Effect, Option, Schema } from "effect"
import { Placed } from "./ClusterRpcs.ts"

export const Change = Schema.Union([
  /** this placement is decided; written before its start is ordered */
  Schema.TaggedStruct("Put", { partition: Schema.Int, epoch: Schema.Int, placed: Placed }),
  /** this placement, and all lower ones, have ended */
  Schema.TaggedStruct("Removed", {
    partition: Schema.Int,
    epoch: Schema.Int,
    name: Schema.String,
    placement: Schema.Int
  })
])
export type Change = typeof Change.Type

export const JournalRecord = Schema.Union([
  Schema.TaggedStruct("Batch", { operation: Schema.Int, changes: Schema.Array(Change) }),
  /** one of the pages that repeat what is live; `last` ends the run that began at number `from` */
  Schema.TaggedStruct("Page", {
    operation: Schema.Int,
    from: Schema.Int,
    last: Schema.Boolean,
    changes: Schema.Array(Change)
  }),
  /** nothing comes after this */
  Schema.TaggedStruct("Sealed", { by: Schema.String })
])
export type JournalRecord = typeof JournalRecord.Type

const Json = Schema.fromJsonString(JournalRecord)
const decodeJson = Schema.decodeUnknownEffect(Json)

export const encode = (record: JournalRecord): string => JSON.stringify(record)

export const decode = (text: string): Effect.Effect<Option.Option<JournalRecord>> =>
  decodeJson(text).pipe(Effect.option)

export interface Numbered {
  readonly sequence: number
  readonly record: JournalRecord
}

/** What a listing amounts to: complete up to `last`, sealed or not; or with a hole, which a fresh listing must fill. */
export type Reading =
  | { readonly _tag: "Hole" }
  | { readonly _tag: "Open" | "Sealed"; readonly last: number; readonly changes: ReadonlyArray<Change> }

/** Records in order of their numbers. `lenient` reads over holes. */
export const read = (records: ReadonlyArray<Numbered>, lenient = false): Reading => {
  let from = 1
  for (const { record } of records) {
    if (record._tag === "Page" && record.last) from = record.from
  }
  const wanted = records.filter((entry) => entry.sequence >= from)
  const changes: Array<Change> = []
  let expected = from
  for (const { record, sequence } of wanted) {
    if (sequence !== expected && !lenient) return { _tag: "Hole" }
    expected = sequence + 1
    if (record._tag === "Sealed") return { _tag: "Sealed", last: sequence, changes }
    changes.push(...record.changes)
  }
  // A compacted journal whose pages are not listed yet begins above 1.
  if (wanted.length === 0 && records.length > 0 && !lenient) return { _tag: "Hole" }
  return { _tag: "Open", last: expected - 1, changes }
}

/** The last word on each name of one partition at one epoch. */
export interface Remembered {
  readonly placed: ReadonlyMap<string, Placed>
  readonly removed: ReadonlyMap<string, number>
}

export const replay = (changes: ReadonlyArray<Change>, partition: number, epoch: number): Remembered => {
  const placed = new Map<string, Placed>()
  const removed = new Map<string, number>()
  for (const change of changes) {
    if (change.partition !== partition || change.epoch !== epoch) continue
    if (change._tag === "Put") placed.set(change.placed.spec.name, change.placed)
    else {
      removed.set(change.name, change.placement)
      if ((placed.get(change.name)?.placement ?? Infinity) <= change.placement) placed.delete(change.name)
    }
  }
  return { placed, removed }
}

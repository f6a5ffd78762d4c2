/**
 * Pure core of the cache that every node keeps of all datacenters: what it knows, since when, and how old that knowledge is.
 *
 * Two sources feed it, a watch and a periodic full read, and neither may undo the other: a read replaces everything except what
 * the watch told after the read was sent. Expiry is judged only over time that the watch proved (a stale cache is the
 * business of its age), and what has expired comes back by a renewal alone.
 */
import { Duration } from "effect"
import type { ControlPlaneEvent, DataCenterRecord } from "../../ControlPlane/ControlPlane.ts"

/** Proofs of a watch further apart than this (ms) mean that somebody stood still in between. */
const maxProofGap = 3_000

export interface CachedRecord {
  readonly record: DataCenterRecord
  /** milliseconds of lease left when it was told, and the proven clock at that moment */
  readonly remaining: number
  readonly since: number
}

export interface Cache {
  readonly records: ReadonlyMap<string, CachedRecord>
  /** counts events of the watch; a refresh names the one that it was sent after */
  readonly sequence: number
  /** the event that last told of an id (removals too), and the last that told of all */
  readonly touched: ReadonlyMap<string, number>
  readonly replacedAt: number
  /** milliseconds that the watch has proven, and the monotonic time of its last proof */
  readonly proven: number
  readonly watchAt: number | undefined
  /** monotonic time at which the cache was last known to be current; undefined: never */
  readonly currentAt: number | undefined
}

export const initial: Cache = {
  records: new Map(),
  sequence: 0,
  touched: new Map(),
  replacedAt: 0,
  proven: 0,
  watchAt: undefined,
  currentAt: undefined
}

const cached = (record: DataCenterRecord, since: number): CachedRecord => ({
  record,
  remaining: Duration.toMillis(record.lease.remaining),
  since
})

/**
 * Does the record say something older than what is known? Versions of our own planes are numbers that rise, those of others are
 * opaque and never older.
 */
const isOlder = (record: DataCenterRecord, known: CachedRecord | undefined): boolean =>
  known !== undefined && /^\d+$/.test(record.version) && /^\d+$/.test(known.record.version) &&
  BigInt(record.version) < BigInt(known.record.version)

/** Milliseconds of its lease that this node still counts on. */
export const remaining = (cache: Cache, entry: CachedRecord): number =>
  Math.max(0, entry.remaining - (cache.proven - entry.since))

/** Milliseconds since the cache was last known to be current. */
export const age = (cache: Cache, now: number): number | undefined =>
  cache.currentAt === undefined ? undefined : Math.max(0, now - cache.currentAt)

/** After an event of the watch. */
export const watched = (cache: Cache, event: ControlPlaneEvent, now: number): Cache => {
  if (event._tag === "Lost") return { ...cache, watchAt: undefined }
  const sequence = cache.sequence + 1
  const elapsed = cache.watchAt === undefined ? 0 : now - cache.watchAt
  const proven = elapsed > maxProofGap ? cache.proven : cache.proven + elapsed
  const next = { ...cache, sequence, proven, watchAt: now, currentAt: now }
  switch (event._tag) {
    case "Current":
      // It vouches for what the watch has told; before its first snapshot that is nothing.
      return cache.replacedAt === 0 ? { ...cache, watchAt: now } : next
    case "Snapshot":
      return {
        ...next,
        records: new Map(event.records.map((record) => [record.id, cached(record, proven)])),
        touched: new Map(),
        replacedAt: sequence
      }
    case "Upsert":
      // a read was ahead of the watch, which catches up now
      if (isOlder(event.record, cache.records.get(event.record.id))) return next
      return {
        ...next,
        records: new Map(cache.records).set(event.record.id, cached(event.record, proven)),
        touched: new Map(cache.touched).set(event.record.id, sequence)
      }
    case "Removed": {
      const records = new Map(cache.records)
      records.delete(event.id)
      return { ...next, records, touched: new Map(cache.touched).set(event.id, sequence) }
    }
  }
}

/** After a full read that was sent at monotonic time `sentAt`, when the cache's sequence was `after`. */
export const refreshed = (
  cache: Cache,
  records: ReadonlyArray<DataCenterRecord>,
  read: { readonly after: number; readonly sentAt: number }
): Cache => {
  const currentAt = Math.max(cache.currentAt ?? Number.NEGATIVE_INFINITY, read.sentAt)
  if (cache.replacedAt > read.after) return { ...cache, currentAt }
  const told = (id: string) => (cache.touched.get(id) ?? 0) > read.after
  const next = new Map<string, CachedRecord>()
  for (const record of records) {
    const known = cache.records.get(record.id)
    if (told(record.id)) continue
    // A stale replica may have answered. Only beside a live watch, which begins again with a snapshot when a store forgets.
    if (known !== undefined && cache.watchAt !== undefined && isOlder(record, known)) next.set(record.id, known)
    else next.set(record.id, cached(record, cache.proven))
  }
  for (const [id, entry] of cache.records) if (told(id)) next.set(id, entry)
  return {
    ...cache,
    records: new Map(Array.from(next).sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0)),
    touched: new Map(Array.from(cache.touched).filter(([id]) => told(id))),
    currentAt
  }
}

/** This node wrote that record itself just now: known before any watch tells it. */
export const wrote = (cache: Cache, record: DataCenterRecord): Cache => {
  const sequence = cache.sequence + 1
  return {
    ...cache,
    sequence,
    records: new Map(cache.records).set(record.id, cached(record, cache.proven)),
    touched: new Map(cache.touched).set(record.id, sequence)
  }
}

/** What an observer of the cache would say of one datacenter. */
export const statusOf = (cache: Cache, id: string): string | undefined => {
  const entry = cache.records.get(id)
  return entry === undefined ? undefined : remaining(cache, entry) > 0 ? entry.record.state : "EXPIRED"
}

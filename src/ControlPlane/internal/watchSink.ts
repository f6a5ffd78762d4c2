/**
 * What one watch tells its consumer, kept apart from how a backend learns it. A backend reports entries, removals, whole
 * listings and its doubts; the sink knows what the consumer holds and says only what keeps the port's promise: a snapshot
 * first and after each gap, then changes in order, nothing twice, nothing resurrected.
 */
import { Queue } from "effect"
import type { Entry, Revision, WatchEvent } from "../ControlStore.ts"
import { compareRevision } from "./storeData.ts"

/** events that wait for one slow consumer before it is told to start over */
const watchLimit = 10_000
/** removals that one watch remembers, so that it notices when one is undone */
const removalLimit = 4_096

/** What a listing says of one key: its entry, or the revision that removed it where the backend still knows. */
export type Listed = { readonly entry: Entry } | { readonly removedAt: Revision }

export interface WatchSink {
  /** A complete listing after a gap, or the first one. */
  readonly snapshot: (listing: ReadonlyMap<string, Listed>) => void
  /**
   * A complete listing without a known gap. Changes that the watch had missed are told as such; a listing that lies behind
   * what the consumer was told is a loss in the store. Returns what was lost, or undefined.
   */
  readonly relist: (listing: ReadonlyMap<string, Listed>) => string | undefined
  readonly put: (entry: Entry) => void
  readonly removed: (key: string, revision: Revision) => void
  /** Proof that nothing is missing up to now. */
  readonly current: () => void
  readonly lost: (reason: string) => void
  /** false between a gap and the snapshot that repairs it */
  readonly sighted: () => boolean
  /** the keys that are held, whether the consumer has been told of them or not */
  readonly keys: () => Iterable<string>
  readonly revisionOf: (key: string) => Revision | undefined
}

export const makeWatchSink = <E>(queue: Queue.Queue<WatchEvent, E>): WatchSink => {
  const held = new Map<string, Entry>()
  /** keys that are gone, oldest removal first, and the revision that removed them */
  const gone = new Map<string, Revision>()
  let sighted = false
  let toldLost = false
  let overflowed = false

  const tellSnapshot = (): void => {
    toldLost = false
    const entries = Array.from(held.values()).sort((a, b) => a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
    Queue.offerUnsafe(queue, { _tag: "Snapshot", entries })
  }
  const tell = (event: WatchEvent): void => {
    if (overflowed) return
    if (Queue.sizeUnsafe(queue) < watchLimit) return void Queue.offerUnsafe(queue, event)
    overflowed = true
    toldLost = true
    Queue.offerUnsafe(queue, { _tag: "Lost", reason: "the consumer is too far behind" })
  }
  const lost = (reason: string): void => {
    sighted = false
    if (!toldLost) Queue.offerUnsafe(queue, { _tag: "Lost", reason })
    toldLost = true
  }
  const snapshot = (listing: ReadonlyMap<string, Listed>): void => {
    held.clear()
    // a store that begins anew may count from below what it removed before
    gone.clear()
    for (const listed of listing.values()) if ("entry" in listed) held.set(listed.entry.key, listed.entry)
    sighted = true
    if (Queue.sizeUnsafe(queue) < watchLimit) {
      overflowed = false
      tellSnapshot()
    } else overflowed = true
  }
  const put = (entry: Entry): void => {
    const known = held.get(entry.key)
    if (known !== undefined && compareRevision(entry.revision, known.revision) <= 0) return
    const removedAt = known === undefined ? gone.get(entry.key) : undefined
    if (removedAt !== undefined) {
      if (compareRevision(entry.revision, removedAt) < 0) return
      gone.delete(entry.key)
    }
    held.set(entry.key, entry)
    tell({ _tag: "Put", entry })
  }
  const removed = (key: string, revision: Revision): void => {
    const known = held.get(key)
    if (known === undefined || compareRevision(revision, known.revision) <= 0) return
    held.delete(key)
    gone.set(key, revision)
    if (gone.size > removalLimit) gone.delete(gone.keys().next().value!)
    tell({ _tag: "Removed", key, revision })
  }
  /** why the listing cannot be a later state than what is held */
  const regression = (listing: ReadonlyMap<string, Listed>): string | undefined => {
    for (const [key, known] of held) {
      const listed = listing.get(key)
      if (listed === undefined) return `the store no longer knows ${key}`
      const revision = "entry" in listed ? listed.entry.revision : listed.removedAt
      if (compareRevision(revision, known.revision) < 0) {
        return `${key} fell from revision ${known.revision} to ${revision}`
      }
      if ("entry" in listed && listed.entry.revision === known.revision && listed.entry.value !== known.value) {
        return `${key} has another value at the same revision ${revision}`
      }
    }
    for (const [key, removedAt] of gone) {
      const listed = listing.get(key)
      if (listed !== undefined && "entry" in listed && compareRevision(listed.entry.revision, removedAt) < 0) {
        return `${key}, removed at revision ${removedAt}, is back at ${listed.entry.revision}`
      }
    }
    return undefined
  }

  return {
    snapshot,
    relist: (listing) => {
      // also after a gap: a store that went back behind what was held has forgotten it, however it looks now
      const reason = regression(listing)
      if (reason !== undefined) {
        // told although the watch may be lost already, because it says more than a lost connection
        toldLost = false
        lost(reason)
      }
      if (!sighted) {
        snapshot(listing)
        return reason
      }
      const newest = Array.from(listing, ([key, listed]) => ({ key, listed })).sort((a, b) =>
        compareRevision(
          "entry" in a.listed ? a.listed.entry.revision : a.listed.removedAt,
          "entry" in b.listed ? b.listed.entry.revision : b.listed.removedAt
        )
      )
      for (const { key, listed } of newest) {
        if ("entry" in listed) put(listed.entry)
        else removed(key, listed.removedAt)
      }
      return undefined
    },
    put,
    removed,
    current: () => {
      if (!sighted) return
      if (!overflowed) return tell({ _tag: "Current" })
      if (Queue.sizeUnsafe(queue) > watchLimit / 2) return
      overflowed = false
      tellSnapshot()
    },
    lost,
    sighted: () => sighted,
    keys: () => held.keys(),
    revisionOf: (key) => held.get(key)?.revision
  }
}

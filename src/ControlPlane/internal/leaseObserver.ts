/**
 * Pure core of a lease's observer: for how long, by its own clock, has it seen no change while its watch was proven current?
 *
 * Time counts only between two proofs (a change or `Current` of the same unbroken watch) that lie close together: a lost
 * watch, a new snapshot, or a pause of the observer itself starts every count again in full. So after an outage of the
 * store every owner has a whole lease to come back before anyone calls it dead.
 *
 * Not for safety: that two sides never both succeed is the compare-and-set's doing. This decides when to try.
 */
import { compareRevision, type Entry, type Revision, type WatchEvent } from "../ControlStore.ts"
import { decodeLease, leaseMargin } from "./leaseRecord.ts"

export type ObservedStatus = "Absent" | "Live" | "Expired" | "Closed"

/** Proofs further apart than this (ms) mean that the watch or the observer stood still in between. */
export const maxProofGap = 3_000

export interface Observed {
  readonly revision: Revision
  readonly closed: boolean
  /** milliseconds */
  readonly duration: number
  /** counting since, monotonic */
  readonly since: number
  /** writer of the record, to name it */
  readonly writer: string
}

export interface ObserverState {
  readonly leases: ReadonlyMap<string, Observed>
  /** monotonic time of the last proof of an unbroken watch; undefined while the watch is lost */
  readonly provenAt: number | undefined
}

export interface StatusChange {
  readonly key: string
  readonly status: ObservedStatus
}

export const initial: ObserverState = { leases: new Map(), provenAt: undefined }

/** Milliseconds of proven time that an observed lease still has, margin included; 0 once it has expired. */
export const remaining = (lease: Observed, provenAt: number): number =>
  Math.max(0, lease.since + lease.duration + leaseMargin(lease.duration) - provenAt)

export const status = (state: ObserverState, key: string): ObservedStatus => {
  const lease = state.leases.get(key)
  if (lease === undefined) return "Absent"
  if (lease.closed) return "Closed"
  // while the watch is lost nothing is known to have expired that was not before: the count stands still
  return remaining(lease, state.provenAt ?? lease.since) === 0 ? "Expired" : "Live"
}

const observe = (entry: Entry, now: number): Observed | undefined => {
  const record = decodeLease(entry.value)
  return record === undefined ? undefined : {
    revision: entry.revision,
    closed: record.state === "Closed",
    duration: record.duration,
    since: now,
    writer: record.writer
  }
}

const recount = (leases: ReadonlyMap<string, Observed>, now: number): ReadonlyMap<string, Observed> => {
  const counted = new Map<string, Observed>()
  for (const [key, lease] of leases) counted.set(key, { ...lease, since: now })
  return counted
}

/** The state after one event of the watch, seen at monotonic time `now`; and keys whose value is no lease. */
export const step = (
  state: ObserverState,
  event: WatchEvent,
  now: number
): readonly [ObserverState, ReadonlyArray<string>] => {
  if (event._tag === "Lost") return [{ leases: recount(state.leases, now), provenAt: undefined }, []]
  if (event._tag === "Snapshot") {
    const leases = new Map<string, Observed>()
    const foreign: Array<string> = []
    for (const entry of event.entries) {
      const lease = observe(entry, now)
      if (lease === undefined) foreign.push(entry.key)
      else leases.set(entry.key, lease)
    }
    return [{ leases, provenAt: now }, foreign]
  }
  // Only a snapshot ends a loss for `Put` and `Removed`; `Current` alone says that nothing was missed after all.
  const paused = state.provenAt === undefined || now - state.provenAt > maxProofGap
  const leases = paused ? recount(state.leases, now) : state.leases
  if (event._tag === "Current") return [{ leases, provenAt: now }, []]
  const changed = new Map(leases)
  if (event._tag === "Removed") {
    changed.delete(event.key)
    return [{ leases: changed, provenAt: now }, []]
  }
  const known = leases.get(event.entry.key)
  if (known !== undefined && compareRevision(event.entry.revision, known.revision) <= 0) {
    return [{ leases, provenAt: now }, []] // told twice, or late: no change
  }
  const lease = observe(event.entry, now)
  if (lease === undefined) changed.delete(event.entry.key)
  else changed.set(event.entry.key, lease)
  return [{ leases: changed, provenAt: now }, lease === undefined ? [event.entry.key] : []]
}

/** Keys whose status differs between two states, in the order in which the later state holds them. */
export const changes = (before: ObserverState, after: ObserverState): ReadonlyArray<StatusChange> => {
  const told: Array<StatusChange> = []
  for (const key of before.leases.keys()) {
    if (!after.leases.has(key)) told.push({ key, status: "Absent" })
  }
  for (const key of after.leases.keys()) {
    const now = status(after, key)
    if (status(before, key) !== now) told.push({ key, status: now })
  }
  return told
}

/** Milliseconds of proven time for which it has been seen unchanged. */
const unchangedFor = (state: ObserverState, lease: Observed): number => (state.provenAt ?? lease.since) - lease.since

/**
 * What a fresh read says about closing: at exactly that revision, not at all, or done already. `certain`: the owner is known to be
 * dead, whatever its lease says. `share`: that part of its duration, of proven time without change, is enough in the place of D + margin.
 */
export const decideClose = (
  state: ObserverState,
  key: string,
  read: Entry | undefined,
  certain: boolean,
  share?: number
): { readonly _tag: "CloseAt"; readonly expected: Revision | undefined } | { readonly _tag: "Closed" | "Alive" } => {
  const seen = state.leases.get(key)
  const record = read === undefined ? undefined : decodeLease(read.value)
  if (record?.state === "Closed") return { _tag: "Closed" }
  if (certain) return { _tag: "CloseAt", expected: read?.revision }
  if (record === undefined) {
    // Gone, or overwritten by something that is no lease: a tombstone, by compare-and-set, since a read proves nothing.
    return seen === undefined ? { _tag: "CloseAt", expected: read?.revision } : { _tag: "Alive" }
  }
  if (seen === undefined || seen.revision !== read?.revision) return { _tag: "Alive" }
  const isDue = status(state, key) === "Expired" ||
    (share !== undefined && unchangedFor(state, seen) >= share * seen.duration)
  return isDue ? { _tag: "CloseAt", expected: seen.revision } : { _tag: "Alive" }
}

/**
 * Pure core for readers of leases that nobody closes (datacenter records): how much of each lease is left, counted only over
 * time in which the reader's own watch was proven current.
 *
 * Unlike a closing observer's count (`leaseObserver.ts`), this one stands still during a gap and goes on after it: what has
 * expired stays expired until it is renewed, so that no hiccup of the store brings a dead datacenter back into routing.
 */
import { compareRevision, type Entry, type Revision, type WatchEvent } from "../ControlStore.ts"
import { maxProofGap } from "./leaseObserver.ts"
import { decodeLease } from "./leaseRecord.ts"

export interface SeenLease {
  readonly revision: Revision
  readonly counter: number
  /** milliseconds */
  readonly duration: number
  /** the proven clock when this revision was first seen */
  readonly since: number
}

export interface ProvenState {
  readonly leases: ReadonlyMap<string, SeenLease>
  /** milliseconds of proven time since the reader began */
  readonly proven: number
  /** monotonic time of the last proof; undefined while the watch is lost */
  readonly provenAt: number | undefined
}

export const initial: ProvenState = { leases: new Map(), proven: 0, provenAt: undefined }

/** Milliseconds left of a lease that was seen; 0 once it has expired. */
export const remaining = (state: ProvenState, lease: SeenLease): number =>
  Math.max(0, lease.duration - (state.proven - lease.since))

const see = (known: SeenLease | undefined, entry: Entry, proven: number): SeenLease | undefined => {
  const record = decodeLease(entry.value)
  // a store that was emptied may give the same revision again, though hardly with the same counter
  if (record !== undefined && known?.revision === entry.revision && known.counter === record.counter) return known
  return record === undefined || record.state === "Closed" ? undefined : {
    revision: entry.revision,
    counter: record.counter,
    duration: record.duration,
    since: proven
  }
}

/** The state after one event of a watch that covers the leases, seen at monotonic time `now`; and keys that hold no lease. */
export const step = (
  state: ProvenState,
  event: WatchEvent,
  now: number,
  isLease: (key: string) => boolean
): readonly [ProvenState, ReadonlyArray<Entry>] => {
  if (event._tag === "Lost") return [{ ...state, provenAt: undefined }, []]
  if (event._tag === "Snapshot") {
    const leases = new Map<string, SeenLease>()
    const foreign: Array<Entry> = []
    for (const entry of event.entries) {
      if (!isLease(entry.key)) continue
      const lease = see(state.leases.get(entry.key), entry, state.proven)
      if (lease === undefined) foreign.push(entry)
      else leases.set(entry.key, lease)
    }
    return [{ leases, proven: state.proven, provenAt: now }, foreign]
  }
  const elapsed = state.provenAt === undefined ? 0 : now - state.provenAt
  const proven = elapsed > maxProofGap ? state.proven : state.proven + elapsed
  if (event._tag === "Put" && isLease(event.entry.key)) {
    const known = state.leases.get(event.entry.key)
    if (known === undefined || compareRevision(event.entry.revision, known.revision) > 0) {
      const lease = see(undefined, event.entry, proven)
      const leases = new Map(state.leases)
      if (lease === undefined) leases.delete(event.entry.key)
      else leases.set(event.entry.key, lease)
      return [{ leases, proven, provenAt: now }, lease === undefined ? [event.entry] : []]
    }
  }
  if (event._tag === "Removed" && state.leases.has(event.key)) {
    const leases = new Map(state.leases)
    leases.delete(event.key)
    return [{ leases, proven, provenAt: now }, []]
  }
  return [{ ...state, proven, provenAt: now }, []]
}

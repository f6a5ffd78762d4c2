/**
 * Pure core of a lease's owner: what it may do at which moment, and what it writes next.
 *
 * Invariant: while the key in the store is closed, `isValid` is false. It follows from two facts: validity counts from the
 * *send* time of a renewal that is known to have been applied, and a closer waits longer than D after seeing that very
 * renewal and then compares-and-sets at exactly its revision.
 *
 * One write is in flight at a time. A write whose outcome is unknown is not settled by waiting: the next write at the same
 * expected revision either wins (then the earlier one never can) or conflicts, and a read shows by writer id whose it was.
 */
import { compareRevision, type Revision } from "../ControlStore.ts"
import type { LeaseRecord } from "./leaseRecord.ts"

/** Wall and monotonic clock of the owner, read together; milliseconds. */
export interface Instant {
  readonly now: number
  readonly wall: number
}

/** A machine that slept shows as wall time running away from monotonic time; beyond this (ms) the owner pauses. */
export const maxDrift = 1_000

/** Deadline of one call (ms), whatever the store's own: a hung renewal must leave room for a second try within the lease. */
export const callDeadline = (duration: number): number => Math.min(5_000, duration / 4)

/** Between two renewals (ms), before jitter of a fifth: at most D/3 apart. */
export const renewalPeriod = (duration: number): number => duration * 0.275

export interface Attempt {
  readonly operation: number
  readonly sentAt: number
  /** wall minus monotonic time when it was sent */
  readonly offset: number
  readonly closes: boolean
}

export interface OwnerState {
  readonly writer: string
  readonly duration: number
  /** `Fresh`: the key is not known to be ours yet */
  readonly phase: "Fresh" | "Held" | "Closed"
  /** its own goodbye has begun: it never acts again, whether that write succeeds or not */
  readonly leaving: boolean
  /** the latest revision known to be ours */
  readonly revision: Revision | undefined
  readonly counter: number
  readonly operations: number
  /** may act before this monotonic time */
  readonly validUntil: number
  /** wall minus monotonic time at the send time of the last successful renewal */
  readonly offset: number
  readonly inFlight: Attempt | undefined
  /** sent, outcome unknown, newest last; only the last few, since an older one can only shorten what we may count */
  readonly unsettled: ReadonlyArray<Attempt>
  /** reads in a row that found no record where there was one */
  readonly missing: number
}

export type OwnerEvent =
  | { readonly _tag: "Renew"; readonly at: Instant }
  | { readonly _tag: "Leave"; readonly at: Instant }
  | { readonly _tag: "Written"; readonly revision: Revision }
  /** certainly not applied */
  | { readonly _tag: "NotWritten" }
  | { readonly _tag: "Unknown" }
  | { readonly _tag: "Conflict" }
  | {
    readonly _tag: "Read"
    readonly at: Instant
    readonly revision: Revision
    readonly record: LeaseRecord | undefined
  }
  | { readonly _tag: "ReadMissing" }
  | { readonly _tag: "ReadFailed" }
  /** a fact that never reverts, from whoever saw it */
  | { readonly _tag: "SeenClosed" }
  /** the store has lost the key and is known to be another one: the next write creates it */
  | { readonly _tag: "Forgotten" }

export type OwnerCommand =
  | { readonly _tag: "Write"; readonly expected: Revision | undefined; readonly record: LeaseRecord }
  | { readonly _tag: "Read" }
  /** the attempt is over: renewed (or left) for certain */
  | { readonly _tag: "Done" }
  /** the attempt taught where the key stands; try again at once */
  | { readonly _tag: "Again" }
  /** the attempt is over, unsettled */
  | { readonly _tag: "Unsettled" }
  | { readonly _tag: "Lost" }

const keptUnsettled = 32
/** One read that finds nothing may be a replica's that lags; so many, each after a write that found something else, are believed. */
const believedMissing = 3

export const initial = (writer: string, duration: number): OwnerState => ({
  writer,
  duration,
  phase: "Fresh",
  leaving: false,
  revision: undefined,
  counter: 0,
  operations: 0,
  validUntil: Number.NEGATIVE_INFINITY,
  offset: 0,
  inFlight: undefined,
  unsettled: [],
  missing: 0
})

const drifted = (state: OwnerState, at: Instant): boolean => Math.abs(at.wall - at.now - state.offset) > maxDrift

/** May the owner act at this moment? */
export const isValid = (state: OwnerState, at: Instant): boolean =>
  state.phase === "Held" && !state.leaving && at.now < state.validUntil && !drifted(state, at)

/** Paused by a clock jump only: one successful renewal ends it, so it is worth asking for one at once. */
export const isPaused = (state: OwnerState, at: Instant): boolean => state.phase === "Held" && drifted(state, at)

const lost = (state: OwnerState): readonly [OwnerState, ReadonlyArray<OwnerCommand>] => [
  { ...state, phase: "Closed", inFlight: undefined, unsettled: [] },
  [{ _tag: "Lost" }]
]

const settle = (state: OwnerState, attempt: Attempt | undefined, revision: Revision): OwnerState => ({
  ...state,
  phase: attempt?.closes === true ? "Closed" : "Held",
  revision,
  counter: state.counter + 1,
  // an attempt that is no longer remembered was sent too long ago to count on
  validUntil: attempt === undefined ? state.validUntil : Math.max(state.validUntil, attempt.sentAt + state.duration),
  offset: attempt === undefined ? state.offset : attempt.offset,
  inFlight: undefined,
  unsettled: [],
  missing: 0
})

const unsettle = (state: OwnerState): OwnerState => ({
  ...state,
  inFlight: undefined,
  unsettled: state.inFlight === undefined
    ? state.unsettled
    : [...state.unsettled, state.inFlight].slice(-keptUnsettled)
})

const write = (
  state: OwnerState,
  at: Instant,
  closes: boolean
): readonly [OwnerState, ReadonlyArray<OwnerCommand>] => {
  const operation = state.operations + 1
  const attempt = { operation, sentAt: at.now, offset: at.wall - at.now, closes }
  return [{ ...state, operations: operation, inFlight: attempt }, [{
    _tag: "Write",
    expected: state.revision,
    record: {
      state: closes ? "Closed" : "Held",
      counter: state.counter + 1,
      duration: state.duration,
      writer: state.writer,
      operation
    }
  }]]
}

export const step = (
  state: OwnerState,
  event: OwnerEvent
): readonly [OwnerState, ReadonlyArray<OwnerCommand>] => {
  if (state.phase === "Closed") return [state, [{ _tag: "Lost" }]]
  switch (event._tag) {
    case "Renew":
      return state.leaving ? [state, [{ _tag: "Lost" }]] : write(state, event.at, false)
    case "Leave":
      return write({ ...state, leaving: true }, event.at, true)
    case "Written":
      return [settle(state, state.inFlight, event.revision), [{ _tag: "Done" }]]
    case "NotWritten":
      return [{ ...state, inFlight: undefined }, [{ _tag: "Unsettled" }]]
    case "Unknown":
      return [unsettle(state), [{ _tag: "Unsettled" }]]
    case "Conflict":
      // Perhaps with our own earlier write, or with this very one that a client below us sent twice.
      return [unsettle(state), [{ _tag: "Read" }]]
    case "ReadFailed":
      return [state, [{ _tag: "Unsettled" }]]
    case "ReadMissing":
      // A record that is gone counts as closed: whoever removed it may have granted its place to another. Before the first
      // write is known to have succeeded, a missing record is only a stale answer; after it, it may be one. Trying again at the
      // known revision is safe: of a key that is gone it never succeeds.
      return state.phase === "Fresh" || state.revision === undefined
        ? [state, [{ _tag: "Unsettled" }]]
        : state.missing + 1 < believedMissing
        ? [{ ...state, missing: state.missing + 1 }, [{ _tag: "Again" }]]
        : lost(state)
    case "Read": {
      if (state.missing > 0) return step({ ...state, missing: 0 }, event)
      if (event.record?.state === "Closed") return lost(state)
      const older = state.revision !== undefined && compareRevision(event.revision, state.revision) <= 0
      if (older) {
        // Stale, or the store forgot our last renewals. While we may act nobody can have closed it by lapse, so trying at what
        // the store shows is safe: a stale revision conflicts, a forgotten one is restored.
        return event.record?.writer === state.writer && event.revision !== state.revision && isValid(state, event.at)
          ? [{ ...state, revision: event.revision }, [{ _tag: "Again" }]]
          : [state, [{ _tag: "Unsettled" }]]
      }
      if (event.record?.writer !== state.writer) return lost(state)
      const operation = event.record.operation
      const attempt = state.unsettled.find((candidate) => candidate.operation === operation)
      const newest = attempt !== undefined && attempt.operation === state.operations
      return [settle(state, attempt, event.revision), [{ _tag: newest ? "Done" : "Again" }]]
    }
    case "Forgotten":
      return [{ ...state, revision: undefined }, []]
    case "SeenClosed":
      return lost(state)
  }
}

/**
 * Leases on a `ControlStore`: one key an incarnation, `Held(counter)` or `Closed`.
 *
 * The owner renews by compare-and-set of the counter each third of the duration D and may act until (monotonic send time of its
 * last successful renewal) + D; that is compared when it acts, not by a timer. An observer counts only time in which its own
 * watch was proven current; after D + margin without change and a fresh read at the same revision it may close the lease, by
 * compare-and-set at exactly that revision. So a renewal and a closing cannot both succeed, and `Closed` is final. No clocks
 * are compared: records carry a duration, never a time. margin = max(250 ms, 2 % of D), for clock rates within 1 %.
 */
import type { Duration, Effect, Scope, Stream } from "effect"
import type { Fenced, InvalidData, OutcomeUnknown, StoreUnavailable } from "../Actor/errors.ts"
import type { ControlStoreService } from "./ControlStore.ts"

/** `Lapsed`: not renewed in time, but not closed either: it may still renew and go on. `Closed` is final. */
export type LeaseState = "Held" | "Lapsed" | "Closed"

export interface HeldLease {
  readonly key: string
  readonly duration: Duration.Duration
  /** may the owner act now? compared with the monotonic clock at the moment of the call */
  readonly isValid: () => boolean
  readonly state: Effect.Effect<LeaseState>
  /** the state now and after each change */
  readonly changes: Stream.Stream<LeaseState>
  /** completes when the owner learns that its lease is closed */
  readonly closed: Effect.Effect<void>
  /** renews at once, e.g. before acting on another's death; `Fenced` when it is closed */
  readonly renew: Effect.Effect<void, Fenced | StoreUnavailable | OutcomeUnknown | InvalidData>
  /** the owner's own goodbye, after it has stopped acting; idempotent */
  readonly close: Effect.Effect<void, StoreUnavailable | OutcomeUnknown | InvalidData>
}

/** Takes a fresh key as a lease and keeps renewing it for as long as the scope lives; the end of the scope stops renewing. */
export type Hold = (store: ControlStoreService, options: {
  readonly key: string
  readonly duration: Duration.Duration
}) => Effect.Effect<HeldLease, Fenced | StoreUnavailable | OutcomeUnknown | InvalidData, Scope.Scope>

/** What an observer knows of a lease. `Expired`: D + margin of proven time without change. */
export type ObservedLease = "Absent" | "Live" | "Expired" | "Closed"

export interface LeaseObserver {
  /** by this observer's own proven time */
  readonly status: (key: string) => ObservedLease
  /** keys whose status changed, as it changes */
  readonly changes: Stream.Stream<{ readonly key: string; readonly status: ObservedLease }>
  /** Closes an expired lease after a fresh read. `Alive` where it had been renewed after all. */
  readonly close: (key: string) => Effect.Effect<"Closed" | "Alive", StoreUnavailable | OutcomeUnknown | InvalidData>
}

/** Watches all leases under a prefix. */
export type Observe = (
  store: ControlStoreService,
  prefix: string
) => Effect.Effect<LeaseObserver, never, Scope.Scope>

/**
 * Leases on a `ControlStore`: one key an incarnation, `Held(counter)` or `Closed`.
 *
 * The owner renews by compare-and-set of the counter each third of the duration D and may act until (monotonic send time of its
 * last successful renewal) + D; that is compared when it acts, not by a timer. An observer counts only time in which its own
 * watch was proven current; after D + margin without change and a fresh read at the same revision it may close the lease, by
 * compare-and-set at exactly that revision. So a renewal and a closing cannot both succeed, and `Closed` is final. No clocks
 * are compared: records carry a duration, never a time. margin = max(250 ms, 2 % of D), for clock rates within 1 %.
 *
 * The decisions are pure cores (`internal/leaseOwner.ts`, `internal/leaseObserver.ts`); here is what performs them.
 */
import {
  Clock,
  Deferred,
  Duration,
  Effect,
  FiberHandle,
  Option,
  PubSub,
  Queue,
  Schedule,
  type Scope,
  Semaphore,
  Stream,
  SubscriptionRef
} from "effect"
import { Fenced, InvalidData, OutcomeUnknown, StoreUnavailable } from "../Actor/errors.ts"
import { randomHex } from "../Actor/Node.ts"
import type { ControlStoreService } from "./ControlStore.ts"
import { attemptRead, attemptWrite } from "./internal/leaseCalls.ts"
import type { LeaseError } from "./internal/leaseCalls.ts"
import * as Observer from "./internal/leaseObserver.ts"
import * as Owner from "./internal/leaseOwner.ts"
import { decodeLease, encodeLease } from "./internal/leaseRecord.ts"

export {
  /** What an operation on a lease can fail with besides being fenced. */
  type LeaseError
} from "./internal/leaseCalls.ts"

/** `Lapsed`: not renewed in time, but not closed either: it may still renew and go on. `Closed` is final. */
export type LeaseState = "Held" | "Lapsed" | "Closed"

export interface HeldLease {
  readonly key: string
  readonly duration: Duration.Duration
  /** may the owner act now? compared with the monotonic clock at the moment of the call */
  readonly isValid: () => boolean
  /** milliseconds for which it may still act if nothing more is renewed; 0 when it may not */
  readonly remaining: () => number
  readonly state: Effect.Effect<LeaseState>
  /** the state now and after each change */
  readonly changes: Stream.Stream<LeaseState>
  /** completes when the owner learns that its lease is closed */
  readonly closed: Effect.Effect<void>
  /** renews at once, e.g. before acting on another's death; `Fenced` when it is closed */
  readonly renew: Effect.Effect<void, Fenced | LeaseError>
  /** tells the owner that somebody has seen its lease closed: it never acts again. Idempotent. */
  readonly fence: Effect.Effect<void>
  /** takes the key anew in a store that has lost it; it loses against whoever has closed it there meanwhile */
  readonly restore: Effect.Effect<void, Fenced | LeaseError>
  /** the owner's own goodbye, after it has stopped acting; idempotent */
  readonly close: Effect.Effect<void, LeaseError>
}

/** What an observer knows of a lease. `Expired`: D + margin of proven time without change. */
export type ObservedLease = "Absent" | "Live" | "Expired" | "Closed"

export interface LeaseObserver {
  /** by this observer's own proven time; `Absent` before the first snapshot and where the key holds no lease */
  readonly status: (key: string) => ObservedLease
  /** milliseconds of proven time until it counts as expired, margin included; none where it is absent or closed */
  readonly remaining: (key: string) => number | undefined
  /** does the watch vouch for all this now? (the last proof is at most a few seconds old) */
  readonly isCurrent: () => boolean
  /** what is known at subscription, then keys whose status changed, as it changes */
  readonly changes: Stream.Stream<{ readonly key: string; readonly status: ObservedLease }>
  /** Closes an expired lease after a fresh read. `Alive` where it had been renewed after all. Idempotent. */
  readonly close: (key: string, options?: CloseOptions) => Effect.Effect<"Closed" | "Alive", LeaseError>
}

export interface CloseOptions {
  /** Does not wait for expiry: for a death that is certain (nobody can act for that lease any more) and nothing else. */
  readonly certain?: boolean | undefined
  /**
   * Does not wait for expiry, but for that part of the lease's own duration, of proven time without a renewal: where something else makes
   * a death all but certain, and a renewal would deny it. An owner renews at most a third apart, so less than that denies nothing.
   */
  readonly share?: number | undefined
  /** who closes it and why, kept in the closed record for people */
  readonly word?: { readonly by: string; readonly reason: string } | undefined
}

/** Attempts of one renewal or closing before it is left to the next one: each that is repeated at once has learned something. */
const maxAttempts = 5

/**
 * Takes a fresh key as a lease and keeps renewing it for as long as the scope lives. The end of the scope stops renewing and
 * nothing else: the lease lapses by itself, or `close` has said goodbye before. `Fenced` where the key is taken already.
 */
export const hold: (store: ControlStoreService, options: {
  readonly key: string
  readonly duration: Duration.Input
  /** how long the first taking is tried while the store is away or does not say what became of it; default: two repetitions */
  readonly patience?: Duration.Input | undefined
  /**
   * Asked when the key is missing: is this still the store in which it was taken? In the same store a missing lease is closed;
   * in one that was emptied or replaced it merely lapses, until `restore`. Default: yes.
   */
  readonly sameStore?: Effect.Effect<boolean, StoreUnavailable | InvalidData> | undefined
}) => Effect.Effect<HeldLease, Fenced | LeaseError, Scope.Scope> = Effect.fnUntraced(function*(store, options) {
  const { key } = options
  const duration = Duration.fromInputUnsafe(options.duration)
  const millis = Duration.toMillis(duration)
  const deadline = Owner.callDeadline(millis)
  const clock = yield* Clock.Clock
  const instant = (): Owner.Instant => ({
    now: Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000,
    wall: clock.currentTimeMillisUnsafe()
  })

  let core = Owner.initial(yield* randomHex(16), millis)
  const stateOf = (): LeaseState =>
    core.phase === "Closed" || core.leaving ? "Closed" : Owner.isValid(core, instant()) ? "Held" : "Lapsed"
  const told = yield* SubscriptionRef.make<LeaseState>("Lapsed")
  const closed = yield* Deferred.make<void>()
  const lapse = yield* FiberHandle.make()
  // A closed handle would interrupt whoever renews, or says goodbye, after the scope has ended.
  let scopeEnded = false
  yield* Effect.addFinalizer(() => Effect.sync(() => void (scopeEnded = true)))
  const oneAtATime = yield* Semaphore.make(1)
  const wake = yield* Queue.sliding<void>(1)

  const tell = Effect.suspend(() => {
    const state = stateOf()
    return SubscriptionRef.get(told).pipe(
      Effect.flatMap((last) => last === state ? Effect.void : SubscriptionRef.set(told, state)),
      Effect.andThen(state === "Closed" ? Deferred.succeed(closed, void 0) : Effect.void),
      Effect.asVoid
    )
  })
  /** A sleep may end a moment too early, and then there is nothing to tell yet. */
  const tellLapse: Effect.Effect<void> = Effect.suspend(() => {
    const left = core.validUntil - instant().now
    return left > 0 ? Effect.andThen(Effect.sleep(Duration.millis(Math.ceil(left))), tellLapse) : tell
  })
  /** Only tells of a lapse; whether the owner may act is compared when it acts. */
  const armLapse = Effect.suspend(() => scopeEnded ? Effect.void : FiberHandle.run(lapse, tellLapse))
  const advance = (event: Owner.OwnerEvent): ReadonlyArray<Owner.OwnerCommand> => {
    const [next, commands] = Owner.step(core, event)
    core = next
    return commands
  }
  const fenced = () => new Fenced({ what: `lease ${key}`, ours: core.writer, current: "closed or taken by another" })

  const foreign = new StoreUnavailable({
    operation: `read of ${key}`,
    reason: "the store is not the one it was taken in"
  })
  const readOrForeign = attemptRead(store, key, deadline).pipe(
    Effect.tap((entry) =>
      Option.isSome(entry) || options.sameStore === undefined
        ? Effect.void
        : Effect.flatMap(options.sameStore, (same) => same ? Effect.void : Effect.fail(foreign))
    )
  )

  /** Performs the core's commands until it is done; `error` is why the last attempt could not be settled. */
  const perform = (
    commands: ReadonlyArray<Owner.OwnerCommand>,
    again: () => Owner.OwnerEvent,
    attempts: number,
    error: LeaseError
  ): Effect.Effect<void, Fenced | LeaseError> => {
    const command = commands[0]
    if (command === undefined) return Effect.void
    switch (command._tag) {
      case "Done":
        return Effect.void
      case "Lost":
        return Effect.suspend(() => Effect.fail(fenced()))
      case "Unsettled":
        return Effect.fail(error)
      case "Again":
        return attempts >= maxAttempts
          ? Effect.fail(error)
          : Effect.suspend(() => perform(advance(again()), again, attempts + 1, error))
      case "Read":
        return Effect.result(readOrForeign).pipe(Effect.flatMap((read) => {
          if (read._tag === "Failure") {
            return perform(advance({ _tag: "ReadFailed" }), again, attempts, asUnknown(read.failure))
          }
          const event: Owner.OwnerEvent = Option.isNone(read.success) ? { _tag: "ReadMissing" } : {
            _tag: "Read",
            at: instant(),
            revision: read.success.value.revision,
            record: decodeLease(read.success.value.value)
          }
          return perform(advance(event), again, attempts, error)
        }))
      case "Write":
        return attemptWrite(store, key, encodeLease(command.record), command.expected, deadline).pipe(
          Effect.flatMap((outcome) =>
            perform(advance(outcome), again, attempts, "error" in outcome ? outcome.error : error)
          )
        )
    }
  }
  // A conflict that a read could not explain: perhaps it was our own earlier write.
  const unexplained = new OutcomeUnknown({ operation: `renewal of ${key}`, reason: "a conflict, not yet explained" })
  const asUnknown = (error: StoreUnavailable | InvalidData): LeaseError =>
    error._tag === "InvalidData" ? error : new OutcomeUnknown({ operation: error.operation, reason: error.reason })

  const run = (start: () => Owner.OwnerEvent): Effect.Effect<void, Fenced | LeaseError> =>
    oneAtATime.withPermit(
      Effect.suspend(() => perform(advance(start()), start, 1, unexplained)).pipe(
        // interrupted in mid-write: the outcome is unknown, and the core must not wait for its answer
        Effect.onInterrupt(() =>
          Effect.sync(() => {
            if (core.inFlight !== undefined) advance({ _tag: "Unknown" })
          })
        ),
        Effect.ensuring(Effect.andThen(tell, armLapse))
      )
    )

  const renew = run(() => ({ _tag: "Renew", at: instant() }))
  const restore = run(() => {
    advance({ _tag: "Forgotten" })
    return { _tag: "Renew", at: instant() }
  })
  const fence = Effect.suspend(() => {
    advance({ _tag: "SeenClosed" })
    return tell
  })
  const close = run(() => ({ _tag: "Leave", at: instant() })).pipe(
    // closed by whomever, it is closed
    Effect.catchTag("Fenced", () => Effect.void)
  )

  const firstWait = Schedule.exponential(Duration.millis(millis / 40))
  // The same core tries again: what an earlier try may have written is recognised as its own.
  yield* options.patience === undefined
    ? Effect.retry(renew, { times: 2, while: (error) => error._tag === "OutcomeUnknown", schedule: firstWait })
    : Effect.retry(renew, {
      while: (error) => error._tag === "OutcomeUnknown" || error._tag === "StoreUnavailable",
      schedule: Schedule.max([
        Schedule.min([firstWait, Schedule.spaced(Duration.millis(millis / 8))]).pipe(Schedule.jittered),
        Schedule.during(options.patience)
      ])
    })

  // Between two tries of one renewal: short against D, so that a store that comes back in time finds us still holding.
  const backoff = Schedule.min([
    Schedule.exponential(Duration.millis(millis / 60)),
    Schedule.spaced(Duration.millis(millis / 8))
  ]).pipe(Schedule.jittered)
  const renewed = Effect.retry(renew, ($) => $(backoff).pipe(Schedule.while(({ input }) => input._tag !== "Fenced")))
    .pipe(
      Effect.ignore
    )
  // with jitter at most D/3 apart
  const period = Schedule.spaced(Duration.millis(Owner.renewalPeriod(millis))).pipe(Schedule.jittered)
  const whileOpen = Effect.sync(() => core.phase !== "Closed" && !core.leaving)
  yield* Effect.sleep(Duration.millis(Owner.renewalPeriod(millis))).pipe(
    Effect.andThen(
      Effect.repeat(renewed, ($) => $(period).pipe(Schedule.while(() => whileOpen)))
    ),
    Effect.raceFirst(Deferred.await(closed)),
    Effect.forkScoped
  )
  // A clock that jumped pauses the owner; whoever meets the pause asks for a renewal at once.
  yield* Queue.take(wake).pipe(
    Effect.andThen(Effect.ignore(renew)),
    Effect.forever,
    Effect.raceFirst(Deferred.await(closed)),
    Effect.forkScoped
  )

  const isValid = () => {
    const at = instant()
    if (Owner.isValid(core, at)) return true
    if (Owner.isPaused(core, at)) Queue.offerUnsafe(wake, void 0)
    return false
  }
  return {
    key,
    duration,
    isValid,
    remaining: () => isValid() ? Math.max(0, core.validUntil - instant().now) : 0,
    state: Effect.sync(stateOf),
    changes: SubscriptionRef.changes(told),
    closed: Deferred.await(closed),
    renew,
    restore,
    fence,
    close
  }
})

/**
 * Runs what only the holder may do. As soon as the owner may not act any more, because the lease lapsed or was closed, it is
 * interrupted and ends as `Fenced`; it does not begin where that is so already. Whether the scope of the `hold` still lives makes no
 * difference. The interruption comes by a timer, and what ran may finish in the same moment: whatever must never overlap with a successor
 * compares `isValid` at each step, too.
 */
export const whileHeld = <A, E, R>(lease: HeldLease, use: Effect.Effect<A, E, R>): Effect.Effect<A, E | Fenced, R> => {
  const lost = Effect.flatMap(
    lease.state,
    (state) => Effect.fail(new Fenced({ what: `lease ${lease.key}`, ours: "Held", current: state }))
  )
  const told = lease.changes.pipe(Stream.filter(() => !lease.isValid()), Stream.take(1), Stream.runDrain)
  // Counted here, too: once the scope of its `hold` has ended, nobody tells of a lapse.
  const lapsed: Effect.Effect<void> = Effect.suspend(() => {
    const left = lease.remaining()
    return left > 0 ? Effect.andThen(Effect.sleep(Duration.millis(Math.ceil(left))), lapsed) : Effect.void
  })
  return Effect.suspend(() =>
    lease.isValid() ? Effect.raceFirst(use, Effect.andThen(Effect.raceFirst(told, lapsed), lost)) : lost
  )
}

/** Watches all leases under a prefix for as long as the scope lives. Values that are no leases are skipped and logged. */
export const observe: (
  store: ControlStoreService,
  prefix: string
) => Effect.Effect<LeaseObserver, never, Scope.Scope> = Effect.fnUntraced(function*(store, prefix) {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const writer = yield* randomHex(16)
  const hub = yield* PubSub.unbounded<Observer.StatusChange>()
  let core = Observer.initial
  let operations = 0

  yield* store.watch(prefix).pipe(
    Stream.runForEach((event) =>
      Effect.suspend(() => {
        const before = core
        const [after, foreign] = Observer.step(before, event, now())
        core = after
        for (const change of Observer.changes(before, after)) PubSub.publishUnsafe(hub, change)
        return foreign.length === 0
          ? Effect.void
          : Effect.logWarning(`skipped values that are no leases: ${foreign.join(", ")}`)
      })
    ),
    Effect.forkScoped({ startImmediately: true })
  )

  const close: LeaseObserver["close"] = (key, options) =>
    Effect.gen(function*() {
      const certain = options?.certain === true
      const seen = core.leases.get(key)
      const duration = seen?.duration ?? 10_000
      for (let attempt = 0; attempt < maxAttempts; attempt++) {
        const read = yield* attemptRead(store, key, Owner.callDeadline(duration))
        const decision = Observer.decideClose(core, key, Option.getOrUndefined(read), certain, options?.share)
        if (decision._tag !== "CloseAt") return decision._tag
        const previous = Option.isSome(read) ? decodeLease(read.value.value) : undefined
        const value = encodeLease({
          state: "Closed",
          counter: (previous?.counter ?? 0) + 1,
          duration: previous?.duration ?? duration,
          writer,
          operation: ++operations,
          ...(options?.word === undefined ? {} : { closed: options.word })
        })
        const outcome = yield* attemptWrite(store, key, value, decision.expected, Owner.callDeadline(duration))
        if (outcome._tag === "Written") return "Closed"
        if (outcome._tag !== "Conflict") return yield* outcome.error
        // somebody was faster: the next read says whether by renewing or by closing
      }
      return yield* new OutcomeUnknown({ operation: `closing of ${key}`, reason: "the key changed at each attempt" })
    })

  return {
    status: (key) => Observer.status(core, key),
    remaining: (key) => {
      const lease = core.leases.get(key)
      return lease === undefined || lease.closed ? undefined : Observer.remaining(lease, core.provenAt ?? lease.since)
    },
    isCurrent: () => core.provenAt !== undefined && now() - core.provenAt <= Observer.maxProofGap,
    changes: Stream.unwrap(Effect.gen(function*() {
      const subscription = yield* PubSub.subscribe(hub)
      const known = Array.from(core.leases.keys(), (key) => ({ key, status: Observer.status(core, key) }))
      return Stream.concat(Stream.fromIterable(known), Stream.fromSubscription(subscription))
    })),
    close
  }
})

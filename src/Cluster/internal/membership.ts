/**
 * This node's membership: record and lease, joining, the one way to change the view, and the end of this incarnation. What the
 * store says is kept by `known.ts`.
 *
 * Invariant: every change is a compare-and-set of the view that was the base of the decision; nothing is written once the lease is
 * lapsed or closed.
 */
import { Deferred, Duration, Effect, Option, Queue, Schedule, type Scope, Semaphore, Stream } from "effect"
import type { ActorHost } from "../../Actor/ActorHost.ts"
import { type NodeAddress, nodeKey } from "../../Actor/Address.ts"
import { Fenced, type InvalidData, OutcomeUnknown, ProtocolMismatch, StoreUnavailable } from "../../Actor/errors.ts"
import { Node, randomHex } from "../../Actor/Node.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import {
  ControlStore,
  type ControlStoreService,
  type Revision,
  type WriteError
} from "../../ControlPlane/ControlStore.ts"
import * as ControlStoreModule from "../../ControlPlane/ControlStore.ts"
import * as Lease from "../../ControlPlane/Lease.ts"
import type { Listening } from "../../Remoting/Transport.ts"
import { leastLease, withLease } from "../ClusterSettings.ts"
import type { ClusterSettings, MemberSettings } from "../ClusterSettings.ts"
import * as Keys from "./keys.ts"
import * as Known from "./known.ts"
import { type ClusterRecord, decodeCluster, encodeCluster, type MemberRecord } from "./records.ts"
import type { Snapshot } from "./snapshot.ts"
import * as View from "./view.ts"

interface ClusterEntry {
  readonly record: ClusterRecord
  readonly revision: Revision
}

export type ChangeError = StoreUnavailable | OutcomeUnknown | InvalidData | Fenced

/** Attempts of one change of the view before the caller decides again. */
const maxAttempts = 20

export interface Membership {
  readonly self: NodeAddress
  /** `id@incarnation` of this node */
  readonly key: string
  readonly keys: Keys.Keys
  readonly store: ControlStoreService
  readonly settings: MemberSettings
  /** where this node listens, as far as that is known */
  readonly listening: Listening | undefined
  readonly lease: Lease.HeldLease
  readonly observer: Lease.LeaseObserver
  readonly current: () => Snapshot
  /** the snapshot now and after each change */
  readonly changes: Stream.Stream<Snapshot>
  /** called at the very moment of each change, before anything else of this node can run */
  readonly onChange: (listener: (now: Snapshot, before: Snapshot) => void) => void
  /** may this node do exclusive work now? */
  readonly mayAct: () => boolean
  /** has this incarnation ended for good? */
  readonly isOver: () => boolean
  readonly over: Deferred.Deferred<string>
  /** makes this node an Up member; tries for `bootstrapTimeout` */
  readonly join: Effect.Effect<void, ChangeError>
  /**
   * Applies a pure step to the newest view until it is in the store, or changes nothing. `unguarded`: also without a valid
   * lease, for the own goodbye only.
   */
  readonly change: (
    step: (view: View.View) => View.View,
    options?: { readonly unguarded?: boolean | undefined }
  ) => Effect.Effect<void, ChangeError>
  /** each time when the store shows less than this member knows; `reseed.ts` looks into it */
  readonly doubts: Queue.Dequeue<void>
  readonly isLost: Effect.Effect<boolean, StoreUnavailable | InvalidData>
  /** grants and takes nothing over until a view that is at least as new as the known one is seen in the store */
  readonly freeze: (reason: string) => void
  readonly isFrozen: () => boolean
  /** writes that view as the first of the next generation; `Foreign`: the store belongs to another cluster */
  readonly seed: (best: View.View) => Effect.Effect<"Seeded" | "Foreign", WriteError>
  /** writes this member's own record, kinds and lease again */
  readonly restore: Effect.Effect<void>
  /** reads the view from the store, e.g. when a peer knows a newer one */
  readonly refresh: Effect.Effect<void>
}

const backoff = (base: Duration.Input, cap: Duration.Input) =>
  Schedule.min([Schedule.exponential(base), Schedule.spaced(cap)]).pipe(Schedule.jittered)

export const make = Effect.fnUntraced(function*(
  given: ClusterSettings,
  host: ActorHost["Service"],
  listening: Listening | undefined
) {
  const node = yield* Node
  const gap = (yield* ControlStore).capabilities.failoverMillis
  const settings = withLease(given, gap)
  const leaseMillis = Duration.toMillis(settings.memberLease)
  const store = ControlStoreModule.withDeadline(
    yield* ControlStore,
    Duration.millis(Math.min(Duration.toMillis(settings.requestTimeout), leaseMillis / 4))
  )
  const self = node.address
  const key = nodeKey(self)
  const keys = Keys.make(node.system, self.dataCenter)

  const known = yield* Known.make(store, keys)
  if (leaseMillis < leastLease(gap)) {
    yield* Effect.logWarning(
      `memberLease of ${leaseMillis} ms is short for this store, which may take ${gap} ms to fail over: ` +
        `members may lapse meanwhile; at least ${leastLease(gap)} ms is advised`
    )
  }
  const over = yield* Deferred.make<string>()
  const isOver = () => Deferred.isDoneUnsafe(over)

  // ---- the cluster's id, once for ever
  const patience = Schedule.max([
    backoff("50 millis", "1 second"),
    Schedule.during(settings.bootstrapTimeout)
  ])
  const transient = (error: { readonly _tag: string }) =>
    error._tag === "StoreUnavailable" || error._tag === "OutcomeUnknown"
  const clusterId = yield* Effect.gen(function*() {
    const existing = yield* store.get(keys.id)
    if (Option.isSome(existing)) return existing.value.value
    const value = encodeCluster({ id: yield* randomHex(16), partitionCount: settings.partitionCount, generation: 0 })
    return yield* store.create(keys.id, value).pipe(
      Effect.as(value),
      Effect.catchTag(
        "RevisionConflict",
        () =>
          Effect.fail(new StoreUnavailable({ operation: "create the cluster", reason: "another node creates it now" }))
      )
    )
  }).pipe(Effect.retry({ schedule: patience, while: transient }))
  const cluster = yield* decodeCluster(clusterId)
  if (Option.isNone(cluster)) {
    return yield* new ProtocolMismatch({ what: "cluster record", ours: "a cluster id", theirs: clusterId })
  }
  if (cluster.value.partitionCount !== settings.partitionCount) {
    return yield* new ProtocolMismatch({
      what: "cluster.partitionCount",
      ours: String(settings.partitionCount),
      theirs: String(cluster.value.partitionCount)
    })
  }

  const readCluster = store.get(keys.id).pipe(Effect.flatMap((entry) =>
    Option.isNone(entry)
      ? Effect.succeed(Option.none<ClusterEntry>())
      : Effect.map(
        decodeCluster(entry.value.value),
        Option.map((record) => ({ record, revision: entry.value.revision }))
      )
  ))

  // ---- record and lease, before the view knows of us
  const record: MemberRecord = {
    node: self,
    roles: settings.roles,
    partitionCount: settings.partitionCount,
    ...(listening === undefined ? {} : { listening })
  }
  const writeRecord = store.create(keys.member(key), JSON.stringify(record)).pipe(
    // The key holds a fresh incarnation: if it is taken, an earlier try of ours has taken it.
    Effect.catchTag("RevisionConflict", () => Effect.void),
    Effect.retry({ schedule: patience, while: transient })
  )
  yield* writeRecord
  const lease = yield* Lease.hold(store, {
    key: keys.lease(key),
    duration: settings.memberLease,
    patience: settings.bootstrapTimeout,
    sameStore: Effect.map(readCluster, (found) =>
      Option.isSome(found) && found.value.record.id === cluster.value.id &&
      found.value.record.generation === (known.current().view?.generation ?? cluster.value.generation))
  })
  // Goodbye or not: after this its port closes, and whoever sees that refuse takes this member for dead.
  yield* Effect.addFinalizer(() => lease.fence)
  known.remember(record)
  const observer = yield* Lease.observe(store, keys.leasePrefix)

  // ---- the one way to change the view
  const attempt = (
    decide: (view: View.View) => View.View,
    unguarded: boolean
  ): Effect.Effect<boolean, ChangeError> =>
    Effect.gen(function*() {
      const base = known.current().view ?? View.empty(cluster.value.id, settings.partitionCount)
      const next = decide(base)
      if (next === base) return true
      const frozen = known.frozen()
      if (frozen !== undefined) return yield* new StoreUnavailable({ operation: "change the view", reason: frozen })
      if (!unguarded && isOver()) {
        return yield* new Fenced({ what: `member ${key}`, ours: key, current: "its lease is closed" })
      }
      if (!unguarded && !lease.isValid()) {
        return yield* new StoreUnavailable({ operation: "change the view", reason: "this member's lease has lapsed" })
      }
      const text = View.encode(next)
      const revision = known.revision()
      const write = revision === undefined ? store.create(keys.view, text) : store.update(keys.view, text, revision)
      return yield* write.pipe(
        Effect.map((written) => {
          known.written(next, written)
          return true
        }),
        // Lost the race, or perhaps not: either way the next decision is made on what the store holds now.
        Effect.catchTag("RevisionConflict", () => Effect.as(known.read, false)),
        Effect.catchTag("OutcomeUnknown", () => Effect.as(known.read, false))
      )
    })
  const oneAtATime = yield* Semaphore.make(1)
  const change: Membership["change"] = (decide, options) =>
    oneAtATime.withPermit(attempt(decide, options?.unguarded === true)).pipe(
      Effect.flatMap((done) =>
        done ? Effect.void : Effect.fail(new OutcomeUnknown({ operation: "change the view", reason: "contended" }))
      ),
      Effect.retry({
        times: maxAttempts,
        schedule: backoff("10 millis", "250 millis"),
        while: (error) => error._tag === "OutcomeUnknown"
      })
    )

  // ---- follow the store
  yield* store.watch(keys.state).pipe(Stream.runForEach(known.onEvent), Effect.forkScoped({ startImmediately: true }))
  yield* Effect.retry(known.read, { schedule: patience, while: transient })
  const found = known.current().view?.cluster
  if (found !== undefined && found !== cluster.value.id) {
    return yield* new ProtocolMismatch({ what: "cluster id", ours: cluster.value.id, theirs: found })
  }
  const join = Effect.retry(change((view) => View.join(view, self)), { schedule: patience, while: transient })

  // ---- kinds follow registration, in a key of their own
  const advertise = yield* Queue.sliding<ReadonlyArray<string>>(1)
  yield* host.kindChanges.pipe(
    Stream.runForEach((kinds) => Queue.offer(advertise, kinds)),
    Effect.forkScoped({ startImmediately: true })
  )
  let kindsRevision: string | undefined
  const writeKinds = (kinds: ReadonlyArray<string>) => {
    const value = JSON.stringify([...kinds].sort())
    const kindsKey = keys.kinds(key)
    return Effect.gen(function*() {
      kindsRevision = yield* kindsRevision === undefined
        ? store.create(kindsKey, value)
        : store.update(kindsKey, value, kindsRevision)
    }).pipe(
      // This node is the only writer of the key: a conflict is an earlier write of its own.
      Effect.tapError((error) =>
        error._tag === "RevisionConflict" || error._tag === "OutcomeUnknown"
          ? store.get(kindsKey).pipe(
            Effect.map((entry) => {
              kindsRevision = Option.isSome(entry) ? entry.value.revision : undefined
            }),
            Effect.ignore
          )
          : Effect.void
      ),
      Effect.retry(backoff("50 millis", "2 seconds"))
    )
  }
  yield* Queue.take(advertise).pipe(Effect.flatMap(writeKinds), Effect.forever, Effect.forkScoped)

  // ---- the end of this incarnation, from whoever saw it
  const end = (reason: string) => Deferred.succeed(over, reason)
  yield* lease.closed.pipe(Effect.andThen(end("its lease is closed")), Effect.forkScoped)
  let joined = false
  known.onChange((now) => {
    if (now.view === undefined) return
    const alive = View.isMember(now.view, key)
    if (joined && !alive) Deferred.doneUnsafe(over, Effect.succeed("its cluster has declared it dead"))
    joined ||= alive
  })

  // ---- a store that forgets: what this member knows goes back into it, once it is certain that it is gone
  const restore = Effect.gen(function*() {
    yield* writeRecord
    kindsRevision = undefined
    yield* Queue.offer(advertise, Array.from(host.kinds().keys()))
    yield* lease.restore
  }).pipe(Effect.catch((error) => Effect.logWarning(`restoring this member in the store failed: ${error._tag}`)))
  const seed = (best: View.View) =>
    Effect.gen(function*() {
      const found = yield* readCluster
      const next = { ...cluster.value, generation: best.generation + 1 }
      if (Option.isNone(found)) yield* store.create(keys.id, encodeCluster(next))
      else if (found.value.record.id !== cluster.value.id) return "Foreign" as const
      else if (found.value.record.generation < next.generation) {
        yield* store.update(keys.id, encodeCluster(next), found.value.revision)
      }
      const entry = yield* store.get(keys.view)
      const text = View.encode(View.reseeded(best))
      const held = Option.isNone(entry) ? Option.none<View.View>() : yield* View.decode(entry.value.value)
      if (Option.isSome(held) && held.value.number >= best.number) {
        yield* known.read
        return "Seeded" as const
      }
      yield* Option.isNone(entry) ? store.create(keys.view, text) : store.update(keys.view, text, entry.value.revision)
      yield* known.read
      return "Seeded" as const
    })
  /** Does the store really hold less than this member knows? Asked again after a while, since a replica may lag. */
  const isLost = Effect.gen(function*() {
    const ours = known.current().view
    const entry = yield* store.get(keys.view)
    if (ours === undefined) return false
    if (Option.isNone(entry)) return true
    const view = yield* View.decode(entry.value.value)
    return Option.isSome(view) && view.value.cluster === ours.cluster && view.value.number < ours.number
  })
  yield* Deferred.await(over).pipe(Effect.andThen(lease.fence), Effect.forkScoped)

  const membership: Membership = {
    self,
    key,
    keys,
    store,
    settings,
    listening,
    lease,
    observer,
    current: known.current,
    changes: Stream.fromPubSub(known.hub),
    onChange: known.onChange,
    mayAct: () => known.frozen() === undefined && !isOver() && lease.isValid(),
    isOver,
    over,
    join,
    change,
    doubts: known.doubts,
    isLost,
    freeze: known.freeze,
    isFrozen: () => known.frozen() !== undefined,
    seed,
    restore,
    refresh: Effect.ignore(known.read)
  }
  return membership
}) satisfies (
  settings: ClusterSettings,
  host: ActorHost["Service"],
  listening: Listening | undefined
) => Effect.Effect<
  Membership,
  ChangeError | ProtocolMismatch,
  Scope.Scope | Node | SystemEvents | ControlStore
>

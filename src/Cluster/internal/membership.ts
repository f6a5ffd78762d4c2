/**
 * This node's membership: the state prefix of the store as last known, the lease, joining, and the one way to change the view.
 *
 * Invariant: what is known only moves forward (`View.accepts`); every change is a compare-and-set of the view that was the base
 * of the decision; nothing is written once the lease is lapsed or closed.
 */
import {
  Deferred,
  Duration,
  Effect,
  Option,
  PubSub,
  Queue,
  Schedule,
  Schema,
  type Scope,
  Semaphore,
  Stream
} from "effect"
import type { ActorHost } from "../../Actor/ActorHost.ts"
import { NodeAddress, nodeKey } from "../../Actor/Address.ts"
import { Fenced, type InvalidData, OutcomeUnknown, ProtocolMismatch, StoreUnavailable } from "../../Actor/errors.ts"
import { Node, randomHex } from "../../Actor/Node.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import {
  ControlStore,
  type ControlStoreService,
  type Entry,
  type Revision,
  type WatchEvent,
  type WriteError
} from "../../ControlPlane/ControlStore.ts"
import * as ControlStoreModule from "../../ControlPlane/ControlStore.ts"
import * as Lease from "../../ControlPlane/Lease.ts"
import type { ClusterSettings } from "../ClusterSettings.ts"
import * as Keys from "./keys.ts"
import { emptySnapshot, type Snapshot } from "./snapshot.ts"
import * as View from "./view.ts"

/** What a member is: written before it joins, never changed. */
export const MemberRecord = Schema.Struct({
  node: NodeAddress,
  roles: Schema.Array(Schema.String),
  partitionCount: Schema.Int
})
export type MemberRecord = typeof MemberRecord.Type

const ClusterRecord = Schema.Struct({ id: Schema.String, partitionCount: Schema.Int, generation: Schema.Int })

const json = <S extends Schema.Top & { readonly DecodingServices: never }>(schema: S) => {
  const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(schema))
  return (text: string) => decode(text).pipe(Effect.option)
}
const decodeMember = json(MemberRecord)
const decodeCluster = json(ClusterRecord)
const encodeCluster = (record: typeof ClusterRecord.Type) => JSON.stringify(record)
const decodeKinds = json(Schema.Array(Schema.String))

interface ClusterEntry {
  readonly record: typeof ClusterRecord.Type
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
  readonly settings: ClusterSettings
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

export const make = Effect.fnUntraced(function*(settings: ClusterSettings, host: ActorHost["Service"]) {
  const node = yield* Node
  const events = yield* SystemEvents
  const leaseMillis = Duration.toMillis(settings.memberLease)
  const store = ControlStoreModule.withDeadline(
    yield* ControlStore,
    Duration.millis(Math.min(Duration.toMillis(settings.requestTimeout), leaseMillis / 4))
  )
  const self = node.address
  const key = nodeKey(self)
  const keys = Keys.make(node.system, self.dataCenter)

  // ---- what is known
  let snapshot: Snapshot = emptySnapshot
  let revision: string | undefined
  /** why nothing may be granted: the store shows another cluster, or none */
  let frozen: string | undefined
  const doubts = yield* Queue.sliding<void>(1)
  const over = yield* Deferred.make<string>()
  const isOver = () => Deferred.isDoneUnsafe(over)
  const hub = yield* PubSub.sliding<Snapshot>({ capacity: 1, replay: 1 })
  const listeners: Array<(now: Snapshot, before: Snapshot) => void> = []
  const tell = (next: Snapshot) => {
    if (next === snapshot) return
    const before = snapshot
    snapshot = next
    for (const listener of listeners) listener(next, before)
    PubSub.publishUnsafe(hub, next)
  }
  const applyView = (view: View.View, at: string): Snapshot => {
    const known = snapshot.view
    if (known !== undefined && view.cluster !== known.cluster) {
      frozen = "the store holds another cluster"
      return snapshot
    }
    if (known !== undefined && view.number < known.number) {
      // A stale answer, or a store that forgot what it acknowledged: a later look will tell.
      Queue.offerUnsafe(doubts, void 0)
      return snapshot
    }
    frozen = undefined
    if (!View.accepts(known, view)) return snapshot
    revision = at
    return { ...snapshot, view }
  }
  const decodeEntry = (entry: Entry): Effect.Effect<(base: Snapshot) => Snapshot> => {
    if (entry.key === keys.view) {
      return View.decode(entry.value).pipe(Effect.flatMap((decoded) =>
        Option.isSome(decoded)
          ? Effect.succeed((base: Snapshot) => {
            const applied = applyView(decoded.value, entry.revision)
            return { ...base, view: applied.view }
          })
          : Effect.as(trouble("the view in the store cannot be read"), (base: Snapshot) => base)
      ))
    }
    if (entry.key.startsWith(keys.memberPrefix)) {
      return decodeMember(entry.value).pipe(Effect.map((decoded) => (base: Snapshot) => {
        if (Option.isNone(decoded)) return base
        const records = new Map(base.records).set(nodeKey(decoded.value.node), decoded.value)
        return { ...base, records }
      }))
    }
    if (entry.key.startsWith(keys.kindsPrefix)) {
      return decodeKinds(entry.value).pipe(
        Effect.map((decoded) => (base: Snapshot) =>
          Option.isNone(decoded) ? base : { ...base, kinds: new Map(base.kinds).set(entry.key, decoded.value) }
        )
      )
    }
    return Effect.succeed((base) => base)
  }
  const trouble = (reason: string) =>
    Effect.sync(() => events.publish({ _tag: "StoreTrouble", store: "cluster", reason })).pipe(
      Effect.andThen(Effect.logWarning(`cluster store: ${reason}`))
    )

  /** A listing without the view may be older than the view that we know: only a read that was begun after it says that it is gone. */
  const viewMissing = Effect.suspend(() =>
    snapshot.view === undefined ? Effect.void : store.get(keys.view).pipe(
      Effect.flatMap((entry) => {
        if (Option.isSome(entry)) return Effect.map(decodeEntry(entry.value), (step) => tell(step(snapshot)))
        if (frozen !== undefined) return Effect.void
        frozen = "the store has lost the view"
        Queue.offerUnsafe(doubts, void 0)
        return trouble(frozen)
      }),
      // the watch will say so again
      Effect.catch((error) => Effect.logDebug(`cluster store: ${error._tag}`))
    )
  )
  const onEvent = (event: WatchEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Snapshot":
        return Effect.forEach(event.entries, decodeEntry).pipe(Effect.flatMap((steps) => {
          // Records never change, so those of departed members may stay known; kinds are what the store says now.
          const base: Snapshot = { ...snapshot, kinds: new Map() }
          const next = steps.reduce((current, step) => step(current), base)
          const hasView = event.entries.some((entry) => entry.key === keys.view)
          // A store that is not ours (any more) says nothing about what our members can do.
          tell(frozen === undefined && hasView ? next : { ...snapshot, records: next.records })
          return hasView ? Effect.void : viewMissing
        }))
      case "Put":
        return Effect.map(decodeEntry(event.entry), (step) => tell(step(snapshot)))
      case "Removed":
        if (event.key === keys.view) return viewMissing
        if (event.key.startsWith(keys.memberPrefix)) {
          return Effect.sync(() => {
            const records = new Map(snapshot.records)
            for (const known of snapshot.records.keys()) if (keys.member(known) === event.key) records.delete(known)
            tell({ ...snapshot, records })
          })
        }
        if (event.key.startsWith(keys.kindsPrefix)) {
          return Effect.sync(() => {
            const kinds = new Map(snapshot.kinds)
            kinds.delete(event.key)
            tell({ ...snapshot, kinds })
          })
        }
        return Effect.void
      case "Lost":
        return Effect.logDebug(`cluster store: watch lost: ${event.reason}`)
      case "Current":
        return Effect.void
    }
  }

  const readView = store.get(keys.view).pipe(Effect.flatMap((entry) =>
    Option.isNone(entry)
      ? Effect.void
      : Effect.map(decodeEntry(entry.value), (step) => tell(step(snapshot)))
  ))

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
  const record: MemberRecord = { node: self, roles: settings.roles, partitionCount: settings.partitionCount }
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
      found.value.record.generation === (snapshot.view?.generation ?? cluster.value.generation))
  })
  snapshot = { ...snapshot, records: new Map(snapshot.records).set(key, record) }
  const observer = yield* Lease.observe(store, keys.leasePrefix)

  // ---- the one way to change the view
  const attempt = (
    decide: (view: View.View) => View.View,
    unguarded: boolean
  ): Effect.Effect<boolean, ChangeError> =>
    Effect.gen(function*() {
      const base = snapshot.view ?? View.empty(cluster.value.id, settings.partitionCount)
      const next = decide(base)
      if (next === base) return true
      if (frozen !== undefined) return yield* new StoreUnavailable({ operation: "change the view", reason: frozen })
      if (!unguarded && isOver()) {
        return yield* new Fenced({ what: `member ${key}`, ours: key, current: "its lease is closed" })
      }
      if (!unguarded && !lease.isValid()) {
        return yield* new StoreUnavailable({ operation: "change the view", reason: "this member's lease has lapsed" })
      }
      const text = View.encode(next)
      const write = revision === undefined ? store.create(keys.view, text) : store.update(keys.view, text, revision)
      return yield* write.pipe(
        Effect.map((written) => {
          tell(applyView(next, written))
          return true
        }),
        // Lost the race, or perhaps not: either way the next decision is made on what the store holds now.
        Effect.catchTag("RevisionConflict", () => Effect.as(readView, false)),
        Effect.catchTag("OutcomeUnknown", () => Effect.as(readView, false))
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
  yield* store.watch(keys.state).pipe(Stream.runForEach(onEvent), Effect.forkScoped({ startImmediately: true }))
  yield* Effect.retry(readView, { schedule: patience, while: transient })
  const found = snapshot.view?.cluster
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
  listeners.push((now) => {
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
        yield* readView
        return "Seeded" as const
      }
      yield* Option.isNone(entry) ? store.create(keys.view, text) : store.update(keys.view, text, entry.value.revision)
      yield* readView
      return "Seeded" as const
    })
  /** Does the store really hold less than this member knows? Asked again after a while, since a replica may lag. */
  const isLost = Effect.gen(function*() {
    const known = snapshot.view
    const entry = yield* store.get(keys.view)
    if (known === undefined) return false
    if (Option.isNone(entry)) return true
    const view = yield* View.decode(entry.value.value)
    return Option.isSome(view) && view.value.cluster === known.cluster && view.value.number < known.number
  })
  yield* Deferred.await(over).pipe(Effect.andThen(lease.fence), Effect.forkScoped)

  const membership: Membership = {
    self,
    key,
    keys,
    store,
    settings,
    lease,
    observer,
    current: () => snapshot,
    changes: Stream.fromPubSub(hub),
    onChange: (listener) => void listeners.push(listener),
    mayAct: () => frozen === undefined && !isOver() && lease.isValid(),
    isOver,
    over,
    join,
    change,
    doubts,
    isLost,
    freeze: (reason) => {
      frozen = reason
    },
    isFrozen: () => frozen !== undefined,
    seed,
    restore,
    refresh: Effect.ignore(readView)
  }
  return membership
}) satisfies (
  settings: ClusterSettings,
  host: ActorHost["Service"]
) => Effect.Effect<
  Membership,
  ChangeError | ProtocolMismatch,
  Scope.Scope | Node | SystemEvents | ControlStore
>

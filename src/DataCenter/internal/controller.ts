/**
 * The shell of a datacenter's controller: performs what the cache (`recordCache.ts`) and the plan for the own record
 * (`ownRecord.ts`) say. Its loops are fibers of the Layer's scope: heartbeat, refresh, watch, wishes, and one writer.
 *
 * Invariant: one fiber writes the own record; everything else only kicks it.
 */
import { Clock, Deferred, Duration, Effect, Exit, Option, Queue, Result, Stream, SubscriptionRef } from "effect"
import { endpoint, nodeKey } from "../../Actor/Address.ts"
import {
  AmbiguousDataCenter,
  DataCenterNotReady,
  OutcomeUnknown,
  RecordNotFound,
  SettingInvalid,
  StaleRecords,
  StoreUnavailable
} from "../../Actor/errors.ts"
import { Node } from "../../Actor/Node.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import { Cluster } from "../../Cluster/Cluster.ts"
import {
  ControlPlane,
  type ControlPlaneWriteError,
  dataCenterId,
  type DataCenterRecord
} from "../../ControlPlane/ControlPlane.ts"
import { desiredPrefix } from "../../ControlPlane/ControlPlaneStore.ts"
import { GlobalStore } from "../../ControlPlane/ControlStore.ts"
import type { DataCenters, Known, KnownDataCenter } from "../DataCenters.ts"
import type { DataCenterSettings } from "../DataCenterSettings.ts"
import { decodeWish, type Wish, wishKey, write as writeWish } from "./desired.ts"
import { backoff, every, type Pace } from "./loops.ts"
import * as Own from "./ownRecord.ts"
import * as Cache from "./recordCache.ts"
import { describe, matches, type Selector } from "./selection.ts"

/** Tries of one write of the own record that lost a race and read again. */
const maxAttempts = 5

export const make = (settings: DataCenterSettings) =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
    const plane = yield* ControlPlane
    const store = yield* Effect.serviceOption(GlobalStore)
    const cluster = yield* Cluster
    const node = yield* Node
    const events = yield* SystemEvents
    const pace: Pace = settings

    const dataCenter = {
      name: settings.name,
      ...(settings.region === undefined ? {} : { region: settings.region }),
      ...(settings.zone === undefined ? {} : { zone: settings.zone }),
      labels: settings.labels
    }
    const id = dataCenterId(dataCenter)
    const writer = nodeKey(node.address)
    if (node.address.dataCenter !== settings.name) {
      return yield* new SettingInvalid({
        setting: "dataCenter.name",
        reason: `is ${settings.name}, but this node's address says ${node.address.dataCenter}`
      })
    }
    if (Duration.toMillis(settings.heartbeatInterval) * 3 > Duration.toMillis(plane.ttl)) {
      return yield* new SettingInvalid({
        setting: "dataCenter.heartbeatInterval",
        reason: `${Duration.format(settings.heartbeatInterval)} is more than a third of the control plane's TTL, ${
          Duration.format(plane.ttl)
        }`
      })
    }

    // ---- the cache, on every node

    let cache = Cache.initial
    let wishes: ReadonlyMap<string, Wish> = new Map()
    /** counters of the wishes as they lie in the store */
    let storedWishes: ReadonlyMap<string, number> = new Map()
    const wishesKnown = yield* Deferred.make<void>()
    const ready = yield* Deferred.make<void>()
    const kick = yield* Queue.sliding<void>(1)
    const revision = yield* SubscriptionRef.make(0)

    const ageOf = () => Option.map(Option.fromUndefinedOr(Cache.age(cache, now())), Duration.millis)
    const isStale = () => {
      const age = Cache.age(cache, now())
      return age === undefined || age > Duration.toMillis(settings.maxCacheStaleness)
    }
    const see = (entry: Cache.CachedRecord): KnownDataCenter => {
      const left = Cache.remaining(cache, entry)
      const wish = wishes.get(entry.record.id)
      return {
        record: { ...entry.record, lease: { ...entry.record.lease, remaining: Duration.millis(left) } },
        reachable: left > 0 && (entry.record.state === "ACTIVE" || entry.record.state === "DRAINING"),
        routable: left > 0 && entry.record.state === "ACTIVE" && wish?.state !== "DRAINED",
        ...(wish === undefined ? {} : { wish: { state: wish.state, by: wish.by, reason: wish.reason } })
      }
    }
    const known = (): Known => ({
      dataCenters: Array.from(cache.records.values(), see).sort((a, b) =>
        a.record.id < b.record.id ? -1 : a.record.id > b.record.id ? 1 : 0
      ),
      age: ageOf(),
      stale: isStale()
    })

    /** Takes a new cache and tells what changed by it. */
    const accept = (next: Cache.Cache) =>
      Effect.suspend(() => {
        const before = cache
        const wasStale = isStale()
        cache = next
        let changed = wasStale !== isStale()
        for (const key of new Set([...before.records.keys(), ...next.records.keys()])) {
          const was = Cache.statusOf(before, key)
          const is = Cache.statusOf(next, key)
          if (was === is) continue
          changed = true
          const name = (next.records.get(key) ?? before.records.get(key))!.record.dataCenter.name
          if (is === undefined || is === "EXPIRED") {
            if (was === undefined || was === "EXPIRED") continue // it was not there before either
            const reason = is === undefined ? "deregistered" : "its lease ran out"
            events.publish({ _tag: "DataCenterGone", dataCenter: name, reason })
          } else events.publish({ _tag: "DataCenterChanged", dataCenter: name, state: is })
          if (key === id) Queue.offerUnsafe(kick, void 0)
        }
        return (changed ? SubscriptionRef.update(revision, (n) => n + 1) : Effect.void).pipe(
          Effect.andThen(next.currentAt === undefined ? Effect.void : Deferred.succeed(ready, void 0))
        )
      })

    const lateRead = (operation: string) => ({
      duration: settings.requestTimeout,
      orElse: () => Effect.fail(new StoreUnavailable({ operation, reason: "no answer in time" }))
    })
    const lateWrite = (operation: string) => ({
      duration: settings.requestTimeout,
      orElse: () => Effect.fail(new OutcomeUnknown({ operation, reason: "no answer in time" }))
    })

    let troubled = false
    const refresh = Effect.gen(function*() {
      const read = { after: cache.sequence, sentAt: now() }
      const records = yield* plane.list.pipe(Effect.timeoutOrElse(lateRead("list of datacenters")))
      yield* accept(Cache.refreshed(cache, records, read))
      troubled = false
    }).pipe(
      Effect.tapError((error) => {
        if (troubled) return Effect.void
        troubled = true // once an outage, not once a try
        events.publish({ _tag: "StoreTrouble", store: "control plane", reason: error.reason })
        return Effect.logWarning(`datacenters cannot be refreshed: ${error.reason}`)
      })
    )

    // ---- this datacenter's own record

    let formed = false
    let led = false
    let closing = false
    /** is the cached own record not to be trusted: a write of ours met another version, or none */
    let doubtful = true
    let written: string | undefined

    const upMembers = Effect.map(cluster.view, (view) => view.members.filter((member) => member.status === "Up"))
    const endpoints = settings.endpoints.length > 0
      ? Effect.succeed(Own.sortedEndpoints(settings.endpoints))
      : Effect.map(upMembers, (members) => Own.sortedEndpoints(members.map((member) => endpoint(member.node))))
    const heartbeat = plane.heartbeat(id, writer).pipe(Effect.timeoutOrElse(lateWrite("heartbeat")))

    /** Another cluster that believes to be the same datacenter would fight with us for ever: say so. */
    const tellForeign = (record: DataCenterRecord) =>
      Effect.gen(function*() {
        const members = (yield* cluster.view).members.map((member) => nodeKey(member.node))
        const ours = members.includes(record.writer) || record.writer.startsWith(Own.leavingWriter(""))
        if (written === undefined || record.version === written || ours) return
        const reason = `the record of ${settings.name} was written by ${record.writer}, which is no member here`
        events.publish({ _tag: "StoreTrouble", store: "control plane", reason })
        yield* Effect.logWarning(reason)
      })

    const perform = (command: Own.OwnCommand): Effect.Effect<boolean, ControlPlaneWriteError> => {
      if (command._tag === "Nothing") return Effect.succeed(false)
      const version = command._tag === "Replace" ? command.version : undefined
      return plane.register(command.registration, version).pipe(
        Effect.timeoutOrElse(lateWrite("registration")),
        Effect.tap((next) => {
          written = next
          const lease = { duration: plane.ttl, remaining: plane.ttl }
          return accept(Cache.wrote(cache, { ...command.registration, version: next, lease }))
        }),
        Effect.as(true)
      )
    }

    /** A store that forgot what an operator wants of this datacenter is told again. */
    const reassert = Effect.suspend(() => {
      const wish = wishes.get(id)
      if (Option.isNone(store) || wish === undefined || (storedWishes.get(id) ?? 0) >= wish.counter) return Effect.void
      return writeWish(store.value, { id, state: wish.state, by: wish.by, reason: wish.reason }, wish.counter)
    })

    /** Makes the record say what it should; reads it again wherever a write met something else than it knew. */
    const asLeader = Effect.gen(function*() {
      // A datacenter that was drained before this start must not be routable for a moment.
      if (Option.isSome(store)) {
        yield* Deferred.await(wishesKnown).pipe(Effect.timeoutOrElse(lateRead("wishes of operators")))
      }
      yield* reassert
      for (let attempt = 1;; attempt++) {
        if (doubtful) yield* refresh
        const record = cache.records.get(id)?.record
        if (record !== undefined) yield* tellForeign(record)
        const own = yield* endpoints
        const command = Own.plan({
          id,
          dataCenter,
          endpoints: own,
          formed,
          wish: wishes.get(id)?.state,
          record,
          writer
        })
        // A leader whose own lease has lapsed may have a successor already: it renews, and changes nothing.
        if (command._tag === "Replace" && !cluster.mayAct()) {
          yield* heartbeat
          led = true
          return
        }
        const performed = yield* Effect.result(perform(command))
        if (Result.isSuccess(performed)) {
          doubtful = false
          // a new leader renews at once, whatever time its predecessor left
          if (!performed.success && !led) yield* heartbeat
          led = true
          return
        }
        doubtful = true
        const again = performed.failure._tag === "RevisionConflict" || performed.failure._tag === "RecordNotFound" ||
          performed.failure._tag === "OutcomeUnknown"
        if (!again || attempt >= maxAttempts) return yield* performed.failure
      }
    })

    /** Any Up member may renew a lease that its leader let grow older than half of it. */
    const asMember = Effect.gen(function*() {
      led = false
      doubtful = true
      const own = cache.records.get(id)
      const up = (yield* upMembers).some((member) => nodeKey(member.node) === writer)
      if (own === undefined || !up) return
      if (Cache.remaining(cache, own) >= Duration.toMillis(own.record.lease.duration) / 2) return
      yield* heartbeat
    })

    const reconcile = Effect.suspend(() =>
      closing ?
        Effect.void :
        Effect.flatMap(
          cluster.isLeader,
          (leader): Effect.Effect<void, ControlPlaneWriteError> => leader ? asLeader : asMember
        )
    )

    /**
     * The last member says so, and only the last: a datacenter whose leader restarts has other members, and its record is theirs
     * as much. DRAINING first, so that nobody places anything here while the rest shuts down; INACTIVE says that it is over.
     */
    const goodbye: Effect.Effect<void> = Effect.gen(function*() {
      closing = true
      const { members } = yield* cluster.view
      if (members.some((member) => nodeKey(member.node) !== writer && member.status !== "Dead")) return
      yield* refresh
      const record = cache.records.get(id)?.record
      // drained by an operator: that stays for the next start to find
      if (record === undefined || Own.isDrained(record, wishes.get(id)?.state)) return
      const { lease: _, version, ...registration } = record
      const draining = yield* plane.register(
        { ...registration, state: "DRAINING", writer: Own.leavingWriter(writer) },
        version
      )
      yield* plane.setState(id, "INACTIVE", draining)
    }).pipe(
      Effect.timeoutOrElse(lateWrite("goodbye")),
      Effect.catch((error) => Effect.logWarning(`the datacenter's record could not be made inactive: ${error._tag}`))
    )

    yield* Effect.addFinalizer(() => goodbye)

    // ---- loops

    // While renewals fail they are tried at least each heartbeat interval, so that a plane that is back finds the lease alive.
    const heartbeatPace: Pace = {
      ...pace,
      maxBackoff: Duration.min(settings.maxBackoff, settings.heartbeatInterval)
    }
    yield* every(refresh, settings.cacheRefreshInterval, pace).pipe(Effect.forkScoped)
    if (settings.watchEnabled) {
      yield* plane.watch.pipe(
        Stream.runForEach((event) => Effect.suspend(() => accept(Cache.watched(cache, event, now())))),
        // a watch of somebody's own control plane may end or die, though it should not
        Effect.andThen(Effect.fail("ended")),
        Effect.catchDefect((defect) => Effect.andThen(Effect.logWarning("a watch died", defect), Effect.fail("died"))),
        Effect.retry(backoff(pace)),
        Effect.ignore,
        Effect.forkScoped
      )
    }
    if (Option.isSome(store)) {
      yield* store.value.watch(desiredPrefix).pipe(
        Stream.runForEach((event) => {
          if (event._tag === "Current" || event._tag === "Lost") return Effect.void
          const entries = event._tag === "Snapshot" ? event.entries : event._tag === "Put" ? [event.entry] : []
          const stored = new Map(event._tag === "Snapshot" ? [] : storedWishes)
          const next = new Map(wishes)
          for (const entry of entries) {
            const wish = decodeWish(entry)
            if (wish === undefined) continue
            stored.set(wish.id, wish.counter)
            // Wishes are only ever replaced by later ones: what is missing or older there was lost, not taken back.
            if (wish.counter >= (next.get(wish.id)?.counter ?? 0)) next.set(wish.id, wish)
          }
          if (event._tag === "Removed") {
            for (const wish of next.values()) if (wishKey(wish.id) === event.key) stored.delete(wish.id)
          }
          wishes = next
          storedWishes = stored
          Deferred.doneUnsafe(wishesKnown, Exit.void)
          Queue.offerUnsafe(kick, void 0)
          return SubscriptionRef.update(revision, (n) => n + 1)
        }),
        Effect.forkScoped
      )
    }
    const kicked = Effect.sync(() => void Queue.offerUnsafe(kick, void 0))
    yield* cluster.changes.pipe(Stream.runForEach(() => kicked), Effect.forkScoped)
    yield* every(kicked, settings.leaderCheckInterval, pace).pipe(Effect.forkScoped)
    yield* Effect.retry(cluster.awaitFormed, backoff(pace)).pipe(
      Effect.andThen(Effect.suspend(() => {
        formed = true
        return kicked
      })),
      Effect.ignore,
      Effect.forkScoped
    )
    yield* Queue.take(kick).pipe(
      Effect.andThen(Effect.ignore(Effect.retry(reconcile, backoff(heartbeatPace)))),
      Effect.forever,
      Effect.forkScoped
    )
    const beat = Effect.suspend(() =>
      closing || !led ? Effect.void : Effect.catchTag(heartbeat, "RecordNotFound", () => {
        doubtful = true
        return kicked
      })
    )
    yield* every(beat, settings.heartbeatInterval, heartbeatPace).pipe(Effect.forkScoped)

    // ---- what callers ask

    const usable = Effect.suspend((): Effect.Effect<void, DataCenterNotReady | StaleRecords> => {
      const age = Cache.age(cache, now())
      if (age === undefined) return Effect.fail(new DataCenterNotReady({}))
      const limit = Duration.toMillis(settings.maxCacheStaleness)
      if (age <= limit) return Effect.void
      return settings.failOnStaleCache
        ? Effect.fail(new StaleRecords({ age: Duration.millis(age), limit: settings.maxCacheStaleness }))
        : Effect.logWarning(`datacenter records are ${Math.round(age)} ms old, and used all the same`)
    })
    const reachable = () => known().dataCenters.filter((dataCenter) => dataCenter.reachable).map(({ record }) => record)
    const routable = () => known().dataCenters.filter((dataCenter) => dataCenter.routable).map(({ record }) => record)
    const oneOf = (
      selector: Selector,
      candidates: ReadonlyArray<DataCenterRecord>
    ): Effect.Effect<DataCenterRecord, RecordNotFound | AmbiguousDataCenter> => {
      const matching = candidates.filter((record) => matches(selector, record.dataCenter))
      return matching.length === 1
        ? Effect.succeed(matching[0]!)
        : matching.length === 0
        ? Effect.fail(new RecordNotFound({ dataCenter: describe(selector) }))
        : Effect.fail(
          new AmbiguousDataCenter({ selector: describe(selector), matches: matching.map((record) => record.id) })
        )
    }

    const wish =
      (state: "DRAINED" | "ACTIVE") =>
      (selector: Selector, why: { readonly by?: string | undefined; readonly reason?: string | undefined } = {}) =>
        Effect.gen(function*() {
          if (Option.isNone(store)) {
            return yield* new StoreUnavailable({
              operation: state === "DRAINED" ? "drain" : "activate",
              reason: "this control plane provides no global store"
            })
          }
          yield* usable
          const record = yield* oneOf(selector, known().dataCenters.map(({ record }) => record))
          yield* writeWish(
            store.value,
            { id: record.id, state, by: why.by ?? writer, reason: why.reason ?? "" },
            wishes.get(record.id)?.counter ?? 0
          )
        })

    return {
      self: { ...dataCenter, id },
      ready: Effect.sync(() => cache.currentAt !== undefined),
      lastRefresh: Effect.sync(ageOf),
      known: Effect.sync(known),
      changes: Stream.map(SubscriptionRef.changes(revision), known),
      refresh,
      select: (selector) => Effect.andThen(usable, Effect.suspend(() => oneOf(selector, routable()))),
      reach: (selector) => Effect.andThen(usable, Effect.suspend(() => oneOf(selector, reachable()))),
      reachable: Effect.andThen(usable, Effect.sync(reachable)),
      drain: wish("DRAINED"),
      activate: wish("ACTIVE"),
      await: (name, options) =>
        SubscriptionRef.changes(revision).pipe(
          Stream.filter(() => !isStale() && routable().some((record) => record.dataCenter.name === name)),
          Stream.runHead,
          Effect.timeoutOrElse({
            duration: options?.timeout ?? "30 seconds",
            orElse: () => Effect.fail(new DataCenterNotReady({ dataCenter: name }))
          }),
          Effect.asVoid
        )
    } satisfies DataCenters["Service"]
  })

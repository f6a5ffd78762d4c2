/**
 * What this node knows of all datacenters: the shell around the cache (`recordCache.ts`), and the wishes of operators
 * (`desired.ts`). Every node keeps it; nothing here writes a record.
 *
 * Invariant: wishes are only ever replaced by later ones. One that is missing or older in the store was lost, not taken back.
 */
import { Clock, Deferred, Duration, Effect, Exit, Option, Stream, SubscriptionRef } from "effect"
import { StoreUnavailable } from "../../Actor/errors.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { ControlPlane, ControlPlaneEvent, DataCenterRecord } from "../../ControlPlane/ControlPlane.ts"
import { desiredPrefix } from "../../ControlPlane/ControlPlaneStore.ts"
import type { ControlStoreService, WatchEvent } from "../../ControlPlane/ControlStore.ts"
import type { Known, KnownDataCenter } from "../DataCenters.ts"
import type { DataCenterSettings } from "../DataCenterSettings.ts"
import { decodeWish, type Wish, wishKey, write as writeWish } from "./desired.ts"
import { backoff, every } from "./loops.ts"
import * as Cache from "./recordCache.ts"

export type Knowledge = Effect.Success<ReturnType<typeof make>>

export const make = Effect.fnUntraced(function*(options: {
  readonly settings: DataCenterSettings
  readonly plane: ControlPlane["Service"]
  /** none where the control plane provides no global store */
  readonly store: Option.Option<ControlStoreService>
  readonly events: SystemEvents["Service"]
  /** told whenever something about a datacenter changed, by its id, or about wishes (no id) */
  readonly moved: (id: string | undefined) => void
}) {
  const { events, moved, plane, settings, store } = options
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const limit = Duration.toMillis(settings.maxCacheStaleness)

  let cache = Cache.initial
  let wishes: ReadonlyMap<string, Wish> = new Map()
  /** counters of the wishes as they lie in the store */
  let stored: ReadonlyMap<string, number> = new Map()
  const wishesKnown = yield* Deferred.make<void>()
  const revision = yield* SubscriptionRef.make(0)
  const changed = SubscriptionRef.update(revision, (n) => n + 1)

  const age = () => Cache.age(cache, now())
  const isStale = () => {
    const known = age()
    return known === undefined || known > limit
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
  const byId = (a: KnownDataCenter, b: KnownDataCenter) =>
    a.record.id < b.record.id ? -1 : a.record.id > b.record.id ? 1 : 0
  const known = (): Known => ({
    dataCenters: Array.from(cache.records.values(), see).sort(byId),
    age: Option.map(Option.fromUndefinedOr(age()), Duration.millis),
    stale: isStale()
  })

  /** Takes a new cache and tells what changed by it. */
  const accept = (next: Cache.Cache) =>
    Effect.suspend(() => {
      const before = cache
      const wasStale = isStale()
      cache = next
      let told = wasStale !== isStale()
      for (const id of new Set([...before.records.keys(), ...next.records.keys()])) {
        const was = Cache.statusOf(before, id)
        const is = Cache.statusOf(next, id)
        if (was === is) continue
        told = true
        const name = (next.records.get(id) ?? before.records.get(id))!.record.dataCenter.name
        moved(id)
        if (is !== undefined && is !== "EXPIRED") {
          events.publish({ _tag: "DataCenterChanged", dataCenter: name, state: is })
        } else if (was !== undefined && was !== "EXPIRED") {
          const reason = is === undefined ? "deregistered" : "its lease ran out"
          events.publish({ _tag: "DataCenterGone", dataCenter: name, reason })
        }
      }
      return told ? changed : Effect.void
    })

  const within = <A, E>(operation: string, effect: Effect.Effect<A, E>) =>
    Effect.timeoutOrElse(effect, {
      duration: settings.requestTimeout,
      orElse: () => Effect.fail(new StoreUnavailable({ operation, reason: "no answer in time" }))
    })

  let troubled = false
  const refresh = Effect.gen(function*() {
    const read = { after: cache.sequence, sentAt: now() }
    const records = yield* within("list of datacenters", plane.list)
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

  const heedWishes = (event: WatchEvent) => {
    if (event._tag === "Current" || event._tag === "Lost") return Effect.void
    const entries = event._tag === "Snapshot" ? event.entries : event._tag === "Put" ? [event.entry] : []
    const counters = new Map(event._tag === "Snapshot" ? [] : stored)
    const next = new Map(wishes)
    const foreign: Array<string> = []
    for (const entry of entries) {
      const wish = decodeWish(entry)
      if (wish === undefined) {
        foreign.push(entry.key)
        continue
      }
      counters.set(wish.id, wish.counter)
      if (wish.counter >= (next.get(wish.id)?.counter ?? 0)) next.set(wish.id, wish)
    }
    if (event._tag === "Removed") {
      for (const wish of next.values()) if (wishKey(wish.id) === event.key) counters.delete(wish.id)
    }
    wishes = next
    stored = counters
    Deferred.doneUnsafe(wishesKnown, Exit.void)
    moved(undefined)
    return Effect.andThen(
      changed,
      foreign.length === 0 ? Effect.void : Effect.logWarning(`skipped what is no wish: ${foreign.join(", ")}`)
    )
  }

  const followRecords = plane.watch.pipe(
    Stream.runForEach((event: ControlPlaneEvent) => Effect.suspend(() => accept(Cache.watched(cache, event, now())))),
    // a watch of somebody's own control plane may end or die, though it should not
    Effect.andThen(Effect.fail("ended")),
    Effect.catchDefect((defect) => Effect.andThen(Effect.logWarning("a watch died", defect), Effect.fail("died"))),
    Effect.retry(backoff(settings)),
    Effect.ignore
  )

  return {
    known,
    age,
    isStale,
    /** the record of that id, and the milliseconds of lease that this node counts on */
    find: (id: string): { readonly record: DataCenterRecord; readonly remaining: number } | undefined => {
      const entry = cache.records.get(id)
      return entry === undefined ? undefined : { record: entry.record, remaining: Cache.remaining(cache, entry) }
    },
    all: () => known().dataCenters.map(({ record }) => record),
    reachable: () => known().dataCenters.filter((entry) => entry.reachable).map(({ record }) => record),
    routable: () => known().dataCenters.filter((entry) => entry.routable).map(({ record }) => record),
    wish: (id: string) => wishes.get(id),
    refresh,
    /** this node wrote that record itself: known before any watch tells it */
    wrote: (record: DataCenterRecord) => accept(Cache.wrote(cache, record)),
    changes: SubscriptionRef.changes(revision),
    /** until the wishes of operators were read once since start */
    awaitWishes: Option.isNone(store) ? Effect.void : within("wishes of operators", Deferred.await(wishesKnown)),
    /** A store that forgot what an operator wants of that datacenter is told again. */
    reassert: (id: string) =>
      Effect.suspend(() => {
        const wish = wishes.get(id)
        if (Option.isNone(store) || wish === undefined || (stored.get(id) ?? 0) >= wish.counter) return Effect.void
        return writeWish(store.value, { id, state: wish.state, by: wish.by, reason: wish.reason }, wish.counter)
      }),
    /** Follows records and wishes for as long as the scope lives. */
    follow: Effect.gen(function*() {
      yield* every(refresh, settings.cacheRefreshInterval, settings).pipe(Effect.forkScoped)
      if (settings.watchEnabled) yield* Effect.forkScoped(followRecords)
      if (Option.isSome(store)) {
        yield* store.value.watch(desiredPrefix).pipe(Stream.runForEach(heedWishes), Effect.forkScoped)
      }
    })
  }
})

/**
 * The six operations of the control plane on any control store. A record and its lease are two keys, so that a heartbeat moves
 * neither the record's version nor its state, and a writer of the record never conflicts with a heartbeat.
 *
 *     datacenters/records/<id>   who, where, which state     changed by compare-and-set at its version
 *     datacenters/leases/<id>    a counter and a duration    changed by each heartbeat
 *
 * Responsible for: versions, leases judged by this reader's own proven time, and skipping what is not ours. Not for: deciding
 * which state a datacenter should have (the controller, the operator). Other things may live under other prefixes of the store.
 *
 * Invariant: `remaining` of a lease never grows without a renewal, a resync or a pause of this reader.
 */
import { Clock, Duration, Effect, Option, PubSub, Schema, type Scope, Stream } from "effect"
import { InvalidData, RecordNotFound, RevisionConflict, StoreUnavailable } from "../Actor/errors.ts"
import { randomHex } from "../Actor/Node.ts"
import { SystemEvents } from "../Actor/SystemEvents.ts"
import type {
  ControlPlane,
  ControlPlaneEvent,
  ControlPlaneWriteError,
  DataCenterRecord,
  Registration as RegistrationModel
} from "./ControlPlane.ts"
import { dataCenterId, Registration } from "./ControlPlane.ts"
import { compareRevision, type ControlStoreService, type Entry, keyPart, type WatchEvent } from "./ControlStore.ts"
import { decodeLease, encodeLease } from "./internal/leaseRecord.ts"
import * as Proven from "./internal/provenLease.ts"

/** All keys of the control plane start with it; `records`, `leases` and `desired` are the parts in use. */
export const keyPrefix = "datacenters/"
const recordPrefix = `${keyPrefix}records/`
const leasePrefix = `${keyPrefix}leases/`
/** Desired states: written by operators alone, kept in the same store, and no business of the six operations. */
export const desiredPrefix = `${keyPrefix}desired/`

const recordKey = (id: string) => `${recordPrefix}${keyPart(id)}`
const leaseKey = (id: string) => `${leasePrefix}${keyPart(id)}`

/** Tries of one operation that lost a race and learned something from it. */
const maxAttempts = 5
/** keys of others that are remembered, so that each of their values is told once */
const reportedLimit = 1_024
/** events that wait for one slow watcher before it is told to start over */
const watchLimit = 4_096

/** A record as it lies in the store. */
interface Stored {
  readonly registration: RegistrationModel
  readonly operation: string
  readonly version: string
}

/** The control plane on that store. The scope ends its watch. */
export const make: (store: ControlStoreService, options: {
  readonly ttl: Duration.Duration
}) => Effect.Effect<ControlPlane["Service"], never, Scope.Scope> = Effect.fnUntraced(function*(store, { ttl }) {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const events = yield* Effect.serviceOption(SystemEvents)
  const codec = Schema.fromJsonString(Schema.Struct({
    ...Registration.fields,
    /** names this very write, so that its writer knows it again after an unknown outcome */
    operation: Schema.String
  }))
  const decodeOption = Schema.decodeUnknownOption(codec)
  const encode = Schema.encodeSync(codec)

  // ---- what lies in the store, as this reader sees it

  let leases = Proven.initial
  let records: ReadonlyMap<string, Stored> = new Map()
  /** has a snapshot come, and nothing been lost since? */
  let current = false
  let known = false
  const hub = yield* PubSub.sliding<{ readonly place: number; readonly event: ControlPlaneEvent }>(watchLimit)
  /** places given to events so far: a watcher that misses one has not kept up */
  let places = 0
  let outbox: Array<{ readonly place: number; readonly event: ControlPlaneEvent }> = []
  const reported = new Map<string, string>()

  const decode = (entry: Entry): Stored | undefined => {
    const value = Option.getOrUndefined(decodeOption(entry.value))
    if (value === undefined || recordKey(value.id) !== entry.key) return undefined
    const { operation, ...registration } = value
    return { registration, operation, version: entry.revision }
  }

  /** Foreign or damaged values are passed over and told once each; they never spoil the rest. */
  const report = (entries: ReadonlyArray<Entry>) =>
    Effect.forEach(
      entries.filter(({ key, revision }) => reported.get(key) !== revision),
      ({ key, revision }) => {
        reported.delete(key)
        reported.set(key, revision)
        if (reported.size > reportedLimit) reported.delete(reported.keys().next().value!)
        const reason = `skipped ${key}: its value is not one of ours`
        if (Option.isSome(events)) {
          events.value.publish({ _tag: "StoreTrouble", store: "control plane", reason })
        }
        return Effect.logWarning(reason)
      },
      { discard: true }
    )

  const remainingOf = (id: string, fresh?: Entry): { readonly duration: number; readonly remaining: number } => {
    const seen = leases.leases.get(leaseKey(id))
    const read = fresh === undefined ? undefined : decodeLease(fresh.value)
    // A read that is ahead of the watch shows a renewal that the watch is about to tell.
    const ahead = fresh !== undefined && (seen === undefined || compareRevision(fresh.revision, seen.revision) > 0)
    if (ahead) return { duration: read?.duration ?? 0, remaining: read?.duration ?? 0 }
    if (seen === undefined) return { duration: 0, remaining: 0 }
    return { duration: seen.duration, remaining: Proven.remaining(leases, seen) }
  }
  const tell = (stored: Stored, fresh?: Entry): DataCenterRecord => {
    const { duration, remaining } = remainingOf(stored.registration.id, fresh)
    return {
      ...stored.registration,
      version: stored.version,
      lease: {
        duration: duration === 0 ? ttl : Duration.millis(duration),
        remaining: Duration.millis(remaining)
      }
    }
  }
  const byId = (a: DataCenterRecord, b: DataCenterRecord) => a.id < b.id ? -1 : a.id > b.id ? 1 : 0
  const snapshot = (): ControlPlaneEvent => ({
    _tag: "Snapshot",
    records: Array.from(records.values(), (stored) => tell(stored)).sort(byId)
  })

  const publish = (event: ControlPlaneEvent) => void outbox.push({ place: places += 1, event })
  /** the record whose lease has this key */
  const ofLease = (key: string) => records.get(`${recordPrefix}${key.slice(leasePrefix.length)}`)

  /** One event of the store's watch, applied and told on. Returns what was skipped. */
  const apply = (event: WatchEvent): ReadonlyArray<Entry> => {
    const [after, foreign] = Proven.step(leases, event, now(), (key) => key.startsWith(leasePrefix))
    const skipped: Array<Entry> = [...foreign]
    leases = after
    switch (event._tag) {
      case "Snapshot": {
        const next = new Map<string, Stored>()
        for (const entry of event.entries) {
          if (!entry.key.startsWith(recordPrefix)) continue
          const stored = decode(entry)
          if (stored === undefined) skipped.push(entry)
          else next.set(entry.key, stored)
        }
        records = next
        current = true
        known = true
        publish(snapshot())
        break
      }
      case "Put": {
        const { entry } = event
        if (entry.key.startsWith(recordPrefix)) {
          const before = records.get(entry.key)
          if (before !== undefined && compareRevision(entry.revision, before.version) <= 0) break
          const stored = decode(entry)
          const next = new Map(records)
          if (stored === undefined) {
            skipped.push(entry)
            next.delete(entry.key)
            if (before !== undefined) publish({ _tag: "Removed", id: before.registration.id })
          } else {
            next.set(entry.key, stored)
            publish({ _tag: "Upsert", record: tell(stored) })
          }
          records = next
        } else if (entry.key.startsWith(leasePrefix)) {
          const stored = ofLease(entry.key)
          if (stored !== undefined) publish({ _tag: "Upsert", record: tell(stored) })
        }
        break
      }
      case "Removed": {
        const gone = records.get(event.key)
        if (gone !== undefined) {
          if (compareRevision(event.revision, gone.version) <= 0) break
          const next = new Map(records)
          next.delete(event.key)
          records = next
          publish({ _tag: "Removed", id: gone.registration.id })
        } else if (event.key.startsWith(leasePrefix)) {
          const stored = ofLease(event.key)
          if (stored !== undefined) publish({ _tag: "Upsert", record: tell(stored) })
        }
        break
      }
      case "Current":
        // `Current` without a snapshot after a loss: nothing had been missed after all
        current = known
        if (current) publish(event)
        break
      case "Lost":
        current = false
        publish(event)
        break
    }
    return skipped
  }

  yield* store.watch(keyPrefix).pipe(
    Stream.runForEach((event) =>
      Effect.suspend(() => {
        const skipped = apply(event)
        const told = outbox
        outbox = []
        return Effect.andThen(PubSub.publishAll(hub, told), report(skipped))
      })
    ),
    Effect.forkScoped({ startImmediately: true })
  )

  const watch: Stream.Stream<ControlPlaneEvent> = Stream.unwrap(Effect.gen(function*() {
    const subscription = yield* PubSub.subscribe(hub)
    const first: ReadonlyArray<ControlPlaneEvent> = current
      ? [snapshot()]
      : known
      ? [{ _tag: "Lost", reason: "the store's watch is being repaired" }]
      : []
    // now, and not when the first event has been read
    const begun = places
    const inOrder = Stream.mapAccum(
      Stream.fromSubscription(subscription),
      () => begun,
      (seen, { event, place }): readonly [number, ReadonlyArray<ControlPlaneEvent>] => {
        // contained in the snapshot already
        if (place <= seen) return [seen, []]
        if (place === seen + 1) return [place, [event]]
        const anew: ReadonlyArray<ControlPlaneEvent> = [
          { _tag: "Lost", reason: "the watcher is too far behind" },
          snapshot()
        ]
        return [places, current ? anew : [...anew, { _tag: "Lost", reason: "the store's watch is being repaired" }]]
      }
    )
    return Stream.concat(Stream.fromIterable(first), inOrder)
  }))

  // ---- writing

  const operation = randomHex(16)
  const encoded = (registration: RegistrationModel, id: string) => encode({ ...registration, operation: id })

  const readRecord = (id: string) =>
    store.get(recordKey(id)).pipe(
      Effect.map((entry) => Option.isNone(entry) ? undefined : { entry: entry.value, stored: decode(entry.value) })
    )
  const notFound = (id: string) => new RecordNotFound({ dataCenter: id })
  const conflict = (id: string, currentVersion: string) =>
    new RevisionConflict({ key: recordKey(id), current: currentVersion })

  /** An unknown outcome is settled where reading shows our own write; a missing record says so by its own error. */
  const settle = (
    id: string,
    ours: string,
    write: Effect.Effect<string, ControlPlaneWriteError>,
    expected: "absent" | "present"
  ) =>
    write.pipe(
      Effect.catchTag(
        "OutcomeUnknown",
        (error) =>
          readRecord(id).pipe(
            Effect.catch(() => Effect.fail(error)),
            Effect.flatMap((read): Effect.Effect<string, ControlPlaneWriteError> =>
              read?.stored?.operation === ours ? Effect.succeed(read.stored.version) : Effect.fail(error)
            )
          )
      ),
      Effect.catchTag("RevisionConflict", (error) =>
        readRecord(id).pipe(
          Effect.catch(() => Effect.fail(error)),
          Effect.flatMap((read): Effect.Effect<string, ControlPlaneWriteError> =>
            read === undefined
              ? Effect.fail(expected === "present" ? notFound(id) : error)
              // a client below us may have sent it twice: then the conflict is with ourselves
              : read.stored?.operation === ours
              ? Effect.succeed(read.stored.version)
              : Effect.fail(conflict(id, read.entry.revision))
          )
        ))
    )

  /** Renews the lease, or begins it. `known`: only where the record is there, since nobody may revive what was deregistered. */
  const renew = (id: string, writer: string, known: boolean): Effect.Effect<void, ControlPlaneWriteError> =>
    Effect.gen(function*() {
      const key = leaseKey(id)
      const value = (counter: number): string =>
        encodeLease({ state: "Held", counter, duration: Duration.toMillis(ttl), writer, operation: counter })
      const seen = leases.leases.get(key)
      if (seen !== undefined && current && (!known || records.has(recordKey(id)))) {
        // The usual case: one round trip, at the revision that the watch told.
        const renewed = yield* Effect.result(store.update(key, value(seen.counter + 1), seen.revision))
        if (renewed._tag === "Success") return
        if (renewed.failure._tag !== "RevisionConflict") return yield* renewed.failure
      }
      for (let attempt = 1; attempt <= maxAttempts; attempt++) {
        if (known && Option.isNone(yield* store.get(recordKey(id)))) return yield* notFound(id)
        const lease = yield* store.get(key)
        const counter = Option.isSome(lease) ? decodeLease(lease.value.value)?.counter ?? 0 : 0
        const written = yield* Effect.result(
          Option.isNone(lease)
            ? store.create(key, value(1))
            : store.update(key, value(counter + 1), lease.value.revision)
        )
        if (written._tag === "Success") return
        if (written.failure._tag !== "RevisionConflict") return yield* written.failure
      }
      return yield* new RevisionConflict({ key })
    })

  const removeLease = (id: string): Effect.Effect<void, ControlPlaneWriteError> =>
    Effect.gen(function*() {
      for (let attempt = 1; attempt <= maxAttempts; attempt++) {
        const lease = yield* store.get(leaseKey(id))
        if (Option.isNone(lease)) return
        const removed = yield* Effect.result(store.remove(leaseKey(id), lease.value.revision))
        if (removed._tag === "Success") return
        if (removed.failure._tag !== "RevisionConflict") return yield* removed.failure
      }
      return yield* new RevisionConflict({ key: leaseKey(id) })
    })

  const list = Effect.gen(function*() {
    const entries = yield* store.list(keyPrefix).pipe(
      Effect.catchTag("InvalidData", ({ reason }) => Effect.fail(new StoreUnavailable({ operation: "list", reason })))
    )
    const found: Array<DataCenterRecord> = []
    const fresh = new Map(entries.filter(({ key }) => key.startsWith(leasePrefix)).map((entry) => [entry.key, entry]))
    const skipped: Array<Entry> = []
    for (const entry of entries) {
      if (!entry.key.startsWith(recordPrefix)) continue
      const stored = decode(entry)
      if (stored === undefined) skipped.push(entry)
      else found.push(tell(stored, fresh.get(leaseKey(stored.registration.id))))
    }
    yield* report(skipped)
    return found.sort(byId)
  })

  return {
    ttl,
    register: (registration, version) =>
      Effect.gen(function*() {
        const { id } = registration
        if (id !== dataCenterId(registration.dataCenter)) {
          return yield* new InvalidData({ what: "registration", reason: `${id} is not the id of its datacenter` })
        }
        const ours = yield* operation
        // The lease first: nobody ever sees a fresh record without one. Where the record is refused after all, the lease only
        // lasts a little longer than it would have.
        yield* renew(id, registration.writer, false)
        return yield* settle(
          id,
          ours,
          version === undefined
            ? store.create(recordKey(id), encoded(registration, ours))
            : store.update(recordKey(id), encoded(registration, ours), version),
          version === undefined ? "absent" : "present"
        )
      }),
    heartbeat: (id, writer) => renew(id, writer, true),
    setState: (id, state, version) =>
      Effect.gen(function*() {
        const read = yield* readRecord(id)
        if (read === undefined) return yield* notFound(id)
        if (read.entry.revision !== version) return yield* conflict(id, read.entry.revision)
        if (read.stored === undefined) {
          return yield* new InvalidData({ what: recordKey(id), reason: "the record cannot be read" })
        }
        const ours = yield* operation
        return yield* settle(
          id,
          ours,
          store.update(recordKey(id), encoded({ ...read.stored.registration, state }, ours), version),
          "present"
        )
      }),
    listActive: Effect.map(
      list,
      (all) => all.filter((record) => record.state === "ACTIVE" && Duration.toMillis(record.lease.remaining) > 0)
    ),
    list,
    watch,
    deregister: (id, version) =>
      store.remove(recordKey(id), version).pipe(
        Effect.catchTag("RevisionConflict", (error) =>
          Effect.flatMap(store.get(recordKey(id)), (entry) =>
            Option.isNone(entry) ? Effect.void : Effect.fail(error))),
        Effect.andThen(removeLease(id))
      )
  }
})

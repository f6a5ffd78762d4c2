// A control plane of one's own: the register of datacenters in one document that can be replaced at its ETag, as object stores,
// Consul or a row of SQL offer. `docs/custom-control-plane.md` explains it; the public contract suite proves it.
import {
  ControlPlane,
  InvalidData,
  OutcomeUnknown,
  RecordNotFound,
  RevisionConflict,
  StoreUnavailable
} from "effect-troupe"
import { Clock, Duration, Effect, Layer, PubSub, Random, Schedule, Schema, Semaphore, Stream } from "effect"

/** What the backend must offer: a document, and its replacement at exactly one ETag. */
export interface Document {
  readonly read: Effect.Effect<{ readonly etag: string; readonly body: string }, StoreUnavailable>
  readonly replace: (
    etag: string,
    body: string
  ) => Effect.Effect<string, RevisionConflict | StoreUnavailable | OutcomeUnknown>
}

/** The whole register. `next` gives versions that never come again; `operation` names the write that made this document. */
const Register = Schema.Struct({
  next: Schema.Int,
  operation: Schema.String,
  records: Schema.Record(
    Schema.String,
    Schema.Struct({ registration: ControlPlane.Registration, version: Schema.Int, beats: Schema.Int })
  )
})
type Register = typeof Register.Type
const json = Schema.fromJsonString(Register)
const empty: Register = { next: 1, operation: "", records: {} }

/** What an edit answers and the records that it leaves; the same records as before: nothing to write. */
type Change<A> = Effect.Effect<readonly [A, Register["records"]], ControlPlane.ControlPlaneWriteError>

/** Reads further apart than this prove nothing about the time between them. */
const maxGap = 3_000

export const make = Effect.fnUntraced(function*(document: Document, options: {
  readonly ttl: Duration.Duration
  /** how often the document is read; at most a third of the lease's TTL */
  readonly poll?: Duration.Input
}) {
  const clock = yield* Clock.Clock
  const ttl = Duration.toMillis(options.ttl)
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const parse = (body: string) =>
    body === "" ? Effect.succeed(empty) : Schema.decodeUnknownEffect(json)(body).pipe(
      Effect.mapError((error) =>
        new StoreUnavailable({ operation: "read", reason: `not a register: ${error.message}` })
      )
    )

  // ---- liveness: a lease's beats are counted against this reader's own clock, over time in which it could see
  const seen = new Map<string, { readonly beats: number; readonly version: number; readonly since: number }>()
  let proven = 0
  let provenAt: number | undefined
  let last: Register = empty
  const hub = yield* PubSub.unbounded<ControlPlane.ControlPlaneEvent>()

  const tell = (id: string, { records }: Register): ControlPlane.DataCenterRecord | undefined => {
    const entry = records[id]
    if (entry === undefined) return undefined
    const left = ttl - (proven - (seen.get(id)?.since ?? proven))
    return {
      ...entry.registration,
      version: String(entry.version),
      lease: { duration: options.ttl, remaining: Duration.millis(Math.max(0, left)) }
    }
  }
  const all = (register: Register) => Object.keys(register.records).sort().flatMap((id) => tell(id, register) ?? [])

  /** Every document that is read, or written by ourselves, is news for the leases and for those who watch. */
  const learn = (register: Register, provesFrom?: number) => {
    if (provesFrom !== undefined) {
      const elapsed = provenAt === undefined ? 0 : provesFrom - provenAt
      if (elapsed > 0 && elapsed <= maxGap) proven += elapsed
      provenAt = Math.max(provenAt ?? provesFrom, provesFrom)
    }
    const before = last
    last = register
    for (const id of new Set([...Object.keys(before.records), ...Object.keys(register.records)])) {
      const entry = register.records[id]
      if (entry === undefined) {
        seen.delete(id)
        PubSub.publishUnsafe(hub, { _tag: "Removed", id })
        continue
      }
      const known = seen.get(id)
      if (known?.beats === entry.beats && known.version === entry.version) continue
      // a beat begins the lease anew; a change of the record alone does not
      if (known?.beats !== entry.beats) seen.set(id, { ...entry, since: proven })
      else seen.set(id, { ...entry, since: known.since })
      PubSub.publishUnsafe(hub, { _tag: "Upsert", record: tell(id, register)! })
    }
  }
  const read = Effect.gen(function*() {
    const sentAt = now()
    const { body, etag } = yield* document.read
    const register = yield* parse(body)
    learn(register, sentAt)
    return { etag, register }
  })

  // One at a time, so that no answer is overtaken by a later one.
  const alone = yield* Semaphore.make(1)
  let blind = true
  yield* alone.withPermit(read).pipe(
    Effect.matchEffect({
      onFailure: ({ reason }) =>
        Effect.sync(() => {
          provenAt = undefined
          if (!blind) PubSub.publishUnsafe(hub, { _tag: "Lost", reason })
          blind = true
        }),
      onSuccess: () =>
        Effect.sync(() => {
          // after a gap begin again with everything, else say that nothing is missing
          PubSub.publishUnsafe(hub, blind ? { _tag: "Snapshot", records: all(last) } : { _tag: "Current" })
          blind = false
        })
    }),
    Effect.repeat(Schedule.spaced(options.poll ?? "1 second")),
    Effect.forkScoped({ startImmediately: true })
  )

  // ---- writing: read, change, replace; whoever was overtaken reads again
  const edit = <A>(change: (register: Register) => Change<A>) =>
    alone.withPermit(Effect.gen(function*() {
      const operation = String(yield* Random.nextInt)
      const { etag, register } = yield* read
      const [answer, records] = yield* change(register)
      if (records === register.records) return answer
      const next: Register = { next: register.next + 1, operation, records }
      yield* document.replace(etag, yield* Effect.orDie(Schema.encodeEffect(json)(next))).pipe(
        // Perhaps it is there: reading it back proves that it is, and nothing proves that it is not.
        Effect.catchTag("OutcomeUnknown", (error) =>
          Effect.flatMap(
            Effect.mapError(read, () => error),
            (after) => after.register.operation === operation ? Effect.void : Effect.fail(error)
          ))
      )
      learn(next)
      return answer
    })).pipe(
      Effect.retry({
        // the document moved under us, which says nothing about the record: that conflict carries the record's id
        while: (error) => error instanceof RevisionConflict && error.key === documentKey,
        schedule: Schedule.exponential("5 millis").pipe(Schedule.jittered),
        times: 12
      })
    )

  const conflict = (id: string, version: number | undefined) =>
    new RevisionConflict(version === undefined ? { key: id } : { key: id, current: String(version) })
  /** The entry of that id at that version. */
  const at = (
    { records }: Register,
    id: string,
    version: string
  ): Effect.Effect<Register["records"][string], RecordNotFound | RevisionConflict> => {
    const entry = records[id]
    return entry === undefined
      ? Effect.fail(new RecordNotFound({ dataCenter: id }))
      : String(entry.version) === version
      ? Effect.succeed(entry)
      : Effect.fail(conflict(id, entry.version))
  }

  return ControlPlane.ControlPlane.of({
    ttl: options.ttl,
    register: (registration, version) =>
      edit((register): Change<string> => {
        const { id } = registration
        const known = register.records[id]
        const entry = { registration, version: register.next, beats: (known?.beats ?? 0) + 1 }
        const put = [String(register.next), { ...register.records, [id]: entry }] as const
        if (id !== ControlPlane.dataCenterId(registration.dataCenter)) {
          return Effect.fail(new InvalidData({ what: "registration", reason: `${id} is not its datacenter's id` }))
        }
        if (version !== undefined) return Effect.as(at(register, id, version), put)
        return known === undefined ? Effect.succeed(put) : Effect.fail(conflict(id, known.version))
      }),
    heartbeat: (id) =>
      edit(({ records }): Change<void> => {
        const entry = records[id]
        return entry === undefined
          ? Effect.fail(new RecordNotFound({ dataCenter: id }))
          : Effect.succeed([undefined, { ...records, [id]: { ...entry, beats: entry.beats + 1 } }] as const)
      }),
    setState: (id, state, version) =>
      edit((register) =>
        Effect.map(at(register, id, version), (entry) => {
          const changed = { ...entry, version: register.next, registration: { ...entry.registration, state } }
          return [String(register.next), { ...register.records, [id]: changed }] as const
        })
      ),
    deregister: (id, version) =>
      edit((register): Change<void> => {
        if (register.records[id] === undefined) return Effect.succeed([undefined, register.records] as const)
        return Effect.map(at(register, id, version), () => {
          const { [id]: _, ...rest } = register.records
          return [undefined, rest] as const
        })
      }).pipe(Effect.catchTag("RecordNotFound", () => Effect.void)),
    list: Effect.map(alone.withPermit(read), ({ register }) => all(register)),
    listActive: Effect.map(
      read,
      ({ register }) =>
        all(register).filter(({ lease, state }) => state === "ACTIVE" && Duration.toMillis(lease.remaining) > 0)
    ),
    watch: Stream.unwrap(Effect.gen(function*() {
      const subscription = yield* PubSub.subscribe(hub)
      const first: ReadonlyArray<ControlPlane.ControlPlaneEvent> = blind
        ? []
        : [{ _tag: "Snapshot", records: all(last) }]
      return Stream.concat(Stream.fromIterable(first), Stream.fromSubscription(subscription))
    }))
  })
})

/** Key of the conflict that means the document as a whole. */
export const documentKey = "document"

/** As a Layer, in the place of `ControlPlane.layerMemory` and its like. Without a `GlobalStore`: drains fail typed. */
export const layer = (document: Document, options: { readonly ttl: Duration.Duration }) =>
  Layer.effect(ControlPlane.ControlPlane, make(document, options))

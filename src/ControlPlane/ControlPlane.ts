/**
 * Port: the register of datacenters. Six operations with versions; liveness is a lease that the holder renews and that every
 * reader judges by its own monotonic clock, so that no two clocks need to agree.
 *
 * State and liveness have different writers: a heartbeat never changes a state, a conflict never un-drains.
 */
import { Context, Duration, Effect, Layer, Schema } from "effect"
import type { Stream } from "effect"
import type {
  InvalidData,
  OutcomeUnknown,
  RecordNotFound,
  RevisionConflict,
  SettingInvalid,
  StoreUnavailable
} from "../Actor/errors.ts"
import * as Settings from "../Actor/Settings.ts"
import * as Plane from "./ControlPlaneStore.ts"
import { type ControlStoreService, GlobalStore, makeMemory } from "./ControlStore.ts"

/** REGISTERED (exists, not routable) -> ACTIVE (routable while its lease lives) -> DRAINING (nothing new) -> INACTIVE. */
export const DataCenterState = Schema.Literals(["REGISTERED", "ACTIVE", "DRAINING", "INACTIVE"])
export type DataCenterState = typeof DataCenterState.Type

export const DataCenter = Schema.Struct({
  name: Schema.NonEmptyString,
  region: Schema.optionalKey(Schema.String),
  zone: Schema.optionalKey(Schema.String),
  labels: Schema.Record(Schema.String, Schema.String)
})
export type DataCenter = typeof DataCenter.Type

/** What is written of a datacenter; `endpoints` are `host:port` of its members or of its load balancers. */
export const Registration = Schema.Struct({
  id: Schema.NonEmptyString,
  dataCenter: DataCenter,
  endpoints: Schema.Array(Schema.String),
  state: DataCenterState,
  /** which start of which node wrote it */
  writer: Schema.String
})
export type Registration = typeof Registration.Type

/** A registration as the control plane tells it. */
export const DataCenterRecord = Schema.Struct({
  ...Registration.fields,
  /** the record's own version; heartbeats do not change it */
  version: Schema.String,
  /** duration of the lease, and for how long this reader still counts on it */
  lease: Schema.Struct({ duration: Schema.DurationFromMillis, remaining: Schema.DurationFromMillis })
})
export type DataCenterRecord = typeof DataCenterRecord.Type

/** As with the store's watch: replace at `Snapshot`. `Lost` until the next `Snapshot` or `Current`. */
export type ControlPlaneEvent =
  | { readonly _tag: "Snapshot"; readonly records: ReadonlyArray<DataCenterRecord> }
  | { readonly _tag: "Upsert"; readonly record: DataCenterRecord }
  | { readonly _tag: "Removed"; readonly id: string }
  | { readonly _tag: "Current" }
  | { readonly _tag: "Lost"; readonly reason: string }

export type ControlPlaneWriteError = RecordNotFound | RevisionConflict | StoreUnavailable | OutcomeUnknown | InvalidData

/** The parts of a datacenter's identity joined with an escaped separator: no two datacenters share an id by accident. */
export const dataCenterId = (dataCenter: Pick<DataCenter, "name" | "region" | "zone">): string =>
  [dataCenter.region ?? "", dataCenter.zone ?? "", dataCenter.name]
    .map((part) => part.replaceAll("%", "%25").replaceAll("|", "%7C"))
    .join("|")

export class ControlPlane extends Context.Service<ControlPlane, {
  /** the lease's duration (TTL), the same for all that share the plane; default 30 s, at least 1 s */
  readonly ttl: Duration.Duration
  /**
   * Creates the record and its lease (`version` absent), or replaces the record at exactly that version. Returns the new
   * version. `RevisionConflict` where the id exists with another version; `retryable` after reading it again.
   */
  readonly register: (registration: Registration, version?: string) => Effect.Effect<string, ControlPlaneWriteError>
  /** Renews the lease of that id. `RecordNotFound` when there is no such record (any more). Leaves version and state alone. */
  readonly heartbeat: (id: string, writer: string) => Effect.Effect<void, ControlPlaneWriteError>
  /** Sets the state at exactly that version; returns the new one. */
  readonly setState: (
    id: string,
    state: DataCenterState,
    version: string
  ) => Effect.Effect<string, ControlPlaneWriteError>
  /** All records that are ACTIVE with a live lease by this reader's clock, sorted by id. */
  readonly listActive: Effect.Effect<ReadonlyArray<DataCenterRecord>, StoreUnavailable>
  /** All records, whatever their state or lease; for operators. */
  readonly list: Effect.Effect<ReadonlyArray<DataCenterRecord>, StoreUnavailable>
  /** Never fails and never ends. */
  readonly watch: Stream.Stream<ControlPlaneEvent>
  /** Removes record and lease at exactly that version. Idempotent: an absent record is success. */
  readonly deregister: (id: string, version: string) => Effect.Effect<void, ControlPlaneWriteError>
}>()("effect-troupe/ControlPlane/ControlPlane") {}

const settings = Settings.group("controlPlane", {
  /** TTL of a datacenter's lease: for how long a reader counts on it after it last saw a renewal */
  ttl: Settings.duration({ env: "TROUPE_CONTROL_PLANE_TTL", default: "30 seconds", minimum: 1_000 })
})
/** What code may give to a control plane on a store. */
export interface ControlPlaneOptions {
  readonly ttl?: Duration.Input | undefined
}
export const defaultTtl = Duration.seconds(30)

const onStore = (store: ControlStoreService, ttl: Duration.Duration) =>
  Effect.map(Plane.make(store, { ttl }), ControlPlane.of)

/** The six operations on whatever store `GlobalStore` is; `SettingInvalid` where the TTL is below a second. */
export const layerStore = (
  options: ControlPlaneOptions = {}
): Layer.Layer<ControlPlane, SettingInvalid, GlobalStore> =>
  Layer.effect(
    ControlPlane,
    Effect.gen(function*() {
      const { ttl } = yield* settings.decode(options)
      return yield* onStore(yield* GlobalStore, ttl)
    })
  )

/** As `layerStore`, its TTL from the environment. */
export const layerStoreConfig: Layer.Layer<ControlPlane, SettingInvalid, GlobalStore> = Layer.effect(
  ControlPlane,
  Effect.gen(function*() {
    const { ttl } = yield* settings.config
    return yield* onStore(yield* GlobalStore, ttl)
  })
)

/** The embedded control plane: all who share this Layer's instance share its records, and they end with it. */
export const layerMemory: Layer.Layer<ControlPlane | GlobalStore> = Layer.effect(
  ControlPlane,
  Effect.flatMap(GlobalStore, (store) => onStore(store, defaultTtl))
).pipe(Layer.provideMerge(Layer.effect(GlobalStore, makeMemory())))

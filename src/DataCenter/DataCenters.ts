/**
 * The datacenters that this node knows, and the controller that keeps that knowledge and this datacenter's own record.
 *
 * Responsible for: a cache of all records on *every* node (watch and refresh), the record and lease of this datacenter (its
 * leader alone writes; any Up member may renew a lease that nobody renews), the wishes of operators. Not for: deciding where an
 * actor goes (`internal/placement.ts` asks `select`), or membership.
 *
 * Invariant: nothing here un-drains a datacenter but an operator's `activate`.
 */
import { Context, Duration, Effect, Layer, type Option, type Stream } from "effect"
import type {
  AmbiguousDataCenter,
  DataCenterNotReady,
  InvalidData,
  OutcomeUnknown,
  RecordNotFound,
  SettingInvalid,
  StaleRecords,
  StoreUnavailable
} from "../Actor/errors.ts"
import { Node } from "../Actor/Node.ts"
import { Placement } from "../Actor/Placement.ts"
import type { SystemEvents } from "../Actor/SystemEvents.ts"
import { Topology } from "../Actor/Topology.ts"
import type { Cluster } from "../Cluster/Cluster.ts"
import type { ControlPlane, DataCenter, DataCenterRecord } from "../ControlPlane/ControlPlane.ts"
import type { Remoting } from "../Remoting/Remoting.ts"
import { type DataCenterOptions, type DataCenterSettings, group } from "./DataCenterSettings.ts"
import * as Controller from "./internal/controller.ts"
import * as CrossPlacement from "./internal/placement.ts"
import type { Selector } from "./internal/selection.ts"

export type { DataCenterOptions, DataCenterSettings } from "./DataCenterSettings.ts"
export type { Selector } from "./internal/selection.ts"

/** A datacenter as this node sees it now. */
export interface KnownDataCenter {
  readonly record: DataCenterRecord
  /** ACTIVE or DRAINING, with a lease that this node counts on: what lives there is looked up and spoken to */
  readonly reachable: boolean
  /** reachable, ACTIVE and not drained by an operator: may get something new */
  readonly routable: boolean
  /** what an operator wants, if anything was ever said */
  readonly wish?: { readonly state: "DRAINED" | "ACTIVE"; readonly by: string; readonly reason: string }
}

export interface Known {
  /** sorted by id, this datacenter included */
  readonly dataCenters: ReadonlyArray<KnownDataCenter>
  /** time since the cache was last known to be current; none before the first refresh */
  readonly age: Option.Option<Duration.Duration>
  /** older than `maxCacheStaleness`, or never refreshed */
  readonly stale: boolean
}

/** Why a datacenter could not be chosen. */
export type SelectError = DataCenterNotReady | StaleRecords | RecordNotFound | AmbiguousDataCenter

/** Why a wish could not be left. `StoreUnavailable` also where the control plane provides no global store. */
export type WishError = SelectError | StoreUnavailable | OutcomeUnknown | InvalidData

export class DataCenters extends Context.Service<DataCenters, {
  /** who this datacenter is */
  readonly self: DataCenter & { readonly id: string }
  /** Has this node refreshed once since it started? Never falls back: age is `StaleRecords`' business. */
  readonly ready: Effect.Effect<boolean>
  /** time since the cache was last known to be current; none before the first refresh */
  readonly lastRefresh: Effect.Effect<Option.Option<Duration.Duration>>
  /** the cache as it is, stale or not; for people */
  readonly known: Effect.Effect<Known>
  /** the cache now and whenever a datacenter appears, changes, expires, comes back or goes */
  readonly changes: Stream.Stream<Known>
  /** Reads all records anew now, instead of at the next interval. */
  readonly refresh: Effect.Effect<void, StoreUnavailable>
  /**
   * The one routable datacenter that the selector means. Fails `DataCenterNotReady` before the first refresh; `StaleRecords`
   * when the cache is too old (with `failOnStaleCache` off it goes on and warns); `RecordNotFound` when none is listed, ACTIVE
   * and alive by this node's own clock; `AmbiguousDataCenter` when several are.
   */
  readonly select: (selector: Selector) => Effect.Effect<DataCenterRecord, SelectError>
  /** As `select`, among the reachable ones: for finding what is there already, drained or not. */
  readonly reach: (selector: Selector) => Effect.Effect<DataCenterRecord, SelectError>
  /** All reachable ones; fails as `select` does before it looks. */
  readonly reachable: Effect.Effect<ReadonlyArray<DataCenterRecord>, DataCenterNotReady | StaleRecords>
  /**
   * Asks that the datacenter gets nothing new from now on. Stays until `activate`, through restarts, changes of leader and an
   * emptied record. Its actors and their callers go on. From any node of any datacenter; idempotent.
   */
  readonly drain: (selector: Selector, why?: {
    readonly by?: string | undefined
    readonly reason?: string | undefined
  }) => Effect.Effect<void, WishError>
  /** Takes a drain back. */
  readonly activate: (selector: Selector, why?: {
    readonly by?: string | undefined
    readonly reason?: string | undefined
  }) => Effect.Effect<void, WishError>
  /** Waits until one of that name is routable by a cache that is not stale, at most `timeout` (default 30 s). */
  readonly await: (name: string, options?: {
    readonly timeout?: Duration.Input | undefined
  }) => Effect.Effect<void, DataCenterNotReady>
}>()("effect-troupe/DataCenter/DataCenters") {}

/** What the ring stands on; `GlobalStore` is used where the control plane provides it. */
export type Requires = ControlPlane | Cluster | Remoting | Node | SystemEvents | Placement | Topology

const build = (settings: DataCenterSettings) =>
  Effect.gen(function*() {
    const node = yield* Node
    const inner = yield* Placement
    const around = yield* Topology
    const dataCenters = DataCenters.of(yield* Controller.make(settings))
    const placement = yield* CrossPlacement.make({
      dataCenters,
      inner,
      node,
      timeout: settings.placementTimeout,
      spawnableKinds: settings.spawnableKinds
    })
    return Context.make(DataCenters, dataCenters).pipe(
      Context.add(Placement, placement),
      Context.add(
        Topology,
        Topology.of({
          ...around,
          dataCenterReady: dataCenters.ready,
          dataCenterLastRefresh: dataCenters.lastRefresh,
          awaitDataCenter: dataCenters.await
        })
      )
    )
  })

/**
 * Wraps the cluster's `Placement` and `Topology` with datacenters. `SettingInvalid` names a setting that is missing, out of
 * range, or contradicts the control plane's TTL or this node's own datacenter.
 */
export const layer = (
  options: DataCenterOptions
): Layer.Layer<DataCenters | Placement | Topology, SettingInvalid, Requires> =>
  Layer.effectContext(Effect.flatMap(group.decode(options), build))

/** As `layer`, from the environment. */
export const layerConfig: Layer.Layer<DataCenters | Placement | Topology, SettingInvalid, Requires> = Layer
  .effectContext(Effect.flatMap(group.config, build))

/**
 * Settings of the datacenter ring: who this datacenter is, and how its controller keeps time. Every node of a datacenter
 * carries the same; where they differ, the leader's are written to the record.
 */
import type { Effect } from "effect"
import * as Settings from "../Actor/Settings.ts"

export const group = Settings.group("dataCenter", {
  /** this datacenter's name, the same on all of its nodes; required */
  name: Settings.text({ env: "TROUPE_DATACENTER" }),
  /** part of its identity where given, like `zone`: two datacenters may share a name in different regions */
  region: Settings.optionalText({ env: "TROUPE_REGION" }),
  zone: Settings.optionalText({ env: "TROUPE_ZONE" }),
  /** what selectors may ask for, e.g. `compliance=gdpr`; no part of its identity */
  labels: Settings.labels({ env: "TROUPE_LABELS" }),
  /** `host:port` of load balancers; default: the remoting addresses of the Up members, following membership */
  endpoints: Settings.texts({ env: "TROUPE_DATACENTER_ENDPOINTS", default: [] }),
  /**
   * Kinds that other datacenters may spawn here, checked by the node that is asked; `*` is every kind, an empty list none. Others are
   * refused as `KindNotAllowed`.
   */
  spawnableKinds: Settings.texts({ env: "TROUPE_SPAWNABLE_KINDS", default: ["*"] }),
  /** the leader renews the record's lease; at most a third of the control plane's TTL */
  heartbeatInterval: Settings.duration({ env: "TROUPE_HEARTBEAT_INTERVAL", default: "10 seconds", minimum: 100 }),
  /** every node reads all records anew, watch or not */
  cacheRefreshInterval: Settings.duration({
    env: "TROUPE_CACHE_REFRESH_INTERVAL",
    default: "10 seconds",
    minimum: 100
  }),
  /** older than this since it was last known to be current, the cache is stale */
  maxCacheStaleness: Settings.duration({ env: "TROUPE_MAX_CACHE_STALENESS", default: "30 seconds", minimum: 100 }),
  /** backstop for a change of leader or of members that no event told */
  leaderCheckInterval: Settings.duration({ env: "TROUPE_LEADER_CHECK_INTERVAL", default: "5 seconds", minimum: 100 }),
  /** deadline of each call of the control plane */
  requestTimeout: Settings.duration({ env: "TROUPE_DATACENTER_REQUEST_TIMEOUT", default: "5 seconds", minimum: 10 }),
  /** deadline of one spawn, lookup or stop at one endpoint of another datacenter */
  placementTimeout: Settings.duration({ env: "TROUPE_PLACEMENT_TIMEOUT", default: "10 seconds", minimum: 10 }),
  /** each wait is longer or shorter by up to this part, so that nodes do not fall into step */
  jitterRatio: Settings.number({ env: "TROUPE_JITTER_RATIO", default: 0.1, minimum: 0, maximum: 0.5 }),
  /** cap of the wait between tries that fail */
  maxBackoff: Settings.duration({ env: "TROUPE_MAX_BACKOFF", default: "30 seconds", minimum: 100 }),
  /** off: the cache follows by refreshing alone */
  watchEnabled: Settings.boolean({ env: "TROUPE_WATCH_ENABLED", default: true }),
  /** off: a stale cache is used as it was when last known to be current, with a warning in the log */
  failOnStaleCache: Settings.boolean({ env: "TROUPE_FAIL_ON_STALE_CACHE", default: true })
})

/** What code may give: everything optional but the name. */
export type DataCenterOptions = Parameters<typeof group.decode>[0]
/** What the services read. */
export type DataCenterSettings = Effect.Success<ReturnType<typeof group.decode>>

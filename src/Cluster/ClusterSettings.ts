/**
 * Settings of the cluster ring: defaults, ranges, environment variables. `partitionCount` is the cluster's, not the node's: a
 * member that comes with another one is refused by name.
 */
import { Duration } from "effect"
import type { Effect } from "effect"
import * as Settings from "../Actor/Settings.ts"

export const group = Settings.group("cluster", {
  /** what this member may be asked to do; `spawnOn({ role })` looks only at members that carry it */
  roles: Settings.texts({ env: "TROUPE_ROLES", default: [] }),
  /** Up members that work which needs others waits for; at least 1 */
  minimumMembers: Settings.int({ env: "TROUPE_MINIMUM_MEMBERS", default: 1, minimum: 1, maximum: 10_000 }),
  /** partitions of the name space; the same for all members and for the life of the cluster */
  partitionCount: Settings.int({ env: "TROUPE_PARTITION_COUNT", default: 271, minimum: 1, maximum: 4_096 }),
  /**
   * how long a member may act after its last renewal, and how long others wait (and a margin) before they take over; by default 10 seconds,
   * and 20 on a store that may take long to fail over (NATS with replicas)
   */
  memberLease: Settings.optionalDuration({ env: "TROUPE_MEMBER_LEASE", minimum: 1_000 }),
  /**
   * Is a member dead whose port refuses, wherever it is? Set it only where no proxy, firewall or other machine can answer at a living
   * member's advertised address, and each address belongs to one member alone. Off: elsewhere than on this very host a refusal is
   * suspicion, and the lease decides.
   */
  refusalIsDeath: Settings.boolean({ env: "TROUPE_REFUSAL_IS_DEATH", default: false }),
  /** patience with the store while joining, and with other members until `minimumMembers` are there */
  bootstrapTimeout: Settings.duration({ env: "TROUPE_BOOTSTRAP_TIMEOUT", default: "10 seconds", minimum: 100 }),
  /** the whole of one spawn, lookup or stop, with all its retries */
  requestTimeout: Settings.duration({ env: "TROUPE_REQUEST_TIMEOUT", default: "5 seconds", minimum: 100 }),
  /** the whole of leaving in order */
  shutdownTimeout: Settings.duration({ env: "TROUPE_SHUTDOWN_TIMEOUT", default: "3 minutes", minimum: 100 }),
  /** are actors of departed members started elsewhere? off: their names are freed */
  relocation: Settings.boolean({ env: "TROUPE_RELOCATION", default: true }),
  /** actors that one directory owner relocates at once */
  relocationConcurrency: Settings.int({
    env: "TROUPE_RELOCATION_CONCURRENCY",
    default: 16,
    minimum: 1,
    maximum: 1_000
  })
})

/** What code may give: everything optional. */
export type ClusterOptions = Parameters<typeof group.decode>[0]
/** What was given, with every default that does not depend on what is found. */
export type ClusterSettings = Effect.Success<ReturnType<typeof group.decode>>
/** What the services read. */
export type MemberSettings = ClusterSettings & { readonly memberLease: Duration.Duration }

/** A lease below this for a store that takes so long to fail over would lapse with each of its fail-overs; milliseconds. */
export const leastLease = (failoverMillis: number): number => 1.5 * failoverMillis

/** The settings with a lease that fits the store: the one that was given, else 10 s, or as many times that as a fail-over asks for. */
export const withLease = (settings: ClusterSettings, failoverMillis: number): MemberSettings => ({
  ...settings,
  memberLease: settings.memberLease
    ?? Duration.seconds(10 * Math.max(1, Math.ceil(leastLease(failoverMillis) / 10_000)))
})

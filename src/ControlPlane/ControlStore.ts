/**
 * Port: the one place where nodes agree. Small keys and values with compare-and-set and a watch; replication and consensus are
 * the backend's. Everything that must be true for more than one node goes through here.
 *
 * Three outcomes: a write is applied (success), certainly not applied (`RevisionConflict`, `StoreUnavailable`), or perhaps
 * (`OutcomeUnknown`). Decide by compare-and-set, never from a read: replicas may be stale.
 *
 * Every operation ends within the store's request timeout (default 5 s) with one of these.
 */
import { Context, Effect, Layer, Schema } from "effect"
import type { Option, Stream } from "effect"
import type { InvalidData, OutcomeUnknown, RevisionConflict, StoreUnavailable } from "../Actor/errors.ts"
import * as Memory from "./ControlStoreMemory.ts"

export {
  /**
   * The same store behind the port's checks: malformed keys, prefixes and values end as `InvalidData`, and what cannot be a revision as
   * a conflict, before the store is asked. For backends that bring only the operations themselves.
   */
  checked
} from "./internal/storeChecked.ts"
export {
  /** Revisions of one key, older to newer. Backends write them as decimal integers. */
  compareRevision,
  /** longest key in bytes that every backend takes */
  maxKeyBytes
} from "./internal/storeData.ts"
export {
  /**
   * The same store with a shorter patience, for callers whose own deadline is tighter than the backend's request timeout (a
   * lease of duration D gives its calls D/4). A read that takes longer is `StoreUnavailable`, a write `OutcomeUnknown`.
   */
  withDeadline
} from "./internal/storeDeadline.ts"
export {
  /**
   * A watch for backends that have none of their own: lists again and again (each 250 ms by default) and tells the differences. Says
   * that it is lost when a listing fails or takes longer than three seconds, and that it is current by one of a second at most.
   */
  watchByListing
} from "./internal/watchByListing.ts"

/** Opaque; equal means same version of the key. Orders versions of one key (`compareRevision`), and is never used as a token. */
export type Revision = string

export interface Entry {
  readonly key: string
  readonly value: string
  readonly revision: Revision
}

/**
 * A watch begins with a `Snapshot`, and after any gap begins again with one: replace what you hold, never merge. Between
 * snapshots come the changes in order (`Capabilities.watchOrder`). The revision of a removal places it among the versions of its
 * key; no write succeeds at it. `Current` says that nothing is missing up to now (at least every second while
 * the store is healthy); `Lost` that the watch no longer knows (it recovers by itself, with a `Snapshot`).
 */
export type WatchEvent =
  | { readonly _tag: "Snapshot"; readonly entries: ReadonlyArray<Entry> }
  | { readonly _tag: "Put"; readonly entry: Entry }
  | { readonly _tag: "Removed"; readonly key: string; readonly revision: Revision }
  | { readonly _tag: "Current" }
  | { readonly _tag: "Lost"; readonly reason: string }

/** What a backend can do; settings that ask for more are refused at start. */
export const Capabilities = Schema.Struct({
  /** `memory`, `nats`, `etcd`, ... */
  backend: Schema.String,
  /** does an acknowledged write survive a restart of the store? */
  durable: Schema.Boolean,
  /** bytes of UTF-8 */
  maxValueBytes: Schema.Int,
  /** how long the store itself may be unable to write while it fails over, in milliseconds */
  failoverMillis: Schema.Int,
  /**
   * In which order a watch tells the changes between two snapshots: `revision`: those of the whole prefix by rising revision;
   * `key`: those of one key, and nothing is promised of different keys.
   */
  watchOrder: Schema.Literals(["revision", "key"]),
  /**
   * What the backend has found out about the servers and their settings, by name, for programs and people who check them. What
   * cannot be known says `unknown`. Absent where a backend has nothing to report.
   */
  found: Schema.optionalKey(Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Number, Schema.Boolean])))
})
export type Capabilities = typeof Capabilities.Type

/** Why a write failed. `InvalidData` is a key or value that no store could take (too large, malformed key). */
export type WriteError = RevisionConflict | StoreUnavailable | OutcomeUnknown | InvalidData

export interface ControlStoreService {
  readonly capabilities: Capabilities
  readonly get: (key: string) => Effect.Effect<Option.Option<Entry>, StoreUnavailable | InvalidData>
  /** Succeeds only if the key is absent (never written, or removed). */
  readonly create: (key: string, value: string) => Effect.Effect<Revision, WriteError>
  /** Succeeds only at exactly that revision of an entry that is there; at the revision of a removal it is a conflict. */
  readonly update: (key: string, value: string, revision: Revision) => Effect.Effect<Revision, WriteError>
  /** Succeeds only at exactly that revision. */
  readonly remove: (key: string, revision: Revision) => Effect.Effect<void, WriteError>
  /** All entries whose key starts with the prefix, sorted by key. */
  readonly list: (prefix: string) => Effect.Effect<ReadonlyArray<Entry>, StoreUnavailable | InvalidData>
  /** Never fails and never ends: trouble is told as `Lost`. */
  readonly watch: (prefix: string) => Stream.Stream<WatchEvent>
}

/** The store of one datacenter's cluster. */
export class ControlStore extends Context.Service<ControlStore, ControlStoreService>()(
  "effect-troupe/ControlPlane/ControlStore"
) {}

/** The same port, shared by all datacenters: home grants and desired states. Each `ControlPlane` Layer provides one. */
export class GlobalStore extends Context.Service<GlobalStore, ControlStoreService>()(
  "effect-troupe/ControlPlane/GlobalStore"
) {}

/**
 * Keys are parts joined by `/`. A part may hold letters, digits and `-_.=@`; anything else is escaped by `keyPart`, so that
 * names given by users can never reach into another part.
 */
export const keyPart = (text: string): string =>
  text.replace(
    /[^A-Za-z0-9\-_.@]/gu,
    (character) =>
      Array.from(new TextEncoder().encode(character), (byte) => `=${byte.toString(16).padStart(2, "0")}`).join("")
  )

export type { Faults as MemoryFaults, MemoryBackend } from "./ControlStoreMemory.ts"

/** A store in this process that hands out several clients, each with faults of its own; simulations are made of these. */
export const makeMemoryBackend: Effect.Effect<Memory.MemoryBackend> = Memory.make()

/** A store in this process with one client, for tests and single nodes. */
export const makeMemory = (options?: Memory.Options): Effect.Effect<ControlStoreService> =>
  Effect.map(Memory.make(options), (backend) => backend.client())

/** The embedded store: all who share this Layer's instance share the data, and it ends with them. */
export const layerMemory: Layer.Layer<ControlStore> = Layer.effect(ControlStore, makeMemory())

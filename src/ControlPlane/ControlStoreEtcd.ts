/**
 * The control store on etcd, for servers from 3.4 on: the backend to take in production, because it keeps what it acknowledged
 * through the loss of any minority of its members.
 *
 * Responsible for: compare-and-set as one transaction, linearizable reads, watches without holes, fail-over between endpoints, and
 * true outcomes whatever the connection does meanwhile.
 * Not for: creating users or compacting; both are the operator's.
 * Invariant: a write is repeated only as the very same compare-and-set, so it is applied at most once.
 *
 * An entry's value in etcd is followed by the writer's id (a control character and 32 digits), by which a client recognises its own
 * write after an answer was lost. Revisions are etcd's mod revisions.
 */
import { Duration, Effect, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import { AuthenticationFailed, StoreUnavailable } from "../Actor/errors.ts"
import type { SettingInvalid } from "../Actor/errors.ts"
import * as Settings from "../Actor/Settings.ts"
import { ControlStore } from "./ControlStore.ts"
import type { Capabilities, ControlStoreService } from "./ControlStore.ts"
import { openLink } from "./internal/etcdClient.edge.ts"
import type { EtcdLink } from "./internal/etcdClient.edge.ts"
import { makeNamespace, makeOperations, rangeOf } from "./internal/etcdOperations.ts"
import type { EtcdFailure } from "./internal/etcdProtocol.edge.ts"
import { watchRange } from "./internal/etcdRead.ts"
import { makeReportForeign } from "./internal/foreign.ts"
import { checkEntry, checkKey, checkPrefix, defaultMaxValueBytes, makeIdSource } from "./internal/storeData.ts"
import { readWithin } from "./internal/storeDeadline.ts"

/** Every setting with its default, range and environment variable; spread it to make a group with another namespace. */
export const settings = {
  /** `http(s)://host:port` or `host:port` of the members; one that is dead does not matter while another lives */
  endpoints: Settings.texts({ env: "ETCD_ENDPOINTS", default: ["http://127.0.0.1:2379"] }),
  user: Settings.optionalText({ env: "ETCD_USER" }),
  password: Settings.optionalSecret({ env: "ETCD_PASSWORD" }),
  /** path of the authorities' certificates; without it the system's count. TLS itself comes with `https://` */
  tlsCaFile: Settings.optionalText({ env: "ETCD_TLS_CA_FILE" }),
  tlsCertFile: Settings.optionalText({ env: "ETCD_TLS_CERT_FILE" }),
  tlsKeyFile: Settings.optionalText({ env: "ETCD_TLS_KEY_FILE" }),
  /** all keys lie under it; two stores with the same namespace are one */
  namespace: Settings.text({
    env: "ETCD_NAMESPACE",
    default: "/troupe/cluster",
    pattern: /^\/?[A-Za-z0-9\-_.=@]+(\/[A-Za-z0-9\-_.=@]+)*\/?$/
  }),
  /** deadline of each operation, retries included; at least 100 ms */
  requestTimeout: Settings.duration({ env: "ETCD_REQUEST_TIMEOUT", default: "5 seconds", minimum: 100 }),
  /** how long the first answer may take at start, retries included */
  connectTimeout: Settings.duration({ env: "ETCD_CONNECT_TIMEOUT", default: "10 seconds", minimum: 100 })
}

const group = Settings.group("etcd", settings)

export type PartialSettings = Settings.Partial_<typeof settings>
export type SettingValues = Settings.Values<typeof settings>

/** Why a store could not be opened: a bad setting (its name says which), refused credentials, or no member in time. */
export type OpenError = SettingInvalid | AuthenticationFailed | StoreUnavailable

/** what a cluster of members may take to become writable again after its leader is lost */
const clusterFailoverMillis = 4_100

/** The first questions to etcd: may we read here, and how many members are there? */
const introduce = (
  link: EtcdLink,
  values: SettingValues
): Effect.Effect<number, AuthenticationFailed | StoreUnavailable> => {
  const peer = `etcd ${values.endpoints.join(", ")}`
  const ask = Effect.gen(function*() {
    yield* link.call("KV", "range", { ...rangeOf(makeNamespace(values.namespace), ""), count_only: true }, 2_000)
    const members = yield* link.call<{ readonly members: ReadonlyArray<unknown> }>("Cluster", "memberList", {}, 2_000)
    return members.members.length
  })
  let last = "no endpoint answered"
  return ask.pipe(
    Effect.tapError((failure) => Effect.sync(() => void (last = failure.reason))),
    Effect.retry({
      while: (failure: EtcdFailure) => failure.kind !== "Denied" && failure.kind !== "Unauthenticated",
      schedule: Schedule.spaced("200 millis").pipe(Schedule.jittered)
    }),
    Effect.mapError((failure) =>
      failure.kind === "Denied" || failure.kind === "Unauthenticated"
        ? new AuthenticationFailed({ peer })
        : new StoreUnavailable({ operation: `connect to ${peer}`, reason: failure.reason })
    ),
    Effect.timeoutOrElse({
      duration: values.connectTimeout,
      orElse: () =>
        Effect.fail(
          new StoreUnavailable({
            operation: `connect to ${peer}`,
            reason: `no answer within ${Duration.format(values.connectTimeout)}: ${last}`
          })
        )
    })
  )
}

/** Opens the store with settings that are already decoded; its connections close with the scope. */
export const open = Effect.fnUntraced(function*(
  values: SettingValues
): Effect.fn.Return<ControlStoreService, OpenError, Scope.Scope> {
  const link = yield* openLink(values)
  const members = yield* introduce(link, values)
  const namespace = makeNamespace(values.namespace)
  const report = yield* makeReportForeign(`etcd: ${namespace.root}`)
  const deadline = values.requestTimeout
  const operations = makeOperations(link, namespace, deadline, yield* makeIdSource, report)
  const capabilities: Capabilities = {
    backend: "etcd",
    durable: true,
    maxValueBytes: defaultMaxValueBytes,
    failoverMillis: members > 1 ? clusterFailoverMillis : 0,
    watchOrder: "revision",
    found: { members }
  }
  // A single request ends by its own deadline; only a listing, which may be many, is given one here.
  const entryChecked = <A, E>(key: string, value: string, write: Effect.Effect<A, E>) =>
    Effect.andThen(checkEntry(key, value, capabilities.maxValueBytes), write)

  return {
    capabilities,
    get: (key) => Effect.andThen(checkKey(key), operations.get(key)),
    create: (key, value) => entryChecked(key, value, operations.create(key, value)),
    update: (key, value, revision) => entryChecked(key, value, operations.update(key, value, revision)),
    remove: (key, revision) => Effect.andThen(checkKey(key), operations.remove(key, revision)),
    list: (prefix) =>
      Effect.andThen(checkPrefix(prefix), readWithin(`list ${prefix}`, deadline)(operations.list(prefix))),
    watch: (prefix) => watchRange(link, namespace, prefix, report)
  }
})

/** Opens a store; what is not given takes its default. */
export const make = (partial: PartialSettings = {}): Effect.Effect<ControlStoreService, OpenError, Scope.Scope> =>
  Effect.flatMap(group.decode(partial), open)

/** The control store of a datacenter's cluster on etcd. */
export const layer = (partial: PartialSettings = {}): Layer.Layer<ControlStore, OpenError> =>
  Layer.effect(ControlStore, make(partial))

/** The same, from the environment: `ETCD_ENDPOINTS`, `ETCD_NAMESPACE`, and so on as `settings` names them. */
export const layerConfig: Layer.Layer<ControlStore, OpenError> = Layer.effect(
  ControlStore,
  Effect.flatMap(group.config, open)
)

/**
 * The control store on a NATS JetStream key-value bucket, for servers from 2.9.10 on.
 *
 * Responsible for: compare-and-set by expected sequence, reads from the stream's leader, watches on consumers of our own, and true
 * outcomes whatever the connection does meanwhile.
 * Not for: more durability than the servers give. A single server keeps what it acknowledged; replicas acknowledge before they
 * sync and can lose the last writes when their leader is paused or lost. Such a loss is noticed by watches and told, not undone.
 * Invariant: a write is repeated only with its own id and at the same expected sequence, so it is applied at most once; it is reported as applied only on the
 * server's word for this very message.
 *
 * A removal leaves a marker in the bucket. Revisions are the stream's sequence numbers.
 */
import { Duration, Effect, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import { SettingInvalid, StoreUnavailable } from "../Actor/errors.ts"
import type { AuthenticationFailed } from "../Actor/errors.ts"
import * as Settings from "../Actor/Settings.ts"
import { ControlStore } from "./ControlStore.ts"
import type { Capabilities, ControlStoreService } from "./ControlStore.ts"
import { makeReportForeign } from "./internal/foreign.ts"
import { ensureBucket, makeBucket, reportBucket } from "./internal/natsBucket.ts"
import { openLink } from "./internal/natsConnection.edge.ts"
import { makeOperations } from "./internal/natsOperations.ts"
import { isTooOld } from "./internal/natsReport.ts"
import { listBucket, watchBucket } from "./internal/natsRead.ts"
import { makeSeen } from "./internal/natsSeen.ts"
import { checkEntry, checkKey, checkPrefix, defaultMaxValueBytes, makeIdSource } from "./internal/storeData.ts"
import { readWithin } from "./internal/storeDeadline.ts"

/** Every setting with its default, range and environment variable; spread it to make a group with another bucket. */
export const settings = {
  /** `host:port`, `nats://host:port` or `tls://host:port`; any member of a cluster will do */
  servers: Settings.texts({ env: "NATS_SERVERS", default: ["127.0.0.1:4222"] }),
  user: Settings.optionalText({ env: "NATS_USER" }),
  password: Settings.optionalSecret({ env: "NATS_PASSWORD" }),
  token: Settings.optionalSecret({ env: "NATS_TOKEN" }),
  /** an nkey's seed (`SU...`) */
  nkeySeed: Settings.optionalSecret({ env: "NATS_NKEY_SEED" }),
  /** path of a credentials file: a JWT with its seed */
  credentialsFile: Settings.optionalText({ env: "NATS_CREDENTIALS_FILE" }),
  /** TLS with the system's authorities; implied by the files below and by `tls://` */
  tls: Settings.boolean({ env: "NATS_TLS", default: false }),
  tlsCaFile: Settings.optionalText({ env: "NATS_TLS_CA_FILE" }),
  tlsCertFile: Settings.optionalText({ env: "NATS_TLS_CERT_FILE" }),
  tlsKeyFile: Settings.optionalText({ env: "NATS_TLS_KEY_FILE" }),
  /** the bucket is created if it is absent; one with other settings is refused */
  bucket: Settings.text({ env: "NATS_BUCKET", default: "troupe_cluster", pattern: /^[A-Za-z0-9_-]{1,64}$/ }),
  /** copies of the bucket among the members of a NATS cluster: 1, 3 or 5 */
  replicas: Settings.int({ env: "NATS_REPLICAS", default: 1, minimum: 1, maximum: 5 }),
  /** `file` or `memory`; a bucket in memory forgets everything at a restart of its server */
  storage: Settings.text({ env: "NATS_STORAGE", default: "file", pattern: /^(file|memory)$/ }),
  /** versions of a key that the bucket keeps */
  history: Settings.int({ env: "NATS_HISTORY", default: 1, minimum: 1, maximum: 64 }),
  /** how long the marker of a removal stays in the bucket, for watches that are away; then watches sweep it */
  markerRetention: Settings.duration({ env: "NATS_MARKER_RETENTION", default: "10 minutes", minimum: 1_000 }),
  /** deadline of each operation, retries included; at least 100 ms */
  requestTimeout: Settings.duration({ env: "NATS_REQUEST_TIMEOUT", default: "5 seconds", minimum: 100 }),
  /** how long the first connection and the bucket may take at start, retries included */
  connectTimeout: Settings.duration({ env: "NATS_CONNECT_TIMEOUT", default: "10 seconds", minimum: 100 })
}

const group = Settings.group("nats", settings)

export type PartialSettings = Settings.Partial_<typeof settings>
export type SettingValues = Settings.Values<typeof settings>

/** Why a store could not be opened: a bad setting (its name says which), refused credentials, or no server in time. */
export type OpenError = SettingInvalid | AuthenticationFailed | StoreUnavailable

/** room that a message's subject and headers need beside the value */
const messageOverhead = 8 * 1024
/** what a bucket with replicas may take to become writable again after its leader is lost */
const replicatedFailoverMillis = 9_000

export {
  /** What `capabilities.found` holds for this backend: the bucket's settings and the server's sync policy, `unknown` where it does not tell. */
  type BucketReport
} from "./internal/natsReport.ts"

/** Opens the bucket with settings that are already decoded; the connection closes with the scope. */
export const open = Effect.fnUntraced(function*(
  values: SettingValues
): Effect.fn.Return<ControlStoreService, OpenError, Scope.Scope> {
  const link = yield* openLink(values)
  const bucket = makeBucket(values.bucket)
  const version = link.serverVersion()
  if (isTooOld(version)) {
    return yield* new SettingInvalid({
      setting: "nats.servers",
      reason: `${values.servers.join(", ")} runs NATS ${version}, and 2.9.10 or newer is needed`
    })
  }
  let last = "it was not reached"
  const config = yield* link.connected.pipe(
    Effect.andThen(ensureBucket(link, bucket, values, 2_000)),
    Effect.tapError((error) => Effect.sync(() => void (last = error.reason))),
    Effect.retry({
      while: (error) => error._tag === "StoreUnavailable",
      schedule: Schedule.spaced("250 millis").pipe(Schedule.jittered)
    }),
    Effect.timeoutOrElse({
      duration: values.connectTimeout,
      orElse: () =>
        Effect.fail(
          new StoreUnavailable({
            operation: `open bucket ${bucket.name} on nats ${values.servers.join(", ")}`,
            reason: `JetStream did not answer within ${Duration.format(values.connectTimeout)}: ${last}`
          })
        )
    })
  )
  const found = yield* reportBucket(link, bucket, config)
  const maxMessage = config.max_msg_size > 0 ? Math.min(config.max_msg_size, link.maxPayload()) : link.maxPayload()
  const capabilities: Capabilities = {
    backend: "nats",
    durable: config.storage === "file",
    maxValueBytes: Math.min(defaultMaxValueBytes, maxMessage - Math.min(messageOverhead, maxMessage >> 1)),
    failoverMillis: values.replicas > 1 ? replicatedFailoverMillis : 0,
    watchOrder: "revision",
    found: { ...found }
  }
  const report = yield* makeReportForeign(`nats: bucket ${bucket.name}`)
  const deadline = values.requestTimeout
  const seen = makeSeen()
  const operations = makeOperations(link, bucket, deadline, config.num_replicas > 1, yield* makeIdSource, seen)
  const ofEntry = <A, E>(key: string, value: string, change: Effect.Effect<A, E>) =>
    Effect.andThen(checkEntry(key, value, capabilities.maxValueBytes), change)

  return {
    capabilities,
    get: (key) => Effect.andThen(checkKey(key), operations.get(key)),
    create: (key, value) => ofEntry(key, value, operations.create(key, value)),
    update: (key, value, revision) => ofEntry(key, value, operations.update(key, value, revision)),
    remove: (key, revision) => Effect.andThen(checkKey(key), operations.remove(key, revision)),
    list: (prefix) =>
      Effect.andThen(
        checkPrefix(prefix),
        readWithin(`list ${prefix}`, deadline)(
          operations.persistRead(`list ${prefix}`, () => listBucket(link, bucket, prefix, report))
        )
      ),
    watch: (prefix) => watchBucket(link, bucket, prefix, Duration.toMillis(values.markerRetention), seen, report)
  }
})

/** Opens a bucket; what is not given takes its default. */
export const make = (partial: PartialSettings = {}): Effect.Effect<ControlStoreService, OpenError, Scope.Scope> =>
  Effect.flatMap(group.decode(partial), open)

/** The control store of a datacenter's cluster on NATS. */
export const layer = (partial: PartialSettings = {}): Layer.Layer<ControlStore, OpenError> =>
  Layer.effect(ControlStore, make(partial))

/** The same, from the environment: `NATS_SERVERS`, `NATS_BUCKET`, and so on as `settings` names them. */
export const layerConfig: Layer.Layer<ControlStore, OpenError> = Layer.effect(
  ControlStore,
  Effect.flatMap(group.config, open)
)

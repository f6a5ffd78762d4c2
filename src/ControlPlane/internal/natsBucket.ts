/**
 * One bucket as NATS keeps it: a stream whose last message for a subject is the value of a key. Names, settings, and the three
 * requests that the store and its watches are made of. Follows the key-value layout of the vendor's own tools, so that a bucket
 * can be looked at with them.
 */
import type { ApiError, ConsumerInfo, StreamConfig, StreamInfo } from "@nats-io/jetstream"
import { Effect } from "effect"
import type { Scope } from "effect"
import { SettingInvalid, StoreUnavailable } from "../../Actor/errors.ts"
import { LinkFailure } from "./natsConnection.edge.ts"
import type { Message, NatsLink } from "./natsConnection.edge.ts"
import { syncPolicyOf } from "./natsReport.ts"
import type { BucketReport, ServerSettings } from "./natsReport.ts"
import { keyProblem, randomId } from "./storeData.ts"

export interface Bucket {
  readonly name: string
  readonly stream: string
  /** `$KV.<bucket>.` */
  readonly subjectPrefix: string
}

export const makeBucket = (name: string): Bucket => ({ name, stream: `KV_${name}`, subjectPrefix: `$KV.${name}.` })

// A key's parts become subject tokens, so that the server filters by prefix. `.` and `@`, which tokens cannot hold, are escaped
// with `/`, which keys hold between parts only; so the mapping is one to one and the names stay readable.
const escapes: Readonly<Record<string, string>> = { "/": ".", ".": "/d", "@": "/a" }

export const subjectOf = (bucket: Bucket, key: string): string =>
  bucket.subjectPrefix + key.replace(/[/.@]/g, (character) => escapes[character]!)

/** undefined: a subject that this mapping has not written */
export const keyOf = (bucket: Bucket, subject: string): string | undefined => {
  if (!subject.startsWith(bucket.subjectPrefix)) return undefined
  const key = subject.slice(bucket.subjectPrefix.length)
    .replace(/\.|\/d|\/a|\//g, (escape) => escape === "." ? "/" : escape === "/d" ? "." : escape === "/a" ? "@" : "\0")
  return keyProblem(key) === undefined ? key : undefined
}

/** The narrowest subject filter that takes in all keys with the prefix; what it takes in besides is dropped here. */
export const filterOf = (bucket: Bucket, prefix: string): string => {
  const whole = prefix.slice(0, prefix.lastIndexOf("/") + 1)
  return `${subjectOf(bucket, whole)}>`
}

// ---- JetStream's own requests ----------------------------------------------------------------------------------------------

/** error codes of JetStream's API that mean something to us */
export const codes = {
  streamNotFound: 10059,
  messageNotFound: 10037,
  wrongLastSequence: 10071,
  wrongLastSequenceConstant: 10164,
  messageTooLarge: 10054,
  storeFailed: 10077,
  replicasNeedCluster: 10074
} as const

export interface Reply {
  readonly error?: ApiError
}

const decoder = new TextDecoder()

/** JSON that the server sent; what is none is a broken link, not a defect. */
export const parseReply = <A>(message: Message): Effect.Effect<A & Reply, LinkFailure> =>
  Effect.try({
    try: () => JSON.parse(decoder.decode(message.data)) as A & Reply,
    catch: () => new LinkFailure({ kind: "NoAnswer", reason: "the server's answer is no JSON" })
  })

export const api = <A>(
  link: NatsLink,
  subject: string,
  body: unknown,
  timeoutMillis: number
): Effect.Effect<A & Reply, LinkFailure> =>
  Effect.flatMap(
    link.request(`$JS.API.${subject}`, body === undefined ? "" : JSON.stringify(body), timeoutMillis),
    (message) => parseReply<A>(message)
  )

export const streamInfo = (link: NatsLink, bucket: Bucket, timeoutMillis: number) =>
  api<StreamInfo>(link, `STREAM.INFO.${bucket.stream}`, undefined, timeoutMillis)

/** Sequence of the newest message under the prefix by the word of the stream's leader; 0 where there is none. */
export const leaderLast = (
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  timeoutMillis: number
): Effect.Effect<number, LinkFailure> =>
  api<{ readonly message: { readonly seq: number } }>(
    link,
    `STREAM.MSG.GET.${bucket.stream}`,
    { last_by_subj: filterOf(bucket, prefix) },
    timeoutMillis
  ).pipe(Effect.flatMap((reply) =>
    reply.error === undefined
      ? Effect.succeed(reply.message.seq)
      : reply.error.err_code === codes.messageNotFound
      ? Effect.succeed(0)
      : Effect.fail(new LinkFailure({ kind: "NoResponders", reason: reply.error.description }))
  ))

export interface ReadConsumer {
  readonly name: string
  /** messages that were waiting when it was made */
  readonly pending: number
}

/**
 * A short-lived consumer that sends what is in the bucket, oldest first, then all that follows. It proves itself alive each second,
 * and the server drops it when nobody listens for a while. Its messages come to `inbox`.
 */
export const readConsumer = (
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  inbox: string,
  timeoutMillis: number
): Effect.Effect<ReadConsumer, LinkFailure, Scope.Scope> =>
  Effect.gen(function*() {
    const name = `troupe-${yield* randomId}`
    const config = {
      name,
      deliver_subject: inbox,
      // With one version of each key "all" is the last of each, and a 2.9 server delivers it ten times faster than by
      // "last_per_subject". Where older versions are kept, they come first and the newest wins.
      deliver_policy: "all",
      ack_policy: "none",
      replay_policy: "instant",
      max_deliver: 1,
      filter_subject: filterOf(bucket, prefix),
      flow_control: true,
      idle_heartbeat: 1_000_000_000,
      inactive_threshold: 10_000_000_000,
      mem_storage: true,
      num_replicas: 1
    }
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => link.send(`$JS.API.CONSUMER.DELETE.${bucket.stream}.${name}`, ""))
    )
    const made = yield* api<ConsumerInfo>(
      link,
      `CONSUMER.CREATE.${bucket.stream}.${name}`,
      { stream_name: bucket.stream, config },
      timeoutMillis
    )
    if (made.error !== undefined) {
      return yield* new LinkFailure({ kind: "NoResponders", reason: made.error.description })
    }
    return { name, pending: made.num_pending }
  })

/** Where a delivered message stands: its sequence in the stream, among the consumer's, and how many are still to come. */
export interface Position {
  readonly stream: number
  readonly consumer: number
  readonly pending: number
}

/** `$JS.ACK.<stream>.<consumer>.<tries>.<sseq>.<cseq>.<time>.<pending>`, with domain and account in front on newer servers. */
export const positionOf = (reply: string | undefined): Position | undefined => {
  const tokens = reply?.split(".") ?? []
  if (tokens[0] !== "$JS" || tokens[1] !== "ACK" || tokens.length < 9) return undefined
  const at = tokens.length === 9 ? 5 : 7
  const [stream, consumer, , pending] = tokens.slice(at, at + 4).map(Number)
  return Number.isSafeInteger(stream) && Number.isSafeInteger(consumer) && Number.isSafeInteger(pending)
    ? { stream: stream!, consumer: consumer!, pending: pending! }
    : undefined
}

/** A removal leaves a marker behind, so that watches see it. */
export const isMarker = (operation: string): boolean => operation === "DEL" || operation === "PURGE"

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** undefined: bytes that are no text */
export const textOf = (data: Uint8Array): string | undefined => {
  try {
    return strict.decode(data)
  } catch {
    return undefined
  }
}

// ---- the bucket's own settings -----------------------------------------------------------------------------------------------

export interface BucketSettings {
  readonly replicas: number
  readonly storage: string
  readonly history: number
}

const wanted = (bucket: Bucket, settings: BucketSettings) => ({
  name: bucket.stream,
  subjects: [`${bucket.subjectPrefix}>`],
  retention: "limits",
  storage: settings.storage,
  num_replicas: settings.replicas,
  max_msgs_per_subject: settings.history,
  max_consumers: -1,
  max_msgs: -1,
  max_bytes: -1,
  max_msg_size: -1,
  // nothing here may vanish by age: a server that was down longer would forget every node at once
  max_age: 0,
  discard: "new",
  duplicate_window: 120_000_000_000,
  allow_rollup_hdrs: true,
  deny_delete: true,
  // any replica answers a direct read, also one that lags behind
  allow_direct: false
})

/** what in an existing bucket is not as the settings ask */
const drift = (
  settings: BucketSettings,
  found: StreamConfig
): ReadonlyArray<readonly [setting: string, reason: string]> => {
  const all: Array<readonly [string, boolean, string]> = [
    [
      "replicas",
      found.num_replicas === settings.replicas,
      `has ${found.num_replicas} replicas, not ${settings.replicas}`
    ],
    ["storage", found.storage === settings.storage, `is stored in ${found.storage}, not ${settings.storage}`],
    [
      "history",
      found.max_msgs_per_subject === settings.history,
      `keeps ${found.max_msgs_per_subject} versions of a key, not ${settings.history}`
    ],
    ["bucket", found.max_age === 0, `drops keys by age (${found.max_age / 1e9} s), which would forget living nodes`],
    ["bucket", found.discard === "new", "drops old keys when it is full"],
    ["bucket", found.mirror === undefined, "is a mirror, which takes no writes"]
  ]
  return all.filter(([, fits]) => !fits).map(([setting, , reason]) => [setting, reason])
}

/**
 * Finds the bucket, or creates it. One with other settings is refused, because each of them is part of what the store promises.
 * Asks for the bucket before creating it: two members that create one at the same time can otherwise time out on clusters.
 */
export const ensureBucket = Effect.fnUntraced(function*(
  link: NatsLink,
  bucket: Bucket,
  settings: BucketSettings,
  timeoutMillis: number
) {
  const unavailable = (reason: string) => new StoreUnavailable({ operation: `open bucket ${bucket.name}`, reason })
  const asUnavailable = Effect.mapError((failure: LinkFailure) => unavailable(failure.reason))
  let found: StreamInfo & Reply = yield* asUnavailable(streamInfo(link, bucket, timeoutMillis))
  if (found.error?.err_code === codes.streamNotFound) {
    found = yield* asUnavailable(
      api<StreamInfo>(link, `STREAM.CREATE.${bucket.stream}`, wanted(bucket, settings), timeoutMillis)
    )
    // another member was faster, perhaps with other settings
    if (found.error !== undefined && found.error.err_code !== undefined) {
      const again = yield* asUnavailable(streamInfo(link, bucket, timeoutMillis))
      if (again.error === undefined) found = again
    }
  }
  if (found.error !== undefined) {
    const impossible = found.error.err_code === codes.replicasNeedCluster
    return yield* impossible
      ? new SettingInvalid({ setting: "nats.replicas", reason: `bucket ${bucket.name}: ${found.error.description}` })
      : unavailable(found.error.description)
  }
  const [first] = drift(settings, found.config)
  if (first !== undefined) {
    return yield* new SettingInvalid({ setting: `nats.${first[0]}`, reason: `bucket ${bucket.name} ${first[1]}` })
  }
  return found.config
})

// ---- what is there, for people and programs --------------------------------------------------------------------------------------

/** subject on which servers tell their settings, to the system account and to whom it exports them */
export const serverSettingsSubject = "$SYS.REQ.SERVER.PING.VARZ"

/**
 * Servers tell their sync policy to the system account only, which has no buckets; so it is known where that account exports
 * `serverSettingsSubject` to ours, and from 2.10 on, before which no server tells it. The first server that answers speaks for all.
 */
const syncPolicy = (link: NatsLink): Effect.Effect<string> =>
  link.request(serverSettingsSubject, "", 500).pipe(
    Effect.flatMap((message) => parseReply<ServerSettings>(message)),
    Effect.map(syncPolicyOf),
    Effect.orElseSucceed(() => "unknown")
  )

/** Reports what was found, once in the log and as a value; what weakens the store's promises is a warning. */
export const reportBucket = Effect.fnUntraced(function*(link: NatsLink, bucket: Bucket, config: StreamConfig) {
  const report: BucketReport = {
    bucket: bucket.name,
    storage: config.storage,
    replicas: config.num_replicas,
    history: config.max_msgs_per_subject,
    directReads: config.allow_direct ?? false,
    syncPolicy: config.storage === "memory" ? "never, it is in memory" : yield* syncPolicy(link),
    serverVersion: link.serverVersion()
  }
  yield* Effect.logInfo(`nats: bucket ${bucket.name} is open`).pipe(Effect.annotateLogs({ ...report }))
  if (report.storage === "memory") {
    yield* Effect.logWarning(`nats: bucket ${bucket.name} is in memory: it forgets everything when its servers restart`)
  }
  if (report.directReads) {
    yield* Effect.logWarning(`nats: bucket ${bucket.name} allows direct reads; ours ask the leader all the same`)
  }
  return report
})

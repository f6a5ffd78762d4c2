/**
 * Edge to etcd's public protocol: its generated clients on the gRPC of the `etcd3` package, the messages that are used, what a
 * failure means, and one channel to one endpoint.
 */
import type * as Grpc from "@grpc/grpc-js"
import type * as ProtoLoader from "@grpc/proto-loader"
import { Data } from "effect"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"

// The gRPC that `etcd3` itself depends on; a second copy beside it would not know its channels.
const etcd3 = createRequire(import.meta.url).resolve("etcd3")
const fromEtcd3 = createRequire(etcd3)
export const grpc = fromEtcd3("@grpc/grpc-js") as typeof Grpc
const protoLoader = fromEtcd3("@grpc/proto-loader") as typeof ProtoLoader

type Callback<A> = (error: Grpc.ServiceError | null, answer: A | undefined) => void
type Unary = (
  request: object,
  metadata: Grpc.Metadata,
  options: Grpc.CallOptions,
  callback: Callback<unknown>
) => Grpc.ClientUnaryCall
type Service = Grpc.Client & { readonly [method: string]: Unary }
type WatchService = Grpc.Client & {
  readonly watch: (metadata: Grpc.Metadata) => Grpc.ClientDuplexStream<object, WatchResponse>
}
type ServiceConstructor<S> = new(
  address: string,
  credentials: Grpc.ChannelCredentials,
  options: Grpc.ChannelOptions
) => S

const services = (grpc.loadPackageDefinition(
  protoLoader.loadSync(join(dirname(etcd3), "../proto/rpc.proto"), {
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true
  })
) as unknown as {
  readonly etcdserverpb:
    & { readonly [name in "KV" | "Auth" | "Cluster" | "Maintenance"]: ServiceConstructor<Service> }
    & {
      readonly Watch: ServiceConstructor<WatchService>
    }
}).etcdserverpb

export interface Header {
  readonly cluster_id: string
  readonly revision: string
}

export interface KeyValue {
  readonly key: Buffer
  readonly value: Buffer
  readonly mod_revision: string
  /** revision at which the key's present life began */
  readonly create_revision: string
}

export interface RangeResponse {
  readonly header: Header
  readonly kvs: ReadonlyArray<KeyValue>
  readonly more: boolean
  readonly count: string
}

export interface WatchResponse {
  readonly header: Header
  readonly created: boolean
  readonly canceled: boolean
  readonly compact_revision: string
  readonly cancel_reason: string
  readonly fragment: boolean
  readonly events: ReadonlyArray<{ readonly type: "Put" | "Delete"; readonly kv: KeyValue }>
}

/**
 * How a request ended without an answer. `NotSent` and `Refused` certainly did nothing (`Refused` may be tried again: no leader,
 * too busy); `Denied` is refused for good; `Compacted` asks for a revision that is gone; `NoAnswer` was perhaps applied.
 */
export class EtcdFailure extends Data.TaggedError("EtcdFailure")<{
  readonly kind: "NotSent" | "Refused" | "Denied" | "Unauthenticated" | "Compacted" | "TooLarge" | "NoAnswer"
  readonly reason: string
}> {}

export const { status } = grpc

/**
 * etcd's words that certainly mean "not applied, try again". A member that stops also says so of what it had proposed before, and
 * others may apply that; so "server stopped" is none of them.
 */
const refusedWords = ["no leader", "not leader", "too many requests", "not capable"]
/** The client's own words for a request that never left. An error number alone may be of a connection that was well until then. */
const unsentWords = ["name resolution failed", "no connection established", "waiting for lb pick"]
/** Another token is needed: it has expired, is older than the last change of users, or was not needed so far. */
const tokenWords = ["invalid auth token", "revision of auth store is old", "user name is empty"]

export const failureOf = (error: Grpc.ServiceError): EtcdFailure => {
  const reason = error.details || error.message
  const lower = reason.toLowerCase()
  const says = (words: ReadonlyArray<string>) => words.some((word) => lower.includes(word))
  const kind: EtcdFailure["kind"] = says(unsentWords)
    ? "NotSent"
    : error.code === status.OUT_OF_RANGE
    ? "Compacted"
    : error.code === status.UNAUTHENTICATED || says(tokenWords)
    ? "Unauthenticated"
    : error.code === status.PERMISSION_DENIED || says(["permission denied", "authentication failed"])
    ? "Denied"
    : says(["request is too large"])
    ? "TooLarge"
    // what is exhausted on the way back, or by a proxy, says nothing of the request
    : says(refusedWords) || (error.code === status.RESOURCE_EXHAUSTED && lower.startsWith("etcdserver:"))
    ? "Refused"
    : error.code === status.INVALID_ARGUMENT || error.code === status.UNIMPLEMENTED ||
        error.code === status.FAILED_PRECONDITION
    ? "Denied"
    : "NoAnswer"
  return new EtcdFailure({ kind, reason })
}

const channelOptions: Grpc.ChannelOptions = {
  // repeating is ours: the client would repeat writes whose outcome is unknown
  "grpc.enable_retries": 0,
  "grpc.keepalive_time_ms": 10_000,
  "grpc.keepalive_timeout_ms": 2_000,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.min_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 1_000,
  "grpc.use_local_subchannel_pool": 1,
  // listings are as large as they are
  "grpc.max_receive_message_length": -1,
  "grpc.max_send_message_length": -1,
  "grpc.service_config_disable_resolution": 1
}

export interface Endpoint {
  readonly target: string
  /** has anything come back since `at`? a connection that is mute for a whole deadline is dropped */
  answeredAt: number
  readonly openedAt: number
  readonly base: Grpc.Client
  readonly services: Readonly<Record<"KV" | "Auth" | "Cluster" | "Maintenance", Service>>
  readonly watch: WatchService
}

export const openEndpoint = (target: string, credentials: Grpc.ChannelCredentials): Endpoint => {
  const base = new services.KV(target, credentials, channelOptions)
  const shared = { ...channelOptions, channelOverride: base.getChannel() }
  return {
    target,
    answeredAt: 0,
    openedAt: performance.now(),
    base,
    services: {
      KV: base,
      Auth: new services.Auth(target, credentials, shared),
      Cluster: new services.Cluster(target, credentials, shared),
      Maintenance: new services.Maintenance(target, credentials, shared)
    },
    watch: new services.Watch(target, credentials, shared)
  }
}

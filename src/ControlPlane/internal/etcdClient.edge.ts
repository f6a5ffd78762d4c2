/**
 * Edge to etcd's public protocol, on the generated clients of the `etcd3` package and its own gRPC. Its higher layers are not
 * used: they repeat writes, have no deadlines of their own, keep retry timers after `close`, and their watcher skips what
 * happened while it reconnected.
 *
 * One channel for each endpoint. A request is sent only on a channel that is ready, so that whatever fails before is known not to
 * have happened; each has a deadline. A failing endpoint is left for the next one.
 */
import type * as Grpc from "@grpc/grpc-js"
import type * as ProtoLoader from "@grpc/proto-loader"
import { Data, Effect, Redacted, Semaphore } from "effect"
import type { Scope } from "effect"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { SettingInvalid } from "../../Actor/errors.ts"
import { readPem } from "./pem.edge.ts"
import { shownAddress } from "./shownAddress.ts"

// The gRPC that `etcd3` itself depends on; a second copy beside it would not know its channels.
const etcd3 = createRequire(import.meta.url).resolve("etcd3")
const fromEtcd3 = createRequire(etcd3)
const grpc = fromEtcd3("@grpc/grpc-js") as typeof Grpc
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

export interface EtcdLink {
  /** Sends to the preferred endpoint once it is connected. After a failure another endpoint is preferred. */
  readonly call: <A>(
    service: "KV" | "Cluster" | "Maintenance",
    method: string,
    request: object,
    timeoutMillis: number
  ) => Effect.Effect<A, EtcdFailure>
  /** Opens a watch stream on the preferred endpoint. It ends with the scope, or by itself, which `end` tells. */
  readonly watch: (
    request: object,
    on: { readonly data: (response: WatchResponse) => void; readonly end: (reason: string) => void },
    timeoutMillis: number
  ) => Effect.Effect<WatchStream, EtcdFailure, Scope.Scope>
}

export interface WatchStream {
  readonly send: (request: object) => void
  /** Its endpoint is silent: drops the connection, which may be a black hole, and prefers another endpoint. */
  readonly abandon: Effect.Effect<void>
}

export interface LinkOptions {
  readonly endpoints: ReadonlyArray<string>
  readonly user: string | undefined
  readonly password: Redacted.Redacted<string> | undefined
  readonly tlsCaFile: string | undefined
  readonly tlsCertFile: string | undefined
  readonly tlsKeyFile: string | undefined
}

const invalid = (setting: string, reason: string) => new SettingInvalid({ setting: `etcd.${setting}`, reason })

const readable = (setting: string, file: string | undefined): Effect.Effect<Buffer | undefined, SettingInvalid> =>
  Effect.map(readPem("etcd", setting, file), (text) => text === undefined ? undefined : Buffer.from(text))

const address = (endpoint: string): { readonly secure: boolean; readonly target: string } | undefined => {
  const parts = /^(?:(https?):\/\/)?((?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(\d{1,5}))\/?$/.exec(endpoint)
  return parts === null || Number(parts[3]) < 1 || Number(parts[3]) > 65_535
    ? undefined
    : { secure: parts[1] === "https", target: parts[2]! }
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

/** how long one connection may take to open */
const dialMillis = 900

const { status } = grpc

/** etcd's words that certainly mean "not applied, try again" */
const refusedWords = [
  "no leader",
  "not leader",
  "too many requests",
  "server stopped",
  "not capable",
  "no connection established"
]
const unsentWords = [
  "ECONNREFUSED",
  "Name resolution failed",
  "No connection established",
  "Waiting for LB pick",
  "EHOSTUNREACH"
]

const failureOf = (error: Grpc.ServiceError): EtcdFailure => {
  const reason = error.details || error.message
  const says = (words: ReadonlyArray<string>) => words.some((word) => reason.toLowerCase().includes(word.toLowerCase()))
  const kind: EtcdFailure["kind"] = says(unsentWords)
    ? "NotSent"
    : error.code === status.OUT_OF_RANGE
    ? "Compacted"
    : error.code === status.UNAUTHENTICATED || says(["invalid auth token"])
    ? "Unauthenticated"
    : error.code === status.PERMISSION_DENIED ||
        says(["permission denied", "authentication failed", "user name is empty"])
    ? "Denied"
    : says(["request is too large"])
    ? "TooLarge"
    : error.code === status.RESOURCE_EXHAUSTED || says(refusedWords)
    ? "Refused"
    : error.code === status.INVALID_ARGUMENT || error.code === status.UNIMPLEMENTED ||
        error.code === status.FAILED_PRECONDITION
    ? "Denied"
    : "NoAnswer"
  return new EtcdFailure({ kind, reason })
}

interface Endpoint {
  readonly target: string
  /** has anything come back since `at`? a connection that is mute for a whole deadline is dropped */
  answeredAt: number
  readonly openedAt: number
  readonly base: Grpc.Client
  readonly services: Readonly<Record<"KV" | "Auth" | "Cluster" | "Maintenance", Service>>
  readonly watch: WatchService
}

const openEndpoint = (target: string, credentials: Grpc.ChannelCredentials): Endpoint => {
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

/** Opens channels to all endpoints; they close with the scope. Sends nothing yet. */
export const openLink = Effect.fnUntraced(
  function*(options: LinkOptions): Effect.fn.Return<EtcdLink, SettingInvalid, Scope.Scope> {
    const addresses = options.endpoints.map((endpoint) => ({ endpoint, parsed: address(endpoint) }))
    const malformed = addresses.find(({ parsed }) => parsed === undefined)
    if (malformed !== undefined) {
      return yield* invalid(
        "endpoints",
        `"${shownAddress(malformed.endpoint)}" is not http(s)://host:port or host:port`
      )
    }
    if (addresses.length === 0) return yield* invalid("endpoints", "names no endpoint")
    const secure = addresses.filter(({ parsed }) => parsed!.secure).length
    if (secure !== 0 && secure !== addresses.length) {
      return yield* invalid("endpoints", "mixes http and https; all endpoints must be of one kind")
    }
    const ca = yield* readable("tlsCaFile", options.tlsCaFile)
    const cert = yield* readable("tlsCertFile", options.tlsCertFile)
    const key = yield* readable("tlsKeyFile", options.tlsKeyFile)
    if ((cert === undefined) !== (key === undefined)) {
      return yield* invalid("tlsCertFile", "a client certificate needs tlsCertFile and tlsKeyFile")
    }
    if (secure === 0 && (ca ?? cert) !== undefined) {
      return yield* invalid("endpoints", "TLS files are given, but the endpoints are not https")
    }
    if ((options.user === undefined) !== (options.password === undefined)) {
      return yield* invalid("user", "needs a password, and a password needs a user")
    }
    const credentials = yield* Effect.try({
      try: () =>
        secure === 0
          ? grpc.credentials.createInsecure()
          : grpc.credentials.createSsl(ca ?? null, key ?? null, cert ?? null),
      catch: (error) => invalid("tlsCaFile", error instanceof Error ? error.message : String(error))
    })
    const endpoints = yield* Effect.acquireRelease(
      Effect.sync(() => addresses.map(({ parsed }) => openEndpoint(parsed!.target, credentials))),
      (opened) =>
        Effect.sync(() => {
          for (const endpoint of opened) endpoint.base.close()
        })
    )

    let preferred = 0
    const current = (): Endpoint => endpoints[preferred % endpoints.length]!
    const leave = (endpoint: Endpoint) =>
      Effect.sync(() => {
        if (current() === endpoint) preferred += 1
      })
    /** A connection that swallows everything would be noticed by keepalive only after twelve seconds. */
    const abandon = (endpoint: Endpoint) =>
      Effect.andThen(
        leave(endpoint),
        Effect.sync(() => {
          const at = endpoints.indexOf(endpoint)
          if (at < 0) return
          endpoints[at] = openEndpoint(endpoint.target, credentials)
          endpoint.base.close()
        })
      )

    const ready = (endpoint: Endpoint, timeoutMillis: number): Effect.Effect<void, EtcdFailure> =>
      Effect.suspend(() => {
        const channel = endpoint.base.getChannel()
        if (channel.getConnectivityState(true) === grpc.connectivityState.READY) return Effect.void
        const failed = new EtcdFailure({ kind: "NotSent", reason: `no connection to etcd ${endpoint.target}` })
        const end = Date.now() + timeoutMillis
        return Effect.callback<void, EtcdFailure>((resume) => {
          const look = (): void => {
            const state = channel.getConnectivityState(true)
            // refused: the call itself fails at once then, unsent, and says why
            if (state === grpc.connectivityState.READY || state === grpc.connectivityState.TRANSIENT_FAILURE) {
              return resume(Effect.void)
            }
            if (state === grpc.connectivityState.SHUTDOWN) return resume(Effect.fail(failed))
            channel.watchConnectivityState(state, end, (error) => error ? resume(Effect.fail(failed)) : look())
          }
          look()
        }).pipe(
          // The client itself waits twenty seconds for a connection that opens and then stays mute.
          Effect.timeoutOrElse({ duration: timeoutMillis + 50, orElse: () => Effect.fail(failed) }),
          Effect.tapError(() => performance.now() - endpoint.openedAt > dialMillis ? abandon(endpoint) : Effect.void)
        )
      })

    const unary = <A>(
      endpoint: Endpoint,
      service: keyof Endpoint["services"],
      method: string,
      request: object,
      metadata: Grpc.Metadata,
      timeoutMillis: number
    ): Effect.Effect<A, EtcdFailure> =>
      Effect.callback<A, EtcdFailure>((resume) => {
        const client = endpoint.services[service]
        const sentAt = performance.now()
        const call = client[method]!.call(
          client,
          request,
          metadata,
          { deadline: Date.now() + Math.max(1, timeoutMillis) },
          (error, answer) => {
            if (error === null) {
              endpoint.answeredAt = performance.now()
              return resume(Effect.succeed(answer as A))
            }
            const mute = error.code === status.DEADLINE_EXCEEDED && endpoint.answeredAt < sentAt
            resume(Effect.andThen(mute ? abandon(endpoint) : Effect.void, Effect.fail(failureOf(error))))
          }
        )
        return Effect.sync(() => call.cancel())
      })

    // ---- authentication: a token for all calls, asked for once however many need it ------------------------------------------
    let token: string | undefined
    const oneAtATime = yield* Semaphore.make(1)
    const authenticate = (stale: string | undefined, timeoutMillis: number): Effect.Effect<void, EtcdFailure> =>
      options.user === undefined || options.password === undefined ? Effect.void : oneAtATime.withPermit(
        Effect.suspend(() => {
          if (token !== undefined && token !== stale) return Effect.void
          const request = { name: options.user, password: Redacted.value(options.password!) }
          const endpoint = current()
          return unary<{ readonly token: string }>(
            endpoint,
            "Auth",
            "authenticate",
            request,
            new grpc.Metadata(),
            timeoutMillis
          )
            .pipe(
              Effect.map((answer) => void (token = answer.token)),
              // a server without authentication takes everyone
              Effect.catchIf(
                (failure) => failure.reason.includes("authentication is not enabled"),
                () => Effect.sync(() => void (token = ""))
              )
            )
        })
      )
    const metadata = (): Grpc.Metadata => {
      const made = new grpc.Metadata()
      // a member without a leader says so at once instead of waiting
      made.set("hasleader", "true")
      if (token !== undefined && token !== "") made.set("token", token)
      return made
    }

    /** Runs on the preferred endpoint with a token, and once more with a new token if that one has expired. */
    const onEndpoint = <A, R>(
      timeoutMillis: number,
      use: (endpoint: Endpoint) => Effect.Effect<A, EtcdFailure, R>
    ): Effect.Effect<A, EtcdFailure, R> =>
      Effect.suspend(() => {
        const endpoint = current()
        const authenticated = Effect.suspend(() =>
          token === undefined ? authenticate(undefined, timeoutMillis) : Effect.void
        )
        return ready(endpoint, timeoutMillis).pipe(
          Effect.andThen(authenticated),
          Effect.andThen(Effect.suspend(() => {
            const used = token
            return use(endpoint).pipe(
              Effect.catchIf(
                (failure) => failure.kind === "Unauthenticated" && options.user !== undefined,
                () => Effect.andThen(authenticate(used, timeoutMillis), use(endpoint))
              )
            )
          })),
          Effect.tapError((failure) =>
            failure.kind === "NotSent" || failure.kind === "NoAnswer" || failure.kind === "Refused"
              ? leave(endpoint)
              : Effect.void
          )
        )
      })

    return {
      call: (service, method, request, timeoutMillis) =>
        onEndpoint(timeoutMillis, (endpoint) => unary(endpoint, service, method, request, metadata(), timeoutMillis)),
      watch: (request, on, timeoutMillis) =>
        onEndpoint(timeoutMillis, (endpoint) =>
          Effect.map(
            Effect.acquireRelease(
              Effect.sync(() => {
                const stream = endpoint.watch.watch(metadata())
                let ended = false
                const end = (reason: string) => {
                  if (ended) return
                  ended = true
                  on.end(reason)
                }
                stream.on("data", on.data)
                stream.on("error", (error: Grpc.ServiceError) => {
                  const failure = failureOf(error)
                  if (failure.kind === "Unauthenticated") token = undefined
                  end(failure.reason)
                })
                stream.on("end", () => end("etcd closed the watch"))
                stream.write({ create_request: request })
                return stream
              }),
              (stream) => Effect.sync(() => stream.cancel())
            ),
            (stream) => ({
              send: (next: object) => {
                if (stream.writable) stream.write(next)
              },
              abandon: abandon(endpoint)
            })
          ))
    }
  }
)

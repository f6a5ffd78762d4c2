/**
 * Edge to etcd's public protocol, on the generated clients of the `etcd3` package and its own gRPC. Its higher layers are not
 * used: they repeat writes, have no deadlines of their own, keep retry timers after `close`, and their watcher skips what
 * happened while it reconnected.
 *
 * One channel for each endpoint. A request is sent only on a channel that is ready, so that whatever fails before is known not to
 * have happened; each has a deadline. A failing endpoint is left for the next one.
 */
import type * as Grpc from "@grpc/grpc-js"
import { Effect, Redacted, Semaphore } from "effect"
import type { Scope } from "effect"
import { SettingInvalid } from "../../Actor/errors.ts"
import { EtcdFailure, failureOf, grpc, openEndpoint, status } from "./etcdProtocol.edge.ts"
import type { Endpoint, WatchResponse } from "./etcdProtocol.edge.ts"
import { readPem } from "./pem.edge.ts"
import { shownAddress } from "./shownAddress.ts"

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

/** how long one connection may take to open */
const dialMillis = 900

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

    /** A channel that somebody abandoned since it was looked at takes nothing, and says so by throwing. */
    const unsent = (error: unknown) =>
      new EtcdFailure({ kind: "NotSent", reason: error instanceof Error ? error.message : String(error) })

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
        try {
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
        } catch (error) {
          resume(Effect.fail(unsent(error)))
        }
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
    // What every call carries. The client copies it, so it is made anew only for another token.
    const carried = (with_: string | undefined): Grpc.Metadata => {
      const made = new grpc.Metadata()
      // a member without a leader says so at once instead of waiting
      made.set("hasleader", "true")
      if (with_ !== undefined && with_ !== "") made.set("token", with_)
      return made
    }
    let carriedFor: string | undefined
    let carriedNow = carried(undefined)
    const metadata = (): Grpc.Metadata => {
      if (carriedFor !== token) {
        carriedNow = carried(token)
        carriedFor = token
      }
      return carriedNow
    }

    const leaveAfter = (endpoint: Endpoint, failure: EtcdFailure): Effect.Effect<void> =>
      failure.kind === "NotSent" || failure.kind === "NoAnswer" || failure.kind === "Refused"
        ? leave(endpoint)
        : Effect.void

    /** Runs on the preferred endpoint with a token, and once more with a new token if that one is not taken any more; all in one time. */
    const onEndpoint = <A, R>(
      timeoutMillis: number,
      use: (endpoint: Endpoint, timeoutMillis: number) => Effect.Effect<A, EtcdFailure, R>
    ): Effect.Effect<A, EtcdFailure, R> => {
      const prepared = (endpoint: Endpoint, timeoutMillis: number): Effect.Effect<A, EtcdFailure, R> => {
        let sent = false
        return ready(endpoint, timeoutMillis * 0.9).pipe(
          Effect.andThen(
            Effect.suspend(() => token === undefined ? authenticate(undefined, timeoutMillis) : Effect.void)
          ),
          // without a token nothing was asked yet
          Effect.mapError((failure) =>
            failure.kind === "NoAnswer" ? new EtcdFailure({ kind: "NotSent", reason: failure.reason }) : failure
          ),
          Effect.andThen(Effect.suspend(() => {
            sent = true
            return use(endpoint, timeoutMillis)
          })),
          Effect.timeoutOrElse({
            duration: timeoutMillis,
            orElse: () =>
              Effect.fail(
                new EtcdFailure({
                  kind: sent ? "NoAnswer" : "NotSent",
                  reason: `no answer of etcd ${endpoint.target} in time`
                })
              )
          })
        )
      }
      return Effect.suspend(() => {
        const endpoint = current()
        const used = token
        const end = performance.now() + timeoutMillis
        const isPrepared = (used !== undefined || options.user === undefined)
          && endpoint.base.getChannel().getConnectivityState(true) === grpc.connectivityState.READY
        return Effect.catch(
          isPrepared ? use(endpoint, timeoutMillis) : prepared(endpoint, timeoutMillis),
          (failure): Effect.Effect<A, EtcdFailure, R> =>
            failure.kind === "Unauthenticated" && used !== undefined
              ? Effect.andThen(
                Effect.sync(() => {
                  if (token === used) token = undefined
                }),
                Effect.suspend(() => prepared(endpoint, Math.max(1, end - performance.now())))
              )
              : Effect.andThen(leaveAfter(endpoint, failure), Effect.fail(failure))
        )
      })
    }

    return {
      call: (service, method, request, timeoutMillis) =>
        onEndpoint(timeoutMillis, (endpoint, left) => unary(endpoint, service, method, request, metadata(), left)),
      watch: (request, on, timeoutMillis) =>
        onEndpoint(timeoutMillis, (endpoint) =>
          Effect.map(
            Effect.acquireRelease(
              Effect.try({
                try: () => {
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
                },
                catch: unsent
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

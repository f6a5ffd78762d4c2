/**
 * Edge to the NATS client: one connection for the length of a scope, which comes back by itself. Everything that the client does
 * by promises, callbacks and timers is turned into Effects here, and each request ends in one of four ways.
 *
 * What the client does on its own and must not be relied on: a request made while it is disconnected is silently dropped, one in
 * flight waits out its timeout, a TLS or authentication failure may close it for good. So requests wait for a live connection,
 * those in flight end when it is lost, and a closed client is replaced.
 */
import {
  AuthorizationError,
  connect,
  createInbox,
  credsAuthenticator,
  headers as makeHeaders,
  nkeyAuthenticator,
  NoRespondersError,
  PermissionViolationError,
  UserAuthenticationExpiredError
} from "@nats-io/transport-node"
import type { Authenticator, Msg, NatsConnection, NodeConnectionOptions } from "@nats-io/transport-node"
import { Data, Deferred, Duration, Effect, Latch, Redacted, Schedule, Stream } from "effect"
import type { Scope } from "effect"
import { AuthenticationFailed, SettingInvalid, StoreUnavailable } from "../../Actor/errors.ts"
import { readPem } from "./pem.edge.ts"
import { shownAddress } from "./shownAddress.ts"

/**
 * How a request ended without an answer. `NotSent`: nothing left this process. `NoResponders`: the server says that nobody took
 * it. `Denied`: the server forbids it. `Overtaken`: refused because others were faster. `NoAnswer`: perhaps it was taken.
 */
export class LinkFailure extends Data.TaggedError("LinkFailure")<{
  readonly kind: "NotSent" | "NoResponders" | "Denied" | "Overtaken" | "NoAnswer"
  readonly reason: string
}> {}

export interface Message {
  readonly subject: string
  readonly reply: string | undefined
  readonly data: Uint8Array
  /** status code of a protocol message (100: heartbeat or flow control, 409: consumer gone, ...), 0 for data */
  readonly status: number
  readonly description: string
  readonly header: (name: string) => string
}

export interface NatsLink {
  /** Sends at once, so it is only for a connected link: see `connected`. */
  readonly request: (
    subject: string,
    payload: string,
    timeoutMillis: number,
    headers?: ReadonlyArray<readonly [string, string]>
  ) => Effect.Effect<Message, LinkFailure>
  /** Best effort, without an answer. */
  readonly send: (subject: string, payload: string) => void
  /** A fresh inbox whose messages go to the callback until the scope ends. */
  readonly inbox: (onMessage: (message: Message) => void) => Effect.Effect<string, LinkFailure, Scope.Scope>
  /** Is there a connection as far as is known? */
  readonly isConnected: () => boolean
  /** Suspends until there is a connection. */
  readonly connected: Effect.Effect<void>
  /** Completes with the reason when the connection of this moment is lost; at once where there is none. */
  readonly lost: Effect.Effect<string>
  /** bytes */
  readonly maxPayload: () => number
  readonly serverVersion: () => string
}

export interface LinkOptions {
  readonly servers: ReadonlyArray<string>
  readonly user: string | undefined
  readonly password: Redacted.Redacted<string> | undefined
  readonly token: Redacted.Redacted<string> | undefined
  readonly nkeySeed: Redacted.Redacted<string> | undefined
  readonly credentialsFile: string | undefined
  readonly tls: boolean
  readonly tlsCaFile: string | undefined
  readonly tlsCertFile: string | undefined
  readonly tlsKeyFile: string | undefined
  /** how long the first connection may take, retries included */
  readonly connectTimeout: Duration.Duration
}

/** the setting that a bad file or address belongs to */
const invalid = (setting: string, reason: string) => new SettingInvalid({ setting: `nats.${setting}`, reason })

const readable = (setting: string, file: string | undefined) => readPem("nats", setting, file)

/** undefined: an address that can be dialled */
const addressProblem = (server: string): string | undefined => {
  const parts = /^(?:(?:nats|tls):\/\/)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(server)
  if (parts === null) return `"${shownAddress(server)}" is not host:port, nats://host:port or tls://host:port`
  return parts[2] !== undefined && (Number(parts[2]) < 1 || Number(parts[2]) > 65_535)
    ? `"${server}" has no port between 1 and 65535`
    : undefined
}

/** An authenticator that has read its keys: the client itself would fail on them only while it dials, again and again. */
const tried = (
  setting: string,
  what: string,
  authenticator: Authenticator
): Effect.Effect<Authenticator, SettingInvalid> =>
  Effect.try({
    try: () => {
      authenticator("nonce")
      return authenticator
    },
    // not the vendor's words, which may quote a character of the secret
    catch: () => invalid(setting, what)
  })

const clientOptions = Effect.fnUntraced(function*(options: LinkOptions) {
  const problem = options.servers.length === 0 ? "names no server" : options.servers.map(addressProblem).find(Boolean)
  if (problem !== undefined) return yield* invalid("servers", problem)
  const credentials = yield* readable("credentialsFile", options.credentialsFile)
  const ca = yield* readable("tlsCaFile", options.tlsCaFile)
  const cert = yield* readable("tlsCertFile", options.tlsCertFile)
  const key = yield* readable("tlsKeyFile", options.tlsKeyFile)
  if ((cert === undefined) !== (key === undefined)) {
    return yield* invalid("tlsCertFile", "a client certificate needs tlsCertFile and tlsKeyFile")
  }
  if (options.password !== undefined && options.user === undefined) {
    return yield* invalid("password", "needs a user")
  }
  if (options.nkeySeed !== undefined && credentials !== undefined) {
    return yield* invalid("nkeySeed", "is given beside credentialsFile, which holds a seed of its own")
  }
  const secret = (text: string) => new TextEncoder().encode(text)
  const authenticator = options.nkeySeed !== undefined
    ? yield* tried(
      "nkeySeed",
      "is no seed of an nkey",
      nkeyAuthenticator(secret(Redacted.value(options.nkeySeed).trim()))
    )
    : credentials !== undefined
    ? yield* tried(
      "credentialsFile",
      `${options.credentialsFile} does not hold a JWT and its seed`,
      credsAuthenticator(secret(credentials))
    )
    : undefined
  const tls = options.tls || ca !== undefined || cert !== undefined
    || options.servers.some((server) => server.startsWith("tls://"))
  return {
    name: "effect-troupe",
    servers: options.servers.map((server) => server.replace(/^(?:nats|tls):\/\//, "")),
    // the first attempt fails fast and is ours to repeat; after it the client never gives up
    timeout: 2_000,
    maxReconnectAttempts: -1,
    reconnectTimeWait: 200,
    reconnectJitter: 50,
    reconnectJitterTLS: 50,
    ignoreAuthErrorAbort: true,
    // a black-holed connection is noticed within three seconds
    pingInterval: 1_000,
    maxPingOut: 2,
    noAsyncTraces: true,
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.password === undefined ? {} : { pass: Redacted.value(options.password) }),
    ...(options.token === undefined ? {} : { token: Redacted.value(options.token) }),
    ...(authenticator === undefined ? {} : { authenticator }),
    ...(tls
      ? {
        tls: {
          ...(ca === undefined ? {} : { ca }),
          ...(cert === undefined || key === undefined ? {} : { cert, key })
        }
      }
      : {})
  } satisfies NodeConnectionOptions
})

const words = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause instanceof Error ? error.cause.message : undefined
  return cause === undefined || error.message.includes(cause) ? error.message : `${error.message}: ${cause}`
}

const caused = (error: unknown, test: (error: Error) => boolean): boolean =>
  error instanceof Error && (test(error) || caused(error.cause, test))

const isAuthentication = (error: unknown): boolean =>
  caused(error, (e) => e instanceof AuthorizationError || e instanceof UserAuthenticationExpiredError)

const toMessage = (message: Msg): Message => ({
  subject: message.subject,
  reply: message.reply,
  data: message.data,
  status: message.headers?.code ?? 0,
  description: message.headers?.description ?? "",
  header: (name) => message.headers?.get(name) ?? ""
})

export const linkFailure = (error: unknown): LinkFailure => {
  const reason = words(error)
  const kind = caused(error, (e) => e instanceof NoRespondersError)
    ? "NoResponders"
    // who may not listen for the answer may have sent the question all the same
    : caused(error, (e) => e instanceof PermissionViolationError && e.operation === "publish")
    ? "Denied"
    : "NoAnswer"
  return new LinkFailure({ kind, reason })
}

/** what the client has in its hands while it dials; none of it is part of its interface */
interface Dialling {
  readonly protocol?: { readonly transport?: { readonly discard?: () => void } }
}

class DialFailed extends Data.TaggedError("DialFailed")<{ readonly error: unknown }> {}

/** Connects, and stays connected as well as it can until the scope ends. */
export const openLink = Effect.fnUntraced(function*(options: LinkOptions) {
  const client = yield* clientOptions(options)
  const peer = client.servers.join(", ")
  let last = new DialFailed({ error: "no server answered" })
  // A dial that nobody waits for any more must not leave its connection behind.
  const dial = Effect.tryPromise({
    try: (signal) =>
      connect(client).then((opened) => {
        if (signal.aborted) void closing(opened)
        return opened
      }),
    catch: (error) => last = new DialFailed({ error })
  })
  // One that is closed while it dials leaves the socket of that dial open, and its process with it.
  const closing = (old: NatsConnection & Dialling): Promise<void> =>
    old.close().catch(() => undefined).then(() => old.protocol?.transport?.discard?.())
  let connection: NatsConnection = yield* Effect.uninterruptibleMask((restore) =>
    restore(
      dial.pipe(
        Effect.retry({
          schedule: Schedule.spaced("250 millis").pipe(Schedule.jittered),
          while: ({ error }) => !isAuthentication(error)
        }),
        Effect.timeoutOrElse({ duration: options.connectTimeout, orElse: () => Effect.fail(last) }),
        Effect.mapError(({ error }) =>
          isAuthentication(error)
            ? new AuthenticationFailed({ peer: `nats ${peer}` })
            : new StoreUnavailable({ operation: `connect to nats ${peer}`, reason: words(error) })
        )
      )
    ).pipe(Effect.tap(() => Effect.addFinalizer(() => Effect.promise(() => closing(connection)))))
  )

  const up = Latch.makeUnsafe(true)
  const inFlight = new Set<(reason: string) => void>()
  let loss = Deferred.makeUnsafe<string>()
  let isUp = true
  const down = (reason: string): void => {
    isUp = false
    up.closeUnsafe()
    Deferred.doneUnsafe(loss, Effect.succeed(reason))
    const broken = Array.from(inFlight)
    inFlight.clear()
    for (const fail of broken) fail(reason)
  }
  const restored = (): void => {
    if (isUp) return
    isUp = true
    loss = Deferred.makeUnsafe<string>()
    up.openUnsafe()
  }

  const follow = Effect.suspend(() =>
    Stream.fromAsyncIterable(connection.status(), words).pipe(
      Stream.runForEach((status) => {
        switch (status.type) {
          case "disconnect":
          case "staleConnection":
          case "forceReconnect":
            down(`connection to nats ${peer} lost`)
            return Effect.logDebug(`nats: ${status.type}`)
          case "reconnect":
            restored()
            return Effect.logInfo(`nats: connected again to ${status.server}`)
          case "error": {
            const text = words(status.error)
            // a user who may not ask for the servers' settings is told so where it is reported
            return text.includes("$SYS.REQ.") ? Effect.logDebug(`nats: ${text}`) : Effect.logWarning(`nats: ${text}`)
          }
          default:
            return Effect.void
        }
      }),
      Effect.ignore
    )
  )
  // The status ends when the client has closed itself (revoked credentials, for one): then it is replaced.
  yield* follow.pipe(
    Effect.andThen(Effect.sync(() => down(`connection to nats ${peer} closed`))),
    Effect.andThen(Effect.promise(() => closing(connection))),
    Effect.andThen(
      Effect.uninterruptible(Effect.map(dial, (next) => {
        connection = next
        restored()
      })).pipe(Effect.retry(Schedule.spaced("1 second").pipe(Schedule.jittered)))
    ),
    Effect.forever,
    Effect.forkScoped
  )

  const link: NatsLink = {
    request: (subject, payload, timeoutMillis, entries) =>
      Effect.suspend(() => {
        if (!isUp) return Effect.fail(new LinkFailure({ kind: "NotSent", reason: "not connected" }))
        const headers = entries === undefined || entries.length === 0 ? undefined : makeHeaders()
        for (const [name, value] of entries ?? []) headers!.set(name, value)
        return Effect.callback<Message, LinkFailure>((resume) => {
          // one that was in flight when the connection broke would wait out its timeout
          const broken = (reason: string) => resume(Effect.fail(new LinkFailure({ kind: "NoAnswer", reason })))
          inFlight.add(broken)
          const timeout = Math.max(1, Math.ceil(timeoutMillis))
          connection.request(subject, payload, headers === undefined ? { timeout } : { timeout, headers }).then(
            (message) => {
              inFlight.delete(broken)
              resume(Effect.succeed(toMessage(message)))
            },
            (error) => {
              inFlight.delete(broken)
              resume(Effect.fail(linkFailure(error)))
            }
          )
        })
      }),
    send: (subject, payload) => {
      if (isUp && !connection.isClosed()) connection.publish(subject, payload)
    },
    inbox: (onMessage) =>
      Effect.map(
        Effect.acquireRelease(
          Effect.try({
            try: () =>
              connection.subscribe(createInbox(), {
                callback: (error, message) => {
                  if (error === null) onMessage(toMessage(message))
                }
              }),
            catch: (error) => new LinkFailure({ kind: "NotSent", reason: words(error) })
          }),
          (subscription) =>
            Effect.sync(() => {
              if (!connection.isClosed() && !subscription.isClosed()) subscription.unsubscribe()
            })
        ),
        (subscription) => subscription.getSubject()
      ),
    isConnected: () => isUp,
    connected: up.await,
    lost: Effect.suspend(() => Deferred.await(loss)),
    maxPayload: () => connection.info?.max_payload ?? 1_048_576,
    serverVersion: () => connection.info?.version ?? "unknown"
  }
  return link
})

/**
 * Port: connections that carry frames. Two implementations, `layerTcp` (sockets) and the simulated network of
 * `effect-troupe/testing`, share everything above it: handshake, lanes, codecs, back-pressure.
 *
 * A frame is an opaque, non-empty byte array of at most `maxFrameBytes`; a connection keeps their order, delivers each at most
 * once, and says when it is over. Who is at the other end, and whether it may be, is the handshake's business, not ours.
 */
import { Clock, Context, Duration, Effect, Layer, Queue, Redacted, Schema, type Scope } from "effect"
import { type FrameTooLarge, type NodeUnreachable, SettingInvalid } from "../Actor/errors.ts"
import { isListening, networkStack } from "./internal/networkStack.edge.ts"
import { connect, listen, type SocketOptions } from "./internal/tcp.edge.ts"
import { readMaterial } from "./internal/tls.edge.ts"
import * as Settings from "./Settings.ts"

export { defaultMaxFrameBytes, hardMaxFrameBytes } from "./Limits.ts"

export interface Connection {
  /** `host:port` of the other side as the transport knows it; for people only */
  readonly peer: string
  /** is the other side on this machine's loopback? decides whether a shared secret may be absent */
  readonly loopback: boolean
  /** With mutual TLS: does the peer's certificate name that host? Absent where there is no certificate. */
  readonly certifies?: ((host: string) => boolean) | undefined
  /** With mutual TLS: why the peer's certificate is no proof of anything. Such a peer is told so, and nothing else is said to it. */
  readonly untrusted?: string | undefined
  /**
   * Queues a frame behind those sent before; what piles up while a write is in flight leaves in one write. Waits only while
   * the outbox is over its bound. Fails `NodeUnreachable` (`NotSent`) once the connection is over.
   */
  readonly send: (frame: Uint8Array) => Effect.Effect<void, NodeUnreachable | FrameTooLarge>
  /**
   * The same at once and without a bound, for a caller that keeps its own by `unsent` and `onIdle`: a session has two lanes
   * and decides itself what leaves next. False once the connection is over or where the frame is above the cap. The bytes
   * belong to the transport until `unsent` is 0 again; `front` says how many bytes before them in their buffer it may use too.
   */
  readonly offer: (frame: Uint8Array, front?: number) => boolean
  /** bytes that were handed over and have not left this process yet */
  readonly unsent: () => number
  /** the one listener that is called whenever `unsent` has come down to 0, and when the connection is over */
  readonly onIdle: (listener: () => void) => void
  /** Takes no larger frame from the peer than that from now on, in bytes: little before it is known who it is. */
  readonly limitInbound: (bytes: number) => void
  /** the frames received, at least one; fails once the connection is over and all received frames were taken */
  readonly receive: Effect.Effect<ReadonlyArray<Uint8Array>, NodeUnreachable>
  /** That received frame was read to its end, and nothing looks at its bytes any more: the transport may have them back. */
  readonly spent?: ((frame: Uint8Array) => void) | undefined
  /** takes no more frames in either direction; those handed over before still leave. Idempotent */
  readonly close: Effect.Effect<void>
}

/**
 * Where a node listens, as its own machine sees it. Two with one `stack` share boot of the machine, network namespace and advertised
 * host: what one finds at a port there is what the other has there, and no proxy, gateway or other machine is in between.
 */
export const Listening = Schema.Struct({
  stack: Schema.String,
  /** the address that is bound, not the one advertised */
  host: Schema.String,
  port: Schema.Int
})
export type Listening = typeof Listening.Type

export class Transport extends Context.Service<Transport, {
  /** the advertised address of this node, known once bound */
  readonly address: { readonly host: string; readonly port: number }
  /**
   * Where this node listens, from its start to its end without a break. Absent where the platform does not tell one network stack from
   * another (all but Linux), or nobody listens.
   */
  readonly listening?: Listening | undefined
  /**
   * Does anybody listen there, in this node's own stack, by the platform's own books? True where they cannot be read, and where somebody
   * may be meant.
   */
  readonly isListening?:
    | ((at: { readonly host: string; readonly port: number }) => Effect.Effect<boolean>)
    | undefined
  /** inbound connections, in order of arrival; nobody reads from one before it is taken */
  readonly accept: Queue.Dequeue<Connection>
  /** Dials; the connection lives until it is closed, is lost, or the scope ends. A failure says `refused` where the address said so. */
  readonly connect: (to: {
    readonly host: string
    readonly port: number
  }) => Effect.Effect<Connection, NodeUnreachable, Scope.Scope>
}>()("effect-troupe/Remoting/Transport") {}

const unspecified = new Set(["0.0.0.0", "::", "::0"])

const socketOptions = Effect.fnUntraced(function*(settings: Settings.RemotingSettings) {
  const { tlsAuthority: ca, tlsCertificate: cert, tlsKey: key } = settings
  const material = cert === undefined || key === undefined || ca === undefined
    ? undefined
    : yield* Effect.sync(() => readMaterial({ cert, key, ca }))
  if (material !== undefined && "reason" in material) {
    return yield* new SettingInvalid({ setting: `remoting.${material.setting}`, reason: material.reason })
  }
  const clock = yield* Clock.Clock
  const options: SocketOptions = {
    maxFrameBytes: settings.maxFrameBytes,
    outboxBytes: settings.outboxBytes,
    frameTimeout: Duration.toMillis(settings.frameTimeout),
    handshakeTimeout: Duration.toMillis(settings.handshakeTimeout),
    tls: material === undefined ? undefined : Redacted.make(material),
    now: () => Number(clock.monotonicTimeNanosUnsafe() / 1000n) / 1000
  }
  return options
})

const dialer = (options: SocketOptions): Transport["Service"]["connect"] => (to) =>
  Effect.acquireRelease(connect(to, options), (connection) => connection.close, { interruptible: true })

/** Binds, and dials, on the platform's sockets, for as long as the scope lives. */
export const makeTcp = Effect.fnUntraced(function*(settings: Settings.RemotingSettings) {
  if (settings.advertisedHost === undefined && unspecified.has(settings.host)) {
    return yield* new SettingInvalid({
      setting: "remoting.advertisedHost",
      reason: `is required with ${settings.host}, which nobody can dial`
    })
  }
  const options = yield* socketOptions(settings)
  const accept = yield* Queue.unbounded<Connection>()
  const bound = yield* Effect.acquireRelease(
    listen({
      ...options,
      host: settings.host,
      port: settings.port,
      onConnection: (connection) => void Queue.offerUnsafe(accept, connection)
    }).pipe(
      Effect.mapError(({ reason }) =>
        new SettingInvalid({ setting: "remoting.port", reason: `cannot be bound: ${reason}` })
      )
    ),
    (server) => Effect.andThen(Queue.shutdown(accept), server.close)
  )
  const host = settings.advertisedHost ?? settings.host
  const stack = yield* networkStack(host)
  return Transport.of({
    address: { host, port: settings.advertisedPort === 0 ? bound.port : settings.advertisedPort },
    listening: stack === undefined ? undefined : { stack, host: bound.host, port: bound.port },
    isListening,
    accept,
    connect: dialer(options)
  })
})

/**
 * TCP, with mutual TLS where a certificate is set. Binds `host:port` and says the bound or the advertised address. Off loopback
 * without a secret or TLS (and without `allowInsecure`) it is `SettingInvalid`, as is a port that cannot be bound.
 */
export const layerTcp = (options: Settings.RemotingOptions = {}): Layer.Layer<Transport, SettingInvalid> =>
  Layer.effect(Transport, Effect.flatMap(Settings.decode(options), makeTcp))

/** The same, with settings from the environment. */
export const layerTcpConfig: Layer.Layer<Transport, SettingInvalid> = Layer.effect(
  Transport,
  Effect.flatMap(Settings.config, makeTcp)
)

/** TCP that only dials: for clients. Its address is a name that nobody can reach. */
export const layerTcpDial = (options: Settings.RemotingOptions = {}): Layer.Layer<Transport, SettingInvalid> =>
  Layer.effect(
    Transport,
    Effect.gen(function*() {
      const sockets = yield* socketOptions(yield* Settings.decode(options))
      const accept = yield* Queue.unbounded<Connection>()
      return Transport.of({ address: { host: "client", port: 0 }, accept, connect: dialer(sockets) })
    })
  )

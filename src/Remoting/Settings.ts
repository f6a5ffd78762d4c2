/**
 * Settings of the remoting ring. `layer(partial)` of `Transport` and `Remoting` take the same record, so that one value configures
 * both; a bad one is `SettingInvalid` before anything is bound.
 */
import { Effect, Redacted } from "effect"
import { SettingInvalid } from "../Actor/errors.ts"
import * as Settings from "../Actor/Settings.ts"
import { malformed } from "./internal/hosts.edge.ts"
import { defaultMaxFrameBytes, hardMaxFrameBytes } from "./Limits.ts"

export const settings = Settings.group("remoting", {
  /** address to bind; default `127.0.0.1` */
  host: Settings.text({ env: "TROUPE_HOST", default: "127.0.0.1" }),
  /** port to bind; default 0: any free one */
  port: Settings.int({ env: "TROUPE_PORT", default: 0, minimum: 0, maximum: 65_535 }),
  /** how others reach this node, where that is not the bound address (a load balancer, a container) */
  advertisedHost: Settings.optionalText({ env: "TROUPE_ADVERTISED_HOST" }),
  /** default 0: the bound port */
  advertisedPort: Settings.int({ env: "TROUPE_ADVERTISED_PORT", default: 0, minimum: 0, maximum: 65_535 }),
  /** shared by all nodes of the system; without it or TLS only loopback is bound, advertised and let in */
  secret: Settings.optionalSecret({ env: "TROUPE_SECRET" }),
  /** a second secret in force: the old one, while a new one is rolled out. Two nodes need one in common. */
  previousSecret: Settings.optionalSecret({ env: "TROUPE_PREVIOUS_SECRET" }),
  /** PEM file of this node's certificate; with key and authority: mutual TLS on every connection */
  tlsCertificate: Settings.optionalText({ env: "TROUPE_TLS_CERTIFICATE" }),
  /** PEM file of its private key */
  tlsKey: Settings.optionalText({ env: "TROUPE_TLS_KEY" }),
  /** PEM file of the authority that has signed the certificates of all nodes; a node's must name its advertised host */
  tlsAuthority: Settings.optionalText({ env: "TROUPE_TLS_AUTHORITY" }),
  /** lets anybody in who reaches the port. For closed networks only. */
  allowInsecure: Settings.boolean({ env: "TROUPE_ALLOW_INSECURE", default: false }),
  /** kinds that clients may spawn by way of this node; `*` is every kind, an empty list none. Others are refused as `KindNotAllowed`. */
  clientKinds: Settings.texts({ env: "TROUPE_CLIENT_KINDS", default: ["*"] }),
  /** largest frame, in bytes: a message with its payload must fit; the smaller side's cap holds */
  maxFrameBytes: Settings.int({
    env: "TROUPE_MAX_FRAME_BYTES",
    default: defaultMaxFrameBytes,
    minimum: 1024,
    maximum: hardMaxFrameBytes
  }),
  /**
   * Bytes of messages that may wait here for one peer before senders wait. Of answers that the peer does not read: before nothing more
   * is taken from it; where eight times as many wait (of at least 1 MiB), further ones are `NodeUnreachable` with `Unknown` there.
   */
  outboxBytes: Settings.int({ env: "TROUPE_OUTBOX_BYTES", default: 8 * 1024 * 1024, minimum: 1024 }),
  /** how long a sender waits for room in the outbox before it fails `NodeUnreachable`; 0 fails at once */
  outboxTimeout: Settings.duration({ env: "TROUPE_OUTBOX_TIMEOUT", default: "1 second", minimum: 0 }),
  /** bytes of messages from one peer that may wait here for room in mailboxes */
  windowBytes: Settings.int({ env: "TROUPE_WINDOW_BYTES", default: 4 * 1024 * 1024, minimum: 64 * 1024 }),
  /**
   * Hosts that this node may dial, whoever names them (records of other datacenters, members, addresses of actors): a name, `*.suffix`,
   * an address, a range like `10.0.0.0/8`; `*` is every host. Names are compared as they are, not looked up.
   */
  dialHosts: Settings.texts({ env: "TROUPE_DIAL_HOSTS", default: ["*"] }),
  /** messages to which nodes are deflated: `none`, those of `otherDataCenters`, or `all`. Every node takes deflated ones. */
  compression: Settings.text({ env: "TROUPE_COMPRESSION", default: "none" }),
  /** frames below that are not, in bytes */
  compressionThreshold: Settings.int({ env: "TROUPE_COMPRESSION_THRESHOLD", default: 1024, minimum: 64 }),
  /** from dialing to a connection */
  dialTimeout: Settings.duration({ env: "TROUPE_DIAL_TIMEOUT", default: "3 seconds", minimum: 1 }),
  /** from a connection to a known peer */
  handshakeTimeout: Settings.duration({ env: "TROUPE_HANDSHAKE_TIMEOUT", default: "3 seconds", minimum: 1 }),
  /** from the first byte of a frame to its last */
  frameTimeout: Settings.duration({ env: "TROUPE_FRAME_TIMEOUT", default: "30 seconds", minimum: 1 }),
  /** how often a quiet peer is asked for a sign of life */
  pingInterval: Settings.duration({ env: "TROUPE_PING_INTERVAL", default: "1 second", minimum: 10 }),
  /** a peer that gives none within this time is given up, and what it was asked has an unknown outcome */
  pingTimeout: Settings.duration({ env: "TROUPE_PING_TIMEOUT", default: "3 seconds", minimum: 10 }),
  /** after a failed dial: at first, doubled with each further failure, with jitter */
  reconnectDelay: Settings.duration({ env: "TROUPE_RECONNECT_DELAY", default: "50 millis", minimum: 1 }),
  reconnectDelayMax: Settings.duration({ env: "TROUPE_RECONNECT_DELAY_MAX", default: "2 seconds", minimum: 1 })
})

type Decode = typeof settings.decode

/** What code may give; everything has a default. */
export type RemotingOptions = Parameters<Decode>[0]
/** What the services read. */
export type RemotingSettings = Effect.Success<ReturnType<Decode>>

/** Loopback by name or number, as it is bound or advertised. */
export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host)

const compressions: ReadonlyArray<string> = ["none", "otherDataCenters", "all"]

/** What no single setting says by itself. */
const checked = (values: RemotingSettings): Effect.Effect<RemotingSettings, SettingInvalid> =>
  Effect.suspend(() => {
    const bad = (setting: string, reason: string) =>
      Effect.fail(new SettingInvalid({ setting: `remoting.${setting}`, reason }))
    if (!compressions.includes(values.compression)) {
      return bad("compression", `is not one of ${compressions.join(", ")}`)
    }
    if (values.secret === undefined && values.previousSecret !== undefined) {
      return bad("previousSecret", "needs a secret that replaces it")
    }
    const pattern = values.dialHosts.map(malformed).find((reason) => reason !== undefined)
    if (pattern !== undefined) return bad("dialHosts", pattern)
    const tls = { tlsCertificate: values.tlsCertificate, tlsKey: values.tlsKey, tlsAuthority: values.tlsAuthority }
    const missing = Object.entries(tls).filter(([, path]) => path === undefined)
    if (missing.length === 1 || missing.length === 2) return bad(missing[0]![0], "is missing for TLS")
    if (values.secret === undefined && missing.length > 0 && !values.allowInsecure) {
      const exposed = "is not loopback: set a secret or TLS, or allowInsecure to let everybody in"
      if (!isLoopback(values.host)) return bad("host", `${values.host} ${exposed}`)
      const { advertisedHost } = values
      if (advertisedHost !== undefined && !isLoopback(advertisedHost)) {
        return bad("advertisedHost", `${advertisedHost} ${exposed}`)
      }
    }
    return Effect.succeed(values)
  })

export const decode = (options: RemotingOptions): Effect.Effect<RemotingSettings, SettingInvalid> =>
  Effect.flatMap(settings.decode(options), checked)

/** From the environment. */
export const config: Effect.Effect<RemotingSettings, SettingInvalid> = Effect.flatMap(settings.config, checked)

/** The secrets in force. */
export const secretsOf = (values: RemotingSettings): ReadonlyArray<string> =>
  [values.secret, values.previousSecret].flatMap((secret) => secret === undefined ? [] : [Redacted.value(secret)])

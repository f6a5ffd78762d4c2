/**
 * Connections to addresses: dialed within bounds of time and of hosts or, for an outsider that cannot dial a node, by way of a node
 * that it can. Not for who is at the other end.
 */
import { Duration, Effect, type Random, Scope } from "effect"
import { NodeUnreachable } from "../../Actor/errors.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { RemotingSettings } from "../Settings.ts"
import type { Connection, Transport } from "../Transport.ts"
import type { GreetingError, Met } from "./greeting.ts"
import * as Handshake from "./handshake.ts"
import { allowedBy } from "./hosts.edge.ts"
import { type Endpoint, withFirst } from "./relay.ts"
import { isCertificate } from "./tls.edge.ts"

/** Patience with a dial where a gateway could take over. */
const directPatience = Duration.seconds(1)
/** Endpoints that are remembered; the oldest are forgotten. */
const maxDetours = 10_000

/** Only an outsider's: who may carry its frames to nodes that it cannot dial; `only`: it does not try to. */
export interface Gateways {
  readonly endpoints: ReadonlyArray<Endpoint>
  readonly only: boolean
}

/** A connection, and the largest frame that passes whoever is on the way, in bytes. */
export interface Reached {
  readonly connection: Connection
  readonly maxFrameBytes: number
}

export interface ReachOptions {
  readonly transport: Transport["Service"]
  readonly settings: RemotingSettings
  readonly random: Random.Random
  readonly publish: SystemEvents["Service"]["publish"]
  readonly gateways?: Gateways | undefined
  readonly config: (connection: Connection, expected: Handshake.Config["expected"]) => Handshake.Config
  readonly greet: (
    connection: Connection,
    config: Handshake.Config,
    start: readonly [Handshake.State, ReadonlyArray<Handshake.Command>]
  ) => Effect.Effect<Met, GreetingError>
}

const endpointOf = (to: Endpoint) => `${to.host}:${to.port}`

export class Reach {
  private readonly options: ReachOptions
  private readonly mayDial: (host: string) => boolean
  /** endpoints that only a gateway reaches, as far as is known */
  private readonly detours = new Set<string>()

  constructor(options: ReachOptions) {
    this.options = options
    this.mayDial = allowedBy(options.settings.dialHosts)
  }

  /** A connection to that address, which lives in that scope: one of its own, or one by way of a gateway. */
  to(to: Endpoint, scope: Scope.Scope): Effect.Effect<Reached, GreetingError> {
    const { gateways, settings: { dialTimeout, maxFrameBytes } } = this.options
    const direct = (timeout: Duration.Duration) =>
      Effect.map(this.connect(to, scope, timeout), (connection) => ({ connection, maxFrameBytes }))
    const isGateway = gateways?.endpoints.some(({ host, port }) => host === to.host && port === to.port) ?? true
    if (gateways === undefined || isGateway) return direct(dialTimeout)
    const node = endpointOf(to)
    if (gateways.only || this.detours.has(node)) return this.detour(to, scope, gateways.endpoints)
    return Effect.catch(direct(Duration.min(dialTimeout, directPatience)), (error) =>
      isCertificate(error.reason)
        ? Effect.fail(error)
        // remembered, so that a later message takes the same way
        : Effect.tap(this.detour(to, scope, gateways.endpoints), () =>
          Effect.sync(() => {
            this.detours.add(node)
            if (this.detours.size > maxDetours) this.detours.delete(this.detours.values().next().value!)
          })))
  }

  /** Dials it, if it may be dialed. */
  connect(
    to: Endpoint,
    scope: Scope.Scope,
    timeout: Duration.Duration = this.options.settings.dialTimeout
  ): Effect.Effect<Connection, NodeUnreachable> {
    const node = endpointOf(to)
    const unreachable = (reason: string) => Effect.fail(new NodeUnreachable({ node, outcome: "NotSent", reason }))
    const refuse = (reason: string) =>
      Effect.suspend(() => {
        this.options.publish({ _tag: "PeerRefused", peer: node, reason })
        return unreachable(reason)
      })
    if (!this.mayDial(to.host)) return refuse(`${to.host} is not a host that this node may dial`)
    return this.options.transport.connect(to).pipe(
      Scope.provide(scope),
      Effect.timeoutOrElse({ duration: timeout, orElse: () => unreachable("the dial timed out") }),
      Effect.catch((error) => isCertificate(error.reason) ? refuse(error.reason) : Effect.fail(error))
    )
  }

  /** The first gateway that answers carries it; which one is asked first is drawn. */
  private detour(to: Endpoint, scope: Scope.Scope, gateways: ReadonlyArray<Endpoint>) {
    const first = Math.floor(this.options.random.nextDoubleUnsafe() * gateways.length)
    const from = (index: number): Effect.Effect<Reached, GreetingError> =>
      Effect.catch(
        this.throughGateway(to, scope, gateways[(first + index) % gateways.length]!),
        (error) => index + 1 < gateways.length ? from(index + 1) : Effect.fail(error)
      )
    return from(0)
  }

  private throughGateway(to: Endpoint, scope: Scope.Scope, gateway: Endpoint) {
    return Effect.gen({ self: this }, function*() {
      const connection = yield* this.connect(gateway, scope)
      const config = this.options.config(connection, {})
      const asking: Handshake.Config = {
        ...config,
        self: { ...config.self, relay: endpointOf(to) },
        admit: (peer) =>
          config.admit(peer) ??
            (peer.capabilities?.includes(Handshake.relaying) === true ? undefined : "does not relay")
      }
      const { peer, rest } = yield* Effect.onError(
        this.options.greet(connection, asking, Handshake.dial(asking)),
        // another one may carry it, in the same scope
        () => connection.close
      )
      const maxFrameBytes = Math.min(peer.maxFrameBytes, config.self.maxFrameBytes)
      return { connection: withFirst(connection, rest), maxFrameBytes }
    })
  }
}

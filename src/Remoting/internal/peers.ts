/**
 * Who this node is connected to: one session a peer. Accepts what proves itself; beats the hearts of all with one fiber; refuses
 * those whose lease is closed.
 *
 * Each side sends what it starts on the session that it dialed, and answers on the one a question came in. So the order from one
 * node to another is that of one connection; a newer session of the same dialer ends the older one before it carries anything.
 *
 * Not for: how a session comes about by dialing (`dials`), nor what it carries.
 */
import { type Clock, Duration, Effect, type Fiber, Queue, type Random, Schedule, type Scope } from "effect"
import { type NodeAddress, nodeKey } from "../../Actor/Address.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import { type RemotingSettings, secretsOf } from "../Settings.ts"
import type { Connection, Transport } from "../Transport.ts"
import { Buffers } from "./buffers.ts"
import { deflateFrom } from "./compression.ts"
import { Dials } from "./dials.ts"
import { greet, type GreetingError, type Met } from "./greeting.ts"
import * as Handshake from "./handshake.ts"
import { Session, type SessionOptions } from "./session.ts"
import { type Gateways, Reach, type ReachOptions } from "./reach.ts"
import * as Relay from "./relay.ts"
import { Strangers } from "./strangers.ts"
import { Turns } from "./turns.ts"

/** Incarnations that are remembered; the oldest are forgotten. */
const maxRemembered = 10_000
/** Outsiders whose frames are carried at once; more are refused. */
const maxRelayed = 1_000

export interface PeersOptions {
  readonly transport: Transport["Service"]
  readonly settings: RemotingSettings
  readonly self: () => Handshake.Identity
  readonly scope: Scope.Scope
  readonly clock: Clock.Clock
  readonly random: Random.Random
  readonly entropy: (bytes: number) => Uint8Array
  readonly publish: SystemEvents["Service"]["publish"]
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly gateways?: Gateways | undefined
  readonly lanes: Pick<SessionOptions, "onData" | "onControl" | "onEnd" | "onLost"> & {
    /** the peer of that session has just been muted */
    readonly onMute: (session: Session) => void
  }
}

/** An outsider may call itself as it likes, and is never taken for a node. */
const keyOf = (peer: Handshake.Identity) => peer.client ? `client ${nodeKey(peer)}` : nodeKey(peer)

export class Peers {
  readonly options: PeersOptions
  /** sessions that this node dialed, by the peer's node key */
  private readonly dialed = new Map<string, Session>()
  /** sessions that peers dialed, by the peer's node key */
  private readonly accepted = new Map<string, Session>()
  private readonly byNode = new Map<object, Session>()
  private readonly shunned = new Set<string>()
  private readonly muted = new Set<string>()
  private readonly buffers = new Buffers()
  private readonly turns = new Turns()
  /** how many layers let outsiders' frames through this node */
  private relaying = 0
  private relayed = 0
  private readonly reach: Reach
  private readonly dials: Dials
  /** A session to that peer, dialed now if need be. Fails `NotSent`. */
  readonly acquire: Dials["acquire"]
  private readonly strangers = new Strangers()
  private sessions = 0
  private closing = false

  constructor(options: PeersOptions) {
    this.options = options
    const greeting: Pick<ReachOptions, "config" | "greet"> = {
      config: (connection, expected) => this.config(connection, expected),
      greet: (connection, config, start) => this.shakeHands(connection, config, start)
    }
    this.reach = new Reach({ ...options, ...greeting })
    this.dials = new Dials({
      ...options,
      ...greeting,
      reach: this.reach,
      now: () => this.now(),
      isClosing: () => this.closing,
      isShunned: (node) => this.shunned.has(nodeKey(node)),
      open: (node) => this.open(node),
      dialed: () => this.dialed.values(),
      enter: (connection, self, peer) => {
        const session = this.session(connection, self, peer, true)
        this.dialed.set(nodeKey(peer), session)
        return session
      }
    })
    this.acquire = this.dials.acquire
  }

  private now(): number {
    return Number(this.options.clock.monotonicTimeNanosUnsafe() / 1000n) / 1000
  }

  all(): ReadonlyArray<Session> {
    return [...this.dialed.values(), ...this.accepted.values()]
  }

  connected(): ReadonlyArray<NodeAddress> {
    const nodes = new Map<string, NodeAddress>()
    const self = nodeKey(this.options.self())
    for (const { peer } of this.all()) {
      // a balancer may have led this node to itself
      if (peer.client || nodeKey(peer) === self) continue
      const { dataCenter, id, incarnation, host, port } = peer
      nodes.set(nodeKey(peer), { dataCenter, id, incarnation, host, port })
    }
    return [...nodes.values()]
  }

  // ---- out ---------------------------------------------------------------------------------------------------------------

  /** The open session to that very incarnation, if there is one. */
  open(node: { readonly id: string; readonly incarnation: string }): Session | undefined {
    // references hold the same address for long: no key is built for each message
    let session = this.byNode.get(node)
    if (session === undefined || session.over !== undefined) {
      session = this.dialed.get(nodeKey(node))
      if (session === undefined || session.over !== undefined) return undefined
      if (this.byNode.size >= maxRemembered) this.byNode.clear()
      this.byNode.set(node, session)
    }
    return session
  }

  // ---- in ----------------------------------------------------------------------------------------------------------------

  /** Takes inbound connections until the scope ends. */
  readonly acceptAll: Effect.Effect<void> = Effect.suspend(() =>
    Queue.take(this.options.transport.accept).pipe(
      Effect.flatMap((connection) => {
        const known = this.closing ? undefined : this.strangers.enter(connection.peer)
        return known === undefined
          ? connection.close
          : Effect.forkIn(this.admit(connection, known), this.options.scope)
      }),
      Effect.forever
    )
  )

  /** `known`: it is no stranger any more. `relayed`: it has come by way of this node already, which is not to go on without end */
  private admit(connection: Connection, known: () => void, relayed = false): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const config = this.config(connection, undefined, relayed)
      const { peer, rest } = yield* this.shakeHands(connection, config, Handshake.accept())
      known()
      // it may have been shunned since it was let in
      if (this.shunned.has(nodeKey(peer))) return
      if (peer.relay !== undefined) return yield* this.relay(connection, peer.relay, rest)
      const key = keyOf(peer)
      this.accepted.get(key)?.endUnsafe("the peer has dialed anew")
      const session = this.session(connection, config.self, peer, false)
      this.accepted.set(key, session)
      session.take(rest)
      yield* session.run
    }).pipe(
      Effect.ensuring(Effect.andThen(Effect.sync(known), connection.close)),
      // told by an event where it was refused
      Effect.ignore
    )
  }

  // ---- between ----------------------------------------------------------------------------------------------------------

  /** Lets outsiders that have proved themselves reach other nodes by way of this one, for as long as the scope lives. */
  readonly relays: Effect.Effect<void, never, Scope.Scope> = Effect.acquireRelease(
    Effect.sync(() => void this.relaying++),
    () => Effect.sync(() => void this.relaying--)
  )

  get isRelaying(): boolean {
    return this.relaying > 0
  }

  private mayRelay(peer: Handshake.Identity): boolean {
    return this.isRelaying && peer.client && this.relayed < maxRelayed
  }

  private relay(connection: Connection, wanted: string, rest: ReadonlyArray<Uint8Array>): Effect.Effect<void> {
    const refuse = (reason: string) => Effect.sync(() => void connection.offer(Handshake.refusal(reason)))
    const to = Relay.parseEndpoint(wanted)
    if (to === undefined) return refuse("is no endpoint")
    const { host, port } = this.options.self()
    if (to.host === host && to.port === port) {
      const known = this.strangers.enter(connection.peer)
      return known === undefined ? refuse("is busy") : this.admit(Relay.withFirst(connection, rest), known, true)
    }
    this.relayed++
    return Effect.gen({ self: this }, function*() {
      // it must prove that it is one of ours, before an outsider's bytes get there
      yield* this.acquire(to)
      // There this node's certificate vouches for the connection, so nobody may claim to be a node on it.
      const first = rest.length > 0 ? rest : yield* Effect.timeoutOrElse(connection.receive, {
        duration: this.options.settings.handshakeTimeout,
        orElse: () => Effect.fail({ reason: "the handshake took too long" })
      })
      if (!Handshake.isOutsider(first[0]!)) return yield* Effect.fail({ reason: "carries outsiders only" })
      const scope = yield* Effect.scope
      const onward = yield* this.reach.connect(to, scope)
      connection.limitInbound(this.options.settings.maxFrameBytes)
      yield* Relay.join(Relay.withFirst(connection, first), onward)
    }).pipe(
      Effect.scoped,
      Effect.catch((error) => refuse(`cannot reach ${wanted}: ${error.reason}`)),
      Effect.ensuring(Effect.sync(() => void this.relayed--))
    )
  }

  private config(
    connection: Connection,
    expected: Handshake.Config["expected"],
    relayed = false
  ): Handshake.Config {
    const { entropy, self, settings } = this.options
    return {
      self: self(),
      nonce: entropy(Handshake.nonceBytes),
      secrets: secretsOf(settings),
      insecure: connection.loopback || settings.allowInsecure || connection.certifies !== undefined,
      untrusted: connection.untrusted,
      peer: connection.peer,
      expected,
      admit: (peer) => {
        if (this.shunned.has(nodeKey(peer))) return "its lease is closed"
        if (peer.relay !== undefined && (relayed || !this.mayRelay(peer))) return "does not relay"
        // whom we dialed the transport has checked; who dials us must be who it says it is
        const accepted = expected === undefined && connection.certifies !== undefined
        return accepted && !peer.client && !connection.certifies(peer.host)
          ? "its certificate does not name it"
          : undefined
      }
    }
  }

  private shakeHands(
    connection: Connection,
    config: Handshake.Config,
    start: readonly [Handshake.State, ReadonlyArray<Handshake.Command>]
  ): Effect.Effect<Met, GreetingError> {
    const { publish, settings: { handshakeTimeout: timeout } } = this.options
    return greet({ connection, config, start, timeout, publish })
  }

  private session(
    connection: Connection,
    self: Handshake.Identity,
    peer: Handshake.Identity,
    dialed: boolean
  ): Session {
    const { lanes, settings } = this.options
    const session = new Session({
      ...lanes,
      connection,
      self,
      peer,
      dialed,
      number: ++this.sessions,
      outboxBytes: settings.outboxBytes,
      deflateFrom: deflateFrom(settings, self, peer),
      buffers: this.buffers,
      turns: this.turns,
      now: () => this.now(),
      onEnd: (session) => {
        this.byNode.clear()
        this.dials.ended(session)
        const sessions = dialed ? this.dialed : this.accepted
        if (sessions.get(keyOf(peer)) === session) sessions.delete(keyOf(peer))
        lanes.onEnd(session)
      }
    })
    session.muted = this.isMuted(peer)
    return session
  }

  // ---- life --------------------------------------------------------------------------------------------------------------

  /** One fiber for all: a quiet peer costs a look, not a timer. */
  readonly heartbeats: Effect.Effect<void> = Effect.suspend(() => {
    const interval = Duration.toMillis(this.options.settings.pingInterval)
    const patience = Duration.toMillis(this.options.settings.pingTimeout)
    return Effect.sync(() => {
      const now = this.now()
      // the dialing side asks first; the other only where it hears nothing of that
      for (const session of this.dialed.values()) session.beat(now, interval / 2, patience)
      for (const session of this.accepted.values()) session.beat(now, interval * 2, patience)
      this.buffers.trim()
    }).pipe(Effect.repeat(Schedule.spaced(interval)), Effect.asVoid)
  })

  /** Nothing that the message lane carries goes to that node or is taken from it any more; asks under way end. */
  mute(node: { readonly id: string; readonly incarnation: string }): void {
    const key = nodeKey(node)
    this.muted.add(key)
    if (this.muted.size > maxRemembered) this.muted.delete(this.muted.values().next().value!)
    for (const session of [this.dialed.get(key), this.accepted.get(key)]) {
      if (session === undefined) continue
      session.muted = true
      this.options.lanes.onMute(session)
      session.mute()
    }
  }

  isMuted(node: { readonly id: string; readonly incarnation: string }): boolean {
    return this.muted.size > 0 && this.muted.has(nodeKey(node))
  }

  shun(node: { readonly id: string; readonly incarnation: string }): void {
    const key = nodeKey(node)
    this.shunned.add(key)
    if (this.shunned.size > maxRemembered) this.shunned.delete(this.shunned.values().next().value!)
    this.dialed.get(key)?.endUnsafe("its lease is closed")
    this.accepted.get(key)?.endUnsafe("its lease is closed")
  }

  kindsChanged(kinds: ReadonlyMap<string, string>): void {
    for (const session of this.all()) {
      session.outbox.sendControl(Handshake.kindsFrame(kinds, session.outbox.maxMessageBytes))
    }
  }

  /** Lets what is queued leave, then ends every session. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closing = true
    return Effect.forEach(this.all(), (session) => session.close, { discard: true })
  })
}

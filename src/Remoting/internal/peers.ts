/**
 * Who this node is connected to. Dials lazily, one session a peer; accepts what proves itself; beats the hearts of all with one
 * fiber; backs off from peers that do not answer; refuses those whose lease is closed.
 *
 * Each side sends what it starts on the session that it dialed, and answers on the one a question came in. So the order from one
 * node to another is that of one connection; a newer session of the same dialer ends the older one before it carries anything.
 */
import { type Clock, Duration, Effect, Exit, Fiber, Queue, type Random, Result, Schedule, Scope } from "effect"
import { type NodeAddress, nodeKey } from "../../Actor/Address.ts"
import { NodeUnreachable } from "../../Actor/errors.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import { type RemotingSettings, secretsOf } from "../Settings.ts"
import type { Connection, Transport } from "../Transport.ts"
import { describe, greet, type GreetingError, isUnanswered, type Met } from "./greeting.ts"
import { deflateFrom } from "./compression.ts"
import * as Handshake from "./handshake.ts"
import { Buffers, Session, type SessionOptions } from "./session.ts"
import { type Gateways, Reach } from "./reach.ts"
import * as Relay from "./relay.ts"
import { Turns } from "./turns.ts"

/** Connections that have not proved who they are yet; more are closed at once. */
const maxHandshakes = 256
/** Incarnations and endpoints that are remembered; the oldest are forgotten. */
const maxRemembered = 10_000
/** Dials for one node at an address that others share, before it is given up. */
const maxSharedDials = 12
/** Dials of a connection that ends before anybody has answered, as a load balancer does whose choice is down. */
const maxUnansweredDials = 3
/** Outsiders whose frames are carried at once; more are refused. */
const maxRelayed = 1_000
/** The wait between such dials is doubled up to this many times. */
const maxDoublings = 3

export interface Destination {
  readonly host: string
  readonly port: number
  readonly id?: string | undefined
  readonly incarnation?: string | undefined
}

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

type Waiter = (exit: Exit.Exit<Session, NodeUnreachable>) => void

interface Outbound {
  session: Session | undefined
  /** those who wait for the dial in flight; undefined: none is */
  waiting: Set<Waiter> | undefined
  failures: number
  /** milliseconds, monotonic: no dial before */
  notBefore: number
  reason: string
}

/** How often to dial in all, after that failure. */
const dialsFor = (error: GreetingError): number =>
  isUnanswered(error)
    ? maxUnansweredDials
    : error._tag === "Elsewhere" && error.another === true
    ? maxSharedDials
    : 1

const endpointOf = (to: { readonly host: string; readonly port: number }) => `${to.host}:${to.port}`
const keyOf = (to: Destination) => `${endpointOf(to)} ${to.id ?? ""}@${to.incarnation ?? ""}`

export class Peers {
  readonly options: PeersOptions
  private readonly outbound = new Map<string, Outbound>()
  /** sessions that this node dialed, by the peer's node key */
  private readonly dialed = new Map<string, Session>()
  /** sessions that peers dialed, by the peer's node key */
  private readonly accepted = new Map<string, Session>()
  private readonly byNode = new Map<object, Session>()
  private readonly shunned = new Set<string>()
  private readonly muted = new Set<string>()
  private readonly buffers = new Buffers()
  private readonly turns = new Turns()
  /** nodes that a dial is about to be connected to */
  private readonly proving = new Set<string>()
  /** how many layers let outsiders' frames through this node */
  private relaying = 0
  private relayed = 0
  private readonly reach: Reach
  private handshakes = 0
  private sessions = 0
  private closing = false

  constructor(options: PeersOptions) {
    this.options = options
    this.reach = new Reach({
      ...options,
      config: (connection, expected) => this.config(connection, expected),
      greet: (connection, config, start) => this.shakeHands(connection, config, start)
    })
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

  private find(to: Destination): Session | undefined {
    if (to.id !== undefined && to.incarnation !== undefined) {
      return this.open({ id: to.id, incarnation: to.incarnation })
    }
    for (const session of this.dialed.values()) {
      if (session.over !== undefined) continue
      if (to.id !== undefined && session.peer.id !== to.id) continue
      if (session.peer.host === to.host && session.peer.port === to.port) return session
    }
    const session = this.outbound.get(keyOf(to))?.session
    return session?.over === undefined ? session : undefined
  }

  /** A session to that peer, dialed now if need be. Fails `NotSent`. */
  readonly acquire = (to: Destination): Effect.Effect<Session, NodeUnreachable> =>
    Effect.suspend(() => {
      const refuse = (reason: string) =>
        Effect.fail(new NodeUnreachable({ node: endpointOf(to), outcome: "NotSent", reason }))
      if (this.closing) return refuse("this node is closing")
      if (this.isShunned(to)) return refuse("its lease is closed")
      const session = this.find(to)
      if (session !== undefined) return Effect.succeed(session)
      const key = keyOf(to)
      let outbound = this.outbound.get(key)
      if (outbound === undefined) {
        outbound = { session: undefined, waiting: undefined, failures: 0, notBefore: 0, reason: "" }
        this.outbound.set(key, outbound)
        this.forgetOldest()
      }
      const own = outbound
      if (own.waiting === undefined && this.now() < own.notBefore) return refuse(own.reason)
      return Effect.callback<Session, NodeUnreachable>((resume) => {
        const started = own.waiting !== undefined
        const waiting = own.waiting ??= new Set()
        waiting.add(resume)
        if (!started) Fiber.runIn(this.options.runFork(this.dial(to, own, waiting)), this.options.scope)
        return Effect.sync(() => void waiting.delete(resume))
      })
    })

  private isShunned({ id, incarnation }: Destination): boolean {
    return id !== undefined && incarnation !== undefined && this.shunned.has(nodeKey({ id, incarnation }))
  }

  private forgetOldest(): void {
    if (this.outbound.size <= maxRemembered) return
    for (const [key, outbound] of this.outbound) {
      if (outbound.waiting === undefined && outbound.session === undefined) {
        this.outbound.delete(key)
        return
      }
    }
  }

  private dial(to: Destination, outbound: Outbound, waiting: Set<Waiter>): Effect.Effect<void> {
    const node = endpointOf(to)
    const finish = (exit: Exit.Exit<Session, NodeUnreachable>) => {
      if (outbound.waiting === waiting) outbound.waiting = undefined
      const waiters = [...waiting]
      waiting.clear()
      for (const waiter of waiters) waiter(exit)
    }
    const lost = (error: GreetingError) => {
      const reason = describe(error)
      outbound.reason = reason
      outbound.notBefore = this.now() + this.pause(Math.min(outbound.failures++, 20))
      finish(Exit.fail(new NodeUnreachable({ node, outcome: "NotSent", reason })))
    }
    return Effect.gen({ self: this }, function*() {
      for (let dials = 1;; dials++) {
        const scope = yield* Scope.fork(this.options.scope)
        const close = Scope.close(scope, Exit.void)
        const met = yield* this.meet(to, scope).pipe(Effect.onError(() => close), Effect.result)
        if (Result.isFailure(met)) {
          if (dials >= dialsFor(met.failure)) return yield* Effect.fail(met.failure)
        } else if (met.success.known) {
          yield* close
          const known = this.open(met.success.peer)
          if (to.id === undefined && known !== undefined) {
            outbound.session = known
            return finish(Exit.succeed(known))
          }
        } else {
          const { connection, peer, rest, self } = met.success
          const session = this.session(connection, self, peer, true)
          this.dialed.set(nodeKey(peer), session)
          this.proving.delete(nodeKey(peer))
          const run = Effect.ensuring(Effect.suspend(() => session.run), close)
          if (to.id === undefined || peer.id === to.id) {
            outbound.session = session
            outbound.failures = 0
            finish(Exit.succeed(session))
            session.take(rest)
            return yield* run
          }
          // Another node behind the same address. The session is kept for what it is: a balancer that prefers whoever has the
          // fewest connections would choose that node for ever.
          session.take(rest)
          Fiber.runIn(this.options.runFork(run), this.options.scope)
        }
        const found = this.find(to)
        if (found !== undefined) return finish(Exit.succeed(found))
        if (dials >= maxSharedDials || waiting.size === 0) {
          return yield* new NodeUnreachable({
            node,
            outcome: "NotSent",
            reason: `node ${to.id ?? "?"} did not answer there in ${dials} dials: others share its address`
          })
        }
        yield* Effect.sleep(this.pause(Math.min(dials - 1, maxDoublings)))
        // by another dial, to the same node or to one at the same address
        const meanwhile = this.find(to)
        if (meanwhile !== undefined) return finish(Exit.succeed(meanwhile))
        if (this.isShunned(to)) {
          return yield* new NodeUnreachable({ node, outcome: "NotSent", reason: "its lease is closed" })
        }
      }
    }).pipe(
      Effect.catch((error) => Effect.sync(() => lost(error))),
      // whatever ended the dial, nobody waits for ever
      Effect.ensuring(
        Effect.sync(() =>
          finish(Exit.fail(new NodeUnreachable({ node, outcome: "NotSent", reason: "this node is closing" })))
        )
      )
    )
  }

  /** Milliseconds until the next dial: between half and all of a delay that doubles, so that many nodes do not come at once. */
  private pause(doublings: number): number {
    const { reconnectDelay, reconnectDelayMax } = this.options.settings
    const delay = Math.min(Duration.toMillis(reconnectDelay) * 2 ** doublings, Duration.toMillis(reconnectDelayMax))
    return delay * (0.5 + this.options.random.nextDoubleUnsafe() / 2)
  }

  /** Dials once; the connection lives in that scope. */
  private meet(to: Destination, scope: Scope.Scope) {
    return Effect.gen({ self: this }, function*() {
      const { connection, maxFrameBytes } = yield* this.reach.to(to, scope)
      const proving = new Set<string>()
      const given = this.config(connection, { id: to.id, incarnation: to.incarnation })
      const config: Handshake.Config = {
        ...given,
        self: { ...given.self, maxFrameBytes },
        stranger: (peer) => this.mayKeep(peer) ? "keep" : "pass",
        connected: (peer) => {
          const key = nodeKey(peer)
          if (this.open(peer) !== undefined || this.proving.has(key)) return true
          proving.add(key)
          this.proving.add(key)
          return false
        }
      }
      const met = yield* this.shakeHands(connection, config, Handshake.dial(config)).pipe(
        // where it succeeds the session is entered first
        Effect.onError(() =>
          Effect.sync(() => {
            for (const key of proving) this.proving.delete(key)
          })
        )
      )
      return { ...met, connection, self: config.self }
    })
  }

  /** A session to oneself is of no use, nor one to a node whose lease is closed. */
  private mayKeep(peer: Handshake.Identity): boolean {
    const self = this.options.self()
    return peer.id !== self.id && !this.shunned.has(nodeKey(peer))
  }

  // ---- in ----------------------------------------------------------------------------------------------------------------

  /** Takes inbound connections until the scope ends. */
  readonly acceptAll: Effect.Effect<void> = Effect.suspend(() =>
    Queue.take(this.options.transport.accept).pipe(
      Effect.flatMap((connection) => {
        if (this.closing || this.handshakes >= maxHandshakes) return connection.close
        this.handshakes++
        return Effect.forkIn(this.admit(connection), this.options.scope)
      }),
      Effect.forever
    )
  )

  private admit(connection: Connection): Effect.Effect<void> {
    let counted = true
    const known = () => {
      if (counted) this.handshakes--
      counted = false
    }
    return Effect.gen({ self: this }, function*() {
      const config = this.config(connection, undefined)
      const { peer, rest } = yield* this.shakeHands(connection, config, Handshake.accept())
      known()
      if (peer.relay !== undefined) return yield* this.relay(connection, peer.relay, rest)
      const key = nodeKey(peer)
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
      if (this.handshakes >= maxHandshakes) return refuse("is busy")
      this.handshakes++
      return this.admit(Relay.withFirst(connection, rest))
    }
    this.relayed++
    return Effect.gen({ self: this }, function*() {
      // it must prove that it is one of ours, before an outsider's bytes get there
      yield* this.acquire(to)
      const scope = yield* Effect.scope
      const onward = yield* this.reach.connect(to, scope)
      connection.limitInbound(this.options.settings.maxFrameBytes)
      yield* Relay.join(Relay.withFirst(connection, rest), onward)
    }).pipe(
      Effect.scoped,
      Effect.catch((error) => refuse(`cannot reach ${wanted}: ${error.reason}`)),
      Effect.ensuring(Effect.sync(() => void this.relayed--))
    )
  }

  private config(connection: Connection, expected: Handshake.Config["expected"]): Handshake.Config {
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
        if (peer.relay !== undefined && !this.mayRelay(peer)) return "does not relay"
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
        for (const outbound of this.outbound.values()) if (outbound.session === session) outbound.session = undefined
        const sessions = dialed ? this.dialed : this.accepted
        if (sessions.get(nodeKey(peer)) === session) sessions.delete(nodeKey(peer))
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
    for (const session of this.all()) session.sendControl(Handshake.kindsFrame(kinds))
  }

  /** Lets what is queued leave, then ends every session. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closing = true
    return Effect.forEach(this.all(), (session) => session.close, { discard: true })
  })
}

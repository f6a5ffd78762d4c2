/**
 * Sessions that this node dials: one dial at a time for a destination, however many wait for it; again behind an address that many
 * nodes share, until the right one answers; with a growing pause where none does.
 *
 * Not for: who may connect to whom, and what becomes of a session (`peers`), nor how an address is reached (`reach`).
 *
 * Invariant: whoever waits for a dial is told how it ended, whatever ended it. Two dials do not make two sessions to one node.
 */
import { Duration, Effect, Exit, Fiber, type Random, Result, Scope } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import { NodeUnreachable } from "../../Actor/errors.ts"
import type { RemotingSettings } from "../Settings.ts"
import type { Connection } from "../Transport.ts"
import { describe, type GreetingError, isUnanswered } from "./greeting.ts"
import * as Handshake from "./handshake.ts"
import type { Reach, ReachOptions } from "./reach.ts"
import type { Session } from "./session.ts"
import { isCertificate } from "./tls.edge.ts"

/** Destinations that are remembered; the oldest are forgotten. */
const maxRemembered = 10_000
/** Dials for one node at an address that others share, before it is given up. */
const maxSharedDials = 12
/** Dials of a connection that ends before anybody has answered, as a load balancer does whose choice is down. */
const maxUnansweredDials = 3
/** The wait between such dials is doubled up to this many times. */
const maxDoublings = 3

export interface Destination {
  readonly host: string
  readonly port: number
  readonly id?: string | undefined
  readonly incarnation?: string | undefined
}

/** One start of a node. */
type Incarnation = { readonly id: string; readonly incarnation: string }

export interface DialsOptions extends Pick<ReachOptions, "config" | "greet"> {
  readonly reach: Reach
  readonly settings: RemotingSettings
  readonly self: () => Handshake.Identity
  readonly scope: Scope.Scope
  readonly random: Random.Random
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** milliseconds, monotonic */
  readonly now: () => number
  /** is nobody to be dialed any more? */
  readonly isClosing: () => boolean
  /** is its lease closed? */
  readonly isShunned: (node: Incarnation) => boolean
  /** the open session to that very incarnation that this node dialed, if there is one */
  readonly open: (node: Incarnation) => Session | undefined
  /** all that this node dialed */
  readonly dialed: () => Iterable<Session>
  /** makes a session of a connection whose other end has proved who it is, and enters it among those */
  readonly enter: (connection: Connection, self: Handshake.Identity, peer: Handshake.Identity) => Session
}

type Waiter = (exit: Exit.Exit<Session, NodeUnreachable>) => void

interface Outbound {
  session: Session | undefined
  /** those who wait for the dial in flight; undefined: none is */
  waiting: Set<Waiter> | undefined
  failures: number
  /** milliseconds, monotonic: no dial before */
  notBefore: number
  /** of the last failure */
  reason: string
  barred: NodeUnreachable["barred"]
}

/** How often to dial in all, after that failure. */
const dialsFor = (error: GreetingError): number =>
  isUnanswered(error)
    ? maxUnansweredDials
    : error._tag === "Elsewhere" && error.another === true
    ? maxSharedDials
    : 1

/** Does one side not let the other in, and why? */
const barredBy = (error: GreetingError): NodeUnreachable["barred"] =>
  error._tag === "NodeUnreachable"
    ? isCertificate(error.reason) ? "Certificate" : undefined
    : error._tag === "Elsewhere"
    ? undefined
    : error._tag

const unreachable = (node: string, reason: string, barred: NodeUnreachable["barred"] = undefined) =>
  new NodeUnreachable({ node, outcome: "NotSent", reason, ...(barred === undefined ? {} : { barred }) })

const endpointOf = (to: { readonly host: string; readonly port: number }) => `${to.host}:${to.port}`
const keyOf = (to: Destination) => `${endpointOf(to)} ${to.id ?? ""}@${to.incarnation ?? ""}`

export class Dials {
  private readonly options: DialsOptions
  private readonly outbound = new Map<string, Outbound>()
  /** nodes that a dial is about to be connected to */
  private readonly proving = new Set<string>()

  constructor(options: DialsOptions) {
    this.options = options
  }

  private find(to: Destination): Session | undefined {
    if (to.id !== undefined && to.incarnation !== undefined) {
      return this.options.open({ id: to.id, incarnation: to.incarnation })
    }
    for (const session of this.options.dialed()) {
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
      const refuse = (reason: string, barred?: NodeUnreachable["barred"]) =>
        Effect.fail(unreachable(endpointOf(to), reason, barred))
      if (this.options.isClosing()) return refuse("this node is closing")
      if (this.isShunned(to)) return refuse("its lease is closed")
      const session = this.find(to)
      if (session !== undefined) return Effect.succeed(session)
      const key = keyOf(to)
      let outbound = this.outbound.get(key)
      if (outbound === undefined) {
        outbound = { session: undefined, waiting: undefined, failures: 0, notBefore: 0, reason: "", barred: undefined }
        this.outbound.set(key, outbound)
        this.forgetOldest()
      }
      const own = outbound
      if (own.waiting === undefined && this.options.now() < own.notBefore) return refuse(own.reason, own.barred)
      return Effect.callback<Session, NodeUnreachable>((resume) => {
        const started = own.waiting !== undefined
        const waiting = own.waiting ??= new Set()
        waiting.add(resume)
        if (!started) Fiber.runIn(this.options.runFork(this.dial(to, own, waiting)), this.options.scope)
        return Effect.sync(() => void waiting.delete(resume))
      })
    })

  private isShunned({ id, incarnation }: Destination): boolean {
    return id !== undefined && incarnation !== undefined && this.options.isShunned({ id, incarnation })
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
      outbound.barred = barredBy(error)
      outbound.notBefore = this.options.now() + this.pause(Math.min(outbound.failures++, 20))
      finish(Exit.fail(unreachable(node, reason, outbound.barred)))
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
          const known = this.options.open(met.success.peer)
          if (to.id === undefined && known !== undefined) {
            outbound.session = known
            return finish(Exit.succeed(known))
          }
        } else {
          const { connection, peer, rest, self } = met.success
          const session = this.options.enter(connection, self, peer)
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
      const { connection, maxFrameBytes } = yield* this.options.reach.to(to, scope)
      const proving = new Set<string>()
      const given = this.options.config(connection, { id: to.id, incarnation: to.incarnation })
      const config: Handshake.Config = {
        ...given,
        self: { ...given.self, maxFrameBytes },
        stranger: (peer) => this.mayKeep(peer) ? "keep" : "pass",
        connected: (peer) => {
          const key = nodeKey(peer)
          if (this.options.open(peer) !== undefined || this.proving.has(key)) return true
          proving.add(key)
          this.proving.add(key)
          return false
        }
      }
      const met = yield* this.options.greet(connection, config, Handshake.dial(config)).pipe(
        Effect.tap(({ known, peer }) => {
          // it may have been shunned since it was asked who it is
          if (known || !this.options.isShunned(peer)) return Effect.void
          const another = to.id !== undefined && to.id !== peer.id
          return Effect.fail<GreetingError>({ _tag: "Elsewhere", reason: "its lease is closed", another })
        }),
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
    return peer.id !== self.id && !this.options.isShunned(peer)
  }

  /** That session is over. */
  ended(session: Session): void {
    for (const outbound of this.outbound.values()) if (outbound.session === session) outbound.session = undefined
  }
}

/**
 * Calls between nodes: groups of `effect/rpc` served and called on the connections that also carry messages. Cluster and
 * datacenter define their groups and never see a socket.
 *
 * A call is at most once. It fails `NodeUnreachable` with `outcome: "NotSent"` when it certainly did not reach a handler (no
 * connection, wrong incarnation, authentication) and `"Unknown"` when it may have (connection lost or deadline passed in mid-call).
 */
import { Clock, Context, Duration, Effect, Exit, Layer, Random, Scope, Stream } from "effect"
import type { Rpc, RpcGroup } from "effect/rpc"
import { ActorHost } from "../Actor/ActorHost.ts"
import { type ActorAddress, endpoint, type NodeAddress, sameNode } from "../Actor/Address.ts"
import { Delivery, type Message, type Route } from "../Actor/Delivery.ts"
import { type AskError, AskTimeout, NodeUnreachable, type SettingInvalid, type TellError } from "../Actor/errors.ts"
import { Resumed } from "../Actor/internal/Envelope.ts"
import { Timeouts } from "../Actor/internal/Timeouts.ts"
import * as Node from "../Actor/Node.ts"
import { SystemEvents } from "../Actor/SystemEvents.ts"
import { Entropy } from "./Entropy.edge.ts"
import { partsCapability } from "./internal/bulk.ts"
import { Calls } from "./internal/calls.ts"
import { compactCapability } from "./internal/compact.ts"
import { deflateCapability } from "./internal/compression.ts"
import { relaying, sharedAddress } from "./internal/handshake.ts"
import { Messages } from "./internal/messages.ts"
import { noRoom } from "./internal/outgoing.ts"
import { Peers } from "./internal/peers.ts"
import * as Probe from "./internal/probe.ts"
import type { Session } from "./internal/session.ts"
import { askUrgently, goesUrgently, serveUrgent, urgentCapability } from "./internal/urgent.ts"
import * as Settings from "./Settings.ts"
import { type Listening, Transport } from "./Transport.ts"

export type {
  /** What a dial said about the life of a node. */
  Probe,
  Probed
} from "./internal/probe.ts"
export type { RemotingOptions, RemotingSettings } from "./Settings.ts"

/** What this node understands beyond the protocol's version; a session uses what its peer has named too. */
const capabilities: ReadonlyArray<string> = [partsCapability, compactCapability, deflateCapability, urgentCapability]

/** What a call waits for an answer unless it says otherwise. */
export const defaultCallTimeout = Duration.seconds(5)

/** A node by address alone (an endpoint), or one particular start of a node: any other found there is `NodeUnreachable`. */
export interface Peer {
  readonly host: string
  readonly port: number
  readonly id?: string | undefined
  readonly incarnation?: string | undefined
}

/** Who calls, as its handshake said. */
export interface Caller {
  readonly dataCenter: string
  readonly id: string
  readonly incarnation: string
  /** an outsider that is no node */
  readonly client: boolean
}

export interface ServeOptions {
  /** may that peer call this group? A text is why not, and `NotSent` there. Default: whoever is connected may. Not asked for this very node. */
  readonly admit?: ((caller: Caller) => string | undefined) | undefined
}

export class Remoting extends Context.Service<Remoting, {
  /** Answers calls of that group for as long as the scope lives. One server a group. */
  readonly serve: <Rpcs extends Rpc.Any>(
    group: RpcGroup.RpcGroup<Rpcs>,
    options?: ServeOptions
  ) => Effect.Effect<void, never, Scope.Scope | Rpc.ToHandler<Rpcs> | Rpc.ServicesServer<Rpcs>>
  /**
   * Calls one rpc of a group at a peer; dials if there is no connection yet. `timeout` defaults to 5 s. Calling this very node
   * works too and stays inside the process.
   */
  readonly call: <Rpcs extends Rpc.Any, const Tag extends Rpcs["_tag"]>(
    to: Peer,
    group: RpcGroup.RpcGroup<Rpcs>,
    tag: Tag,
    payload: Rpc.PayloadConstructor<Rpc.ExtractTag<Rpcs, Tag>>,
    options?: { readonly timeout?: Duration.Input | undefined }
  ) => Effect.Effect<Rpc.Success<Rpc.ExtractTag<Rpcs, Tag>>, Rpc.Error<Rpc.ExtractTag<Rpcs, Tag>> | NodeUnreachable>
  /**
   * Messages to that incarnation fail `NotSent` from now on, and nothing it sends is taken: its lease is closed. Calls still reach
   * it, so that it can be told; `shun` ends those too. Idempotent.
   */
  readonly mute: (node: { readonly id: string; readonly incarnation: string }) => Effect.Effect<void>
  /** Closes every connection to that incarnation and refuses it from now on: its lease is closed. Idempotent. */
  readonly shun: (node: { readonly id: string; readonly incarnation: string }) => Effect.Effect<void>
  /** where this node listens, for others of its machine; undefined where that is not known */
  readonly listening: Listening | undefined
  /** Dials that node afresh and says whether its port refuses: for whoever decides about its death. At most `dialTimeout`. */
  readonly probe: (node: Probe.Probed) => Effect.Effect<Probe.Probe>
  /** lets clients reach other nodes by way of this one, for as long as the scope lives */
  readonly relays: Effect.Effect<void, never, Scope.Scope>
  /** kinds that clients may spawn by way of this node, by its settings */
  readonly clientKinds: ReadonlyArray<string>
  /** who is connected now */
  readonly connected: Effect.Effect<ReadonlyArray<NodeAddress>>
}>()("effect-troupe/Remoting/Remoting") {}

/** What an outsider knows instead of a cluster. */
export interface Outsider {
  /** who may carry its frames to nodes that it cannot reach; `only`: it tries nothing else */
  readonly gateways?:
    | { readonly endpoints: ReadonlyArray<{ readonly host: string; readonly port: number }>; readonly only: boolean }
    | undefined
}

/** Both services of the ring, for as long as the scope lives. */
export const make = Effect.fnUntraced(function*(settings: Settings.RemotingSettings, outsider?: Outsider) {
  const transport = yield* Transport
  const node = yield* Node.Node
  const host = yield* ActorHost
  const events = yield* SystemEvents
  const inner = yield* Delivery
  const entropy = yield* Entropy
  const random = yield* Random.Random
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  // of dials and sessions, closed after what is queued has left, which the end of their fibers would keep from it
  const scope = yield* Scope.fork(yield* Effect.scope)
  const runFork = Effect.runForkWith(context)
  const self = node.address
  const timeouts = new Timeouts(clock, context)
  yield* Effect.addFinalizer(() => Effect.sync(() => timeouts.close()))

  const fingerprints = () => new Map([...host.kinds().values()].map((kind) => [kind.name, kind.fingerprint] as const))
  const messages = new Messages({
    delivery: inner,
    kinds: host.kinds,
    self,
    timeouts,
    publish: events.publish,
    runFork
  })
  const { outgoing } = messages
  const calls = new Calls({ timeouts, runFork, self: endpoint(self) })
  const peers: Peers = new Peers({
    transport,
    settings,
    self: () => ({
      system: node.system,
      ...self,
      client: outsider !== undefined,
      maxFrameBytes: settings.maxFrameBytes,
      windowBytes: settings.windowBytes,
      kinds: fingerprints(),
      capabilities: [
        ...capabilities,
        ...(settings.advertisedHost === undefined && settings.advertisedPort === 0 ? [] : [sharedAddress]),
        ...(peers.isRelaying ? [relaying] : [])
      ]
    }),
    gateways: outsider?.gateways,
    scope,
    clock,
    random,
    entropy,
    publish: events.publish,
    runFork,
    lanes: {
      onData: messages.onData,
      onMute: messages.onEnd,
      onControl: calls.onControl,
      onLost: messages.onLost,
      onEnd: (session) => {
        messages.onEnd(session)
        calls.onEnd(session)
      }
    }
  })
  yield* Effect.forkScoped(peers.acceptAll)
  yield* Effect.forkScoped(peers.heartbeats)
  yield* host.kindChanges.pipe(
    Stream.runForEach(() => Effect.sync(() => peers.kindsChanged(fingerprints()))),
    Effect.forkScoped
  )
  // after the fibers, so before them when the scope closes: what is queued still leaves
  yield* Effect.addFinalizer(() => peers.close)

  const isSelf = (to: Peer) =>
    to.incarnation === undefined && to.id === undefined
      ? to.host === self.host && to.port === self.port
      : to.id === self.id && (to.incarnation === undefined || to.incarnation === self.incarnation)

  /** Waits until the outbox has room, at most `outboxTimeout`; a session that ended has room and fails then. */
  const roomIn = (session: Session, bulk: boolean): Effect.Effect<void, NodeUnreachable> =>
    Effect.suspend(() => {
      const mayGo = () =>
        session.over !== undefined || session.muted || (bulk ? session.outbox.hasBulkRoom : session.outbox.hasRoom)
      if (mayGo()) return Effect.void
      const waiting: Effect.Effect<void> = Effect.suspend(() =>
        mayGo() ? Effect.void : Effect.andThen(
          Effect.callback<void>((resume) => {
            const stop = session.outbox.whenRoom(bulk, () => resume(Exit.void))
            return Effect.sync(stop)
          }),
          waiting
        )
      )
      return Effect.timeoutOrElse(waiting, {
        duration: settings.outboxTimeout,
        orElse: () => Effect.fail(session.overload("the outbox is full"))
      })
    })

  const ready = (to: ActorAddress) => Effect.tap(peers.acquire(to.node), (session) => roomIn(session, false))

  const closed = (to: ActorAddress) =>
    Effect.fail(
      new NodeUnreachable({ node: endpoint(to.node), outcome: "NotSent", reason: "its lease is closed" })
    )

  const write = (
    session: Session,
    to: ActorAddress,
    message: Message,
    route?: Route
  ): Exit.Exit<void, TellError> | undefined => {
    // it may have ended, or been muted, while this waited for room
    if (session.over !== undefined || session.muted) return Exit.fail(session.failure("NotSent"))
    const error = outgoing.tell(session, to, message, route)
    return error === undefined ? Exit.void : error === noRoom ? undefined : Exit.fail(error)
  }

  /** The same, where a large message waits for those before it. */
  const writeInTurn = (session: Session, to: ActorAddress, message: Message): Effect.Effect<void, TellError> =>
    write(session, to, message) ??
      Effect.flatMap(roomIn(session, true), () => writeInTurn(session, to, message))

  const urgent = { calls, timeouts, runFork }
  yield* serveUrgent(calls, { delivery: inner, kinds: host.kinds, self })

  const request = (
    session: Session,
    to: ActorAddress,
    message: Message,
    timeout: number
  ): Effect.Effect<Exit.Exit<unknown, unknown>, AskError> =>
    Effect.callback((resume) => {
      if (session.over !== undefined || session.muted) return resume(Exit.fail(session.failure("NotSent")))
      const asker = new Resumed(message, to.name, timeout, resume)
      if (goesUrgently(session, asker.tag)) {
        askUrgently(urgent, session, to, asker)
        return Effect.sync(() => asker.abandon())
      }
      if (outgoing.ask(session, to, asker)) return Effect.sync(() => asker.abandon())
      resume(within(timeout, roomIn(session, true), (_, left) => request(session, to, message, left)))
    })

  /** Whole milliseconds, so that it is the same number where nothing had to be waited for. */
  const leftOf = (timeout: number) => {
    const due = timeouts.now() + timeout
    // a microsecond is lost in the difference of large numbers
    return () => Math.ceil(due - timeouts.now() - 0.001)
  }

  /** What an ask waits for first comes out of its time. */
  const within = <A>(
    timeout: number,
    first: Effect.Effect<A, NodeUnreachable>,
    then: (first: A, left: number) => Effect.Effect<Exit.Exit<unknown, unknown>, AskError>
  ): Effect.Effect<Exit.Exit<unknown, unknown>, AskError> =>
    Effect.suspend(() => {
      const left = leftOf(timeout)
      return first.pipe(
        Effect.flatMap((value) => then(value, left())),
        // whoever waits has said how long in all
        Effect.mapError((error) =>
          error instanceof AskTimeout
            ? new AskTimeout({ name: error.name, request: error.request, timeout: Duration.millis(timeout) })
            : error
        )
      )
    })

  const delivery = Delivery.of({
    tell: (to, message) =>
      Effect.suspend(() => {
        if (sameNode(to.node, self)) return inner.tell(to, message)
        if (peers.isMuted(to.node)) return closed(to)
        const session = peers.open(to.node)
        if (session !== undefined && goesUrgently(session, message.tag)) {
          // told, so nobody waits for the answer
          askUrgently(
            urgent,
            session,
            to,
            new Resumed(message, to.name, Duration.toMillis(defaultCallTimeout), () => {})
          )
          return Effect.void
        }
        if (session?.outbox.hasRoom === true) return writeInTurn(session, to, message)
        return Effect.flatMap(ready(to), (session) => writeInTurn(session, to, message))
      }),
    ask: (to, message, timeout) =>
      Effect.suspend(() => {
        if (sameNode(to.node, self)) return inner.ask(to, message, timeout)
        if (peers.isMuted(to.node)) return closed(to)
        const session = peers.open(to.node)
        if (session !== undefined && (session.outbox.hasRoom || goesUrgently(session, message.tag))) {
          return request(session, to, message, timeout)
        }
        const connected = Effect.timeoutOrElse(ready(to), {
          duration: timeout,
          orElse: () =>
            Effect.fail(
              new NodeUnreachable({
                node: endpoint(to.node),
                outcome: "NotSent",
                reason: `no connection within ${timeout} ms`
              })
            )
        })
        return within(timeout, connected, (session, left) => request(session, to, message, left))
      }),
    tryTell: (route, message) => {
      const session = outgoing.sessionOf(route) ?? peers.open(route.address.node)
      if (session === undefined) return sameNode(route.address.node, self) ? inner.tryTell?.(route, message) : undefined
      return session.outbox.hasRoom && !session.muted ? write(session, route.address, message, route) : undefined
    },
    tryAsk: (route, asker) => {
      const session = outgoing.sessionOf(route) ?? peers.open(route.address.node)
      if (session === undefined) {
        return sameNode(route.address.node, self) && (inner.tryAsk?.(route, asker) ?? false)
      }
      if (goesUrgently(session, asker.tag)) {
        askUrgently(urgent, session, route.address, asker)
        return true
      }
      if (!session.outbox.hasRoom || session.muted) return false
      return outgoing.ask(session, route.address, asker, route)
    }
  })

  const call = (
    to: Peer,
    group: RpcGroup.RpcGroup<Rpc.Any>,
    tag: string,
    payload: unknown,
    options?: { readonly timeout?: Duration.Input | undefined }
  ): Effect.Effect<unknown, unknown> =>
    Effect.suspend(() => {
      const rpc = group.requests.get(tag) as Rpc.AnyWithProps | undefined
      const timeout = Duration.toMillis(options?.timeout ?? defaultCallTimeout)
      const refuse = (reason: string) =>
        Effect.fail(new NodeUnreachable({ node: endpoint(to), outcome: "NotSent", reason }))
      if (rpc === undefined) return refuse(`${tag} is not in the group`)
      if (isSelf(to)) return calls.callSelf(rpc, payload, timeout)
      const left = leftOf(timeout)
      return peers.acquire(to).pipe(
        Effect.timeoutOrElse({ duration: timeout, orElse: () => refuse(`no connection within ${timeout} ms`) }),
        Effect.flatMap((session) => calls.call(session, rpc, payload, left()))
      )
    })

  const remoting = Remoting.of({
    serve: calls.serveGroup,
    // the types of an rpc are those of its schemas, which encode and decode what goes through here
    call: call as unknown as Remoting["Service"]["call"],
    mute: (target) => Effect.sync(() => peers.mute(target)),
    shun: (target) => Effect.sync(() => peers.shun(target)),
    listening: transport.listening,
    probe: Probe.make(transport, settings),
    relays: peers.relays,
    clientKinds: settings.clientKinds,
    connected: Effect.sync(() => peers.connected())
  })
  return Context.make(Remoting, remoting).pipe(Context.add(Delivery, delivery))
})

/** Decorates the local `Delivery` and adds `Remoting`. A bad setting fails while the Layer is built. */
export const layer = (
  options: Settings.RemotingOptions = {}
): Layer.Layer<Remoting | Delivery, SettingInvalid, Transport | Node.Node | ActorHost | SystemEvents | Delivery> =>
  Layer.effectContext(Effect.flatMap(Settings.decode(options), (settings) => make(settings)))

/** The same, with settings from the environment. */
export const layerConfig: Layer.Layer<
  Remoting | Delivery,
  SettingInvalid,
  Transport | Node.Node | ActorHost | SystemEvents | Delivery
> = Layer.effectContext(Effect.flatMap(Settings.config, (settings) => make(settings)))

/** The ring of an outsider: it dials, nobody dials it. `Client.layer` is built on it. */
export const layerClient = (
  options: Settings.RemotingOptions = {},
  outsider: Outsider = {}
): Layer.Layer<Remoting | Delivery, SettingInvalid, Transport | Node.Node | ActorHost | SystemEvents | Delivery> =>
  Layer.effectContext(Effect.flatMap(Settings.decode(options), (settings) => make(settings, outsider)))

/** An `ActorSystem` for a program that is no member: `Client.layer` under the name of this ring. */
export { layer as client } from "./Client.ts"

/** Who this node is, at the address where its transport is bound. */
export const layerNode = (options: Node.NodeOptions): Layer.Layer<Node.Node, never, Transport> =>
  Layer.effect(
    Node.Node,
    Effect.gen(function*() {
      const { address } = yield* Transport
      return yield* Node.make({ ...options, host: address.host, port: address.port })
    })
  )

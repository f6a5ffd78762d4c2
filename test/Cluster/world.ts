// Members of one cluster in one process: real hosts and stores, and links between them that a test can cut. Calls between nodes
// take the shortest way there is; the wire has its own tests.
import { Actor, ActorHost, ActorSystem, Delivery, Node, Placement, SystemEvents } from "effect-troupe/Actor"
import { Cluster } from "effect-troupe/Cluster"
import { ControlStore, MemoryBackend } from "effect-troupe/ControlPlane"
import { Context, Duration, Effect, Exit, Fiber, Layer, Random, Ref, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Rpc, type RpcGroup } from "effect/rpc"
import type { NodeAddress } from "../../src/Actor/Address.ts"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import type { SystemEvent } from "../../src/Actor/SystemEvents.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"

export const Counter = Actor.make("Counter", {
  protocol: [Rpc.make("Add", { payload: { by: Schema.Int }, success: Schema.Int })],
  props: { from: Schema.Int }
})
export const CounterLive = Counter.toLayer(Effect.gen(function*() {
  const { from } = yield* Counter.props
  const value = yield* Ref.make(from)
  return Counter.of({ Add: ({ by }) => Ref.updateAndGet(value, (n) => n + by) })
}))

type Handler = (payload: unknown, options: unknown) => Effect.Effect<unknown, unknown>

export interface Member {
  readonly id: string
  readonly address: NodeAddress
  readonly system: ActorSystem.ActorSystem["Service"]
  readonly host: ActorHost.ActorHost["Service"]
  readonly cluster: Cluster.Cluster["Service"]
  readonly placement: Placement.Placement["Service"]
  /** all events of this start, in order */
  readonly events: ReadonlyArray<SystemEvent>
  readonly crash: Effect.Effect<void>
  readonly leave: Effect.Effect<void>
}

export interface StartOptions extends Cluster.ClusterOptions {
  readonly kinds?: Layer.Layer<never, never, ActorSystem.ActorSystem> | undefined
  /** members of one machine know for certain of each other whether anybody listens; default: nothing is known */
  readonly machine?: string | undefined
}

export const makeWorld = Effect.fnUntraced(function*(
  seed: number | string = 1,
  /** what the store says of itself */
  capabilities: Partial<ControlStore.Capabilities> = {}
) {
  const worldScope = yield* Effect.scope
  const backend = yield* MemoryBackend.make({ capabilities })
  const handlers = new Map<string, Map<string, Handler>>()
  const cuts = new Set<string>()
  const storeCuts = new Set<string>()
  const crashed = new Set<string>()
  /** those that answer nothing and renew nothing for now, though their ports accept */
  const paused = new Set<string>()
  /** dials that were made to learn whether a port refuses: who, and whom */
  const probes: Array<readonly [from: string, to: string]> = []
  /** faults of one node's store, by id */
  const faults = new Map<
    string,
    ControlStore.MemoryBackend extends infer _ ? Parameters<ControlStore.MemoryBackend["client"]>[0] : never
  >()
  /** looks at each call; a failure is what the caller sees */
  const net: {
    before?: (from: string, to: string, tag: string) => Effect.Effect<void, NodeUnreachable>
    after?: (from: string, to: string, tag: string) => Effect.Effect<void, NodeUnreachable>
    /** milliseconds after which a call arrives without anybody waiting for it; 0: in time */
    late?: (tag: string) => number
  } = {}
  const ports = new Map<string, number>()
  let nextPort = 1
  let incarnations = 0

  const link = (a: string, b: string) => a < b ? `${a}|${b}` : `${b}|${a}`
  const isOpen = (from: string, to: string) =>
    !crashed.has(from) && !crashed.has(to) && (from === to || !cuts.has(link(from, to)))
  const keyOf = (node: { readonly id: string; readonly incarnation: string }) => `${node.id}@${node.incarnation}`

  const remoting = (self: NodeAddress, machine: string | undefined) => {
    const shunned = new Set<string>()
    const refused = (to: { readonly host: string; readonly port: number }, reason: string) =>
      new NodeUnreachable({ node: `${to.host}:${to.port}`, outcome: "NotSent", reason })
    return Remoting.of({
      clientKinds: [],
      listening: machine === undefined ? undefined : { stack: machine, host: self.host, port: self.port },
      probe: (node) =>
        Effect.suspend(() => {
          const there = Array.from(ports).find(([, port]) => port === node.port)![0]
          probes.push([keyOf(self), there])
          if (cuts.has(link(keyOf(self), there))) return Effect.as(Effect.sleep("3 seconds"), "Open" as const)
          if (!crashed.has(there)) return Effect.succeed("Open" as const)
          return Effect.succeed(node.listening?.stack === machine && machine !== undefined ? "Vacant" : "Refused")
        }),
      relays: Effect.void,
      serve: <Rpcs extends Rpc.Any>(group: RpcGroup.RpcGroup<Rpcs>) =>
        Effect.gen(function*() {
          const context = yield* Effect.context<never>()
          const mine = handlers.get(keyOf(self)) ?? new Map<string, Handler>()
          for (const [tag, rpc] of group.requests) {
            const entry = context.mapUnsafe.get((rpc as unknown as { readonly key: string }).key) as {
              readonly handler: Handler
            }
            mine.set(tag, entry.handler)
          }
          handlers.set(keyOf(self), mine)
          yield* Effect.addFinalizer(() => Effect.sync(() => void handlers.delete(keyOf(self))))
        }) as never,
      call: ((to: NodeAddress, _group: unknown, tag: string, payload: unknown, options?: {
        readonly timeout?: Duration.Input
      }) =>
        Effect.gen(function*() {
          const there = keyOf(to)
          const here = keyOf(self)
          if (shunned.has(there)) return yield* refused(to, "shunned")
          if (!isOpen(here, there)) return yield* refused(to, "no route")
          if (paused.has(there) || paused.has(here)) return yield* Effect.never
          const handler = handlers.get(there)?.get(tag)
          if (handler === undefined) return yield* refused(to, "nobody there")
          const late = net.late?.(tag) ?? 0
          if (late > 0) {
            // It arrives long after its caller has given up, whatever became of the caller meanwhile.
            yield* Effect.forkIn(
              Effect.suspend(() => handlers.get(there)?.get(tag)?.(payload, {}) ?? Effect.void).pipe(
                Effect.delay(late),
                Effect.exit
              ),
              worldScope
            )
            return yield* Effect.never
          }
          if (net.before !== undefined) yield* net.before(here, there, tag)
          // The peer goes on when the caller gives up, as over a real connection.
          const fiber = yield* Effect.forkIn(handler(payload, {}), worldScope, { startImmediately: true })
          const result = yield* Effect.exit(Fiber.join(fiber))
          if (net.after !== undefined) yield* net.after(here, there, tag)
          if (!isOpen(here, there)) {
            return yield* new NodeUnreachable({ node: there, outcome: "Unknown", reason: "connection lost" })
          }
          return yield* result
        }).pipe(Effect.timeoutOrElse({
          duration: options?.timeout ?? "5 seconds",
          orElse: () =>
            Effect.fail(new NodeUnreachable({ node: keyOf(to), outcome: "Unknown", reason: "no answer in time" }))
        }))) as never,
      mute: () => Effect.void,
      shun: (node) => Effect.sync(() => void shunned.add(keyOf(node))),
      connected: Effect.succeed([])
    })
  }

  const start = Effect.fnUntraced(function*(id: string, options: StartOptions = {}) {
    const scope = yield* Scope.make()
    const { kinds = CounterLive, machine, ...settings } = options
    const port = nextPort++
    const incarnation = (++incarnations).toString(16).padStart(4, "0")
    const address: NodeAddress = { dataCenter: "dc", id, incarnation, host: "sim", port }
    const me = keyOf(address)
    ports.set(me, port)
    const store = backend.client({
      reachable: () => !storeCuts.has(id) && !crashed.has(me) && !paused.has(me),
      ...faults.get(id)
    })
    const random = yield* Random.Random.pipe(Random.withSeed(`${seed}/${id}/${incarnation}`))
    const events: Array<SystemEvent> = []
    const layer = kinds.pipe(
      Layer.provideMerge(ActorSystem.layer),
      Layer.provideMerge(Cluster.layer(settings)),
      Layer.provideMerge(Layer.mergeAll(
        Placement.layerLocal,
        Delivery.layerLocal,
        Layer.succeed(Remoting, remoting(address, machine)),
        Layer.succeed(ControlStore.ControlStore, store)
      )),
      Layer.provideMerge(ActorHost.layer),
      Layer.provideMerge(Layer.succeed(Node.Node, Node.Node.of({ system: "test", address }))),
      Layer.provideMerge(Layer.effect(
        SystemEvents.SystemEvents,
        Effect.map(SystemEvents.make, (inner) =>
          SystemEvents.SystemEvents.of({
            ...inner,
            publish: (event) => {
              events.push(event)
              inner.publish(event)
            }
          }))
      ))
    )
    const context = yield* Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope).pipe(
      Effect.provideService(Random.Random, random)
    )
    let ended = false
    const crash = Effect.suspend(() => {
      if (ended) return Effect.void
      ended = true
      crashed.add(me)
      handlers.delete(me)
      return Effect.asVoid(Effect.forkIn(Scope.close(scope, Exit.void), worldScope))
    })
    yield* Effect.addFinalizer(() => crash)
    const member: Member = {
      id,
      address,
      system: Context.get(context, ActorSystem.ActorSystem),
      host: Context.get(context, ActorHost.ActorHost),
      cluster: Context.get(context, Cluster.Cluster),
      placement: Context.get(context, Placement.Placement),
      events,
      crash,
      leave: Effect.suspend(() => {
        if (ended) return Effect.void
        ended = true
        return Effect.andThen(Scope.close(scope, Exit.void), Effect.sync(() => void crashed.add(me)))
      })
    }
    return member
  })

  return {
    backend,
    start,
    net,
    faults,
    probes,
    pause: (member: Member) => Effect.sync(() => void paused.add(keyOf(member.address))),
    resume: (member: Member) => Effect.sync(() => void paused.delete(keyOf(member.address))),
    /** starts them one after the other, and lets the view settle */
    startAll: (ids: ReadonlyArray<string>, options: StartOptions = {}) =>
      Effect.gen(function*() {
        const members: Array<Member> = []
        for (const id of ids) members.push(yield* drive(start(id, options)))
        yield* TestClock.adjust("10 seconds")
        return members
      }),
    cut: (a: Member, b: Member) => Effect.sync(() => void cuts.add(link(keyOf(a.address), keyOf(b.address)))),
    cutStore: (...members: ReadonlyArray<Member>) => Effect.sync(() => members.forEach(({ id }) => storeCuts.add(id))),
    healStore: (...members: ReadonlyArray<Member>) =>
      Effect.sync(() => members.forEach(({ id }) => storeCuts.delete(id))),
    isLinked: (a: Member, b: Member) => isOpen(keyOf(a.address), keyOf(b.address)),
    heal: Effect.sync(() => {
      cuts.clear()
      storeCuts.clear()
    })
  }
})

/** Moves the clock until the effect is done, at most ten virtual minutes. */
export const drive = <A, E, R>(effect: Effect.Effect<A, E, R>, step: Duration.Input = "20 millis") =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    let left = 600_000
    while (fiber.pollUnsafe() === undefined && left > 0) {
      yield* TestClock.adjust(step)
      left -= Duration.toMillis(step)
    }
    return yield* Fiber.join(fiber)
  })

/** On which of the members a name runs now. */
export const hosts = (members: ReadonlyArray<Member>, name: string) =>
  members.filter((member) => member.host.find(name) !== undefined).map((member) => member.id)

export const eventsOf = (member: Member, tag: SystemEvent["_tag"]) =>
  member.events.filter((event) => event._tag === tag)

/**
 * A whole world in one process: the same nodes that run in production, on a simulated network and memory stores, under
 * `TestClock`. Ids, jitter, incarnations and nonces come from the seed; same seed and same code, same trace hash.
 *
 * Who moves the clock: with no simulated latency (the default) a call completes on scheduler turns; with latency
 * `world.run(effect)` advances virtual time until the effect is done, and so does `awaitReady`. Nothing else does, but for the
 * end of the world's own scope.
 *
 * Monitors watch every node at each step; `world.violations` is empty or the run has found a bug.
 */
import { Cause, Clock, Context, Duration, Effect, Exit, Fiber, Layer, Random, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ActorHost from "../Actor/ActorHost.ts"
import type { NodeAddress } from "../Actor/Address.ts"
import * as ActorSystem from "../Actor/ActorSystem.ts"
import * as SystemEvents from "../Actor/SystemEvents.ts"
import * as Cluster from "../Cluster/Cluster.ts"
import * as ControlPlane from "../ControlPlane/ControlPlane.ts"
import * as ControlStore from "../ControlPlane/ControlStore.ts"
import * as DataCenters from "../DataCenter/DataCenters.ts"
import * as Rings from "../Layers/internal/rings.ts"
import * as Remoting from "../Remoting/Remoting.ts"
import { Monitors, type Violation } from "./internal/monitors.ts"
import { Trace, type TraceEvent } from "./internal/trace.ts"
import * as SimulatedNetwork from "./SimulatedNetwork.ts"

export type { TraceEvent, Violation }

/** Names the shared control plane in `partition`, beside the names of datacenters and the ids of nodes. */
export const globalControlPlane = "global-control-plane"

export interface DataCenterOptions {
  readonly nodes: number
  readonly region?: string | undefined
  readonly zone?: string | undefined
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** roles of each of its nodes; default none */
  readonly roles?: ReadonlyArray<string> | undefined
  /** machines that its nodes share, in turn; default: each node has one of its own */
  readonly machines?: number | undefined
}

export interface Options<E = never> {
  readonly seed: number
  /** the Layers of the kinds under test, merged; each node builds its own */
  readonly kinds: Layer.Layer<never, E, ActorSystem.ActorSystem>
  readonly dataCenters: Readonly<Record<string, DataCenterOptions>>
  /** settings as in production, for every node; `roles` come from the datacenter */
  readonly cluster?: Cluster.ClusterOptions | undefined
  readonly controller?: Partial<DataCenters.DataCenterOptions> | undefined
  readonly remoting?: Remoting.RemotingOptions | undefined
  readonly network?: SimulatedNetwork.Options | undefined
}

/** The world did not become ready in virtual time; says which node waits for what. */
export class WorldNotReady extends Schema.TaggedError<WorldNotReady>()("WorldNotReady", {
  after: Schema.DurationFromMillis,
  waiting: Schema.Array(Schema.String)
}) {}

export interface SimulatedNode {
  /** stable over restarts, e.g. `us-east-1-0` */
  readonly id: string
  readonly dataCenter: string
  /** this start's address; throws where the node is not up */
  readonly address: NodeAddress
  /** the node's own face; throws where the node is not up */
  readonly system: ActorSystem.ActorSystem["Service"]
  /** all of the node's services, for tests that look deeper */
  readonly context: Context.Context<NodeServices>
  readonly isUp: boolean
  /** loses memory and connections at once, says goodbye to nobody; idempotent */
  readonly crash: Effect.Effect<void>
  /** shuts down in order: withdraws its actors, leaves, closes; idempotent */
  readonly leave: Effect.Effect<void>
  /** starts it again under the same id, as a new incarnation; no effect on a node that is up */
  readonly restart: Effect.Effect<void>
}

export type NodeServices =
  | ActorSystem.ActorSystem
  | ActorHost.ActorHost
  | Cluster.Cluster
  | DataCenters.DataCenters
  | Remoting.Remoting

export interface World {
  readonly seed: number
  /** throws where there is none */
  readonly node: (dataCenter: string, index: number) => SimulatedNode
  readonly nodes: ReadonlyArray<SimulatedNode>
  /** advances time until every node that is up sees its whole cluster and every datacenter (at most two minutes) */
  readonly awaitReady: Effect.Effect<void, WorldNotReady>
  /** advances time until the effect is done */
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /**
   * Cuts both ways between two groups. Each name is a datacenter (its nodes and its store), `store:` and a datacenter (its store alone), a
   * node's id, or `globalControlPlane`; any other is a defect that names it, for a fault that hits nobody proves nothing.
   */
  readonly partition: (between: ReadonlyArray<string>, and: ReadonlyArray<string>) => Effect.Effect<void>
  /** ends all partitions */
  readonly heal: Effect.Effect<void>
  /** dials between two nodes are refused though both live, as by a firewall that rejects; until `heal`. An id that no node has is a defect */
  readonly reject: (one: string, other: string) => Effect.Effect<void>
  /** ordered events with virtual time */
  readonly trace: ReadonlyArray<TraceEvent>
  /** hash over the trace and every frame that the network carried */
  readonly traceHash: string
  readonly violations: ReadonlyArray<Violation>
}

/** Virtual time that `awaitReady` gives a world, and the step in which it looks. */
const readyWithin = Duration.minutes(2)
const readyStep = Duration.millis(100)
/** The step in which `run` moves the clock; sleeps in between still wake at their own time. */
const runStep = Duration.millis(10)
/** Virtual time that nodes get to close when the world ends. */
const closeWithin = Duration.minutes(5)

const storeOf = (dataCenter: string) => `store:${dataCenter}`

/** One start of a node. */
interface Running {
  readonly scope: Scope.Closeable
  context: Context.Context<NodeServices> | undefined
  /** neither crashed, left, nor failed to start */
  alive: boolean
  /** why it could not start */
  failure: string | undefined
}

/** Moves the clock until the fiber is done, or the limit is reached. */
const drive = <A, E>(fiber: Fiber.Fiber<A, E>, step: Duration.Duration, limit: Duration.Duration) =>
  Effect.suspend(() => {
    let left = Duration.toMillis(limit)
    return Effect.whileLoop({
      while: () => fiber.pollUnsafe() === undefined && left > 0,
      body: () => TestClock.adjust(step),
      step: () => {
        left -= Duration.toMillis(step)
      }
    })
  })

/** Builds the world and starts its nodes, in order. Needs the `TestClock` that `it.effect` provides. */
export const make = Effect.fnUntraced(function*<E>(options: Options<E>) {
  const worldScope = yield* Effect.scope
  const worldContext = yield* Effect.context<never>()
  const clock = yield* Clock.Clock
  const began = clock.currentTimeMillisUnsafe()
  // whole milliseconds: fractions differ in their last bits when a world begins late on its clock
  const now = () => Math.round(clock.currentTimeMillisUnsafe() - began)
  const trace = new Trace()
  const monitors = new Monitors((id, incarnation) => {
    const node = nodes.find((candidate) => candidate.id === id)
    if (node?.isUp !== true) return false
    const cluster = Context.get(node.context, Cluster.Cluster)
    return (incarnation === undefined || cluster.self.incarnation === incarnation) && cluster.mayAct()
  })
  const dataCenterNames = Object.keys(options.dataCenters)
  const nodes: Array<SimulatedNode> = []

  const network = yield* SimulatedNetwork.make({
    seed: `${options.seed}/network`,
    ...options.network,
    onFrame: (from, to, frame) => {
      trace.mix(`${now()} ${from} ${to} ${frame.length}`)
      options.network?.onFrame?.(from, to, frame)
    }
  })
  const globalBackend = yield* ControlStore.makeMemoryBackend
  const backends = new Map<string, ControlStore.MemoryBackend>()
  for (const name of dataCenterNames) backends.set(name, yield* ControlStore.makeMemoryBackend)

  const startNode = (dataCenter: string, index: number) => {
    const site = options.dataCenters[dataCenter]!
    const backend = backends.get(dataCenter)!
    const id = `${dataCenter}-${index}`
    const machine = site.machines === undefined ? id : `${dataCenter}/machine-${index % site.machines}`
    let starts = 0
    let running: Running | undefined

    const start = Effect.gen(function*() {
      if (running?.alive === true) return
      starts++
      const scope = yield* Scope.make()
      const own: Running = { scope, context: undefined, alive: true, failure: undefined }
      running = own
      monitors.started(id)
      const random = yield* Random.Random.pipe(Random.withSeed(`${options.seed}/${id}/${starts}`))
      const gate = (place: string) => ({ reachable: () => own.alive && network.reachable(id, place) })

      // What the node tells about itself is what the monitors see, at the moment it happens.
      const events = Layer.effect(
        SystemEvents.SystemEvents,
        Effect.map(SystemEvents.make, (inner) =>
          SystemEvents.SystemEvents.of({
            ...inner,
            publish: (event) => {
              if (!own.alive) return
              trace.add({ at: now(), where: id, event })
              monitors.event(now(), id, event)
              inner.publish(event)
              // As in production: a process whose node was fenced ends, for its supervisor to start it again.
              if (event._tag === "MemberFenced") Effect.runForkWith(worldContext)(Effect.forkIn(leave, worldScope))
            }
          }))
      )
      const layer = options.kinds.pipe(
        Layer.provideMerge(Rings.dataCenterNode(
          Remoting.layer(options.remoting),
          Cluster.layer({ ...options.cluster, roles: site.roles ?? [] }),
          DataCenters.layer({
            ...options.controller,
            name: dataCenter,
            region: site.region,
            zone: site.zone,
            labels: site.labels
          })
        )),
        Layer.provide(Remoting.layerNode({ system: "simulation", dataCenter, id })),
        Layer.provide(network.layer(id, { machine })),
        Layer.provide(events),
        Layer.provide(Layer.succeed(ControlStore.ControlStore, backend.client(gate(storeOf(dataCenter))))),
        Layer.provide(
          ControlPlane.layerStore({}).pipe(
            Layer.provideMerge(Layer.succeed(ControlStore.GlobalStore, globalBackend.client(gate(globalControlPlane))))
          )
        )
      )
      yield* Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope).pipe(
        Effect.tap((context) =>
          Effect.gen(function*() {
            own.context = context
            const cluster = Context.get(context, Cluster.Cluster)
            trace.add({ at: now(), where: id, event: { _tag: "NodeStarted", incarnation: cluster.self.incarnation } })
            yield* cluster.changes.pipe(
              Stream.runForEach((view) => Effect.sync(() => own.alive && monitors.viewSeen(now(), id, view.number))),
              Effect.forkIn(scope)
            )
          })
        ),
        Effect.catchCause((cause) =>
          Effect.suspend(() => {
            if (!own.alive) return Effect.void
            own.failure = Cause.pretty(cause)
            trace.add({ at: now(), where: id, event: { _tag: "NodeFailed", reason: String(Cause.squash(cause)) } })
            gone(own)
            return Effect.asVoid(Effect.forkIn(Scope.close(scope, Exit.void), worldScope))
          })
        ),
        Effect.provideService(Random.Random, random),
        Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random)),
        Effect.forkIn(worldScope, { startImmediately: true })
      )
    })

    const gone = (own: Running) => {
      own.alive = false
      monitors.crashed(id)
      network.crash(id)
    }
    const crash = Effect.suspend(() => {
      const own = running
      if (own === undefined || !own.alive) return Effect.void
      trace.add({ at: now(), where: id, event: { _tag: "NodeCrashed" } })
      gone(own)
      // Closing only frees memory here: network and stores are out of reach already.
      return Effect.asVoid(Effect.forkIn(Scope.close(own.scope, Exit.void), worldScope))
    })
    const leave = Effect.suspend(() => {
      const own = running
      if (own === undefined || !own.alive) return Effect.void
      return Effect.andThen(Scope.close(own.scope, Exit.void), Effect.sync(() => gone(own)))
    })
    /** The end of the world: out of reach first, so that nobody's goodbye is anybody's event. */
    const close = Effect.suspend(() => {
      const own = running
      if (own === undefined || !own.alive) return Effect.void
      gone(own)
      return Scope.close(own.scope, Exit.void)
    })

    const current = () => {
      const context = running?.alive === true ? running.context : undefined
      if (context === undefined) throw new Error(`node ${id} is not up`)
      return context
    }
    const node: SimulatedNode = {
      id,
      dataCenter,
      get address() {
        return Context.get(current(), Cluster.Cluster).self
      },
      get system() {
        return Context.get(current(), ActorSystem.ActorSystem)
      },
      get context() {
        return current()
      },
      get isUp() {
        return running?.alive === true && running.context !== undefined
      },
      crash,
      leave,
      restart: start
    }
    return { node, start, close, isAlive: () => running?.alive === true, failure: () => running?.failure }
  }

  const started = dataCenterNames.flatMap((name) =>
    Array.from({ length: options.dataCenters[name]!.nodes }, (_, index) => startNode(name, index))
  )
  nodes.push(...started.map((entry) => entry.node))
  const isAlive = (node: SimulatedNode) => started.some((entry) => entry.node === node && entry.isAlive())
  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      const closing = yield* Effect.forkDetach(
        Effect.forEach(started, (entry) => entry.close, { concurrency: "unbounded", discard: true }),
        { startImmediately: true }
      )
      yield* drive(closing, Duration.seconds(1), closeWithin)
    })
  )
  for (const entry of started) yield* entry.start

  const places = new Map<string, ReadonlyArray<string>>()
  for (const name of dataCenterNames) {
    const ids = nodes.filter((node) => node.dataCenter === name).map((node) => node.id)
    places.set(name, [storeOf(name), ...ids])
    // a datacenter may have the name of a node, and then it is meant
    for (const place of [storeOf(name), ...ids]) if (!places.has(place)) places.set(place, [place])
  }
  places.set(globalControlPlane, [globalControlPlane])
  const unknown = (what: string, name: string, known: Iterable<string>) =>
    new Error(`there is no ${what} ${name} (known: ${Array.from(known).join(", ")})`)
  const expand = (names: ReadonlyArray<string>) =>
    names.flatMap((name) => {
      const found = places.get(name)
      if (found === undefined) throw unknown("place", name, places.keys())
      return found
    })
  const known = (id: string) => {
    if (nodes.every((node) => node.id !== id)) throw unknown("node", id, nodes.map((node) => node.id))
  }

  /** What a node still waits for; empty when it is ready. */
  const waiting = Effect.fnUntraced(function*(node: SimulatedNode) {
    if (!node.isUp) return [`${node.id}: is starting`]
    const cluster = yield* Context.get(node.context, Cluster.Cluster).view
    const kinds = [...Context.get(node.context, ActorHost.ActorHost).kinds().keys()]
    const lacks: Array<string> = []
    for (const other of nodes) {
      if (other.dataCenter !== node.dataCenter || !isAlive(other)) continue
      const member = cluster.members.find((candidate) => candidate.node.id === other.id && candidate.status === "Up")
      if (member === undefined) lacks.push(`${node.id}: does not see ${other.id} up`)
      else if (kinds.some((kind) => !member.kinds.includes(kind))) lacks.push(`${node.id}: misses kinds of ${other.id}`)
    }
    for (const name of dataCenterNames) {
      const seen = yield* Effect.exit(Context.get(node.context, DataCenters.DataCenters).select(name))
      if (Exit.isFailure(seen)) lacks.push(`${node.id}: does not see datacenter ${name}`)
    }
    return lacks
  })

  const world: World = {
    seed: options.seed,
    nodes,
    node: (dataCenter, index) => {
      const found = nodes.find((node) => node.id === `${dataCenter}-${index}`)
      if (found === undefined) throw new Error(`there is no node ${index} in ${dataCenter}`)
      return found
    },
    awaitReady: Effect.gen(function*() {
      const limit = Duration.toMillis(readyWithin)
      let spent = 0
      let lacks: ReadonlyArray<string> = []
      do {
        yield* TestClock.adjust(spent === 0 ? Duration.zero : readyStep)
        spent += Duration.toMillis(readyStep)
        const failed = started.flatMap((entry) => {
          const reason = entry.failure()
          return reason === undefined ? [] : [`${entry.node.id}: could not start: ${reason}`]
        })
        lacks = [...failed, ...(yield* Effect.forEach(nodes.filter(isAlive), waiting)).flat()]
      } while (lacks.length > 0 && spent < limit)
      if (lacks.length > 0) return yield* new WorldNotReady({ after: readyWithin, waiting: lacks })
    }),
    run: (effect) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
        yield* drive(fiber, runStep, Duration.hours(24))
        return yield* Fiber.join(fiber)
      }),
    partition: (between, and) =>
      Effect.sync(() => {
        const [one, other] = [expand(between), expand(and)]
        trace.add({ at: now(), where: "world", event: { _tag: "Partitioned", between, and } })
        network.partition(one, other)
      }),
    reject: (one, other) =>
      Effect.sync(() => {
        for (const id of [one, other]) known(id)
        trace.add({ at: now(), where: "world", event: { _tag: "Rejected", between: [one], and: [other] } })
        network.reject([one], [other])
        network.reject([other], [one])
      }),
    heal: Effect.sync(() => {
      trace.add({ at: now(), where: "world", event: { _tag: "Healed" } })
      network.heal()
    }),
    get trace() {
      return trace.events
    },
    get traceHash() {
      return trace.hash
    },
    get violations() {
      monitors.timePassed(now())
      return monitors.violations
    }
  }
  return world
})

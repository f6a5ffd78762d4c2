/**
 * A network of named hosts in virtual time: each host gets a `Transport`, and everything above that port runs as it does on
 * sockets. Hosts can crash, links can be cut in one or both directions, slowed down and made unreliable.
 *
 * It behaves as TCP does. Under a cut, an open connection is half-open: what is sent stays in flight and arrives, in order,
 * if the cut heals before somebody gives the connection up; its end is not seen either. Dialing through a cut hangs and then
 * fails. A host that is up without a listener refuses; so does one that crashed, and a firewall that is told to. Hosts may share a machine:
 * then they know for certain of each other whether anybody listens.
 *
 * Invariant: same seed and same calls, same order of deliveries. Without latency a frame arrives on a turn of the `Scheduler`
 * service, so that `TestClock` waits for it; with latency it arrives when the virtual clock gets there.
 */
import { Clock, Context, Duration, Effect, Latch, Layer, Queue, Random, Scheduler, type Scope } from "effect"
import { NodeUnreachable } from "../Actor/errors.ts"
import { type Connection, defaultMaxFrameBytes, Transport } from "../Remoting/Transport.ts"
import { type Direction, makePair } from "./internal/simulatedConnection.ts"

export { Entropy, entropyOf } from "../Remoting/Entropy.edge.ts"

export interface Options {
  /** default: the `Random` service at the time of `make` */
  readonly seed?: number | string | undefined
  /** one way, for each frame; default 0 */
  readonly latency?: Duration.Input | ((from: string, to: string) => Duration.Input) | undefined
  /** at most that much more, drawn for each frame; default 0. Frames of one connection stay in order. */
  readonly jitter?: Duration.Input | undefined
  /** probability from 0 to 1 that a frame resets its connection instead of arriving; default 0 */
  readonly resetProbability?: number | undefined
  /** how long a dial hangs in a cut before it fails; default 3 s */
  readonly dialTimeout?: Duration.Input | undefined
  /** default 1 MiB */
  readonly maxFrameBytes?: number | undefined
  /** bytes in flight above which `send` waits; default 4 MiB */
  readonly outboxBytes?: number | undefined
  /** sees every frame as it arrives, e.g. for a trace */
  readonly onFrame?: ((from: string, to: string, frame: Uint8Array) => void) | undefined
}

/** Both ways unless said otherwise; `"forward"` cuts only what goes from the first group to the second. */
export interface PartitionOptions {
  readonly direction?: "both" | "forward" | undefined
}

export interface TransportOptions {
  /** default: the first free one from 7000 on */
  readonly port?: number | undefined
  /** the machine that the host is a part of, as containers of one network namespace are; default: one of its own */
  readonly machine?: string | undefined
}

export interface SimulatedNetwork {
  /**
   * A `Transport` on that host, for as long as the scope lives. The host is up from then on; a second one on the same host gets
   * the next port, one built after a crash or a close gets the old port again.
   */
  readonly transport: (
    host: string,
    options?: TransportOptions
  ) => Effect.Effect<Transport["Service"], never, Scope.Scope>
  /** The same as a Layer. */
  readonly layer: (host: string, options?: TransportOptions) => Layer.Layer<Transport>
  /** A name for several hosts, usable wherever a host is. Names nobody defined are places themselves (a store, say). */
  readonly group: (name: string, members: ReadonlyArray<string>) => void
  /** Cuts the links between each of the first and each of the second group. Cuts add up until healed. */
  readonly partition: (
    groupA: ReadonlyArray<string>,
    groupB: ReadonlyArray<string>,
    options?: PartitionOptions
  ) => void
  /** Cuts a place off from every other one, those that appear later included. */
  readonly isolate: (place: string) => void
  /**
   * Dials from the first group to the second are refused though somebody listens, and connections between them end, as by a firewall that
   * rejects; until `heal`.
   */
  readonly reject: (groupA: ReadonlyArray<string>, groupB: ReadonlyArray<string>) => void
  /** Removes every cut and every firewall. */
  readonly heal: () => void
  /** Removes the cuts and firewalls between two groups only, in both directions. */
  readonly healBetween: (groupA: ReadonlyArray<string>, groupB: ReadonlyArray<string>) => void
  /** The host's process is gone at once: its connections end as by reset, its transports are dead, dialing it is refused. */
  readonly crash: (host: string) => void
  /** May a request from `a` to `b` be answered: is the link open in both directions? A place reaches itself. */
  readonly reachable: (a: string, b: string) => boolean
  /** Called after each partition, heal and crash; returns how to stop. For things that are placed but hold no connection. */
  readonly onChange: (listener: () => void) => () => void
  /** Ends every open connection between two groups as a reset would; links stay open. */
  readonly reset: (groupA: ReadonlyArray<string>, groupB: ReadonlyArray<string>) => void
}

interface Listener {
  readonly host: string
  readonly port: number
  readonly machine: string
  readonly accept: Queue.Queue<Connection>
  alive: boolean
  /** by side: this listener's own ends */
  readonly ends: Set<{ readonly close: () => void; readonly abort: () => void }>
}

const firstPort = 7000

export const make = Effect.fnUntraced(function*(options: Options = {}) {
  const context = yield* Effect.context<never>()
  const random = options.seed === undefined
    ? yield* Random.Random
    : yield* Random.Random.pipe(Random.withSeed(options.seed))
  const clock = Context.get(context, Clock.Clock)
  const dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
  const runFork = Effect.runForkWith(context)
  const jitter = Duration.toMillis(options.jitter ?? 0)
  const dialTimeout = Duration.fromInputUnsafe(options.dialTimeout ?? "3 seconds")
  const resetProbability = options.resetProbability ?? 0

  const groups = new Map<string, ReadonlyArray<string>>()
  const cuts = new Set<string>()
  const isolated = new Set<string>()
  const rejected = new Set<string>()
  const listeners = new Map<string, Listener>()
  const directions = new Set<Direction>()
  const watchers = new Set<() => void>()

  const members = (names: ReadonlyArray<string>): Array<string> =>
    names.flatMap((name) => {
      const found = groups.get(name)
      return found === undefined ? [name] : members(found)
    })
  const linkOf = (from: string, to: string) => `${from}\u0000${to}`
  const open = (from: string, to: string): boolean =>
    from === to || !(cuts.has(linkOf(from, to)) || isolated.has(from) || isolated.has(to))
  const reachable = (a: string, b: string) =>
    members([a]).every((from) => members([b]).every((to) => open(from, to) && open(to, from)))
  // whole milliseconds, as the virtual clock counts
  const latencyOf = (from: string, to: string): number =>
    Math.round(
      Duration.toMillis(typeof options.latency === "function" ? options.latency(from, to) : options.latency ?? 0)
        + (jitter === 0 ? 0 : random.nextDoubleUnsafe() * jitter)
    )

  const changed = () => {
    for (const direction of directions) direction.resume()
    for (const watcher of [...watchers]) watcher()
  }

  const eachLink = (
    groupA: ReadonlyArray<string>,
    groupB: ReadonlyArray<string>,
    visit: (a: string, b: string) => void
  ) => {
    for (const a of members(groupA)) {
      for (const b of members(groupB)) if (a !== b) visit(a, b)
    }
  }

  const reach = (a: string, b: string): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (reachable(a, b)) return Effect.void
      const latch = Latch.makeUnsafe()
      const watcher = () => {
        if (reachable(a, b)) latch.openUnsafe()
      }
      watchers.add(watcher)
      return Effect.ensuring(latch.await, Effect.sync(() => void watchers.delete(watcher)))
    })

  const connect = (from: Listener) =>
    Effect.fnUntraced(function*(to: { readonly host: string; readonly port: number }) {
      const node = `${to.host}:${to.port}`
      const refuse = (reason: string, refused = {}) =>
        new NodeUnreachable({ node, outcome: "NotSent", reason, ...refused })
      if (!from.alive) return yield* refuse("this host is down")
      const roundTrip = latencyOf(from.host, to.host) + latencyOf(to.host, from.host)
      if (roundTrip > 0) yield* Effect.sleep(roundTrip)
      yield* reach(from.host, to.host).pipe(
        Effect.timeoutOrElse({ duration: dialTimeout, orElse: () => Effect.fail(refuse("the dial timed out")) })
      )
      if (!from.alive) return yield* refuse("this host is down")
      const listener = listeners.get(node)
      if (listener === undefined || !listener.alive || rejected.has(linkOf(from.host, to.host))) {
        return yield* refuse("connection refused", { refused: true as const })
      }
      const pair = makePair({
        from: from.host,
        to: to.host,
        fromPeer: node,
        toPeer: `${from.host}:${from.port}`,
        maxFrameBytes: options.maxFrameBytes ?? defaultMaxFrameBytes,
        outboxBytes: options.outboxBytes ?? 4 * 1024 * 1024,
        open,
        latencyOf,
        resets: () => resetProbability > 0 && random.nextDoubleUnsafe() < resetProbability,
        now: () => Math.round(Number(clock.monotonicTimeNanosUnsafe() / 1000n) / 1000),
        soon: (task) => dispatcher.scheduleTask(task, 0),
        onFrame: options.onFrame,
        later: (millis, task) => void runFork(Effect.andThen(Effect.sleep(millis), Effect.sync(task))),
        opened: (direction) => void directions.add(direction),
        ended: (direction) => void directions.delete(direction)
      })
      from.ends.add(pair.near)
      listener.ends.add(pair.far)
      pair.onEnd(() => {
        from.ends.delete(pair.near)
        listener.ends.delete(pair.far)
      })
      yield* Effect.addFinalizer(() => pair.near.connection.close)
      Queue.offerUnsafe(listener.accept, pair.far.connection)
      return pair.near.connection
    })

  const transport: SimulatedNetwork["transport"] = Effect.fnUntraced(function*(host, transportOptions) {
    let port = transportOptions?.port ?? firstPort
    while (listeners.get(`${host}:${port}`)?.alive === true) port++
    const accept = yield* Queue.unbounded<Connection>()
    const machine = transportOptions?.machine ?? host
    const listener: Listener = { host, port, machine, accept, alive: true, ends: new Set() }
    listeners.set(`${host}:${port}`, listener)
    yield* Effect.addFinalizer(() => Effect.sync(() => stop(listener, "close")))
    return Transport.of({
      address: { host, port },
      listening: { stack: machine, host, port },
      isListening: (at) => Effect.sync(() => listeners.get(`${at.host}:${at.port}`)?.alive === true),
      accept,
      connect: connect(listener)
    })
  })

  const stop = (listener: Listener, how: "close" | "abort") => {
    if (!listener.alive) return
    listener.alive = false
    for (const end of [...listener.ends]) end[how]()
    Queue.shutdownUnsafe(listener.accept)
  }

  const resetBetween = (groupA: ReadonlyArray<string>, groupB: ReadonlyArray<string>) => {
    const between = new Set<string>()
    eachLink(groupA, groupB, (a, b) => void between.add(linkOf(a, b)).add(linkOf(b, a)))
    for (const direction of [...directions]) {
      if (between.has(linkOf(direction.from, direction.to))) direction.reset()
    }
  }

  const network: SimulatedNetwork = {
    transport,
    layer: (host, transportOptions) => Layer.effect(Transport, transport(host, transportOptions)),
    group: (name, names) => void groups.set(name, names),
    partition: (groupA, groupB, partitionOptions) => {
      eachLink(groupA, groupB, (a, b) => {
        cuts.add(linkOf(a, b))
        if (partitionOptions?.direction !== "forward") cuts.add(linkOf(b, a))
      })
      changed()
    },
    isolate: (place) => {
      for (const member of members([place])) isolated.add(member)
      changed()
    },
    reject: (groupA, groupB) => {
      eachLink(groupA, groupB, (a, b) => void rejected.add(linkOf(a, b)))
      resetBetween(groupA, groupB)
    },
    heal: () => {
      rejected.clear()
      cuts.clear()
      isolated.clear()
      changed()
    },
    healBetween: (groupA, groupB) => {
      eachLink(groupA, groupB, (a, b) => {
        for (const link of [linkOf(a, b), linkOf(b, a)]) {
          cuts.delete(link)
          rejected.delete(link)
        }
      })
      changed()
    },
    crash: (place) => {
      const hosts = members([place])
      for (const listener of [...listeners.values()]) {
        if (hosts.includes(listener.host)) stop(listener, "abort")
      }
      changed()
    },
    reachable,
    onChange: (watcher) => {
      watchers.add(watcher)
      return () => void watchers.delete(watcher)
    },
    reset: resetBetween
  }
  return network
})

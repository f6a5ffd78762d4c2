/**
 * The outer `Placement`: the cluster's own, and the way into other datacenters. Chooses a datacenter, then asks any of its
 * nodes, whose own placement decides about members. Serves the same calls for others.
 *
 * Invariant: messages are never sent on a guess. A name is resolved to one address first; two datacenters that both know the
 * name are an error, not a broadcast.
 */
import { Deferred, type Duration, Effect, Fiber, Random, Result } from "effect"
import type { ActorAddress } from "../../Actor/Address.ts"
import {
  ActorNotFound,
  AmbiguousDataCenter,
  KindNotAllowed,
  type LookupError,
  NodeUnreachable,
  RecordNotFound
} from "../../Actor/errors.ts"
import type { Node } from "../../Actor/Node.ts"
import { Placement, type SpawnSpec, type Target } from "../../Actor/Placement.ts"
import * as Settings from "../../Actor/Settings.ts"
import type { DataCenterRecord } from "../../ControlPlane/ControlPlane.ts"
import { type Caller, type Peer, Remoting } from "../../Remoting/Remoting.ts"
import { DataCenterRpcs } from "../DataCenterRpcs.ts"
import type { DataCenters } from "../DataCenters.ts"
import { isDrained } from "./ownRecord.ts"
import { describe, matches, peersOf, type Selector, selectorOf } from "./selection.ts"

/** Endpoints tried for one call before it is given up. */
const maxEndpoints = 4
/** After the first datacenter that knows a name, how long others may still say that they know it too. */
const secondOpinion = "200 millis"

export const make = Effect.fnUntraced(function*(options: {
  readonly dataCenters: DataCenters["Service"]
  readonly inner: Placement["Service"]
  readonly node: Node["Service"]
  readonly timeout: Duration.Duration
  /** what other datacenters may spawn here */
  readonly spawnableKinds: ReadonlyArray<string>
}) {
  const { dataCenters, inner, node, spawnableKinds, timeout } = options
  const remoting = yield* Remoting
  const home = node.address.dataCenter

  /**
   * Asks one endpoint after another, as long as a call certainly reached nobody. In mid-call the outcome is unknown, and
   * that is for the caller to know.
   */
  const atAny = <A, E extends { readonly _tag: string }>(
    dataCenter: string,
    peers: ReadonlyArray<Peer>,
    call: (peer: Peer) => Effect.Effect<A, E | NodeUnreachable>
  ): Effect.Effect<A, E | NodeUnreachable> =>
    Effect.gen(function*() {
      let last = new NodeUnreachable({ node: dataCenter, outcome: "NotSent", reason: "its record has no endpoint" })
      for (const peer of peers.slice(0, maxEndpoints)) {
        const answer = yield* Effect.result(call(peer))
        if (Result.isSuccess(answer)) return answer.success
        // Also where it was reached, and says that some node there certainly was not: another one may know a way.
        if (!(answer.failure instanceof NodeUnreachable) || answer.failure.outcome === "Unknown") {
          return yield* Effect.fail(answer.failure)
        }
        last = answer.failure
      }
      return yield* last
    })
  const inAnyOrder = (record: DataCenterRecord) => Random.shuffle(peersOf(record))

  // ---- spawn

  const refuse = (selector: Selector) => Effect.fail(new RecordNotFound({ dataCenter: describe(selector) }))
  /** A drained datacenter gets nothing new, from wherever it is asked. That its own lease looks old is no reason: it is here. */
  const unlessDrained = (selector: Selector) =>
    Effect.flatMap(dataCenters.known, (known) => {
      const own = known.dataCenters.find(({ record }) => record.id === dataCenters.self.id)
      return own !== undefined && isDrained(own.record, own.wish?.state) ? refuse(selector) : Effect.void
    })

  const isHome = (selector: Selector) => {
    const { name } = selectorOf(selector)
    return name === home && matches(selector, dataCenters.self)
  }
  /** The name of this datacenter means this one, whatever the control plane knows: local work goes on without it. */
  const choose = (selector: Selector) =>
    Effect.gen(function*() {
      if (!isHome(selector)) return yield* dataCenters.select(selector)
      const { dataCenters: all } = yield* dataCenters.known
      const others = all.filter(({ record, routable }) =>
        routable && record.id !== dataCenters.self.id && matches(selector, record.dataCenter)
      )
      if (others.length === 0) return undefined
      const ids = [dataCenters.self.id, ...others.map(({ record }) => record.id)]
      return yield* new AmbiguousDataCenter({ selector: describe(selector), matches: ids })
    })

  const spawn = (spec: SpawnSpec, target: Target) =>
    Effect.gen(function*() {
      const { dataCenter, ...within } = target
      if (dataCenter === undefined) return yield* inner.spawn(spec, within)
      const chosen = yield* choose(dataCenter)
      if (chosen === undefined || chosen.id === dataCenters.self.id) {
        return yield* Effect.andThen(unlessDrained(dataCenter), inner.spawn(spec, within))
      }
      const payload = { ...within, spec, selector: selectorOf(dataCenter) }
      return yield* atAny(chosen.dataCenter.name, yield* inAnyOrder(chosen), (peer) =>
        remoting.call(peer, DataCenterRpcs, "DataCenter.Spawn", payload, { timeout }))
    })

  // ---- lookup

  const ask = (record: DataCenterRecord, kind: string, name: string, not: ActorAddress | undefined) =>
    Effect.gen(function*() {
      const outdated = not !== undefined && not.node.dataCenter === record.dataCenter.name ? { not } : {}
      return yield* atAny(
        record.dataCenter.name,
        yield* inAnyOrder(record),
        (peer) => remoting.call(peer, DataCenterRpcs, "DataCenter.Lookup", { kind, name, ...outdated }, { timeout })
      )
    })

  /** All others at once. One that knows it wins; an unreachable one leaves it open whether the name exists. */
  const askOthers = (kind: string, name: string, not: ActorAddress | undefined) =>
    Effect.gen(function*() {
      const others = (yield* dataCenters.reachable).filter((record) => record.id !== dataCenters.self.id)
      const found: Array<ActorAddress> = []
      const failed: Array<LookupError> = []
      const first = yield* Deferred.make<void>()
      const asking = yield* Effect.forkChild(Effect.forEach(others, (record) =>
        Effect.result(ask(record, kind, name, not)).pipe(Effect.flatMap((answer) => {
          if (Result.isSuccess(answer)) {
            found.push(answer.success)
            return Effect.asVoid(Deferred.succeed(first, void 0))
          }
          failed.push(answer.failure)
          return Effect.void
        })), { concurrency: "unbounded", discard: true }))
      yield* Fiber.await(asking).pipe(
        Effect.raceFirst(Effect.andThen(Deferred.await(first), Effect.sleep(secondOpinion)))
      )
      yield* Fiber.interrupt(asking)
      if (found.length === 1) {
        return found[0]!
      }
      if (found.length > 1) {
        return yield* new AmbiguousDataCenter({
          selector: `the datacenter of ${name}`,
          matches: found.map((address) =>
            address.node.dataCenter
          ).sort()
        })
      }
      const telling = failed.find((error) => error._tag === "KindMismatch") ??
        failed.find((error) => error._tag !== "ActorNotFound")
      return yield* telling ?? new ActorNotFound({ name, kind })
    })

  const lookup: Placement["Service"]["lookup"] = (kind, name, { dataCenter, not }) => {
    const here = () => inner.lookup(kind, name, not?.node.dataCenter === home ? { not } : {})
    if (dataCenter === home) return here()
    if (dataCenter !== undefined) {
      return Effect.flatMap(dataCenters.reach(dataCenter), (record) => ask(record, kind, name, not))
    }
    return here().pipe(Effect.catchTag("ActorNotFound", () => askOthers(kind, name, not)))
  }

  // ---- stop

  const stop: Placement["Service"]["stop"] = (address) =>
    Effect.gen(function*() {
      const { host, port, dataCenter } = address.node
      if (dataCenter === home) return yield* inner.stop(address)
      // First the node that ran it, then any other of that datacenter: drained or stale, a stop places nothing.
      const { dataCenters: all } = yield* dataCenters.known
      const rest = all.filter(({ record }) => record.dataCenter.name === dataCenter).flatMap(({ record }) =>
        peersOf(record)
      )
      const others = yield* Random.shuffle(rest.filter((peer) => peer.host !== host || peer.port !== port))
      return yield* atAny(dataCenter, [{ host, port }, ...others], (peer) =>
        remoting.call(peer, DataCenterRpcs, "DataCenter.Stop", { address }, { timeout }))
    })

  // ---- what others ask of us

  const mayEnter = (selector: Selector) =>
    Effect.suspend(() => matches(selector, dataCenters.self) ? unlessDrained(selector) : refuse(selector))

  const maySpawn = (kind: string) =>
    Settings.allows(spawnableKinds, kind) ? Effect.void : Effect.fail(
      new KindNotAllowed({ kind, caller: "another datacenter", refusedBy: node.address.id, dataCenter: home })
    )

  const handlers = yield* DataCenterRpcs.toHandlers({
    "DataCenter.Spawn": ({ selector, spec, ...within }) =>
      maySpawn(spec.kind).pipe(Effect.andThen(mayEnter(selector)), Effect.andThen(inner.spawn(spec, within))),
    "DataCenter.Lookup": ({ kind, name, not }) => inner.lookup(kind, name, not === undefined ? {} : { not }),
    "DataCenter.Stop": ({ address }) => inner.stop(address)
  })
  // outsiders have calls of their own, with a list of their own
  const forNodes = (caller: Caller) => caller.client ? "clients are not served" : undefined
  yield* Effect.provideContext(remoting.serve(DataCenterRpcs, { admit: forNodes }), handlers)

  return Placement.of({ spawn, lookup, stop })
})

/**
 * Placement in a cluster, seen from whoever asks: choose candidates, find the name's partition, ask its owner until there is an
 * answer or the deadline.
 *
 * Not for granting (`directory.ts`) nor starting (`memberHost.ts`), nor for remembering addresses: references do that, and the
 * receiver of a message says when one is out of date.
 */
import { Clock, Deferred, Duration, Effect, Random } from "effect"
import type { ActorHost } from "../../Actor/ActorHost.ts"
import { type ActorAddress, type Member, nodeKey } from "../../Actor/Address.ts"
import {
  type ClusterLookupError,
  type ClusterNotFormed,
  type ClusterSpawnError,
  KindMismatch,
  KindNotRegistered,
  NodeUnreachable,
  NoEligibleMember,
  OutcomeUnknown,
  type StopError
} from "../../Actor/errors.ts"
import type { SpawnSpec, Target } from "../../Actor/Placement.ts"
import type { Calls, GaveUp } from "./calls.ts"
import * as Candidates from "./candidates.ts"
import { hash32, partitionOf } from "./hash.ts"
import type { Membership } from "./membership.ts"
import { addressOf, isAlive, membersOf } from "./snapshot.ts"

/** Members offered to the owner for one spawn. */
const offered = 3
/** Waits between looks for a name whose end is on its way to the directory, in milliseconds. */
const endTravels: ReadonlyArray<number> = [25, 50, 100, 200]
/** Patience with a candidate that is asked how busy it is, in milliseconds. */
const loadPatience = 500

export interface ClusterPlacement {
  readonly spawn: (spec: SpawnSpec, target: Target) => Effect.Effect<ActorAddress, ClusterSpawnError>
  readonly lookup: (kind: string, name: string, not: ActorAddress | undefined) => Effect.Effect<
    ActorAddress,
    ClusterLookupError
  >
  readonly stop: (address: ActorAddress) => Effect.Effect<void, StopError>
}

/** What a call that found no answer in time fails with. */
const gaveUp = (what: string, { last, unknown }: GaveUp, self: string) =>
  unknown
    ? new OutcomeUnknown({ operation: what, reason: `no answer within the deadline; last: ${last._tag}` })
    : last._tag === "DirectoryRebuilding" || last._tag === "NodeUnreachable"
    ? last
    : new NodeUnreachable({
      node: last._tag === "NotServing" && last.node !== "" ? last.node : self,
      outcome: "NotSent",
      reason: last._tag === "NotServing" ? last.reason : "the partition has no owner that is known here"
    })

export const make = Effect.fnUntraced(function*(parts: {
  readonly membership: Membership
  readonly calls: Calls
  readonly host: ActorHost["Service"]
  readonly isHeard: (key: string) => boolean
  readonly awaitFormed: Effect.Effect<void, ClusterNotFormed>
}) {
  const { awaitFormed, calls, host, isHeard, membership } = parts
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const patience = Duration.toMillis(membership.settings.requestTimeout)
  const { partitionCount } = membership.settings
  // Each node begins elsewhere, so that many nodes spawning at once do not all begin with the oldest.
  let turn = hash32(membership.key) % 1_024

  /** opens at the next change of the cluster */
  let changed = Deferred.makeUnsafe<void>()
  membership.onChange(() => {
    Deferred.doneUnsafe(changed, Effect.void)
    changed = Deferred.makeUnsafe()
  })
  const members = (): ReadonlyArray<Member> => membersOf(membership.current(), membership.keys.kinds)

  const loadOf = (key: string) => {
    const address = addressOf(membership.current(), key)
    if (address === undefined) return Effect.succeed(Number.POSITIVE_INFINITY)
    return calls.peer(address, Duration.millis(loadPatience)).Ping({ from: membership.key, view: 0, closed: false })
      .pipe(
        Effect.map((answer) => answer.load),
        Effect.orElseSucceed(() => Number.POSITIVE_INFINITY)
      )
  }

  const inOrder = (keys: ReadonlyArray<string>, target: Target) =>
    Effect.gen(function*() {
      switch (target.strategy) {
        case "local":
          return keys
        case "roundRobin":
          return Candidates.rotate(keys, turn++)
        case "random":
          return keys.length < 2 ? keys : Candidates.rotate(keys, yield* Random.nextIntBetween(0, keys.length - 1))
        case "leastLoad": {
          if (keys.length < 2) return keys
          const shifted = Candidates.rotate(keys, yield* Random.nextIntBetween(0, keys.length - 1))
          const other = yield* Random.nextIntBetween(1, shifted.length - 1)
          const pair = [shifted[0]!, shifted[other]!]
          const loads = yield* Effect.forEach(pair, loadOf, { concurrency: 2 })
          const [first, second] = loads[1]! < loads[0]! ? [pair[1]!, pair[0]!] : [pair[0]!, pair[1]!]
          return [first, second, ...shifted.filter((key) => key !== first && key !== second)]
        }
      }
    })

  /** Candidates in the order in which they are tried; waits for one until the deadline. */
  const candidates = Effect.fnUntraced(function*(spec: SpawnSpec, target: Target, deadline: number) {
    const wanted = Candidates.wantedBy(spec, target)
    while (true) {
      const nextChange = changed
      const known = members()
      const named = wanted.on === undefined ? undefined : known.find((member) => member.node.id === wanted.on)
      if (named !== undefined && wanted.role !== undefined && !named.roles.includes(wanted.role)) {
        return yield* new NoEligibleMember({
          kind: spec.kind,
          reason: `member ${wanted.on} does not carry the role ${wanted.role}`
        })
      }
      const all = Candidates.eligible(known, wanted, isHeard)
      const here = target.strategy === "local" && wanted.on === undefined
      const keys = here ? all.filter((key) => key === membership.key) : all
      if (keys.length > 0) return (yield* inOrder(keys, target)).slice(0, offered)
      const left = deadline - now()
      if (left <= 0) {
        return yield* known.some((member) => member.status === "Up" && member.kinds.includes(spec.kind))
          ? new NoEligibleMember({
            kind: spec.kind,
            reason: [
              wanted.on === undefined ? "" : `member ${wanted.on}`,
              wanted.role === undefined ? "" : `role ${wanted.role}`,
              here ? "this member" : ""
            ].filter((part) => part !== "").join(", ") || "no member is Up"
          })
          : new KindNotRegistered({ kind: spec.kind })
      }
      yield* Effect.raceFirst(Effect.sleep(Duration.millis(left)), Deferred.await(nextChange))
    }
  })

  const over = () =>
    new NodeUnreachable({ node: membership.key, outcome: "NotSent", reason: "this member's lease is closed" })

  const spawn: ClusterPlacement["spawn"] = Effect.fnUntraced(function*(given, target) {
    yield* awaitFormed
    if (membership.isOver()) return yield* over()
    // The role travels with the spec: a relocation must keep it.
    const spec = given.role === undefined && target.role !== undefined ? { ...given, role: target.role } : given
    const deadline = now() + patience
    const partition = partitionOf(spec.name, partitionCount)
    const chosen = yield* candidates(spec, target, deadline)
    let order = chosen
    return yield* calls.toOwner(partition, Math.max(1, deadline - now()), (route) => {
      // Members come and go while the owner is looked for.
      order = order.filter((key) => isAlive(membership.current(), key))
      const again = order.length > 0
        ? Effect.succeed(order)
        : Effect.tap(candidates(spec, target, deadline), (fresh) => Effect.sync(() => void (order = fresh)))
      return Effect.flatMap(
        again,
        (list) => route.peer.Grant({ partition, epoch: route.epoch, spec, candidates: list })
      )
    }).pipe(
      Effect.catchTag("GaveUp", (error) => Effect.fail(gaveUp(`spawn of ${spec.name}`, error, membership.key)))
    )
  })

  const checked = (kind: string, address: ActorAddress) =>
    address.kind === kind
      ? Effect.succeed(address)
      : Effect.fail(new KindMismatch({ name: address.name, expected: kind, actual: address.kind }))
  const isNewer = (address: ActorAddress, not: ActorAddress | undefined) =>
    not === undefined || address.placement > not.placement

  const lookup: ClusterPlacement["lookup"] = Effect.fnUntraced(function*(kind, name, not) {
    const here = membership.isOver() ? undefined : host.find(name)?.address
    if (here !== undefined && isNewer(here, not)) return yield* checked(kind, here)
    if (membership.isOver()) return yield* over()
    const partition = partitionOf(name, partitionCount)
    const ask = calls.toOwner(
      partition,
      patience,
      (route) => route.peer.Lookup({ partition, epoch: route.epoch, name, kind })
    ).pipe(
      Effect.catchTag("GaveUp", (error) => {
        const failure = gaveUp(`lookup of ${name}`, { ...error, unknown: false }, membership.key)
        return Effect.fail(failure)
      }),
      Effect.catchTag("OutcomeUnknown", () => Effect.fail(over()))
    )
    let address = yield* ask
    // The directory still names the one that the caller found gone. If its host is there, word of the end is on its way.
    for (const wait of endTravels) {
      if (isNewer(address, not) || !isHeard(nodeKey(address.node))) break
      yield* Effect.sleep(Duration.millis(wait))
      address = yield* ask
    }
    return yield* checked(kind, address)
  })

  const stop: ClusterPlacement["stop"] = Effect.fnUntraced(function*({ name, placement }) {
    if (membership.isOver()) return yield* over()
    const partition = partitionOf(name, partitionCount)
    yield* calls.toOwner(
      partition,
      patience,
      (route) => route.peer.Stop({ partition, epoch: route.epoch, name, placement })
    ).pipe(
      Effect.catchTag("GaveUp", (error) => Effect.fail(gaveUp(`stop of ${name}`, error, membership.key)))
    )
  })

  return { spawn, lookup, stop } satisfies ClusterPlacement
})

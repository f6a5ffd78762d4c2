/**
 * New homes for names that lost theirs: one at a time for each permit, round-robin over eligible members; a name that finds none
 * waits until the cluster changes, and says so once.
 *
 * Not for deciding that a name is homeless (`name.ts`), nor for who is dead (`deaths.ts`).
 */
import { Deferred, Duration, Effect, FiberMap, Random, Semaphore } from "effect"
import type { Member, NodeAddress } from "../../Actor/Address.ts"
import type { SpawnSpec } from "../../Actor/Placement.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import * as Candidates from "./candidates.ts"
import type { Membership } from "./membership.ts"
import { addressOf, membersOf } from "./snapshot.ts"

export interface Relocation {
  /** Finds homes for the name and offers them, again and again, until `isHomeless` says that it has one. */
  readonly seek: (request: {
    readonly spec: SpawnSpec
    /** the member that it leaves; taken again only if there is no other */
    readonly not: string
    readonly isHomeless: () => boolean
    /** commits, starts; completes when the outcome is known */
    readonly offer: (candidates: ReadonlyArray<string>) => Effect.Effect<void>
  }) => Effect.Effect<void>
  /** that many names of a departed member are about to move */
  readonly departed: (from: string, names: ReadonlyArray<string>) => void
  /** the name's move away from that member is over, one way or the other */
  readonly settled: (from: string, name: string, outcome: "moved" | "failed" | "stopped") => void
  /** one name could not move now; it is tried again */
  readonly failed: (from: string, spec: SpawnSpec, reason: string) => void
}

/** First and longest wait between two tries of one name, in milliseconds. */
const retryFrom = 200
const retryUpTo = 30_000

interface Departure {
  readonly names: Set<string>
  readonly all: number
  failed: number
}

export const make = Effect.fnUntraced(function*(membership: Membership, isHeard: (key: string) => boolean) {
  const events = yield* SystemEvents
  const permits = yield* Semaphore.make(membership.settings.relocationConcurrency)
  const seeking = yield* FiberMap.make<string>()
  const departures = new Map<string, Departure>()
  const told = new Set<string>()
  let turn = 0

  /** opens at the next change of members or kinds */
  let changed = Deferred.makeUnsafe<void>()
  membership.onChange(() => {
    Deferred.doneUnsafe(changed, Effect.void)
    changed = Deferred.makeUnsafe()
  })
  const members = (): ReadonlyArray<Member> => membersOf(membership.current(), membership.keys.kinds)
  const origin = (key: string): NodeAddress => {
    const [id = key, incarnation = ""] = key.split("@")
    return addressOf(membership.current(), key) ??
      { dataCenter: membership.self.dataCenter, id, incarnation, host: "", port: 0 }
  }

  const failed: Relocation["failed"] = (from, spec, reason) => {
    const key = `${from}#${spec.name}`
    if (told.has(key)) return
    told.add(key)
    events.publish({ _tag: "RelocationFailed", name: spec.name, kind: spec.kind, from: origin(from), reason })
  }
  const settled: Relocation["settled"] = (from, name, outcome) => {
    told.delete(`${from}#${name}`)
    const departure = departures.get(from)
    if (departure === undefined || !departure.names.delete(name)) return
    if (outcome === "failed") departure.failed++
    if (departure.names.size > 0) return
    departures.delete(from)
    events.publish({
      _tag: "RelocationCompleted",
      from: origin(from),
      actors: departure.all - departure.failed,
      failed: departure.failed
    })
  }

  const seek: Relocation["seek"] = ({ isHomeless, not, offer, spec }) => {
    const wanted = Candidates.wantedBy(spec)
    const once = permits.withPermit(Effect.suspend(() => {
      if (!isHomeless() || !membership.mayAct()) return Effect.succeed(true)
      const all = Candidates.eligible(members(), wanted, isHeard)
      const others = all.filter((key) => key !== not)
      const candidates = Candidates.rotate(others.length > 0 ? others : all, turn++)
      if (candidates.length === 0) return Effect.succeed(false)
      return Effect.as(offer(candidates.slice(0, 3)), true)
    }))
    const loop = Effect.gen(function*() {
      let wait = retryFrom
      while (isHomeless() && !membership.isOver()) {
        const nextChange = changed
        const offered = yield* once
        if (!isHomeless()) return
        if (!offered) failed(not, spec, "no eligible member: it waits for one")
        const jitter = yield* Random.next
        const pause = Effect.sleep(Duration.millis(wait * (0.8 + 0.4 * jitter)))
        // A change of the cluster is a reason to try at once only where a member was lacking.
        yield* offered ? pause : Effect.raceFirst(pause, Deferred.await(nextChange))
        wait = offered ? Math.min(wait * 2, retryUpTo) : retryUpTo
      }
    })
    return Effect.asVoid(FiberMap.run(seeking, spec.name, loop))
  }

  return {
    seek,
    settled,
    failed,
    departed: (from, names) => {
      if (names.length === 0) return
      const known = departures.get(from)
      const all = new Set([...(known?.names ?? []), ...names])
      departures.set(from, { names: all, all: (known?.all ?? 0) + names.length, failed: known?.failed ?? 0 })
      events.publish({ _tag: "RelocationStarted", from: origin(from), actors: names.length })
    }
  } satisfies Relocation
})

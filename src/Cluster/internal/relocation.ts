/**
 * New homes for names that lost theirs: a bounded number at once, round-robin over eligible members; a name that finds none
 * waits until the cluster changes, and says so once.
 *
 * Not for deciding that a name is homeless (`name.ts`), nor for who is dead (`deaths.ts`).
 */
import { Duration, Effect, FiberSet, Random } from "effect"
import type { Member, NodeAddress } from "../../Actor/Address.ts"
import type { SpawnSpec } from "../../Actor/Placement.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import * as Candidates from "./candidates.ts"
import * as Crew from "./crew.ts"
import type { Membership } from "./membership.ts"
import { addressOf, membersOf } from "./snapshot.ts"

export interface Wish {
  readonly spec: SpawnSpec
  /** the member that it leaves; taken again only if there is no other */
  readonly not: string
  readonly isHomeless: () => boolean
  /** commits, starts; completes when the outcome is known */
  readonly offer: (candidates: ReadonlyArray<string>) => Effect.Effect<void>
}

export interface Relocation {
  /** Finds homes for the name and offers them, again and again, until `isHomeless` says that it has one. */
  readonly seek: (wish: Wish) => void
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
/** Wait before a look at whether this owner may act again, in milliseconds. */
const lapsedWait = 2_000

interface Departure {
  readonly names: Set<string>
  readonly all: number
  failed: number
}

export const make = Effect.fnUntraced(function*(membership: Membership, isHeard: (key: string) => boolean) {
  const events = yield* SystemEvents
  const fork = yield* FiberSet.makeRuntime<never>()
  const departures = new Map<string, Departure>()
  const told = new Set<string>()
  let turn = 0

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

  // ---- requests: the newest one for a name counts

  interface Request extends Wish {
    wait: number
  }
  const newest = new Map<string, Request>()
  /** without an eligible member: tried when the cluster changes, and now and then anyway */
  const stranded = new Set<Request>()
  const isWanted = (request: Request) => newest.get(request.spec.name) === request && request.isHomeless()
  const forget = (request: Request) => {
    if (newest.get(request.spec.name) === request) newest.delete(request.spec.name)
  }
  const later = (request: Request, millis: number) =>
    fork(Effect.flatMap(Random.next, (jitter) =>
      Effect.sleep(Duration.millis(millis * (0.8 + 0.4 * jitter))).pipe(
        Effect.andThen(Effect.sync(() => enqueue(request)))
      )))
  const attempt = (request: Request) =>
    Effect.suspend(() => {
      if (!isWanted(request) || membership.isOver()) {
        forget(request)
        return Effect.void
      }
      if (!membership.mayAct()) {
        later(request, lapsedWait)
        return Effect.void
      }
      const all = Candidates.eligible(members(), Candidates.wantedBy(request.spec), isHeard)
      const others = all.filter((key) => key !== request.not)
      const candidates = Candidates.rotate(others.length > 0 ? others : all, turn++)
      if (candidates.length === 0) {
        failed(request.not, request.spec, "no eligible member: it waits for one")
        stranded.add(request)
        return Effect.void
      }
      return request.offer(candidates.slice(0, 3)).pipe(Effect.andThen(Effect.sync(() => {
        if (!isWanted(request)) return forget(request)
        later(request, request.wait)
        request.wait = Math.min(request.wait * 2, retryUpTo)
      })))
    })
  const enqueue = yield* Crew.make(membership.settings.relocationConcurrency, attempt)
  const tryStranded = () => {
    const all = Array.from(stranded)
    stranded.clear()
    for (const request of all) enqueue(request)
  }
  membership.onChange(tryStranded)

  return {
    seek: (wish) => {
      const request = { ...wish, wait: retryFrom }
      newest.set(wish.spec.name, request)
      enqueue(request)
    },
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

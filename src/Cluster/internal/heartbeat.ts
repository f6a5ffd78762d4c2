/**
 * Whom this member hears, and what that means while its own lease has lapsed: with a majority of its last view it rides on,
 * without one it holds its actors' mailboxes until the lease is back. Hearing removes nobody; it is suspicion, used for routing.
 *
 * Invariant: a member cut off from everything holds its actors before anyone may close its lease: it lapses a margin earlier, and by
 * then nobody has been heard for longer than `window`.
 */
import { Clock, Duration, Effect, Schedule, Semaphore, Stream } from "effect"
import type { ActorHost } from "../../Actor/ActorHost.ts"
import { nodeKey } from "../../Actor/Address.ts"
import type { Calls } from "./calls.ts"
import type { Membership } from "./membership.ts"
import { sameStack } from "./refusals.ts"
import { addressOf, listeningOf } from "./snapshot.ts"
import * as View from "./view.ts"

/** Who wants to know of each answer, and of each question without one. */
export interface Listener {
  readonly heard: (key: string) => void
  readonly silent: (key: string) => void
}

export interface Heartbeat {
  /** heard within the window, or not asked yet */
  readonly isHeard: (key: string) => boolean
}

/** Peers that are asked while all is well, and as many of the same host; all of them once the own lease is at risk. */
const probedPeers = 4

export const make = Effect.fnUntraced(
  function*(membership: Membership, calls: Calls, host: ActorHost["Service"], listener: Listener) {
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
    const lease = Duration.toMillis(membership.settings.memberLease)
    // A renewal every third of the lease leaves two thirds of it before a lapse: the window must be shorter.
    const window = lease / 3
    const interval = Duration.millis(lease / 10)
    const heardAt = new Map<string, number>()

    const peers = () => {
      const { view } = membership.current()
      return view === undefined ? [] : View.members(view).map(nodeKey).filter((key) => key !== membership.key)
    }
    const heard = (key: string, at: number) => at - (heardAt.get(key) ?? Number.NEGATIVE_INFINITY) <= window

    const ping = (key: string) => {
      const address = addressOf(membership.current(), key)
      if (address === undefined) return Effect.void
      const view = membership.current().view?.number ?? 0
      return calls.peer(address, interval).Ping({ from: membership.key, view, closed: false }).pipe(
        Effect.flatMap((answer) => {
          heardAt.set(key, now())
          listener.heard(key)
          // A closed lease is a fact that never reverts: one member's word is enough.
          if (!answer.alive) return membership.lease.fence
          return answer.view > (membership.current().view?.number ?? 0) ? membership.refresh : Effect.void
        }),
        Effect.catch(() => Effect.sync(() => listener.silent(key)))
      )
    }

    // ---- hold or release
    let held = false
    const oneAtATime = yield* Semaphore.make(1)
    const judge = oneAtATime.withPermit(Effect.suspend(() => {
      if (membership.isOver()) return Effect.void
      const all = peers()
      const at = now()
      const majority = Math.floor((all.length + 1) / 2) + 1
      const hears = 1 + all.filter((key) => heard(key, at)).length
      const next = !membership.lease.isValid() && hears < majority
      if (next === held) return Effect.void
      held = next
      return host.suspend(next).pipe(Effect.andThen(
        next
          ? Effect.logWarning("the lease has lapsed and no majority is heard: actors hold their messages")
          : Effect.logInfo("actors handle messages again")
      ))
    }))
    yield* membership.lease.changes.pipe(Stream.runForEach(() => judge), Effect.forkScoped({ startImmediately: true }))

    // ---- ask around
    const round = Effect.suspend(() => {
      const all = peers()
      // Those after this member in the order of age, so that each is asked by a few others.
      const atRisk = membership.lease.remaining() < lease / 2 || all.length <= probedPeers
      const { view } = membership.current()
      const order = view === undefined ? [] : View.members(view).map(nodeKey)
      const mine = order.indexOf(membership.key)
      const turned = [...order.slice(mine + 1), ...order.slice(0, Math.max(0, mine))]
      // Who shares this host with a member can be certain of its death at once: so somebody there asks it, too.
      const isNear = (key: string) => sameStack(listeningOf(membership.current(), key), membership.listening)
      const asked = atRisk
        ? all
        : Array.from(new Set([...turned.slice(0, probedPeers), ...turned.filter(isNear).slice(0, probedPeers)]))
      // Of one that is not asked nothing is known: it counts as heard, and is no part of a majority.
      const known = new Set(asked)
      for (const key of heardAt.keys()) if (!known.has(key)) heardAt.delete(key)
      return Effect.forEach(asked, ping, { concurrency: "unbounded", discard: true }).pipe(Effect.andThen(judge))
    })
    yield* Effect.repeat(round, Schedule.spaced(interval).pipe(Schedule.jittered)).pipe(Effect.forkScoped)

    return {
      isHeard: (key) => key === membership.key || !heardAt.has(key) || heard(key, now())
    } satisfies Heartbeat
  }
)

/**
 * Who is dead, and the step that says so. A member is dead when its lease is closed; whoever sees that a lease has expired may
 * close it. Every member may take each step; the oldest goes first and the others wait a little longer each, so that as a rule one
 * writes.
 *
 * Invariant: before it acts on a death, the closer renews its own lease; a member that is over closes nobody.
 */
import { Clock, Duration, Effect, FiberMap, Random, Schedule, Stream } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import type * as Lease from "../../ControlPlane/Lease.ts"
import type { Membership } from "./membership.ts"
import * as View from "./view.ts"

/** How much longer each younger member waits before it takes a step that the oldest should have taken, in milliseconds. */
const stagger = 400
/** Statuses are looked at again at least this often, in case a change went by while the store was away. */
const lookAgain = Duration.seconds(1)

export const follow = Effect.fnUntraced(function*(membership: Membership) {
  const { keys, lease, observer } = membership
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const settling = yield* FiberMap.make<string>()

  /**
   * A member without any lease in the store: one that was lost with the store, and that its owner does not take again. After the time
   * that an unchanged lease is given, it counts as expired; closing it writes a tombstone, which its owner cannot pass.
   */
  const absentSince = new Map<string, number>()
  const statusOf = (key: string): Lease.ObservedLease => {
    const status = observer.status(keys.lease(key))
    if (status !== "Absent" || !observer.isCurrent() || membership.isFrozen()) {
      absentSince.delete(key)
      return status
    }
    const since = absentSince.get(key) ?? now()
    absentSince.set(key, since)
    return now() - since > 1.5 * Duration.toMillis(lease.duration) + 1_000 ? "Expired" : status
  }

  const settle = (key: string) =>
    Effect.gen(function*() {
      const rank = View.up(membership.current().view!).findIndex((entry) => nodeKey(entry) === membership.key)
      const jitter = yield* Random.next
      if (rank !== 0) yield* Effect.sleep(Duration.millis(stagger * (rank < 0 ? 8 : rank) * (1 + 0.2 * jitter)))
      const view = membership.current().view!
      if (!View.isMember(view, key) || membership.isOver()) return
      const status = statusOf(key)
      if (status !== "Expired" && status !== "Closed") return
      yield* lease.renew
      if (status === "Expired") {
        const outcome = yield* observer.close(keys.lease(key))
        if (outcome === "Alive") return
        yield* Effect.logWarning(`member ${key} has not renewed its lease: closed`)
        yield* lease.renew
      }
      yield* membership.change((current) => View.dead(current, [key]))
    }).pipe(
      Effect.catch((error) => Effect.logDebug(`the death of ${key} is not settled yet: ${error._tag}`)),
      Effect.asVoid
    )

  const look = Effect.suspend(() => {
    const view = membership.current().view
    if (view === undefined || membership.isOver()) return Effect.void
    const suspects = View.members(view).map(nodeKey).filter((key) => {
      const status = key === membership.key ? "Live" : statusOf(key)
      return status === "Expired" || status === "Closed"
    })
    return Effect.forEach(suspects, (key) => FiberMap.run(settling, key, settle(key), { onlyIfMissing: true }), {
      discard: true
    })
  })

  yield* observer.changes.pipe(Stream.runForEach(() => look), Effect.forkScoped)
  yield* Effect.repeat(look, Schedule.spaced(lookAgain).pipe(Schedule.jittered)).pipe(Effect.forkScoped)
})

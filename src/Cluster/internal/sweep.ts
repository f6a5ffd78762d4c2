/**
 * Rubbish of incarnations that are gone: record, kinds, journal, lease. The oldest member removes it, long after the last moment at which
 * anyone could want it; so what a cluster stores is bounded by its members, not by its history.
 *
 * Invariant: nothing of a node is removed while the view lists it (its journal may be needed) or while its lease is not closed.
 */
import { Clock, Duration, Effect, Random, Schedule } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import type { Membership } from "./membership.ts"
import * as View from "./view.ts"

/** Leases that pass between a departure and its sweeping. */
const leasesToWait = 10

export const follow = Effect.fnUntraced(function*(membership: Membership) {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const { keys, observer, store } = membership
  const lease = Duration.toMillis(membership.settings.memberLease)
  /** when this member first saw that a node is not listed */
  const since = new Map<string, number>()

  const removeKey = (key: string) =>
    Effect.gen(function*() {
      const entry = yield* store.get(key)
      if (entry._tag === "Some") yield* store.remove(key, entry.value.revision)
    })
  const sweep = (node: string) =>
    Effect.gen(function*() {
      const leaseKey = keys.lease(node)
      if (observer.status(leaseKey) === "Live") return
      // A node that wrote its record and never joined: its lease has expired, and must be closed before anything goes.
      if (observer.status(leaseKey) === "Expired" && (yield* observer.close(leaseKey)) === "Alive") return
      for (const entry of yield* store.list(keys.journalPrefix(node))) yield* store.remove(entry.key, entry.revision)
      yield* removeKey(keys.kinds(node))
      yield* removeKey(leaseKey)
      // The record last: while it is there, an interrupted sweep is taken up again.
      yield* removeKey(keys.member(node))
      since.delete(node)
    }).pipe(Effect.catch((error) => Effect.logDebug(`${node} is swept later: ${error._tag}`)))

  const look = Effect.gen(function*() {
    const { records, view } = membership.current()
    if (view === undefined) return
    for (const node of since.keys()) if (View.find(view, node) !== undefined) since.delete(node)
    const gone = Array.from(records.keys()).filter((node) => View.find(view, node) === undefined)
    for (const node of gone) if (!since.has(node)) since.set(node, now())
    const oldest = View.leader(view)
    if (oldest === undefined || nodeKey(oldest) !== membership.key || !membership.mayAct() || !observer.isCurrent()) {
      return
    }
    for (const node of gone) {
      if (now() - since.get(node)! >= leasesToWait * lease) yield* sweep(node)
    }
  })
  const jitter = yield* Random.next
  yield* Effect.sleep(Duration.millis(lease * jitter)).pipe(
    Effect.andThen(Effect.repeat(look, Schedule.spaced(Duration.millis(lease)).pipe(Schedule.jittered))),
    Effect.forkScoped
  )
})

/**
 * A store that forgets: emptied, restored from a backup, or short of its last acknowledged writes. Members stop granting, agree on the
 * newest view that any of them knows, and write it again as the first of a new generation; each then restores what is its own.
 *
 * Invariants: only a member that holds the cluster's id seeds it again, and only while it hears a majority of its last view; a
 * store that belongs to another cluster is never written.
 */
import { Duration, Effect, Option, Queue, Random, Schedule } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import type { Calls } from "./calls.ts"
import type { Journal } from "./journal.ts"
import type { Membership } from "./membership.ts"
import { addressOf } from "./snapshot.ts"
import * as View from "./view.ts"

/** Between two looks that must agree before anything is taken for lost, in milliseconds: longer than a replica lags. */
const secondLook = 2_000
/** How much longer each younger member waits before it seeds. */
const stagger = 1_000

export const follow = Effect.fnUntraced(function*(parts: {
  readonly membership: Membership
  readonly calls: Calls
  readonly journal: Journal
  readonly isHeard: (key: string) => boolean
}) {
  const { calls, isHeard, journal, membership } = parts

  /** The newest view that any reachable member knows. */
  const newest = Effect.gen(function*() {
    let best = membership.current().view!
    const asked = View.members(best).map(nodeKey).filter((key) => key !== membership.key && isHeard(key))
    let heard = 1
    for (const key of asked) {
      const address = addressOf(membership.current(), key)
      if (address === undefined) continue
      const answer = yield* Effect.option(calls.peer(address, Duration.seconds(1)).KnownView())
      if (Option.isNone(answer)) continue
      heard++
      const view = yield* View.decode(answer.value.view)
      if (Option.isSome(view) && view.value.cluster === best.cluster && view.value.number > best.number) {
        best = view.value
      }
    }
    const all = View.members(membership.current().view!).length
    return heard >= Math.floor(all / 2) + 1 ? Option.some(best) : Option.none<View.View>()
  })

  const look = Effect.gen(function*() {
    if (membership.current().view === undefined || !(yield* membership.isLost)) return
    const jitter = yield* Random.next
    yield* Effect.sleep(Duration.millis(secondLook * (1 + 0.2 * jitter)))
    if (!(yield* membership.isLost)) return
    membership.freeze("the store has lost what it acknowledged")
    const rank = View.up(membership.current().view!).findIndex((entry) => nodeKey(entry) === membership.key)
    yield* Effect.sleep(Duration.millis(stagger * (rank < 0 ? 8 : rank)))
    if (membership.isOver() || !(yield* membership.isLost)) return
    const best = yield* newest
    if (Option.isNone(best)) {
      return yield* Effect.logWarning("the store has lost the cluster's view; no majority is heard to write it again")
    }
    const outcome = yield* membership.seed(best.value)
    yield* outcome === "Seeded"
      ? Effect.logWarning(
        `the store had lost the cluster's view: written again as generation ${best.value.generation + 1}`
      )
      : Effect.logError("the store belongs to another cluster now: this one is frozen until an operator decides")
  }).pipe(
    Effect.catch((error) => Effect.logDebug(`the store is looked at again: ${error._tag}`)),
    // Until it is settled: the next look begins where this one gave up.
    Effect.repeat(
      Schedule.spaced("1 second").pipe(
        Schedule.while(() => membership.isFrozen() && !membership.isOver())
      )
    )
  )
  yield* Queue.take(membership.doubts).pipe(Effect.andThen(look), Effect.forever, Effect.forkScoped)

  // A new generation: what is this member's own may be gone, so it is written again.
  const raised = yield* Queue.sliding<void>(1)
  membership.onChange((now, before) => {
    if (before.view !== undefined && (now.view?.generation ?? 0) > before.view.generation) {
      Queue.offerUnsafe(raised, void 0)
    }
  })
  yield* Queue.take(raised).pipe(
    Effect.andThen(membership.restore),
    Effect.andThen(journal.rewrite),
    Effect.forever,
    Effect.forkScoped
  )
})

/**
 * Leaving in order: nothing new, actors stop here and start elsewhere, partitions are handed over, then the goodbye. Each step gives
 * up rather than hang: what is left undone is what a crash would have left, and the others know how to deal with that.
 */
import { Duration, Effect } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import type { Balance } from "./balance.ts"
import type { Directory } from "./directory.ts"
import type { MemberHost } from "./memberHost.ts"
import type { Membership } from "./membership.ts"
import * as View from "./view.ts"

/** Between two looks at whether a step is done. */
const look = Duration.millis(20)
/** How long names that this owner itself is moving get to settle, before their partitions go. */
const settlePatience = Duration.seconds(10)
/** Patience with the store in each step. */
const storePatience = Duration.seconds(5)

export const leave = (parts: {
  readonly membership: Membership
  readonly memberHost: MemberHost
  readonly directory: Directory
  readonly balance: Balance
}): Effect.Effect<void> => {
  const { balance, directory, memberHost, membership } = parts
  const others = () => {
    const { view } = membership.current()
    return view !== undefined && View.up(view).some((entry) => nodeKey(entry) !== membership.key)
  }
  /** waits only while it makes sense: a member without lease, or without others, can hand nothing over */
  const until = (done: () => boolean, patience: Duration.Duration) =>
    Effect.whileLoop({
      while: () => !done() && membership.mayAct() && others(),
      body: () => Effect.sleep(look),
      step: () => {}
    }).pipe(Effect.timeoutOption(patience), Effect.asVoid)
  const inStore = (change: Effect.Effect<void, { readonly _tag: string }>) =>
    change.pipe(
      Effect.timeoutOption(storePatience),
      Effect.catch((error) => Effect.logDebug(`leaving: ${error._tag}`)),
      Effect.asVoid
    )

  const settled = () => Array.from(directory.tables.values()).every((table) => directory.unsettled(table) === 0)
  const isNeeded = () => {
    const { view } = membership.current()
    return view === undefined ||
      view.partitions.some((partition) =>
        partition.owner === membership.key || partition.sources.some((source) => source.node === membership.key)
      )
  }

  const steps = Effect.gen(function*() {
    if (membership.isOver()) return
    if (others()) yield* inStore(membership.change((view) => View.leaving(view, membership.key)))
    yield* memberHost.withdraw
    yield* until(() => memberHost.unacknowledged() === 0, membership.settings.shutdownTimeout)
    yield* until(settled, settlePatience)
    yield* Effect.timeoutOption(balance.everything, storePatience)
    yield* until(() => !isNeeded(), settlePatience)
    yield* membership.lease.close.pipe(
      Effect.catch((error) => Effect.logWarning(`the lease was not closed, it will lapse: ${error._tag}`))
    )
    yield* inStore(membership.change((view) => View.dead(view, [membership.key]), { unguarded: true }))
  })
  return steps.pipe(Effect.timeoutOption(membership.settings.shutdownTimeout), Effect.asVoid)
}

/**
 * Handing partitions over in order: what this owner has above its fair share to members below theirs, or everything when it leaves.
 * The owner stops granting there, lets what is being written settle, and then gives the partitions away by its own step.
 *
 * Invariant: a partition that is handed over has no write of this owner under way.
 */
import { Duration, Effect, Queue, Random, Schedule, type Scope } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import type { Directory, Table } from "./directory.ts"
import type { Membership } from "./membership.ts"
import * as Rendezvous from "./rendezvous.ts"
import * as View from "./view.ts"

/** Partitions that one step moves at most. */
const perStep = 64
/** Rest after a change of the roster before shares are looked at, in milliseconds: joins come in groups. */
const settle = 1_000
/** How long writes get to settle before the hand-over is put off. */
const patience = Duration.seconds(5)

export interface Balance {
  /** keeps shares even for as long as the scope lives */
  readonly follow: Effect.Effect<void, never, Scope.Scope>
  /** gives all partitions to others, where there are any */
  readonly everything: Effect.Effect<void>
}

type Move = { readonly partition: number; readonly to: string }

export const make = (membership: Membership, directory: Directory) => {
  const writing = (tables: ReadonlyArray<Table>) => tables.some((table) => directory.writing(table))

  const handOver = (moves: ReadonlyArray<Move>) =>
    Effect.gen(function*() {
      const given = moves.flatMap(({ partition, to }) => {
        const table = directory.tables.get(partition)
        return table?.phase === "Serving" ? [{ table, partition, to, epoch: table.epoch }] : []
      })
      if (given.length === 0) return
      const tables = given.map((move) => move.table)
      for (const table of tables) table.phase = "Frozen"
      yield* Effect.sync(() => writing(tables)).pipe(
        Effect.repeat(($) => $(Schedule.spaced("10 millis")).pipe(Schedule.while(({ input }) => input))),
        Effect.timeout(patience),
        Effect.andThen(membership.change((view) => View.handOver(view, membership.key, given)))
      )
    }).pipe(
      Effect.catch((error) => Effect.logDebug(`partitions are handed over later: ${error._tag}`)),
      // Whether the step was applied is what the view says: tables still listed as ours go on serving once it is known.
      Effect.andThen(thaw)
    )

  /** Tables that are ours after all serve again, once the view that a hand-over started from is known to be superseded or whole. */
  const thaw: Effect.Effect<void> = Effect.gen(function*() {
    const frozen = Array.from(directory.tables.values()).filter((table) => table.phase === "Frozen")
    if (frozen.length === 0) return
    // A step that changes nothing but is written proves that no earlier one of ours can still be applied.
    yield* membership.change((view) => ({ ...view, number: view.number + 1 }))
    for (const table of frozen) if (directory.isCurrent(table)) table.phase = "Serving"
  }).pipe(
    Effect.retry(
      Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(Schedule.jittered)
    ),
    Effect.ignore
  )

  const owners = () => membership.current().view!.partitions.map((partition) => partition.owner)

  const even = Effect.suspend(() => {
    const view = membership.current().view
    if (view === undefined || !membership.mayAct()) return Effect.void
    // One wave at a time: shares are counted when nothing is on the move.
    if (view.partitions.some((partition) => partition.state === "Moving")) return Effect.void
    const up = View.up(view).map(nodeKey)
    const moves = Rendezvous.surplus(owners(), up, membership.key)
    return moves.length === 0 ? Effect.void : handOver(moves.slice(0, perStep))
  })

  const everything = Effect.suspend(() => {
    const view = membership.current().view
    const up = view === undefined ? [] : View.up(view).map(nodeKey).filter((key) => key !== membership.key)
    if (up.length === 0) return Effect.void
    const kept = owners()
    const filled = Rendezvous.fill(kept.map((owner) => owner === membership.key ? undefined : owner), up)
    const moves = filled.flatMap((to, partition) => kept[partition] === membership.key ? [{ partition, to: to! }] : [])
    return handOver(moves)
  })

  /** Keeps shares even for as long as the scope lives. */
  const follow = Effect.gen(function*() {
    const wake = yield* Queue.sliding<void>(1)
    membership.onChange((now, before) => {
      if (now.view !== before.view) Queue.offerUnsafe(wake, void 0)
    })
    yield* Effect.gen(function*() {
      yield* Queue.take(wake)
      const jitter = yield* Random.next
      yield* Effect.sleep(Duration.millis(settle * (0.5 + jitter)))
      yield* even
    }).pipe(Effect.forever, Effect.forkScoped)
  })

  return { follow, everything } satisfies Balance
}

/**
 * What an owner orders: entries into its journal, starts and stops at hosts; each until its outcome is certain. The answers go back to
 * `name.ts` as events.
 *
 * Invariant: a host that may have started an actor is asked again, never passed over, until it has refused, has acknowledged a
 * revoke of that placement, or is gone for good.
 */
import { Effect, Schedule } from "effect"
import { NodeUnreachable } from "../../Actor/errors.ts"
import type { Calls } from "./calls.ts"
import { type GrantError, NotServing, type Placed } from "./ClusterRpcs.ts"
import type { Table } from "./directory.ts"
import type { Journal } from "./journal.ts"
import type { Membership } from "./membership.ts"
import type { NameEvent } from "./name.ts"
import { addressOf, isAlive } from "./snapshot.ts"

export interface Orders {
  /** writes the placement; then `Committed`, or `CommitFailed` */
  readonly commit: (table: Table, placed: Placed) => Effect.Effect<void>
  /** writes the end; then `RemovalCommitted`, or `RemovalFailed` after a while */
  readonly commitRemoval: (table: Table, name: string, placement: number) => Effect.Effect<void>
  /** has it started there; then `Started`, or `Refused` */
  readonly start: (table: Table, placed: Placed) => Effect.Effect<void>
  /** ends that placement, and all lower ones, at that host; completes when it is certain */
  readonly revoke: (
    table: Table,
    name: string,
    placement: number,
    host: string,
    reason?: "Stopped" | "Replaced"
  ) => Effect.Effect<void>
}

/** Waits between two tries of one order. */
const retrying = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)
/** Wait before a removal that could not be written is tried again. */
const removalWait = "500 millis"

export const make = (parts: {
  readonly membership: Membership
  readonly journal: Journal
  readonly calls: () => Calls
  readonly isCurrent: (table: Table) => boolean
  readonly dispatch: (table: Table, name: string, event: NameEvent) => void
}): Orders => {
  const { calls, dispatch, isCurrent, journal, membership } = parts

  const commit = (table: Table, placed: Placed) => {
    const { partition, epoch } = table
    const { name } = placed.spec
    return journal.append([{ _tag: "Put", partition, epoch, placed }]).pipe(
      Effect.matchEffect({
        onSuccess: () => Effect.sync(() => dispatch(table, name, { _tag: "Committed", placement: placed.placement })),
        // A fenced owner says nothing more: its successor has the word.
        onFailure: (error) =>
          error._tag === "Fenced"
            ? Effect.void
            : Effect.sync(() => dispatch(table, name, { _tag: "CommitFailed", placement: placed.placement, error }))
      })
    )
  }

  const commitRemoval = (table: Table, name: string, placement: number) => {
    const { partition, epoch } = table
    return journal.append([{ _tag: "Removed", partition, epoch, name, placement }]).pipe(
      Effect.matchEffect({
        onSuccess: () => Effect.sync(() => dispatch(table, name, { _tag: "RemovalCommitted", placement })),
        onFailure: (error) =>
          error._tag === "Fenced" ? Effect.void : Effect.sleep(removalWait).pipe(
            Effect.andThen(
              Effect.sync(() => dispatch(table, name, { _tag: "RemovalFailed", placement, reason: error.reason }))
            )
          )
      })
    )
  }

  /** Orders the start until the host has answered for certain, or is gone for good. */
  const start = (table: Table, placed: Placed) => {
    const { name } = placed.spec
    const { placement, host } = placed
    const { epoch, partition } = table
    let unknown = false
    const refused = (error: GrantError, elsewhere: boolean) =>
      Effect.sync(() => dispatch(table, name, { _tag: "Refused", placement, error, elsewhere }))
    const once: Effect.Effect<void, "Again"> = Effect.suspend(() => {
      if (!isCurrent(table)) return Effect.void
      const address = addressOf(membership.current(), host)
      if (address === undefined || !isAlive(membership.current(), host)) {
        return refused(
          new NodeUnreachable({ node: host, outcome: "NotSent", reason: "the member has departed" }),
          true
        )
      }
      if (!membership.mayAct()) {
        return unknown
          ? Effect.fail("Again" as const)
          : refused(new NotServing({ node: membership.key, reason: "its lease has lapsed" }), false)
      }
      return calls().peer(address).Start({ partition, epoch, spec: placed.spec, placement }).pipe(
        Effect.matchEffect({
          onSuccess: (started) =>
            Effect.sync(() => dispatch(table, name, { _tag: "Started", placement, address: started })),
          onFailure: (error): Effect.Effect<void, "Again"> => {
            if (error._tag === "NodeUnreachable") {
              if (error.outcome === "Unknown") unknown = true
              return unknown ? Effect.fail("Again" as const) : refused(error, true)
            }
            // A member of a higher epoch: this table has a successor, and the view will say so.
            if (error._tag === "Superseded") return membership.refresh
            const elsewhere = error._tag === "NotServing" || error._tag === "KindNotRegistered"
            // An earlier order may still be on its way: its number must be dead before the name goes elsewhere.
            return unknown
              ? revoke(table, name, placement, host).pipe(Effect.andThen(refused(error, elsewhere)))
              : refused(error, elsewhere)
          }
        })
      )
    })
    return Effect.retry(once, retrying).pipe(Effect.ignore)
  }

  const revoke = (
    table: Table,
    name: string,
    placement: number,
    host: string,
    reason: "Stopped" | "Replaced" = "Replaced"
  ): Effect.Effect<void> => {
    const { epoch, partition } = table
    const once: Effect.Effect<void, "Again"> = Effect.suspend(() => {
      const address = addressOf(membership.current(), host)
      if (!isCurrent(table) || address === undefined || !isAlive(membership.current(), host)) return Effect.void
      return calls().peer(address).Revoke({ partition, epoch, name, placement, reason }).pipe(
        Effect.catch((error): Effect.Effect<void, "Again"> =>
          error._tag === "Superseded" ? membership.refresh : Effect.fail("Again" as const)
        )
      )
    })
    return Effect.retry(once, retrying).pipe(Effect.ignore)
  }

  return { commit, commitRemoval, start, revoke }
}

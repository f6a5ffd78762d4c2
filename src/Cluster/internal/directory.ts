/**
 * This member as an owner of partitions: it alone grants their names. The shell of `name.ts`: keeps the tables, performs the
 * commands, answers the calls.
 *
 * Invariants: a table grants only while this member's lease is valid and its view gives it the partition at the table's epoch;
 * placement numbers rise over all owners that a partition ever has, because the epoch is their upper part.
 */
import { Deferred, Effect, Exit, FiberSet } from "effect"
import type { ActorAddress, NodeAddress } from "../../Actor/Address.ts"
import { ActorNotFound, DirectoryRebuilding, type StoreUnavailable } from "../../Actor/errors.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { Calls, Handlers } from "./calls.ts"
import { type GrantError, Moved, NotServing, pageOf, type Placed } from "./ClusterRpcs.ts"
import type { Journal } from "./journal.ts"
import type { Membership } from "./membership.ts"
import * as Name from "./name.ts"
import * as Orders from "./orders.ts"
import type { Relocation } from "./relocation.ts"
import { addressOf, isAlive, type Snapshot } from "./snapshot.ts"

/** `Rebuilding`: collects names, grants none. `Frozen`: is being handed over. */
export type Phase = "Rebuilding" | "Serving" | "Frozen"

export interface Table {
  readonly partition: number
  readonly epoch: number
  phase: Phase
  counter: number
  readonly names: Map<string, Name.NameState>
  /** what members say they run, while rebuilding: lookups are answered from it */
  readonly reported: Map<string, ActorAddress>
}

export interface Directory {
  readonly handlers: Pick<Handlers, "Grant" | "Lookup" | "Stop" | "Release" | "Entries">
  /** tables of the partitions that this member owns */
  readonly tables: ReadonlyMap<number, Table>
  readonly isCurrent: (table: Table) => boolean
  readonly dispatch: (table: Table, name: string, event: Name.NameEvent) => void
  /** sets a name's state as a rebuild found it */
  readonly adopt: (table: Table, name: string, state: Name.NameState) => void
  /** names that are neither running nor gone: something about them is under way */
  readonly unsettled: (table: Table) => number
  /** are the entries of that partition at that epoch still this member's to tell? */
  readonly isNeeded: (partition: number, epoch: number) => boolean
  /** is anything of the table being written? */
  readonly writing: (table: Table) => boolean
  /** stops that placement at that member, until it is certain */
  readonly revoke: (table: Table, name: string, placement: number, host: string) => Effect.Effect<void>
}

/** Placements that one owner can make in one partition at one epoch; the epoch is above. */
const placementsPerEpoch = 2 ** 24

type StopAnswer = StoreUnavailable | Moved
interface Waiting {
  readonly grant?: Deferred.Deferred<ActorAddress, GrantError>
  readonly stop?: Deferred.Deferred<void, StopAnswer>
  readonly table: Table
}

export interface Parts {
  readonly membership: Membership
  readonly journal: Journal
  readonly calls: () => Calls
  readonly relocation: Relocation
  /** tables that this member has just become the owner of and that must collect their names first */
  readonly rebuild: (tables: ReadonlyArray<Table>) => void
}

export const make = Effect.fnUntraced(function*(parts: Parts) {
  const { journal, membership, relocation } = parts
  const events = yield* SystemEvents
  const fork = yield* FiberSet.makeRuntime<never>()
  const tables = new Map<number, Table>()
  /** tables handed over, until their receivers have taken them: by partition and epoch */
  const handedOver = new Map<string, Table>()
  const waiters = new Map<Name.Waiter, Waiting>()
  /** relocations that wait for the outcome of one try, by name */
  const placing = new Map<string, Deferred.Deferred<void>>()
  let lastWaiter = 0

  const isCurrent = (table: Table) => tables.get(table.partition) === table
  const nextPlacement = (table: Table) => table.epoch * placementsPerEpoch + ++table.counter
  const context = (table: Table): Name.NameContext => ({
    nextPlacement: () => nextPlacement(table),
    relocation: membership.settings.relocation
  })

  const moved = (partition: number): Moved => {
    const snapshot = membership.current()
    const known = snapshot.view?.partitions[partition]
    const owner: NodeAddress | undefined = known?.owner === undefined ? undefined : addressOf(snapshot, known.owner)
    return new Moved({ partition, epoch: known?.epoch ?? 0, ...(owner === undefined ? {} : { owner }) })
  }

  // ---- performing

  const dispatch = (table: Table, name: string, event: Name.NameEvent): void => {
    // Whatever comes back for a table that moved on belongs to its new owner's rebuild.
    if (!isCurrent(table)) return
    const before = table.names.get(name)
    const [after, commands] = Name.step(before, event, context(table))
    if (after === undefined) table.names.delete(name)
    else table.names.set(name, after)
    const from = before !== undefined && "from" in before ? before.from : undefined
    if (from !== undefined && (after === undefined || after._tag === "Removing")) {
      relocation.settled(from, name, "stopped")
    }
    for (const command of commands) perform(table, name, command)
    tellPlaced(table, name)
  }

  const orders = Orders.make({ membership, journal, calls: parts.calls, isCurrent, dispatch })
  const takeWaiters = (ids: ReadonlyArray<Name.Waiter>) =>
    ids.flatMap((id) => {
      const waiter = waiters.get(id)
      waiters.delete(id)
      return waiter === undefined ? [] : [waiter]
    })

  const perform = (table: Table, name: string, command: Name.NameCommand): void => {
    switch (command._tag) {
      case "Commit":
        fork(orders.commit(table, command.placed))
        return
      case "CommitRemoval":
        fork(orders.commitRemoval(table, name, command.placement))
        return
      case "Start":
        fork(orders.start(table, command.placed))
        return
      case "Stop":
        fork(
          orders.revoke(table, name, command.placed.placement, command.placed.host, "Stopped").pipe(
            Effect.andThen(
              Effect.sync(() => dispatch(table, name, { _tag: "Stopped", placement: command.placed.placement }))
            )
          )
        )
        return
      case "Revoke":
        fork(orders.revoke(table, name, command.placement, command.host))
        return
      case "FindHome":
        relocation.seek({
          spec: command.spec,
          not: command.not,
          isHomeless: () => isCurrent(table) && table.names.get(name)?._tag === "Homeless",
          offer: (candidates) => offer(table, name, candidates)
        })
        return
      case "AnswerGrant":
        for (const waiter of takeWaiters(command.waiters)) {
          if (waiter.grant) Deferred.doneUnsafe(waiter.grant, Exit.succeed(command.address))
        }
        return
      case "RefuseGrant":
        for (const waiter of takeWaiters(command.waiters)) {
          if (waiter.grant) Deferred.doneUnsafe(waiter.grant, Exit.fail(command.error))
        }
        return
      case "AnswerStop":
        for (const waiter of takeWaiters(command.waiters)) {
          if (waiter.stop) {
            Deferred.doneUnsafe(waiter.stop, command.error === undefined ? Exit.void : Exit.fail(command.error))
          }
        }
        return
      case "Relocated": {
        const from = addressOf(membership.current(), command.from)
        if (from !== undefined) events.publish({ _tag: "ActorRelocated", actor: command.address, from })
        relocation.settled(command.from, name, "moved")
        return
      }
      case "RelocationFailed":
        relocation.failed(command.from, command.placed.spec, command.reason)
        return
    }
  }

  /** Offers homes and waits until the name has one, or wants another try. */
  const offer = (table: Table, name: string, candidates: ReadonlyArray<string>) =>
    Effect.suspend(() => {
      const settled = Deferred.makeUnsafe<void>()
      placing.set(name, settled)
      dispatch(table, name, { _tag: "Homes", candidates })
      return Deferred.await(settled)
    })
  /** Is the relocation of that name over, for now? */
  const tellPlaced = (table: Table, name: string) => {
    const settled = placing.get(name)
    if (settled === undefined) return
    const state = isCurrent(table) ? table.names.get(name)?._tag : undefined
    if (state === "Committing" || state === "Starting") return
    placing.delete(name)
    Deferred.doneUnsafe(settled, Exit.void)
  }

  // ---- following the view

  const refuseAll = (table: Table) => {
    const error = moved(table.partition)
    for (const name of table.names.keys()) tellPlaced(table, name)
    for (const [id, waiter] of waiters) {
      if (waiter.table !== table) continue
      waiters.delete(id)
      if (waiter.grant) Deferred.doneUnsafe(waiter.grant, Exit.fail(error))
      if (waiter.stop) Deferred.doneUnsafe(waiter.stop, Exit.fail(error))
    }
  }

  const follow = (now: Snapshot, before: Snapshot) => {
    const { view } = now
    if (view === undefined) return
    if (view !== before.view) {
      const fresh: Array<Table> = []
      const dropped: Array<Table> = []
      const stillNeeded = new Set<string>()
      view.partitions.forEach((partition, index) => {
        for (const source of partition.sources) {
          if (source.node === membership.key) stillNeeded.add(`${index}@${source.epoch}`)
        }
        const table = tables.get(index)
        if (partition.owner === membership.key) {
          if (table?.epoch === partition.epoch) return
          if (table !== undefined) dropped.push(table)
          const next: Table = {
            partition: index,
            epoch: partition.epoch,
            phase: partition.state === "Owned" ? "Serving" : "Rebuilding",
            counter: 0,
            names: new Map(),
            reported: new Map()
          }
          tables.set(index, next)
          if (next.phase === "Rebuilding") fresh.push(next)
        } else if (table !== undefined) {
          tables.delete(index)
          dropped.push(table)
        }
      })
      for (const table of dropped) handedOver.set(`${table.partition}@${table.epoch}`, table)
      for (const key of handedOver.keys()) if (!stillNeeded.has(key)) handedOver.delete(key)
      for (const table of dropped) refuseAll(table)
      if (fresh.length > 0) parts.rebuild(fresh)
      if (before.view !== undefined) departures(now, before.view.roster)
    }
  }
  /** Hosts that lived in the view before and do not now. */
  const departures = (now: Snapshot, roster: ReadonlyArray<{ readonly id: string; readonly incarnation: string }>) => {
    for (const entry of roster) {
      const key = `${entry.id}@${entry.incarnation}`
      if (isAlive(now, key)) continue
      const hit: Array<readonly [Table, string]> = []
      for (const table of tables.values()) {
        if (table.phase === "Rebuilding") continue
        for (const [name, state] of table.names) {
          if (state.host === key && state._tag !== "Homeless") hit.push([table, name])
        }
      }
      const moving = hit.filter(([table, name]) => {
        const state = table.names.get(name)!
        return state._tag === "Running" && state.spec.relocatable && membership.settings.relocation
      })
      relocation.departed(key, moving.map(([, name]) => name))
      for (const [table, name] of hit) dispatch(table, name, { _tag: "HostGone", host: key })
    }
  }
  membership.onChange(follow)

  // ---- answering

  /** The table that may answer for that partition, or why none may. */
  const tableFor = (
    request: { readonly partition: number; readonly epoch: number }
  ): Table | Moved | NotServing => {
    const table = tables.get(request.partition)
    if (table === undefined) return moved(request.partition)
    if (membership.isOver()) return new NotServing({ node: membership.key, reason: "its lease is closed" })
    return table.epoch < request.epoch ? new NotServing({ node: membership.key, reason: "its view is behind" }) : table
  }
  const granting = (request: { readonly partition: number; readonly epoch: number }): Table | Moved | NotServing => {
    const table = tableFor(request)
    if ("_tag" in table) return table
    if (!membership.mayAct()) return new NotServing({ node: membership.key, reason: "its lease has lapsed" })
    return table.phase === "Frozen"
      ? new NotServing({ node: membership.key, reason: "hands the partition over" })
      : table
  }
  const rebuilding = (table: Table, name: string) => new DirectoryRebuilding({ name, partition: table.partition })
  const wait = <A, E>(id: Name.Waiter, deferred: Deferred.Deferred<A, E>): Effect.Effect<A, E> =>
    Deferred.await(deferred).pipe(Effect.onInterrupt(() => Effect.sync(() => void waiters.delete(id))))

  const Grant: Handlers["Grant"] = (request) =>
    Effect.suspend((): ReturnType<Handlers["Grant"]> => {
      const table = granting(request)
      if ("_tag" in table) return Effect.fail(table)
      const { name } = request.spec
      if (table.phase === "Rebuilding") return Effect.fail(rebuilding(table, name))
      const candidates = request.candidates.filter((key) => isAlive(membership.current(), key))
      if (candidates.length === 0 && !table.names.has(name)) {
        return Effect.fail(new NotServing({ node: membership.key, reason: "knows none of the candidates" }))
      }
      const id = ++lastWaiter
      const grant = Deferred.makeUnsafe<ActorAddress, GrantError>()
      waiters.set(id, { grant, table })
      dispatch(table, name, { _tag: "Grant", waiter: id, spec: request.spec, candidates })
      return wait(id, grant)
    })

  const stopping = (
    request: { readonly partition: number; readonly epoch: number; readonly name: string },
    event: (waiter: Name.Waiter) => Name.NameEvent
  ): ReturnType<Handlers["Stop"]> =>
    Effect.suspend((): ReturnType<Handlers["Stop"]> => {
      const table = granting(request)
      if ("_tag" in table) return Effect.fail(table)
      if (table.phase === "Rebuilding") return Effect.fail(rebuilding(table, request.name))
      const id = ++lastWaiter
      const stop = Deferred.makeUnsafe<void, StopAnswer>()
      waiters.set(id, { stop, table })
      dispatch(table, request.name, event(id))
      return wait(id, stop)
    })
  const Stop: Handlers["Stop"] = (request) =>
    stopping(request, (waiter) => ({ _tag: "StopAsked", waiter, placement: request.placement }))
  const Release: Handlers["Release"] = (request) =>
    stopping(request, (waiter) => ({ _tag: "Ended", waiter, placement: request.placement, reason: request.reason }))

  const Lookup: Handlers["Lookup"] = (request) =>
    Effect.suspend((): ReturnType<Handlers["Lookup"]> => {
      const table = tableFor(request)
      if ("_tag" in table) return Effect.fail(table)
      const state = table.names.get(request.name)
      if (state?._tag === "Running") return Effect.succeed(state.address)
      const reported = table.reported.get(request.name)
      if (reported !== undefined) return Effect.succeed(reported)
      // A name that had an address once and is about to have another one: worth asking again.
      const comes = state?._tag === "Homeless" || (state !== undefined && "from" in state && state.from !== undefined)
      if (comes || table.phase === "Rebuilding") return Effect.fail(rebuilding(table, request.name))
      return Effect.fail(new ActorNotFound({ name: request.name, kind: request.kind }))
    })

  const Entries: Handlers["Entries"] = ({ after, epoch, partition }) =>
    Effect.suspend((): ReturnType<Handlers["Entries"]> => {
      const table = handedOver.get(`${partition}@${epoch}`)
      if (table === undefined) {
        return Effect.fail(new NotServing({ node: membership.key, reason: "has not handed that partition over" }))
      }
      const { more, page } = pageOf([...table.names.keys()], after, (name) => table.names.get(name)?.spec)
      const entries = page.flatMap((name): ReadonlyArray<Placed> => {
        const { first, host, placement, spec, _tag } = table.names.get(name)!
        return _tag === "Removing" ? [] : [{ spec, first, placement, host }]
      })
      return Effect.succeed({ entries, ...(more ? { more: page.at(-1)! } : {}) })
    })

  return {
    handlers: { Grant, Lookup, Stop, Release, Entries },
    tables,
    isCurrent,
    dispatch,
    adopt: (table, name, state) => void table.names.set(name, state),
    unsettled: (table) => {
      let count = 0
      for (const state of table.names.values()) if (state._tag !== "Running") count++
      return count
    },
    isNeeded: (partition, epoch) => tables.get(partition)?.epoch === epoch || handedOver.has(`${partition}@${epoch}`),
    writing: (table) => {
      for (const state of table.names.values()) {
        if (state._tag === "Committing" || state._tag === "Removing") return true
      }
      return false
    },
    revoke: orders.revoke
  } satisfies Directory
})

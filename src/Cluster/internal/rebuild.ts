/**
 * Taking over partitions: read what the predecessors left, ask every member what it runs, write the result into the own journal,
 * serve. Until then known names are found and new ones fail with `DirectoryRebuilding`.
 *
 * Invariant: a predecessor whose lease is closed is read only after its journal is sealed; one that lives has stopped granting
 * before it handed over. Every member of the view has answered, or is gone, before a name is granted.
 */
import { Effect, Schedule } from "effect"
import { type NodeAddress, nodeKey } from "../../Actor/Address.ts"
import type { Calls } from "./calls.ts"
import type { PartitionEpoch, Placed } from "./ClusterRpcs.ts"
import type { Directory, Table } from "./directory.ts"
import { partitionOf } from "./hash.ts"
import type { Journal } from "./journal.ts"
import type { Change } from "./journalRecord.ts"
import { replay } from "./journalRecord.ts"
import type { Membership } from "./membership.ts"
import { type EndedReport, merge, type Merged, type RunningReport } from "./merge.ts"
import type { Relocation } from "./relocation.ts"
import { addressOf, isAlive } from "./snapshot.ts"
import * as View from "./view.ts"

const retrying = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)

/** Questions under way at once. */
const askingAtOnce = 16
/** Partitions in one question: a member sorts the names of its answer for each page of it. */
const partitionsPerQuestion = 16

const chunks = (tables: ReadonlyArray<Table>): ReadonlyArray<ReadonlyArray<Table>> =>
  Array.from(
    { length: Math.ceil(tables.length / partitionsPerQuestion) },
    (_, index) => tables.slice(index * partitionsPerQuestion, (index + 1) * partitionsPerQuestion)
  )

export interface Rebuild {
  /** collects, merges, writes and serves; the view is told at last */
  readonly run: (tables: ReadonlyArray<Table>) => Effect.Effect<void>
}

export const make = (parts: {
  readonly membership: Membership
  readonly journal: Journal
  readonly calls: Calls
  readonly relocation: Relocation
  readonly directory: Directory
}): Rebuild => {
  const { calls, directory, journal, membership, relocation } = parts
  const { partitionCount } = membership.settings
  /** journals of closed incarnations never change once sealed */
  const sealed = new Map<string, ReadonlyArray<Change>>()

  const readSealed = (node: string) =>
    Effect.suspend(() => {
      const known = sealed.get(node)
      return known !== undefined ? Effect.succeed(known) : journal.seal(node).pipe(
        Effect.tap((changes) =>
          Effect.sync(() => {
            sealed.set(node, changes)
            if (sealed.size > 8) sealed.delete(sealed.keys().next().value!)
          })
        )
      )
    })

  /** All pages of the table that a living predecessor has handed over; `undefined` once it is dead. */
  const askTable = Effect.fnUntraced(function*(node: string, { epoch, partition }: PartitionEpoch) {
    const entries: Array<Placed> = []
    let after: string | undefined
    while (true) {
      const address = addressOf(membership.current(), node)
      if (address === undefined || !isAlive(membership.current(), node)) return undefined
      const answer = yield* Effect.result(
        calls.peer(address).Entries({ partition, epoch, ...(after === undefined ? {} : { after }) })
      )
      if (answer._tag === "Failure") {
        yield* Effect.sleep("100 millis")
        continue
      }
      entries.push(...answer.success.entries)
      if (answer.success.more === undefined) return entries
      after = answer.success.more
    }
  })

  /** What one source left of the tables' partitions. */
  const readSource = Effect.fnUntraced(
    function*(node: string, wanted: ReadonlyArray<PartitionEpoch>) {
      const placed: Array<Placed> = []
      const removed: Array<{ readonly name: string; readonly placement: number }> = []
      const one = (entry: PartitionEpoch) =>
        Effect.gen(function*() {
          const table = isAlive(membership.current(), node) ? yield* askTable(node, entry) : undefined
          if (table !== undefined) {
            for (const known of table) placed.push(known)
            return
          }
          const remembered = replay(yield* readSealed(node), entry.partition, entry.epoch)
          placed.push(...remembered.placed.values())
          for (const [name, placement] of remembered.removed) removed.push({ name, placement })
        })
      // Sealed once, not by each of the questions at the same time.
      if (!isAlive(membership.current(), node)) yield* readSealed(node)
      yield* Effect.forEach(wanted, one, { concurrency: askingAtOnce, discard: true })
      return { placed, removed }
    }
  )

  /** What one member runs of the tables' partitions; nothing once it is dead. */
  const askMember = (node: string, tables: ReadonlyArray<Table>) => {
    const partitions = tables.map(({ epoch, partition }) => ({ partition, epoch }))
    const once = Effect.gen(function*() {
      const running: Array<RunningReport> = []
      const ended: Array<EndedReport> = []
      let after: string | undefined
      while (true) {
        const address = addressOf(membership.current(), node)
        if (!isAlive(membership.current(), node)) return { running: [], ended: [] }
        // In the view, but its record has not arrived here yet.
        if (address === undefined) return yield* Effect.fail("Again" as const)
        const answer = yield* calls.peer(address).Report({ partitions, ...(after === undefined ? {} : { after }) })
          .pipe(
            Effect.catchTag("Superseded", () => membership.refresh.pipe(Effect.andThen(Effect.fail("Again" as const)))),
            Effect.catchTag("NodeUnreachable", () => Effect.fail("Again" as const))
          )
        for (const entry of answer.running) running.push({ ...entry, host: node })
        ended.push(...answer.ended)
        if (answer.more === undefined) return { running, ended }
        after = answer.more
      }
    })
    const isNeeded = () => tables.some(directory.isCurrent) && !membership.isOver()
    return Effect.retry(once, ($) => $(retrying).pipe(Schedule.while(isNeeded))).pipe(
      Effect.orElseSucceed(() => ({ running: [] as Array<RunningReport>, ended: [] as Array<EndedReport> })),
      Effect.tap(({ running }) => Effect.sync(() => showReported(tables, running)))
    )
  }
  /** Names that a living member runs are found at once. */
  const showReported = (tables: ReadonlyArray<Table>, running: ReadonlyArray<RunningReport>) => {
    const byPartition = new Map(tables.map((table) => [table.partition, table]))
    for (const { epoch, host, placement, spec } of running) {
      const node = addressOf(membership.current(), host)
      const table = byPartition.get(partitionOf(spec.name, partitionCount))
      if (node === undefined || table === undefined) continue
      if (placement > (table.reported.get(spec.name)?.placement ?? -1)) {
        table.reported.set(spec.name, { kind: spec.kind, name: spec.name, node, placement, epoch })
      }
    }
  }

  const serve = (tables: ReadonlyArray<Table>, merged: Merged, tableOf: (name: string) => Table) => {
    const current = new Set(tables)
    const adopt = (placed: Placed, node: NodeAddress | undefined, epoch: number) => {
      const { first, host, placement, spec } = placed
      const table = tableOf(spec.name)
      if (!current.has(table) || node === undefined) return
      const address = { kind: spec.kind, name: spec.name, node, placement, epoch }
      directory.adopt(table, spec.name, { _tag: "Running", spec, first, placement, host, address })
    }
    for (const placed of merged.running) adopt(placed, addressOf(membership.current(), placed.host), placed.epoch)
    // As if they had just lost their host: `rehome` says so in the same turn, so that nobody is told this address.
    for (const placed of merged.homeless) {
      adopt(placed, addressOf(membership.current(), placed.host) ?? membership.self, tableOf(placed.spec.name).epoch)
    }
    for (const table of tables) {
      table.reported.clear()
      table.phase = "Serving"
    }
  }

  const run = (tables: ReadonlyArray<Table>) =>
    Effect.gen(function*() {
      const view = membership.current().view!
      const wanted = new Map<string, Array<PartitionEpoch>>()
      for (const { partition } of tables) {
        for (const source of view.partitions[partition]!.sources) {
          const list = wanted.get(source.node) ?? []
          list.push({ partition, epoch: source.epoch })
          wanted.set(source.node, list)
        }
      }
      const [left, told] = yield* Effect.all([
        Effect.forEach(wanted, ([node, list]) => readSource(node, list), { concurrency: askingAtOnce }),
        Effect.forEach(
          View.members(view).flatMap((entry) => chunks(tables).map((some) => [nodeKey(entry), some] as const)),
          ([node, some]) => askMember(node, some),
          { concurrency: askingAtOnce }
        )
      ], { concurrency: 2 })

      const merged = merge({
        placed: left.flatMap((source) => source.placed),
        removed: left.flatMap((source) => source.removed),
        running: told.flatMap((answer) => answer.running),
        ended: told.flatMap((answer) => answer.ended)
      })
      const byPartition = new Map(tables.map((table) => [table.partition, table]))
      const tableOf = (name: string) => byPartition.get(partitionOf(name, partitionCount))!
      yield* Effect.forEach(
        merged.strays,
        (stray) => directory.revoke(tableOf(stray.name), stray.name, stray.placement, stray.host),
        { concurrency: askingAtOnce, discard: true }
      )

      const durable = [...merged.running, ...merged.homeless].filter((placed) => placed.spec.relocatable)
      const changes = durable.map(({ first, host, placement, spec }): Change => {
        const { epoch, partition } = tableOf(spec.name)
        return { _tag: "Put", partition, epoch, placed: { spec, first, placement, host } }
      })
      for (let from = 0; from < changes.length; from += 200) {
        yield* Effect.retry(journal.append(changes.slice(from, from + 200)), ($) =>
          $(retrying).pipe(Schedule.while(({ input }) =>
            input._tag !== "Fenced" && tables.some(directory.isCurrent)
          )))
      }

      const current = tables.filter(directory.isCurrent)
      serve(current, merged, tableOf)
      rehome(current, merged)
      yield* Effect.retry(
        membership.change((latest) =>
          View.rebuilt(
            latest,
            membership.key,
            current.filter(directory.isCurrent).map(({ epoch, partition }) => ({ partition, epoch }))
          )
        ),
        ($) => $(retrying).pipe(Schedule.while(({ input }) => input._tag !== "Fenced"))
      )
    }).pipe(
      Effect.catch((error) => Effect.logWarning(`taking over partitions ended early: ${error._tag}`))
    )

  /** What was homeless when it was found, and what ran on a member that is gone by now. */
  const rehome = (tables: ReadonlyArray<Table>, merged: Merged) => {
    const current = new Set(tables)
    const lost = new Set(merged.homeless.map((placed) => placed.spec.name))
    const byHost = new Map<string, Array<readonly [Table, string]>>()
    for (const table of current) {
      for (const [name, state] of table.names) {
        if (!lost.has(name) && isAlive(membership.current(), state.host)) continue
        const names = byHost.get(state.host)
        if (names === undefined) byHost.set(state.host, [[table, name]])
        else names.push([table, name])
      }
    }
    for (const [host, names] of byHost) {
      relocation.departed(
        host,
        names.filter(([table, name]) => table.names.get(name)!.spec.relocatable && membership.settings.relocation)
          .map(([, name]) => name)
      )
      for (const [table, name] of names) directory.dispatch(table, name, { _tag: "HostGone", host })
    }
  }

  return { run }
}

/**
 * The view: number, roster and partition table as one value under one key; one compare-and-set is one view. Pure steps from a
 * view to the next one; a step that changes nothing returns the view itself, so that it may be repeated after any outcome.
 *
 * Invariants: the number rises by one with each step; a partition's epoch never falls; it leaves its owner only when that
 * incarnation is dead (its lease is closed) or by the owner's own step; a member that is Dead or gone never returns; the roster
 * keeps a dead member for as long as a partition still needs its journal (`sources`).
 */
import { Effect, Option, Schema } from "effect"
import { MemberStatus } from "../../Actor/Address.ts"
import { nodeKey } from "../../Actor/Address.ts"
import * as Rendezvous from "./rendezvous.ts"

/** Where entries of a partition may be that its owner has not taken over yet: a member's table (or journal) at an epoch. */
export interface Source {
  readonly node: string
  readonly epoch: number
}

/** `Moving`: the owner is new and still collects names. `Unowned`: there is no member to own it. */
export type PartitionState = "Owned" | "Moving" | "Unowned"

export interface Partition {
  /** key of a member (`id@incarnation`) */
  readonly owner: string | undefined
  readonly epoch: number
  readonly state: PartitionState
  readonly sources: ReadonlyArray<Source>
}

export interface RosterEntry {
  readonly id: string
  readonly incarnation: string
  readonly status: MemberStatus
  readonly age: number
}

export interface View {
  readonly number: number
  /** the cluster's id, made once: a view of another cluster is never taken for ours */
  readonly cluster: string
  /** rises when the store has lost something and members have written it again */
  readonly generation: number
  readonly nextAge: number
  readonly roster: ReadonlyArray<RosterEntry>
  readonly partitions: ReadonlyArray<Partition>
}

export const empty = (cluster: string, partitionCount: number): View => ({
  number: 0,
  cluster,
  generation: 0,
  nextAge: 1,
  roster: [],
  partitions: Array.from({ length: partitionCount }, (): Partition => ({
    owner: undefined,
    epoch: 0,
    state: "Unowned",
    sources: []
  }))
})

// ---- reading ---------------------------------------------------------------------------------------------------------------

export const find = (view: View, key: string): RosterEntry | undefined =>
  view.roster.find((entry) => nodeKey(entry) === key)

/** Is it a member that lives? Dead ones are listed only for what they left behind. */
export const isMember = (view: View, key: string): boolean => {
  const entry = find(view, key)
  return entry !== undefined && entry.status !== "Dead"
}

/** Oldest first. */
export const members = (view: View): ReadonlyArray<RosterEntry> =>
  view.roster.filter((entry) => entry.status !== "Dead").sort((a, b) => a.age - b.age)

export const up = (view: View): ReadonlyArray<RosterEntry> => members(view).filter((entry) => entry.status === "Up")

export const leader = (view: View): RosterEntry | undefined => up(view)[0]

/** A view replaces what is known only if it is newer, and of the same cluster. */
export const accepts = (current: View | undefined, next: View): boolean =>
  current === undefined || (next.cluster === current.cluster && next.number > current.number)

// ---- steps -----------------------------------------------------------------------------------------------------------------

const assign = (view: View, roster: ReadonlyArray<RosterEntry>, partitions: ReadonlyArray<Partition>): View => {
  const candidates = roster.filter((entry) => entry.status === "Up").map(nodeKey)
  const owners = Rendezvous.fill(partitions.map((partition) => partition.owner), candidates)
  return {
    ...view,
    number: view.number + 1,
    roster,
    partitions: partitions.map((partition, index) => {
      const owner = owners[index]
      if (partition.owner !== undefined || owner === undefined) return partition
      // A partition that nobody ever owned holds no names: there is nothing to collect.
      const fresh = partition.epoch === 0 && partition.sources.length === 0
      return { owner, epoch: partition.epoch + 1, state: fresh ? "Owned" : "Moving", sources: partition.sources }
    })
  }
}

/** The member is Up, takes the next age, and owns what nobody owned. */
export const join = (view: View, node: { readonly id: string; readonly incarnation: string }): View =>
  find(view, nodeKey(node)) !== undefined ? view : assign(
    { ...view, nextAge: view.nextAge + 1 },
    [...view.roster, { id: node.id, incarnation: node.incarnation, status: "Up", age: view.nextAge }],
    view.partitions
  )

/** The member takes nothing new from here on; it still owns what it owns. */
export const leaving = (view: View, key: string): View =>
  find(view, key)?.status !== "Up" ? view : {
    ...view,
    number: view.number + 1,
    roster: view.roster.map((entry) => nodeKey(entry) === key ? { ...entry, status: "Leaving" } : entry)
  }

const needed = (partitions: ReadonlyArray<Partition>): ReadonlySet<string> => {
  const keys = new Set<string>()
  for (const partition of partitions) {
    if (partition.owner !== undefined) keys.add(partition.owner)
    for (const source of partition.sources) keys.add(source.node)
  }
  return keys
}

const sweepRoster = (
  roster: ReadonlyArray<RosterEntry>,
  partitions: ReadonlyArray<Partition>
): ReadonlyArray<RosterEntry> => {
  const kept = needed(partitions)
  return roster.filter((entry) => entry.status !== "Dead" || kept.has(nodeKey(entry)))
}

/** Those members' leases are closed: their partitions go to others, who know from `sources` what to read. */
export const dead = (view: View, keys: ReadonlyArray<string>): View => {
  const gone = new Set(keys.filter((key) => isMember(view, key)))
  if (gone.size === 0) return view
  const roster = view.roster.map((entry): RosterEntry =>
    gone.has(nodeKey(entry)) ? { ...entry, status: "Dead" } : entry
  )
  const partitions = view.partitions.map((partition): Partition =>
    partition.owner === undefined || !gone.has(partition.owner) ? partition : {
      owner: undefined,
      epoch: partition.epoch,
      state: "Unowned",
      sources: [...partition.sources, { node: partition.owner, epoch: partition.epoch }]
    }
  )
  const assigned = assign(view, roster, partitions)
  return { ...assigned, roster: sweepRoster(assigned.roster, assigned.partitions) }
}

/** The owner's own step: it has stopped granting there, and the receiver asks it for its table. Batched by the caller. */
export const handOver = (
  view: View,
  key: string,
  moves: ReadonlyArray<{ readonly partition: number; readonly to: string; readonly epoch: number }>
): View => {
  const wanted = new Map(moves.map((move) => [move.partition, move]))
  let moved = false
  const partitions = view.partitions.map((partition, index): Partition => {
    const move = wanted.get(index)
    if (
      move === undefined || partition.owner !== key || partition.epoch !== move.epoch || partition.state !== "Owned" ||
      move.to === key || find(view, move.to)?.status !== "Up"
    ) return partition
    moved = true
    return {
      owner: move.to,
      epoch: partition.epoch + 1,
      state: "Moving",
      sources: [{ node: key, epoch: partition.epoch }]
    }
  })
  return moved ? { ...view, number: view.number + 1, partitions } : view
}

/** The owner has taken over all names there: what its predecessors left is needed no more. */
export const rebuilt = (
  view: View,
  key: string,
  done: ReadonlyArray<{ readonly partition: number; readonly epoch: number }>
): View => {
  const epochs = new Map(done.map((entry) => [entry.partition, entry.epoch]))
  let changed = false
  const partitions = view.partitions.map((partition, index): Partition => {
    if (partition.owner !== key || partition.state !== "Moving" || epochs.get(index) !== partition.epoch) {
      return partition
    }
    changed = true
    return { ...partition, state: "Owned", sources: [] }
  })
  return changed
    ? { ...view, number: view.number + 1, partitions, roster: sweepRoster(view.roster, partitions) }
    : view
}

/** What numbers leave out when a view is written again: nobody can have seen so many that the writer has not. */
const forgottenAtMost = 1_000

/** The view as the first one of the next generation, for a store that has lost it. */
export const reseeded = (view: View): View => ({
  ...view,
  number: view.number + forgottenAtMost,
  generation: view.generation + 1
})

// ---- codec: indexes into the roster instead of keys, so that 271 partitions fit in three kilobytes -------------------------------

const Encoded = Schema.fromJsonString(Schema.Struct({
  number: Schema.Int,
  cluster: Schema.String,
  generation: Schema.Int,
  nextAge: Schema.Int,
  roster: Schema.Array(Schema.Struct({
    id: Schema.String,
    incarnation: Schema.String,
    status: MemberStatus,
    age: Schema.Int
  })),
  /** owner (-1: none), epoch, state (0 owned, 1 moving, 2 unowned), then pairs of source and epoch */
  partitions: Schema.Array(Schema.Array(Schema.Int))
}))
const states: ReadonlyArray<PartitionState> = ["Owned", "Moving", "Unowned"]

export const encode = (view: View): string => {
  const index = new Map(view.roster.map((entry, position) => [nodeKey(entry), position]))
  return JSON.stringify({
    number: view.number,
    cluster: view.cluster,
    generation: view.generation,
    nextAge: view.nextAge,
    roster: view.roster,
    partitions: view.partitions.map((partition) => [
      partition.owner === undefined ? -1 : index.get(partition.owner) ?? -1,
      partition.epoch,
      states.indexOf(partition.state),
      ...partition.sources.flatMap((source) => [index.get(source.node) ?? -1, source.epoch])
    ])
  })
}

const decodeJson = Schema.decodeUnknownEffect(Encoded)

/** None where the text is no view: an operator's mistake or a foreign writer; the reader keeps what it has. */
export const decode = (text: string): Effect.Effect<Option.Option<View>> =>
  decodeJson(text).pipe(
    Effect.map((encoded): Option.Option<View> => {
      const keys = encoded.roster.map(nodeKey)
      const partitions: Array<Partition> = []
      for (const row of encoded.partitions) {
        const [owner = -1, epoch = 0, state = 2, ...rest] = row
        const sources: Array<Source> = []
        for (let at = 0; at + 1 < rest.length; at += 2) {
          const node = keys[rest[at]!]
          if (node === undefined) return Option.none()
          sources.push({ node, epoch: rest[at + 1]! })
        }
        const name = states[state]
        if (name === undefined || (owner >= 0 && keys[owner] === undefined)) return Option.none()
        partitions.push({ owner: keys[owner], epoch, state: name, sources })
      }
      return Option.some({
        number: encoded.number,
        cluster: encoded.cluster,
        generation: encoded.generation,
        nextAge: encoded.nextAge,
        roster: encoded.roster,
        partitions
      })
    }),
    Effect.orElseSucceed(() => Option.none<View>())
  )

// A small world for exhaustive search: one name, two owners one after the other, two hosts, and every order in which messages,
// writes, deaths and losses can come. The owner's decisions, the merge and the journal's replay are the real ones; hosts and wires
// are models of a few lines.
import type { SpawnSpec } from "../../src/Actor/Placement.ts"
import type { Placed } from "../../src/Cluster/internal/ClusterRpcs.ts"
import { type Change, replay } from "../../src/Cluster/internal/journalRecord.ts"
import { merge } from "../../src/Cluster/internal/merge.ts"
import * as Name from "../../src/Cluster/internal/name.ts"

type OwnerId = 0 | 1
type HostId = "h0" | "h1"
const hostIds: ReadonlyArray<HostId> = ["h0", "h1"]

type Message =
  /** being written; `applied`: it is in the journal, the owner does not know yet */
  | { t: "Write"; o: OwnerId; change: Change; applied: boolean }
  | { t: "Start"; o: OwnerId; placed: Placed; unknown: boolean; ghost: boolean }
  | { t: "Reply"; o: OwnerId; placed: Placed; ok: boolean; unknown: boolean }
  | { t: "Revoke"; o: OwnerId; placed: Placed; then: "Stopped" | "Refused" | "nothing" }
  /** an owner is yet to see that the host has departed */
  | { t: "Gone"; o: OwnerId; host: HostId }
  | { t: "FindHome"; o: OwnerId }
  /** an end that its host keeps telling until an owner has answered */
  | { t: "End"; host: HostId; placement: number; asked: boolean }

interface Host {
  alive: boolean
  floor: number
  taken: number
  runs: { placement: number; id: string } | null
}
interface Owner {
  alive: boolean
  serving: boolean
  name: Name.NameState | null
  counter: number
}
export interface State {
  owners: [Owner, Owner]
  hosts: Record<HostId, Host>
  journals: [Array<Change>, Array<Change>]
  sealed: boolean
  /** who has answered the second owner; null before the takeover began */
  reports: Partial<Record<HostId, { runs: Host["runs"]; ended: Array<number> }>> | null
  net: Array<Message>
  clients: { a: number; b: number; stop: number }
  acked: { a: boolean; b: boolean; stop: boolean }
  /** the actor ended by itself, or an acknowledged stop removed it */
  ended: boolean
  budget: {
    losses: number
    ghosts: number
    hostDeaths: number
    ownerDeaths: number
    ends: number
    failedWrites: number
  }
}

export interface Options {
  readonly spawnB: boolean
  readonly stop: boolean
  readonly losses: number
  readonly ghosts: number
  readonly hostDeaths: number
  readonly ownerDeaths: number
  readonly ends: number
  readonly failedWrites: number
  /** planted bugs, to see that the search sees */
  readonly bug?:
    | "noFloor"
    | "startBeforeCommit"
    | "elsewhereOnUnknown"
    | "noSeal"
    | "lateStart"
    | "stopBeforeRemoval"
    | "ignoreReports"
    | undefined
}

const spec = (id: string): SpawnSpec => ({ id, kind: "K", name: "n", props: null, relocatable: true })
const epochOf = (o: OwnerId) => o + 1
const address = (placed: Placed, o: OwnerId) => ({
  kind: "K",
  name: "n",
  node: { dataCenter: "", id: placed.host, incarnation: "", host: "", port: 0 },
  placement: placed.placement,
  epoch: epochOf(o)
})
const clone = (state: State): State => JSON.parse(JSON.stringify(state)) as State

export const initial = (options: Options): State => ({
  owners: [
    { alive: true, serving: true, name: null, counter: 0 },
    { alive: true, serving: false, name: null, counter: 0 }
  ],
  hosts: {
    h0: { alive: true, floor: 1, taken: -1, runs: null },
    h1: { alive: true, floor: 1, taken: -1, runs: null }
  },
  journals: [[], []],
  sealed: false,
  reports: null,
  net: [],
  clients: { a: 0, b: 0, stop: 0 },
  acked: { a: false, b: false, stop: false },
  ended: false,
  budget: {
    losses: options.losses,
    ghosts: options.ghosts,
    hostDeaths: options.hostDeaths,
    ownerDeaths: options.ownerDeaths,
    ends: options.ends,
    failedWrites: options.failedWrites
  }
})

const waiterA = 1
const waiterB = 2
const waiterStop = 3
const waiterEnd = 4

const dispatch = (state: State, o: OwnerId, event: Name.NameEvent, options: Options): void => {
  const owner = state.owners[o]
  if (!owner.alive || !owner.serving) return
  const [next, commands] = Name.step(owner.name ?? undefined, event, {
    nextPlacement: () => epochOf(o) * 100 + ++owner.counter,
    relocation: true
  })
  owner.name = next ?? null
  for (const command of commands) {
    switch (command._tag) {
      case "Commit": {
        const change: Change = { _tag: "Put", partition: 0, epoch: epochOf(o), placed: command.placed }
        state.net.push({ t: "Write", o, change, applied: false })
        if (options.bug === "startBeforeCommit") {
          state.net.push({ t: "Start", o, placed: command.placed, unknown: false, ghost: true })
        }
        break
      }
      case "CommitRemoval": {
        const change: Change = {
          _tag: "Removed",
          partition: 0,
          epoch: epochOf(o),
          name: "n",
          placement: command.placement
        }
        state.net.push({ t: "Write", o, change, applied: false })
        if (options.bug === "stopBeforeRemoval" && state.clients.stop > 0) state.acked.stop = true
        break
      }
      case "Start":
        state.net.push({ t: "Start", o, placed: command.placed, unknown: false, ghost: false })
        break
      case "Stop":
        state.net.push({ t: "Revoke", o, placed: command.placed, then: "Stopped" })
        break
      case "Revoke":
        break
      case "FindHome":
        if (!state.net.some((message) => message.t === "FindHome")) state.net.push({ t: "FindHome", o })
        break
      case "AnswerGrant":
        if (command.waiters.includes(waiterA)) state.acked.a = true
        if (command.waiters.includes(waiterB)) state.acked.b = true
        break
      case "AnswerStop":
        if (command.error !== undefined) break
        if (command.waiters.includes(waiterStop)) state.acked.stop = true
        if (command.waiters.includes(waiterEnd)) state.net = state.net.filter((message) => message.t !== "End")
        break
      case "RelocationFailed":
        // the shell tries on, sooner or later
        if (!state.net.some((message) => message.t === "FindHome")) state.net.push({ t: "FindHome", o })
        break
      default:
        break
    }
  }
}

/** the owner that clients and hosts would be routed to now */
const current = (state: State): OwnerId | undefined =>
  state.owners[0].alive ? 0 : state.owners[1].serving ? 1 : undefined

/** All states that one step can lead to; `fault` where the world, not the system, takes it. */
export const successors = (
  state: State,
  options: Options
): ReadonlyArray<{ label: string; fault: boolean; state: State }> => {
  const found: Array<{ label: string; fault: boolean; state: State }> = []
  const add = (label: string, fault: boolean, change: (next: State) => void) => {
    const next = clone(state)
    change(next)
    found.push({ label, fault, state: next })
  }
  const take = (next: State, index: number) => next.net.splice(index, 1)[0]!
  const o = current(state)

  if (o !== undefined && state.clients.a <= o && !state.acked.a && !state.acked.stop) {
    add(`client A asks owner ${o}`, false, (next) => {
      next.clients.a = o + 1
      dispatch(next, o, { _tag: "Grant", waiter: waiterA, spec: spec("A"), candidates: ["h0", "h1"] }, options)
    })
  }
  if (options.spawnB && o !== undefined && state.clients.b === 0) {
    add(`client B asks owner ${o}`, true, (next) => {
      next.clients.b = 1
      dispatch(next, o, { _tag: "Grant", waiter: waiterB, spec: spec("B"), candidates: ["h1", "h0"] }, options)
    })
  }
  if (options.stop && o !== undefined && state.acked.a && state.clients.stop <= o && !state.acked.stop) {
    add(`client asks owner ${o} to stop`, state.clients.stop === 0, (next) => {
      next.clients.stop = o + 1
      dispatch(next, o, { _tag: "StopAsked", waiter: waiterStop, placement: 10_000 }, options)
    })
  }

  state.net.forEach((message, index) => {
    switch (message.t) {
      case "Write": {
        const what = `${message.change._tag} of owner ${message.o}`
        if (message.applied) {
          add(`${what} is known`, false, (next) => {
            take(next, index)
            const { change } = message
            dispatch(
              next,
              message.o,
              change._tag === "Put"
                ? { _tag: "Committed", placement: change.placed.placement }
                : { _tag: "RemovalCommitted", placement: change.placement },
              options
            )
          })
          break
        }
        add(`${what} is applied`, false, (next) => {
          if (message.o === 0 && next.sealed) {
            take(next, index)
            return
          }
          next.journals[message.o].push(message.change)
          if (next.owners[message.o].alive) next.net[index] = { ...message, applied: true }
          else take(next, index)
        })
        if (state.budget.failedWrites > 0 && state.owners[message.o].alive) {
          add(`${what} is not applied`, true, (next) => {
            next.budget.failedWrites--
            take(next, index)
            const { change } = message
            dispatch(
              next,
              message.o,
              change._tag === "Put"
                ? {
                  _tag: "CommitFailed",
                  placement: change.placed.placement,
                  error: { _tag: "StoreUnavailable" } as never
                }
                : { _tag: "RemovalFailed", placement: change.placement, reason: "" },
              options
            )
          })
        }
        break
      }
      case "Start": {
        const { placed } = message
        const host = placed.host as HostId
        add(`start ${placed.placement} arrives at ${host}`, false, (next) => {
          take(next, index)
          const there = next.hosts[host]
          const reply = (ok: boolean) => {
            if (!message.ghost) next.net.push({ t: "Reply", o: message.o, placed, ok, unknown: message.unknown })
          }
          if (!there.alive) return reply(false)
          if (there.floor > epochOf(message.o) && options.bug !== "noFloor") return
          there.floor = Math.max(there.floor, epochOf(message.o))
          if (there.runs?.placement === placed.placement) return reply(true)
          if (placed.placement <= there.taken && options.bug !== "lateStart") return reply(false)
          there.taken = placed.placement
          there.runs = { placement: placed.placement, id: placed.spec.id }
          reply(true)
        })
        if (state.budget.ghosts > 0 && !message.ghost) {
          add(`start ${placed.placement} is late, and ordered again`, true, (next) => {
            next.budget.ghosts--
            next.net[index] = { ...message, ghost: true }
            if (next.owners[message.o].alive) {
              if (options.bug === "elsewhereOnUnknown") {
                next.net.push({ t: "Reply", o: message.o, placed, ok: false, unknown: false })
              } else next.net.push({ ...message, unknown: true })
            }
          })
        }
        break
      }
      case "Reply": {
        const { placed } = message
        add(`owner ${message.o} hears ${message.ok ? "started" : "refused"} ${placed.placement}`, false, (next) => {
          take(next, index)
          if (message.ok) {
            dispatch(next, message.o, {
              _tag: "Started",
              placement: placed.placement,
              address: address(placed, message.o)
            }, options)
          } else if (message.unknown && next.hosts[placed.host as HostId].alive) {
            next.net.push({ t: "Revoke", o: message.o, placed, then: "Refused" })
          } else refuse(next, message.o, placed, options)
        })
        if (state.budget.losses > 0) {
          add(`answer about ${placed.placement} is lost`, true, (next) => {
            next.budget.losses--
            take(next, index)
            if (!next.owners[message.o].alive) return
            if (options.bug === "elsewhereOnUnknown") refuse(next, message.o, placed, options)
            else next.net.push({ t: "Start", o: message.o, placed, unknown: true, ghost: false })
          })
        }
        break
      }
      case "Revoke": {
        const { placed } = message
        add(`revoke ${placed.placement} arrives`, false, (next) => {
          take(next, index)
          const there = next.hosts[placed.host as HostId]
          if (there.alive) {
            if (there.floor > epochOf(message.o)) return
            there.taken = Math.max(there.taken, placed.placement)
            if (there.runs !== null && there.runs.placement <= placed.placement) there.runs = null
          }
          if (message.then === "Stopped") {
            dispatch(next, message.o, { _tag: "Stopped", placement: placed.placement }, options)
          }
          if (message.then === "Refused") refuse(next, message.o, placed, options)
        })
        break
      }
      case "Gone":
        add(`owner ${message.o} sees that ${message.host} is gone`, false, (next) => {
          take(next, index)
          dispatch(next, message.o, { _tag: "HostGone", host: message.host }, options)
        })
        break
      case "FindHome": {
        const homes = hostIds.filter((host) => state.hosts[host].alive)
        homes.forEach((host) =>
          add(`owner ${message.o} offers ${host}`, false, (next) => {
            take(next, index)
            dispatch(next, message.o, { _tag: "Homes", candidates: [host] }, options)
          })
        )
        break
      }
      case "End":
        if (o === undefined || message.asked) break
        add(`the end of ${message.placement} is told to owner ${o}`, false, (next) => {
          next.net[index] = { ...message, asked: true }
          dispatch(
            next,
            o,
            { _tag: "Ended", waiter: waiterEnd, placement: message.placement, reason: "Stopped" },
            options
          )
        })
        break
    }
  })

  // ---- what the world does
  for (const host of hostIds) {
    const there = state.hosts[host]
    if (there.alive && state.budget.hostDeaths > 0) {
      add(`${host} dies`, true, (next) => {
        next.budget.hostDeaths--
        next.hosts[host].alive = false
        next.hosts[host].runs = null
        next.net = next.net.filter((message) => message.t !== "End" || message.host !== host)
        for (const owner of [0, 1] as const) {
          if (next.owners[owner].alive && next.owners[owner].serving) next.net.push({ t: "Gone", o: owner, host })
        }
      })
    }
    if (there.alive && there.runs !== null && state.budget.ends > 0) {
      add(`the actor on ${host} ends by itself`, true, (next) => {
        next.budget.ends--
        next.ended = true
        next.net.push({ t: "End", host, placement: there.runs!.placement, asked: false })
        next.hosts[host].runs = null
      })
    }
  }
  if (state.owners[0].alive && state.budget.ownerDeaths > 0) {
    add("owner 0 dies", true, (next) => {
      next.budget.ownerDeaths--
      next.owners[0].alive = false
      next.reports = {}
      // Orders and writes that are on their way still arrive; nothing is heard, and nothing is sent any more.
      next.net = next.net.flatMap((message): Array<Message> =>
        message.t === "Start"
          ? [{ ...message, ghost: true }]
          : message.t === "Write" && !message.applied
          ? [message]
          : message.t === "End"
          ? [{ ...message, asked: false }]
          : []
      )
    })
  }

  // ---- the second owner takes over
  if (state.reports !== null && !state.owners[1].serving) {
    if (!state.sealed && options.bug !== "noSeal") {
      add("the journal is sealed", false, (next) => {
        next.sealed = true
      })
    }
    for (const host of hostIds) {
      if (state.reports[host] !== undefined || !state.hosts[host].alive) continue
      add(`${host} reports`, false, (next) => {
        const there = next.hosts[host]
        there.floor = Math.max(there.floor, 2)
        next.reports![host] = {
          runs: there.runs,
          ended: next.net.flatMap((message) => message.t === "End" && message.host === host ? [message.placement] : [])
        }
      })
    }
    const answered = hostIds.every((host) => state.reports![host] !== undefined || !state.hosts[host].alive)
    if (answered && (state.sealed || options.bug === "noSeal")) {
      add("owner 1 serves", false, (next) => serve(next, options))
    }
  }
  return found
}

const refuse = (state: State, o: OwnerId, placed: Placed, options: Options) =>
  dispatch(state, o, {
    _tag: "Refused",
    placement: placed.placement,
    elsewhere: true,
    error: { _tag: "Refused" } as never
  }, options)

const serve = (state: State, options: Options) => {
  // Without a seal nothing says that the listing was complete: a replica may lag by one.
  const listed = options.bug === "noSeal" ? state.journals[0].slice(0, -1) : state.journals[0]
  const left = replay(listed, 0, 1)
  const reports = options.bug === "ignoreReports" ? [] : hostIds.flatMap((host) => {
    const report = state.reports![host]
    return report === undefined ? [] : [{ host, ...report }]
  })
  const merged = merge({
    placed: Array.from(left.placed.values()),
    removed: Array.from(left.removed, ([name, placement]) => ({ name, placement })),
    running: reports.flatMap(({ host, runs }) =>
      runs === null ? [] : [{ host, spec: spec(runs.id), placement: runs.placement, epoch: 1 }]
    ),
    ended: reports.flatMap(({ ended }) =>
      ended.map((placement) => ({ name: "n", placement, reason: "Stopped" as const }))
    )
  })
  for (const stray of merged.strays) {
    const there = state.hosts[stray.host as HostId]
    there.taken = Math.max(there.taken, stray.placement)
    if (there.runs !== null && there.runs.placement <= stray.placement) there.runs = null
  }
  const owner = state.owners[1]
  owner.serving = true
  for (const placed of [...merged.running, ...merged.homeless]) {
    const { first, host, placement, spec: what } = placed
    const entry: Placed = { spec: what, first, placement, host }
    state.journals[1].push({ _tag: "Put", partition: 0, epoch: 2, placed: entry })
    owner.name = { ...entry, _tag: "Running", address: address(entry, 1) }
    const lost = merged.homeless.some((one) => one.placement === placement) || !state.hosts[host as HostId].alive
    if (lost) dispatch(state, 1, { _tag: "HostGone", host }, options)
  }
}

// ---- what must hold

/** Why this state must never be, or undefined. */
export const violation = (state: State): string | undefined => {
  const running = hostIds.filter((host) => state.hosts[host].alive && state.hosts[host].runs !== null)
  if (running.length > 1) return "the name runs twice"
  if (state.acked.stop && running.some((host) => state.hosts[host].runs!.id === "A")) {
    return "A runs although its stop was acknowledged"
  }
  if (state.acked.a && state.acked.b && !state.ended && state.clients.stop === 0) return "two spawns of one name won"
  return undefined
}

/** Why a state in which nothing is left to do is wrong, or undefined. */
export const stuck = (state: State): string | undefined => {
  const running = hostIds.find((host) => state.hosts[host].alive && state.hosts[host].runs !== null)
  const anybody = hostIds.some((host) => state.hosts[host].alive)
  if (!anybody) return undefined
  if (state.acked.a && !state.ended && state.clients.stop === 0 && running === undefined) {
    return "an acknowledged spawn is lost"
  }
  const o = current(state)
  if (o === undefined) return undefined
  const { name } = state.owners[o]
  if (running === undefined && name !== null && name._tag !== "Removing") return `the name hangs in ${name._tag}`
  if (running !== undefined && name === null) return "an actor runs that its owner does not know"
  if (
    running !== undefined && name !== null && name._tag === "Running" &&
    name.placement !== state.hosts[running].runs!.placement
  ) return "the owner knows another placement than the one that runs"
  return undefined
}

export interface Result {
  readonly states: number
  readonly problem: { readonly what: string; readonly path: ReadonlyArray<string> } | undefined
  readonly complete: boolean
}

/** Every state that can be reached, depth first; stops at the first problem. */
export const explore = (options: Options, limit = 400_000): Result => {
  const seen = new Set<string>()
  const stack: Array<
    { readonly state: State; readonly path: { readonly label: string; readonly up: unknown } | undefined }
  > = [
    { state: initial(options), path: undefined }
  ]
  const pathOf = (path: unknown): ReadonlyArray<string> => {
    const labels: Array<string> = []
    let at = path as { readonly label: string; readonly up: unknown } | undefined
    while (at !== undefined) {
      labels.unshift(at.label)
      at = at.up as typeof at
    }
    return labels
  }
  while (stack.length > 0) {
    const { path, state } = stack.pop()!
    // Messages are a set: their order in the list means nothing.
    const key = JSON.stringify({ ...state, net: state.net.map((message) => JSON.stringify(message)).sort() })
    if (seen.has(key)) continue
    seen.add(key)
    if (seen.size > limit) return { states: seen.size, problem: undefined, complete: false }
    const wrong = violation(state)
    if (wrong !== undefined) return { states: seen.size, problem: { what: wrong, path: pathOf(path) }, complete: true }
    const next = successors(state, options)
    if (next.every((one) => one.fault)) {
      const end = stuck(state)
      if (end !== undefined) return { states: seen.size, problem: { what: end, path: pathOf(path) }, complete: true }
    }
    for (const one of next) stack.push({ state: one.state, path: { label: one.label, up: path } })
  }
  return { states: seen.size, problem: undefined, complete: true }
}

// A small world around the two pure cores of a lease: one owner, one observer that may close, a store that applies, loses,
// delays and doubts, a watch that lags or is lost, stale reads, and pauses of anybody for any time (an owner or observer that
// does nothing for a while *is* paused). `explore` walks through every order of events within the bounds.
import type { Entry, WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import * as Observer from "../../src/ControlPlane/internal/leaseObserver.ts"
import * as Owner from "../../src/ControlPlane/internal/leaseOwner.ts"
import { encodeLease, type LeaseRecord } from "../../src/ControlPlane/internal/leaseRecord.ts"

/** milliseconds of one step of time, of the lease, and how far the walk goes */
export const unit = 1_000
export const duration = 2_000
const key = "leases/a"

export interface Bounds {
  readonly steps: number
  readonly ownerWrites: number
  readonly closings: number
  readonly losses: number
  readonly staleReads: boolean
}

interface Version {
  readonly revision: number
  readonly record: LeaseRecord
}

interface Request {
  readonly by: "owner" | "closer"
  readonly expected: number
  readonly record: LeaseRecord
  /** does somebody still wait for the answer? */
  readonly awaited: boolean
}

type Waiting =
  | { readonly _tag: "Write"; readonly reply: "none" | "conflict" | number }
  | { readonly _tag: "Read" }
  | undefined

export interface World {
  readonly time: number
  readonly current: Version
  readonly previous: Version
  readonly requests: ReadonlyArray<Request>
  readonly owner: Owner.OwnerState
  readonly ownerWaits: Waiting
  readonly ownerWrites: number
  readonly observer: Observer.ObserverState
  readonly channel: ReadonlyArray<WatchEvent>
  readonly watching: boolean
  readonly losses: number
  readonly closings: number
}

/** The cores under test, so that planted bugs can take their place. */
export interface Cores {
  readonly owner: typeof Owner.step
  readonly observer: typeof Observer.step
  readonly decideClose: typeof Observer.decideClose
}
export const cores: Cores = { owner: Owner.step, observer: Observer.step, decideClose: Observer.decideClose }

const entryOf = (version: Version): Entry => ({
  key,
  value: encodeLease(version.record),
  revision: String(version.revision)
})
const instant = (world: World): Owner.Instant => ({ now: world.time * unit, wall: world.time * unit })

export const mayAct = (world: World): boolean => Owner.isValid(world.owner, instant(world))

/** The owner has just created its lease, and the observer has just seen it. */
export const start = (using: Cores): World => {
  const record: LeaseRecord = { state: "Held", counter: 1, duration, writer: "o", operation: 1 }
  const created = { revision: 1, record }
  let owner = Owner.initial("o", duration)
  owner = using.owner(owner, { _tag: "Renew", at: { now: 0, wall: 0 } })[0]
  owner = using.owner(owner, { _tag: "Written", revision: "1" })[0]
  const observer = using.observer(Observer.initial, { _tag: "Snapshot", entries: [entryOf(created)] }, 0)[0]
  return {
    time: 0,
    current: created,
    previous: created,
    requests: [],
    owner,
    ownerWaits: undefined,
    ownerWrites: 0,
    observer,
    channel: [],
    watching: true,
    losses: 0,
    closings: 0
  }
}

/** The owner hears something; what its core wants next happens to the world. */
const tellOwner = (world: World, event: Owner.OwnerEvent, using: Cores): World => {
  const [owner, commands] = using.owner(world.owner, event)
  let next: World = { ...world, owner, ownerWaits: undefined }
  for (const command of commands) {
    if (command._tag === "Read") next = { ...next, ownerWaits: { _tag: "Read" } }
    if (command._tag === "Again") next = tellOwner(next, { _tag: "Renew", at: instant(next) }, using)
    if (command._tag === "Write") {
      next = {
        ...next,
        ownerWrites: next.ownerWrites + 1,
        ownerWaits: { _tag: "Write", reply: "none" },
        requests: [...next.requests, {
          by: "owner",
          expected: Number(command.expected),
          record: command.record,
          awaited: true
        }]
      }
    }
  }
  return next
}

const applyRequest = (world: World, request: Request): World => {
  const requests = world.requests.filter((other) => other !== request)
  const applied = request.expected === world.current.revision
  const current = applied ? { revision: world.current.revision + 1, record: request.record } : world.current
  return {
    ...world,
    requests,
    current,
    previous: applied ? world.current : world.previous,
    channel: applied && world.watching
      ? [...world.channel, { _tag: "Put", entry: entryOf(current) }]
      : world.channel,
    ownerWaits: request.by === "owner" && request.awaited && world.ownerWaits?._tag === "Write"
      ? { _tag: "Write", reply: applied ? current.revision : "conflict" }
      : world.ownerWaits
  }
}

/** Everything that can happen next. */
export const successors = (world: World, bounds: Bounds, using: Cores): ReadonlyArray<World> => {
  const next: Array<World> = []
  const reads = bounds.staleReads ? [world.current, world.previous] : [world.current]

  // time passes for everybody
  if (world.time < bounds.steps) {
    next.push({
      ...world,
      time: world.time + 1,
      // the watch says that it is current, and that word may be heard much later
      channel: world.watching && world.channel.length < 2 ? [...world.channel, { _tag: "Current" }] : world.channel
    })
  }

  // the store takes a request, now or long after its sender gave up, or never
  for (const request of world.requests) {
    next.push(applyRequest(world, request))
    next.push({ ...world, requests: world.requests.filter((other) => other !== request) })
  }

  // the owner
  const waits = world.ownerWaits
  if (waits === undefined && world.owner.phase === "Held" && world.ownerWrites < bounds.ownerWrites) {
    next.push(tellOwner(world, { _tag: "Renew", at: instant(world) }, using))
  }
  if (waits?._tag === "Write") {
    next.push(tellOwner(
      { ...world, requests: world.requests.map((r) => r.by === "owner" ? { ...r, awaited: false } : r) },
      { _tag: "Unknown" },
      using
    ))
    if (waits.reply === "conflict") next.push(tellOwner(world, { _tag: "Conflict" }, using))
    if (typeof waits.reply === "number") {
      next.push(tellOwner(world, { _tag: "Written", revision: String(waits.reply) }, using))
    }
  }
  if (waits?._tag === "Read") {
    next.push(tellOwner(world, { _tag: "ReadFailed" }, using))
    for (const read of reads) {
      // what an "Again" sends must still fit the bound
      if (world.ownerWrites >= bounds.ownerWrites) continue
      next.push(tellOwner(world, {
        _tag: "Read",
        at: instant(world),
        revision: String(read.revision),
        record: read.record
      }, using))
    }
  }

  // the observer hears of something, loses its watch, gets it back, or tries to close
  const [event, ...rest] = world.channel
  if (event !== undefined) {
    next.push({ ...world, channel: rest, observer: using.observer(world.observer, event, world.time * unit)[0] })
  }
  if (world.watching && world.losses < bounds.losses) {
    next.push({
      ...world,
      watching: false,
      losses: world.losses + 1,
      channel: [],
      observer: using.observer(world.observer, { _tag: "Lost", reason: "" }, world.time * unit)[0]
    })
  }
  if (!world.watching) {
    next.push({
      ...world,
      watching: true,
      channel: [{ _tag: "Snapshot", entries: [entryOf(world.current)] }]
    })
  }
  if (world.closings < bounds.closings) {
    for (const read of reads) {
      const decision = using.decideClose(world.observer, key, entryOf(read), false)
      if (decision._tag !== "CloseAt") continue
      const record: LeaseRecord = {
        ...read.record,
        state: "Closed",
        writer: "c",
        operation: world.closings + 1,
        counter: read.record.counter + 1
      }
      next.push({
        ...world,
        closings: world.closings + 1,
        requests: [...world.requests, { by: "closer", expected: Number(decision.expected), record, awaited: false }]
      })
    }
  }
  return next
}

/** Two worlds with the same key behave alike. */
const keyOf = (world: World): string => {
  const seen = world.observer.leases.get(key)
  return JSON.stringify([
    world.time,
    world.current.revision,
    world.current.record.state,
    world.current.record.operation,
    world.previous.revision,
    world.requests.map((r) => [r.by, r.expected, r.record.operation, r.awaited]).sort(),
    [
      world.owner.phase,
      world.owner.revision,
      world.owner.operations,
      world.owner.validUntil,
      world.owner.inFlight?.sentAt
    ],
    world.owner.unsettled.map((attempt) => [attempt.operation, attempt.sentAt]),
    world.ownerWaits,
    world.ownerWrites,
    [seen?.revision, seen?.since, seen?.closed, world.observer.provenAt],
    world.channel.map((event) => event._tag === "Put" ? event.entry.revision : event._tag),
    world.watching,
    world.losses,
    world.closings
  ])
}

export interface Explored {
  readonly worlds: number
  readonly violation: World | undefined
}

/** Visits every reachable world once, until `isBad` says so of one. */
export const explore = (
  bounds: Bounds,
  isBad: (world: World) => boolean,
  using: Cores = cores,
  visit: (world: World) => void = () => {}
): Explored => {
  const first = start(using)
  const seen = new Set([keyOf(first)])
  const open = [first]
  let worlds = 0
  while (open.length > 0) {
    const world = open.pop()!
    worlds += 1
    visit(world)
    if (isBad(world)) return { worlds, violation: world }
    for (const next of successors(world, bounds, using)) {
      const name = keyOf(next)
      if (seen.has(name)) continue
      seen.add(name)
      open.push(next)
    }
  }
  return { worlds, violation: undefined }
}

// ---- what must come about once the environment is healthy

/** The owner tries to renew while the store answers at once: what becomes of it? */
export const healthyRenewals = (world: World, attempts: number, using: Cores = cores): World => {
  // what was under way is over: its requests are lost, or were never sent
  let next: World = { ...world, requests: [] }
  if (next.ownerWaits !== undefined) {
    next = tellOwner(next, next.ownerWaits._tag === "Write" ? { _tag: "Unknown" } : { _tag: "ReadFailed" }, using)
  }
  for (let attempt = 0; attempt < attempts && next.owner.phase === "Held"; attempt++) {
    if (next.ownerWaits === undefined) next = tellOwner(next, { _tag: "Renew", at: instant(next) }, using)
    for (let turn = 0; turn < 8 && next.ownerWaits !== undefined; turn++) {
      const waits: Waiting = next.ownerWaits
      if (waits._tag === "Read") {
        next = tellOwner(next, {
          _tag: "Read",
          at: instant(next),
          revision: String(next.current.revision),
          record: next.current.record
        }, using)
      } else if (waits.reply === "none") next = applyRequest(next, next.requests.at(-1)!)
      else if (waits.reply === "conflict") next = tellOwner(next, { _tag: "Conflict" }, using)
      else next = tellOwner(next, { _tag: "Written", revision: String(waits.reply) }, using)
    }
  }
  return next
}

/** The owner is gone for good and the watch is healthy: steps of time until the observer has closed its lease. */
export const stepsUntilClosed = (world: World, limit: number, using: Cores = cores): number | undefined => {
  let next: World = {
    ...world,
    requests: [],
    watching: true,
    channel: world.watching ? world.channel : [{ _tag: "Snapshot", entries: [entryOf(world.current)] }]
  }
  for (let steps = 0; steps <= limit; steps++) {
    for (const event of next.channel) {
      next = { ...next, observer: using.observer(next.observer, event, next.time * unit)[0] }
    }
    next = { ...next, channel: [] }
    if (using.decideClose(next.observer, key, entryOf(next.current), false)._tag !== "Alive") return steps
    next = { ...next, time: next.time + 1, channel: [{ _tag: "Current" }] }
  }
  return undefined
}

// A world of three nodes around the pure cores of leases. Two members, each with a lease of its own, compete for one piece of
// work and watch each other; a third node only watches and closes. The work is a register that changes by compare-and-set: a
// member may claim it while nobody has it, or once its holder's lease is closed. The store applies, delays and doubts; watches
// lag and are lost; anybody may stand still for any time, a machine may sleep, a member may die for good.
//
// `explore` walks through every order of events within the bounds. The two members are alike, so worlds that differ in their
// names alone count once.
import type { Entry } from "../../src/ControlPlane/ControlStore.ts"
import * as Observer from "../../src/ControlPlane/internal/leaseObserver.ts"
import * as Owner from "../../src/ControlPlane/internal/leaseOwner.ts"
import { encodeLease, leaseMargin, type LeaseRecord } from "../../src/ControlPlane/internal/leaseRecord.ts"

/** milliseconds of one step of time (more than the drift that an owner shrugs off, less than two proofs may lie apart) */
export const unit = 2_000
/** an owner may act for less than two steps, and after two a rival may close */
export const duration = 3_600
const expiry = duration + leaseMargin(duration)

export type Member = 0 | 1
const members = [0, 1] as const
const other = (member: Member): Member => member === 0 ? 1 : 0
const keys = ["leases/0", "leases/1"] as const

export interface Bounds {
  readonly steps: number
  /** in all, after the first of each member, which it begins with */
  readonly renewals: number
  /** begun by each of the two members, and by the third node */
  readonly closings: number
  readonly thirdCloses: number
  readonly claims: number
  /** watches that are lost, in all, and steps of time in which a watch stands still, in all */
  readonly gaps: number
  readonly stalls: number
  /** steps of time for which a machine sleeps, in all */
  readonly sleeps: number
  readonly deaths: 0 | 1
  /** may a member find that its rival's port refuses? */
  readonly refusals: boolean
  readonly staleReads: boolean
  /** may a watch prove itself current with a word from before changes that it has not told? */
  readonly lateWords: boolean
  /** may a claim of the work arrive later than at once? */
  readonly lateClaims: boolean
}

/** Two rivals that lapse, close each other and take over, without faults; walks add theirs. */
export const base: Bounds = {
  steps: 3,
  renewals: 2,
  closings: 1,
  thirdCloses: 1,
  claims: 1,
  gaps: 0,
  stalls: 0,
  sleeps: 0,
  deaths: 0,
  refusals: false,
  staleReads: false,
  lateWords: false,
  lateClaims: false
}

/** The cores and rules under test, so that planted bugs can take their place. */
export interface Rules {
  readonly owner: typeof Owner.step
  readonly isValid: typeof Owner.isValid
  readonly observer: typeof Observer.step
  readonly decideClose: typeof Observer.decideClose
  /** may the work be claimed from a holder whose lease looks like this? */
  readonly mayClaim: (holder: LeaseRecord, status: Observer.ObservedStatus) => boolean
  /** is this death certain, so that nobody needs to wait? */
  readonly isCertain: (dead: boolean, status: Observer.ObservedStatus) => boolean
  /** does a member's port refuse, as others see it? */
  readonly refuses: (dead: boolean) => boolean
  /** must a member renew its own lease before it acts on another's lapse? and on its refusal? */
  readonly renewsFirst: boolean
  readonly renewsFirstOnRefusal: boolean
}
export const rules: Rules = {
  owner: Owner.step,
  isValid: Owner.isValid,
  observer: Observer.step,
  decideClose: Observer.decideClose,
  mayClaim: (holder) => holder.state === "Closed",
  isCertain: (dead) => dead,
  refuses: (dead) => dead,
  renewsFirst: true,
  renewsFirstOnRefusal: true
}

interface Version {
  readonly revision: number
  readonly record: LeaseRecord
}

/** One node's watch of the leases of others. */
interface Watch {
  readonly core: Observer.ObserverState
  readonly lost: boolean
  /** by this watch's own proofs, without the core: since when each lease was seen unchanged and without a gap; -1: never */
  readonly unbroken: readonly [number, number]
  readonly heardAt: number
}

type Waiting = { readonly reply: "none" | "conflict" | number } | undefined

interface Node {
  readonly core: Owner.OwnerState
  readonly waits: Waiting
  readonly renewals: number
  /** steps of time that its machine slept through: its monotonic clock lags by so much */
  readonly slept: number
  readonly dead: boolean
  readonly watch: Watch
  /** has its rival's port refused? a fact that never reverts */
  readonly refused: boolean
  /** a renewal that was begun after the other was seen expired, or refusing: under way, or done */
  readonly confirms: "no" | "underway" | "done"
  /** was its own lease closed already when it first saw that? */
  readonly closedAtSight: boolean
  readonly closings: number
  readonly claims: number
  readonly granted: boolean
}

type Request =
  | {
    readonly kind: "renew"
    readonly by: Member
    readonly expected: number
    readonly record: LeaseRecord
    readonly awaited: boolean
  }
  | { readonly kind: "close"; readonly of: Member; readonly expected: number; readonly record: LeaseRecord }
  | { readonly kind: "claim"; readonly by: Member; readonly expected: number }

export interface World {
  readonly time: number
  readonly leases: readonly [Version, Version]
  readonly before: readonly [Version, Version]
  readonly work: { readonly revision: number; readonly holder: Member | undefined }
  readonly requests: ReadonlyArray<Request>
  readonly nodes: readonly [Node, Node]
  readonly third: { readonly watch: Watch; readonly closings: number }
  readonly gaps: number
  readonly stalls: number
  readonly sleeps: number
  readonly deaths: number
  /** a rule that was broken on the way here */
  readonly broken: string | undefined
}

const entryOf = (member: Member, version: Version): Entry => ({
  key: keys[member],
  value: encodeLease(version.record),
  revision: String(version.revision)
})
const instantOf = (world: World, node: Node): Owner.Instant => ({
  now: (world.time - node.slept) * unit,
  wall: world.time * unit
})
const with2 = <A>(pair: readonly [A, A], member: Member, value: A): readonly [A, A] =>
  member === 0 ? [value, pair[1]] : [pair[0], value]
const renewed = (world: World) => world.nodes[0].renewals + world.nodes[1].renewals
const change = (world: World, member: Member, part: Partial<Node>): World => ({
  ...world,
  nodes: with2(world.nodes, member, { ...world.nodes[member], ...part })
})

// ---- what must never be

const mayAct = (world: World, member: Member, using: Rules): boolean => {
  const node = world.nodes[member]
  return !node.dead && using.isValid(node.core, instantOf(world, node))
}
const isClosed = (world: World, member: Member) => world.leases[member].record.state === "Closed"

/** undefined: nothing is wrong */
export const violation = (world: World, using: Rules): string | undefined =>
  world.broken
    ?? (members.every((member) => world.nodes[member].granted && mayAct(world, member, using))
      ? "two holders of the work act at once"
      : members.some((member) => isClosed(world, member) && mayAct(world, member, using))
      ? "an owner acts while its lease is closed"
      : undefined)

// ---- watches

const seen = (watch: Watch, member: Member) => watch.core.leases.get(keys[member])?.revision

/** The watch hears of all that it watches up to now, and that nothing is missing; or, late, only the latter. */
const hear = (
  world: World,
  watch: Watch,
  of: ReadonlyArray<Member>,
  now: number,
  using: Rules,
  late: boolean
): Watch => {
  let { core } = watch
  let unbroken = watch.unbroken
  const paused = now - watch.heardAt > Observer.maxProofGap
  for (const member of of) {
    const version = world.leases[member]
    const news = seen(watch, member) !== String(version.revision)
    if (news && !late) core = using.observer(core, { _tag: "Put", entry: entryOf(member, version) }, now)[0]
    if (paused || (news && !late)) unbroken = with2(unbroken, member, now)
  }
  core = using.observer(core, { _tag: "Current" }, now)[0]
  return { core, lost: false, unbroken, heardAt: now }
}
const lose = (watch: Watch, now: number, using: Rules): Watch => ({
  ...watch,
  core: using.observer(watch.core, { _tag: "Lost", reason: "" }, now)[0],
  lost: true
})
const regain = (world: World, of: ReadonlyArray<Member>, now: number, using: Rules, watch: Watch): Watch => ({
  core: using.observer(
    watch.core,
    { _tag: "Snapshot", entries: of.map((member) => entryOf(member, world.leases[member])) },
    now
  )[0],
  lost: false,
  unbroken: [now, now],
  heardAt: now
})

// ---- the beginning: both have just taken their leases and seen each other's

export const start = (using: Rules): World => {
  const created = (member: Member): Version => ({
    revision: 1,
    record: { state: "Held", counter: 1, duration, writer: `n${member}`, operation: 1 }
  })
  const leases = [created(0), created(1)] as const
  const nothing: Watch = { core: Observer.initial, lost: false, unbroken: [0, 0], heardAt: 0 }
  const bare = { leases } as unknown as World
  const node = (member: Member): Node => {
    let core = Owner.initial(`n${member}`, duration)
    core = using.owner(core, { _tag: "Renew", at: { now: 0, wall: 0 } })[0]
    core = using.owner(core, { _tag: "Written", revision: "1" })[0]
    return {
      core,
      waits: undefined,
      renewals: 0,
      slept: 0,
      dead: false,
      watch: regain(bare, [other(member)], 0, using, nothing),
      refused: false,
      confirms: "no",
      closedAtSight: false,
      closings: 0,
      claims: 0,
      granted: false
    }
  }
  return {
    time: 0,
    leases,
    before: leases,
    work: { revision: 1, holder: undefined },
    requests: [],
    nodes: [node(0), node(1)],
    third: { watch: regain(bare, members, 0, using, nothing), closings: 0 },
    gaps: 0,
    stalls: 0,
    sleeps: 0,
    deaths: 0,
    broken: undefined
  }
}

// ---- what can happen

/** An owner hears something. A conflict is followed by a read at once, of what `read` says. */
const tellOwner = (world: World, member: Member, event: Owner.OwnerEvent, using: Rules, read: Version): World => {
  const node = world.nodes[member]
  const [core, commands] = using.owner(node.core, event)
  let next = change(world, member, { core, waits: undefined })
  for (const command of commands) {
    const at = instantOf(next, next.nodes[member])
    if (command._tag === "Read") {
      next = tellOwner(
        next,
        member,
        { _tag: "Read", at, revision: String(read.revision), record: read.record },
        using,
        read
      )
    } else if (command._tag === "Again") {
      next = tellOwner(next, member, { _tag: "Renew", at }, using, read)
    } else if (command._tag === "Write") {
      next = change(next, member, {
        renewals: next.nodes[member].renewals + 1,
        waits: { reply: "none" },
        confirms: node.refused || Observer.status(node.watch.core, keys[other(member)]) === "Expired"
          ? "underway"
          : "no"
      })
      next = {
        ...next,
        requests: [...next.requests, {
          kind: "renew",
          by: member,
          expected: Number(command.expected),
          record: command.record,
          awaited: true
        }]
      }
    } else if (command._tag === "Done" && next.nodes[member].confirms === "underway") {
      next = change(next, member, { confirms: "done" })
    }
  }
  return next
}

/** nobody waits for the answer of a member's renewal any more */
const forsake = (world: World, member: Member): World => ({
  ...world,
  requests: world.requests.map((request) =>
    request.kind === "renew" && request.by === member ? { ...request, awaited: false } : request
  )
})

/** Requests that can no longer win, because the key has moved on and revisions only rise, and that nobody waits for. */
const withoutHopeless = (world: World): World => {
  const requests = world.requests.filter((request) =>
    request.kind === "claim"
      ? request.expected === world.work.revision
      : request.kind === "close"
      ? request.expected === world.leases[request.of].revision
      : request.awaited || request.expected === world.leases[request.by].revision
  )
  return requests.length === world.requests.length ? world : { ...world, requests }
}

const apply = (world: World, request: Request): World => {
  const next = { ...world, requests: world.requests.filter((one) => one !== request) }
  if (request.kind === "claim") {
    if (request.expected !== world.work.revision) return next
    return change(
      { ...next, work: { revision: world.work.revision + 1, holder: request.by } },
      request.by,
      { granted: true }
    )
  }
  const member = request.kind === "renew" ? request.by : request.of
  const now = world.leases[member]
  const applied = request.expected === now.revision
  const answered = request.kind === "renew" && request.awaited && world.nodes[member].waits !== undefined
  const written: World = !applied ? next : {
    ...next,
    leases: with2(next.leases, member, { revision: now.revision + 1, record: request.record }),
    before: with2(next.before, member, now),
    broken: now.record.state === "Closed" && request.record.state !== "Closed"
      ? "a closed lease was revived"
      : next.broken
  }
  return answered ? change(written, member, { waits: { reply: applied ? now.revision + 1 : "conflict" } }) : written
}

/** A node closes another's lease: after a fresh read, if its watch says so. */
const closing = (
  world: World,
  by: "n0" | "n1" | "third",
  watch: Watch,
  of: Member,
  read: Version,
  now: number,
  operation: number,
  using: Rules
): World | undefined => {
  const { dead } = world.nodes[of]
  const certain = by === "third"
    ? using.isCertain(dead, Observer.status(watch.core, keys[of]))
    : world.nodes[other(of)].refused
  const decision = using.decideClose(watch.core, keys[of], entryOf(of, read), certain)
  if (decision._tag !== "CloseAt") return undefined
  const record: LeaseRecord = {
    ...read.record,
    state: "Closed",
    counter: read.record.counter + 1,
    writer: by === "third" ? "c2" : `c${by[1]}`,
    operation
  }
  // the core's count against the model's own
  const since = watch.unbroken[of]
  const waited = watch.lost || since < 0 ? 0 : Math.max(watch.heardAt, since) - since
  return {
    ...world,
    broken: !certain && waited < expiry
      ? "a lease was closed before it was watched for a whole one without a gap"
      : world.broken,
    requests: [...world.requests, { kind: "close", of, expected: Number(decision.expected), record }]
  }
}

/** one that is dead or knows that it is closed does nothing any more */
const isOver = (node: Node) => node.dead || node.core.phase === "Closed"

/** A member's watch has told something of the other's lease. */
const sight = (world: World, member: Member, watch: Watch): World => {
  const rival = other(member)
  if (world.nodes[member].refused) return change(world, member, { watch })
  const before = Observer.status(world.nodes[member].watch.core, keys[rival])
  const expired = Observer.status(watch.core, keys[rival]) === "Expired"
  return change(world, member, {
    watch,
    ...(expired && before !== "Expired" ? { closedAtSight: isClosed(world, member) } : {}),
    ...(expired ? {} : { confirms: "no", closedAtSight: false })
  })
}

/** What each of the three watches may do when a step of time has passed. */
const watches = (world: World, bounds: Bounds, using: Rules): ReadonlyArray<World> => {
  let all: ReadonlyArray<World> = [world]
  for (const member of members) {
    const node = world.nodes[member]
    if (isOver(node)) continue
    const rival = other(member)
    const { now } = instantOf(world, node)
    all = all.flatMap((one) => {
      const { watch } = one.nodes[member]
      const told = [sight(
        one,
        member,
        watch.lost ? regain(one, [rival], now, using, watch) : hear(one, watch, [rival], now, using, false)
      )]
      if (one.stalls < bounds.stalls) told.push({ ...one, stalls: one.stalls + 1 })
      if (watch.lost) return told
      if (bounds.lateWords) told.push(sight(one, member, hear(one, watch, [rival], now, using, true)))
      if (one.gaps < bounds.gaps) told.push({ ...sight(one, member, lose(watch, now, using)), gaps: one.gaps + 1 })
      return told
    })
  }
  const now = world.time * unit
  return all.flatMap((one) => {
    const { third } = one
    const with3 = (watch: Watch): World => ({ ...one, third: { ...third, watch } })
    const { lost } = third.watch
    const told = [with3(
      lost ? regain(one, members, now, using, third.watch) : hear(one, third.watch, members, now, using, false)
    )]
    if (third.closings === bounds.thirdCloses) return told
    if (one.stalls < bounds.stalls) told.push({ ...one, stalls: one.stalls + 1 })
    if (lost) return told
    if (one.gaps < bounds.gaps) told.push({ ...with3(lose(third.watch, now, using)), gaps: one.gaps + 1 })
    return told
  })
}

export const successors = (world: World, bounds: Bounds, using: Rules): ReadonlyArray<World> => {
  const next: Array<World> = []
  const readsOf = (member: Member) =>
    bounds.staleReads && world.before[member] !== world.leases[member]
      ? [world.leases[member], world.before[member]]
      : [world.leases[member]]

  // Time passes, for everybody or for all but a machine that sleeps; and each watch proves itself, or stands still, or is lost.
  if (world.time < bounds.steps) {
    const later = { ...world, time: world.time + 1 }
    const ticks = [later]
    if (world.sleeps < bounds.sleeps) {
      for (const member of members) {
        const slept = change(later, member, { slept: world.nodes[member].slept + 1 })
        ticks.push({ ...slept, sleeps: world.sleeps + 1 })
      }
    }
    for (const tick of ticks) for (const told of watches(tick, bounds, using)) next.push(told)
  }

  // the store takes a request, now or long after its sender gave up; one that is never taken is lost
  for (const request of world.requests) next.push(withoutHopeless(apply(world, request)))

  for (const member of members) {
    const node = world.nodes[member]
    if (isOver(node)) continue
    const rival = other(member)
    const at = instantOf(world, node)
    const current = world.leases[member]

    // its own lease
    if (node.waits === undefined && node.core.phase === "Held" && renewed(world) < bounds.renewals) {
      next.push(tellOwner(world, member, { _tag: "Renew", at }, using, current))
    }
    if (node.waits !== undefined) {
      next.push(withoutHopeless(tellOwner(forsake(world, member), member, { _tag: "Unknown" }, using, current)))
      const { reply } = node.waits
      if (typeof reply === "number") {
        next.push(tellOwner(world, member, { _tag: "Written", revision: String(reply) }, using, current))
      }
      // what the conflict makes it send must still fit the bound
      if (reply === "conflict" && renewed(world) < bounds.renewals) {
        for (const read of readsOf(member)) next.push(tellOwner(world, member, { _tag: "Conflict" }, using, read))
      }
    }

    // its watch tells of a change at once
    const news = seen(node.watch, rival) !== String(world.leases[rival].revision)
    if (news && !node.watch.lost) {
      next.push(sight(world, member, hear(world, node.watch, [rival], at.now, using, false)))
    }

    // it finds that the other's port refuses
    if (bounds.refusals && !node.refused && using.refuses(world.nodes[rival].dead)) {
      next.push(change(world, member, { refused: true, confirms: "no", closedAtSight: isClosed(world, member) }))
    }

    // the other's death: its own lease first, then the closing
    const renewsFirst = node.refused ? using.renewsFirstOnRefusal : using.renewsFirst
    if (node.closings < bounds.closings && (!renewsFirst || node.confirms === "done")) {
      for (const read of readsOf(rival)) {
        const begun = closing(world, `n${member}`, node.watch, rival, read, at.now, node.closings + 1, using)
        if (begun === undefined) continue
        next.push(change(
          { ...begun, broken: node.closedAtSight ? "a closed member closed another" : begun.broken },
          member,
          { closings: node.closings + 1, confirms: "no" }
        ))
      }
    }

    // the work
    const { holder, revision } = world.work
    if (!node.granted && node.claims < bounds.claims && mayAct(world, member, using)) {
      const free = holder === undefined || (holder === rival &&
        using.mayClaim(world.leases[rival].record, Observer.status(node.watch.core, keys[rival])))
      if (free) {
        const claim: Request = { kind: "claim", by: member, expected: revision }
        const sent = change(world, member, { claims: node.claims + 1 })
        next.push(bounds.lateClaims ? { ...sent, requests: [...sent.requests, claim] } : apply(sent, claim))
      }
    }

    // it dies for good
    if (world.deaths < bounds.deaths) next.push({ ...change(world, member, { dead: true }), deaths: world.deaths + 1 })
  }

  // the third node
  const { third } = world
  const now = world.time * unit
  if (third.closings < bounds.thirdCloses) {
    for (const member of members) {
      for (const read of readsOf(member)) {
        const begun = closing(world, "third", third.watch, member, read, now, third.closings + 1, using)
        if (begun !== undefined) next.push({ ...begun, third: { ...third, closings: third.closings + 1 } })
      }
    }
  }
  return next
}

// ---- worlds that are alike

const cached = <A extends object>(make: (part: A) => string) => {
  const known = new WeakMap<A, string>()
  return (part: A): string => {
    let text = known.get(part)
    if (text === undefined) known.set(part, text = make(part))
    return text
  }
}

/** `first`: the member whose view of the world this is; the other one is the rival. */
const watchKey = cached((watch: Watch) => {
  const of = (member: Member) => {
    const lease = watch.core.leases.get(keys[member])
    return lease === undefined ? "-" : `${lease.revision},${lease.since},${lease.closed},${watch.unbroken[member]}`
  }
  return `${watch.core.provenAt}|${watch.lost}|${watch.heardAt}|${of(0)}/${of(1)}`
})
const swappedWatchKey = cached((watch: Watch) => {
  const [head, leases] = [
    watchKey(watch).slice(0, watchKey(watch).lastIndexOf("|")),
    watchKey(watch).split("|").at(-1)!
  ]
  return `${head}|${leases.split("/").reverse().join("/")}`
})
const nodeKey = cached((node: Node) => {
  const { core, waits } = node
  return [
    core.phase[0],
    core.revision,
    core.operations,
    core.validUntil,
    core.offset,
    core.inFlight?.sentAt,
    core.unsettled.map((attempt) => `${attempt.operation}@${attempt.sentAt}`).join("+"),
    waits?.reply,
    node.renewals,
    node.slept,
    node.dead,
    node.refused,
    node.confirms[0],
    node.closedAtSight,
    node.closings,
    node.claims,
    node.granted
  ].join(",")
})
const nodeWatchKey = (node: Node, swapped: boolean) => swapped ? swappedWatchKey(node.watch) : watchKey(node.watch)
const versionKey = cached((version: Version) =>
  `${version.revision}${version.record.state[0]}${version.record.writer[0]}${version.record.operation}`
)

/** What can still come of a world, with `first` for the name of that member. What nobody will look at again is left out. */
const keyAs = (world: World, first: Member, bounds: Bounds): string => {
  const swapped = first === 1
  const second = other(first)
  const nameOf = (member: Member | undefined) => member === undefined ? "-" : member === first ? "a" : "b"
  const requests = world.requests.map((request) =>
    request.kind === "renew"
      ? `r${nameOf(request.by)}${request.expected}.${request.record.operation}${request.awaited}`
      : request.kind === "close"
      ? `c${nameOf(request.of)}${request.expected}`
      : `w${nameOf(request.by)}${request.expected}`
  ).sort().join(" ")
  const lease = (member: Member) =>
    versionKey(world.leases[member]) + (bounds.staleReads ? versionKey(world.before[member]) : "")
  const node = (member: Member) => {
    const one = world.nodes[member]
    return isOver(one)
      ? one.dead ? "dead" : "over"
      : one.closings === bounds.closings && (one.claims === bounds.claims || one.granted)
      ? nodeKey(one)
      : `${nodeKey(one)}~${nodeWatchKey(one, swapped)}`
  }
  const third = world.third.closings === bounds.thirdCloses
    ? ""
    : `${world.third.closings}~${swapped ? swappedWatchKey(world.third.watch) : watchKey(world.third.watch)}`
  return `${world.time};${lease(first)};${lease(second)};${world.work.revision}${
    nameOf(world.work.holder)
  };${requests};${node(first)};${node(second)};${third};${world.gaps}${world.stalls}${world.sleeps}${world.deaths}${
    world.broken ?? ""
  }`
}

const nameOf = (world: World, bounds: Bounds): string => {
  const [a, b] = [keyAs(world, 0, bounds), keyAs(world, 1, bounds)]
  return a < b ? a : b
}

export interface Explored {
  readonly worlds: number
  readonly steps: number
  readonly violation: string | undefined
}

/** Visits every reachable world once, until one is wrong or `visit` says `true`. */
export const explore = (
  bounds: Bounds,
  using: Rules = rules,
  visit: (world: World) => unknown = () => {}
): Explored => {
  const first = start(using)
  const known = new Set([nameOf(first, bounds)])
  const open = [first]
  let steps = 0
  let worlds = 0
  while (open.length > 0) {
    const world = open.pop()!
    worlds += 1
    if (visit(world) === true) break
    const wrong = violation(world, using)
    if (wrong !== undefined) return { worlds, steps, violation: wrong }
    for (const next of successors(world, bounds, using)) {
      steps += 1
      const name = nameOf(next, bounds)
      if (known.has(name)) continue
      known.add(name)
      open.push(next)
    }
  }
  return { worlds, steps, violation: undefined }
}

// ---- what must come about once one member is lost for good and all else is healthy

/** A member settles what is under way and renews, with a store that answers at once. */
const renewNow = (world: World, member: Member, using: Rules): World => {
  const current = () => next.leases[member]
  let next = world
  if (next.nodes[member].waits !== undefined) {
    next = tellOwner(forsake(next, member), member, { _tag: "Unknown" }, using, current())
  }
  next = tellOwner(next, member, { _tag: "Renew", at: instantOf(next, next.nodes[member]) }, using, current())
  for (let turn = 0; turn < 8 && next.nodes[member].waits !== undefined; turn++) {
    const sent = next.requests.find((request) => request.kind === "renew" && request.by === member && request.awaited)
    if (sent !== undefined) next = apply(next, sent)
    const reply = next.nodes[member].waits?.reply
    next = tellOwner(
      next,
      member,
      typeof reply === "number" ? { _tag: "Written", revision: String(reply) } : { _tag: "Conflict" },
      using,
      current()
    )
  }
  return next
}

export interface Noticed {
  /** steps of time until the lost member's lease was closed */
  readonly closed: number
  /** and until the other one had the work; undefined where that one's lease was closed before */
  readonly taken: number | undefined
}

/** `lost` never does anything again. Undefined: nobody noticed within the limit, or nobody took the work over. */
export const noticed = (world: World, lost: Member, limit: number, using: Rules = rules): Noticed | undefined => {
  const heir = other(lost)
  let next: World = { ...change(world, lost, { dead: true }), requests: [] }
  let closed: number | undefined
  for (let step = 0; step <= limit; step++) {
    const isAlive = () => !isOver(next.nodes[heir])
    if (isAlive()) next = renewNow(next, heir, using)
    if (isAlive()) {
      const { watch } = next.nodes[heir]
      const { now } = instantOf(next, next.nodes[heir])
      const told = watch.lost
        ? regain(next, [lost], now, using, watch)
        : hear(next, watch, [lost], now, using, false)
      next = change(next, heir, { watch: told, confirms: "done" })
    }
    const now = next.time * unit
    const { watch } = next.third
    const third = watch.lost ? regain(next, members, now, using, watch) : hear(next, watch, members, now, using, false)
    next = { ...next, third: { ...next.third, watch: third } }
    for (const by of ["heir", "third"] as const) {
      if (isClosed(next, lost) || (by === "heir" && !isAlive())) continue
      const begun = by === "third"
        ? closing(next, by, third, lost, next.leases[lost], now, 90 + step, { ...using, isCertain: () => false })
        : closing(
          next,
          `n${heir}`,
          next.nodes[heir].watch,
          lost,
          next.leases[lost],
          instantOf(next, next.nodes[heir]).now,
          80 + step,
          using
        )
      if (begun !== undefined) next = apply(begun, begun.requests.at(-1)!)
    }
    if (isClosed(next, lost)) closed ??= step
    if (closed !== undefined) {
      if (!isAlive()) return { closed, taken: undefined }
      const { holder, revision } = next.work
      if (holder === heir) return { closed, taken: step }
      if (mayAct(next, heir, using) && (holder === undefined || using.mayClaim(next.leases[lost].record, "Closed"))) {
        next = apply(next, { kind: "claim", by: heir, expected: revision })
        return { closed, taken: step }
      }
    }
    next = { ...next, time: next.time + 1 }
  }
  return undefined
}

// Seeded histories of faults and work on one cluster. Each run prints its seed and its steps when an invariant breaks; a seed that
// ever broke one stays in the list. TROUPE_CHAOS_SEEDS=from-to runs others.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random, References } from "effect"
import { TestClock } from "effect/testing"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { drive, makeWorld, type Member } from "./world.ts"

const random = (seed: number) => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  return { next, below: (n: number) => Math.floor(next() * n) }
}

type Fate = { readonly id: string; acknowledged: boolean; stopped: "no" | "asked" | "acknowledged" }

const run = Effect.fnUntraced(function*(seed: number) {
  const rng = random(seed)
  const log: Array<string> = []
  const world = yield* makeWorld(`chaos-${seed}`)
  const ids = ["a", "b", "c", "d"]
  const live = new Map<string, Member>()
  const all: Array<Member> = []
  const violations: Array<string> = []
  /** by name: the last spawn that was tried under it, and what is known of it */
  const fates = new Map<string, Fate>()
  const highest = new Map<string, number>()
  const startedAt = new Map<string, Map<string, number>>()
  let now = 0
  let spawns = 0
  const pending: Array<Fiber.Fiber<unknown, unknown>> = []

  if (seed % 2 === 0) {
    // A rough world: one write in twelve whose outcome nobody hears, reads that lag, watches that miss, answers that are lost.
    log.push("rough")
    for (const id of ids) {
      world.faults.set(id, {
        write: () => {
          const fate = rng.below(24)
          return fate === 0 ? "UnknownApplied" : fate === 1 ? "UnknownNotApplied" : "Normal"
        },
        staleBy: () => rng.below(6) === 0 ? 1 + rng.below(3) : 0,
        watch: () => rng.below(20) === 0 ? "Miss" : rng.below(20) === 0 ? "Twice" : "Deliver",
        delay: () => ({ request: rng.below(30), reply: rng.below(30) })
      })
    }
    world.net.before = (_from, to) => {
      const fate = rng.below(30)
      return fate === 0
        ? Effect.fail(new NodeUnreachable({ node: to, outcome: "Unknown", reason: "lost on the way" }))
        : Effect.sleep(rng.below(20))
    }
    world.net.late = (tag) => tag !== "Ping" && tag !== "KnownView" && rng.below(20) === 0 ? 500 + rng.below(20_000) : 0
    world.net.after = (_from, to) =>
      rng.below(30) === 0
        ? Effect.fail(new NodeUnreachable({ node: to, outcome: "Unknown", reason: "the answer was lost" }))
        : Effect.sleep(rng.below(20))
  }
  // in some histories they know for certain of each other that nobody listens any more, and close at once
  const machine = seed % 3 === 0 ? undefined : `m-${seed % 3}`
  const start = (id: string) => world.start(id, { machine: seed % 3 === 2 && id === "d" ? "another" : machine })
  for (const id of ids.slice(0, 3)) {
    const member = yield* drive(start(id))
    live.set(id, member)
    all.push(member)
  }
  yield* TestClock.adjust("5 seconds")

  const isHeld = (member: Member) => member.events.findLast((event) => event._tag === "WorkHeld")?.held === true
  const duplicates = new Map<string, number>()
  const told = new Set<string>()
  const starting = new Set<string>()
  const look = () => {
    const owners = new Map<string, Array<Member>>()
    for (const member of live.values()) {
      for (const { address } of member.host.actors()) {
        owners.set(address.name, [...(owners.get(address.name) ?? []), member])
        const mine = startedAt.get(member.address.incarnation) ?? new Map<string, number>()
        startedAt.set(member.address.incarnation, mine)
        if (mine.get(address.name) === address.placement) continue
        mine.set(address.name, address.placement)
        const before = highest.get(address.name) ?? -1
        if (address.placement <= before) {
          violations.push(`${now}: ${address.name} started with placement ${address.placement} after ${before}`)
        }
        highest.set(address.name, Math.max(before, address.placement))
      }
    }
    for (const [name, members] of owners) {
      const exclusive = members.filter((member) => member.cluster.mayAct())
      if (exclusive.length > 1) {
        violations.push(
          `${now}: ${name} acts with a valid lease on ${exclusive.map((member) => member.id).join(" and ")}`
        )
      }
      // Whoever took over tells those that it declared dead, where it reaches them. (That a majority which is cut from the store
      // *and* from a newcomer that is not rides on beside it is what rule 7 leaves open.)
      const acting = members.filter((member) =>
        !isHeld(member) && members.some((other) => other !== member && !isHeld(other) && world.isLinked(member, other))
      )
      if (acting.length > 1) {
        // Allowed for a member cut from the store alone, until the next ping tells it.
        const since = duplicates.get(name) ?? now
        duplicates.set(name, since)
        if (now - since > 4_000 && !told.has(name)) {
          told.add(name)
          violations.push(`${now}: ${name} acts on ${acting.map((member) => member.id).join(" and ")} since ${since}`)
        }
      } else duplicates.delete(name)
      const fate = fates.get(name)
      if (fate?.stopped === "acknowledged" && exclusive.length > 0 && !told.has(`${name} stopped`)) {
        told.add(`${name} stopped`)
        violations.push(`${now}: ${name} runs on ${exclusive[0]!.id} although its stop was acknowledged`)
      }
    }
    for (const name of duplicates.keys()) if (!owners.has(name)) duplicates.delete(name)
  }
  const advance = (millis: number) =>
    Effect.gen(function*() {
      for (let at = 0; at < millis; at += 100) {
        yield* TestClock.adjust("100 millis")
        now += 100
        look()
      }
    })
  const pick = () => Array.from(live.values())[rng.below(live.size)]

  const spawn = (name: string, member: Member) => {
    const id = `spawn-${++spawns}`
    const known = fates.get(name)
    if (known !== undefined && known.stopped !== "acknowledged") return
    const fate: Fate = { id, acknowledged: false, stopped: "no" }
    fates.set(name, fate)
    log.push(`${now}: spawn ${name} from ${member.id}`)
    return member.placement.spawn(
      { id, kind: "Counter", name, props: { from: 0 }, relocatable: true },
      { strategy: rng.below(2) === 0 ? "roundRobin" : "random" }
    ).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          fate.acknowledged = true
        })
      ),
      Effect.ignore
    )
  }
  const stop = (name: string, member: Member) => {
    const fate = fates.get(name)
    if (fate === undefined || !fate.acknowledged || fate.stopped !== "no") return
    fate.stopped = "asked"
    log.push(`${now}: stop ${name} from ${member.id}`)
    return member.placement.lookup("Counter", name, {}).pipe(
      Effect.flatMap((address) => member.placement.stop(address)),
      Effect.tap(() =>
        Effect.sync(() => {
          fate.stopped = "acknowledged"
        })
      ),
      Effect.ignore
    )
  }
  const cutAll = (member: Member) =>
    Effect.forEach(Array.from(live.values()), (other) => other === member ? Effect.void : world.cut(member, other))

  for (let step = 0; step < 40; step++) {
    const member = pick()
    const name = `n-${rng.below(12)}`
    const dice = rng.below(20)
    if (member !== undefined) {
      const work = dice < 9 ? spawn(name, member) : dice < 12 ? stop(name, member) : undefined
      if (work !== undefined) pending.push(yield* Effect.forkChild(work, { startImmediately: true }))
      else if (dice === 12 && live.size > 1) {
        log.push(`${now}: crash ${member.id}`)
        live.delete(member.id)
        yield* member.crash
      } else if (dice === 13 && live.size > 1) {
        log.push(`${now}: leave ${member.id}`)
        live.delete(member.id)
        // it still acts while it leaves
        all.push(member)
        pending.push(yield* Effect.forkChild(member.leave, { startImmediately: true }))
      } else if (dice === 14) {
        log.push(`${now}: cut ${member.id} from all`)
        yield* cutAll(member)
        yield* world.cutStore(member)
      } else if (dice === 15) {
        log.push(`${now}: cut ${member.id} from the store`)
        yield* world.cutStore(member)
      } else if (dice === 16) {
        const other = pick()!
        log.push(`${now}: cut ${member.id} from ${other.id}`)
        if (other !== member) yield* world.cut(member, other)
      } else if (dice === 17) {
        log.push(`${now}: cut everybody from the store`)
        yield* world.cutStore(...live.values())
      } else if (dice === 18) {
        log.push(`${now}: heal`)
        yield* world.heal
      }
    }
    // A member that was fenced is restarted by whoever watches processes.
    for (const [id, other] of live) {
      if (other.events.some((event) => event._tag === "MemberFenced")) {
        log.push(`${now}: ${id} was fenced, restarts`)
        live.delete(id)
        yield* other.crash
      }
    }
    const missing = ids.find((id) => !live.has(id) && !starting.has(id))
    if (missing !== undefined && rng.below(4) === 0) {
      log.push(`${now}: start ${missing}`)
      yield* world.healStore({ id: missing } as Member)
      starting.add(missing)
      const fiber = yield* Effect.forkChild(
        Effect.ensuring(Effect.result(start(missing)), Effect.sync(() => starting.delete(missing))),
        { startImmediately: true }
      )
      yield* advance(1_000)
      const result = fiber.pollUnsafe()
      if (result?._tag === "Success" && result.value._tag === "Success") {
        live.set(missing, result.value.success)
        all.push(result.value.success)
      } else {
        pending.push(
          yield* Effect.forkChild(
            Fiber.join(fiber).pipe(Effect.tap((late) =>
              Effect.sync(() => {
                if (late._tag === "Success") {
                  live.set(missing, late.success)
                  all.push(late.success)
                }
              })
            )),
            { startImmediately: true }
          )
        )
      }
    }
    yield* advance(200 + rng.below(4_000))
  }
  log.push(`${now}: heal, and settle`)
  yield* world.heal
  for (const round of [0, 1]) {
    yield* advance(30_000)
    for (const [id, other] of live) {
      if (round === 0 && other.events.some((event) => event._tag === "MemberFenced")) {
        live.delete(id)
        yield* other.crash
      }
    }
    if (live.size === 0) live.set("a", yield* drive(start("a")))
  }
  yield* advance(20_000)
  for (const fiber of pending) yield* Fiber.interrupt(fiber)

  for (const [name, fate] of fates) {
    const owners = Array.from(live.values()).filter((member) => member.host.find(name) !== undefined)
    if (owners.length > 1) violations.push(`end: ${name} runs on ${owners.map((member) => member.id).join(" and ")}`)
    if (fate.acknowledged && fate.stopped === "no" && owners.length === 0) {
      const answers = yield* Effect.forEach(
        live.values(),
        (member) => drive(Effect.result(member.placement.lookup("Counter", name, {})))
      )
      const written = world.backend.entries().filter((entry) => entry.value.includes(`"${name}"`)).map((entry) =>
        `${entry.key} ${entry.value}`
      )
      const told = all.flatMap((member) =>
        member.events.filter((event) => JSON.stringify(event).includes(`"${name}"`)).map((event) =>
          `${member.id}@${member.address.incarnation} ${JSON.stringify(event)}`
        )
      )
      violations.push(`end: ${name} is lost: ${JSON.stringify({ answers, written, told }, undefined, 1)}`)
    }
  }
  const views = yield* Effect.forEach(live.values(), (member) => member.cluster.view)
  for (const view of views) {
    if (view.number !== views[0]!.number) violations.push(`end: views differ: ${views.map((one) => one.number)}`)
    if (view.members.length !== live.size) {
      violations.push(`end: ${view.members.map((member) => member.node.id)} are members, ${[...live.keys()]} live`)
    }
  }
  const text = world.backend.entries().find((entry) => entry.key.endsWith("/state/view"))!.value
  const partitions = (JSON.parse(text) as { partitions: ReadonlyArray<ReadonlyArray<number>> }).partitions
  if (!partitions.every((partition) => partition[2] === 0)) violations.push("end: not all partitions are owned")
  return { violations, log, spawns }
})

/** 12: nobody told a majority that was cut from the store of its end; 1040: tables were taken over one by one, too slowly;
 * 2054: a replica that had not heard of a lease yet ended its owner */
const kept: ReadonlyArray<number> = [...Array.from({ length: 8 }, (_, index) => index + 1), 12, 1040, 2054]
const wanted = (): ReadonlyArray<number> => {
  const range = process.env["TROUPE_CHAOS_SEEDS"]?.split("-").map(Number)
  return range === undefined
    ? kept
    : Array.from({ length: range[1]! - range[0]! + 1 }, (_, index) => range[0]! + index)
}

describe("Chaos", () => {
  for (const seed of wanted()) {
    it.effect(
      `seed ${seed}: names stay unique, acknowledged spawns are not lost, stopped names stay stopped`,
      () =>
        Effect.gen(function*() {
          const { log, violations } = yield* run(seed)
          assert.deepStrictEqual(violations, [], log.join("\n"))
        }).pipe(Random.withSeed(`chaos-${seed}`), Effect.provideService(References.MinimumLogLevel, "None")),
      120_000
    )
  }
})

/**
 * A campaign: one seed is one world of two datacenters with clients that spawn, ask and stop while nodes crash and links break.
 * Safety is watched all the time by the world's monitors. At the end faults stop, and liveness is asked for: every name whose
 * spawn was acknowledged and whose stop was not asked for answers with its own opening balance.
 */
import { Effect, Exit, Random } from "effect"
import { TestClock } from "effect/testing"
import { Simulation } from "effect-troupe/testing"
import { Account, AccountLive } from "../../examples/usage/account.ts"

export interface Options {
  readonly seed: number
  /** steps of one virtual second on average */
  readonly steps: number
  readonly dataCenters: Readonly<Record<string, Simulation.DataCenterOptions>>
  /** no firewall answers for anybody in this world, and its nodes know; else some do */
  readonly refusalIsDeath?: boolean | undefined
}

/** What a client knows of a name. `Perhaps`: the spawn or the stop ended with an error whose outcome may be unknown. */
type Knowledge = "Acknowledged" | "Perhaps" | "Stopped"

export interface Report {
  readonly options: Options
  readonly hash: string
  readonly violations: ReadonlyArray<Simulation.Violation>
  /** acknowledged names that do not answer, with what was found instead */
  readonly lost: ReadonlyArray<string>
  /** stopped names that answer */
  readonly risen: ReadonlyArray<string>
  /** how often each kind of step was taken: a campaign that never reached a state proves nothing about it */
  readonly steps: Readonly<Record<string, number>>
}

export const run = (options: Options) =>
  Effect.scoped(Effect.gen(function*() {
    const random = yield* Random.Random.pipe(Random.withSeed(`campaign/${options.seed}`))
    const draw = (below: number) => Math.floor(random.nextDoubleUnsafe() * below)
    const pick = <A>(items: ReadonlyArray<A>) => items[draw(items.length)]!
    const world = yield* Simulation.make({
      seed: options.seed,
      kinds: AccountLive,
      dataCenters: options.dataCenters,
      cluster: { refusalIsDeath: options.refusalIsDeath }
    })
    yield* world.awaitReady

    const names = new Map<string, { knowledge: Knowledge; readonly opening: number; readonly dataCenter: string }>()
    const steps: Record<string, number> = {}
    const count = (step: string) => {
      steps[step] = (steps[step] ?? 0) + 1
    }
    const dataCenters = Object.keys(options.dataCenters)
    const up = () => world.nodes.filter((node) => node.isUp)
    let cut = false
    let spawned = 0

    const spawn = Effect.gen(function*() {
      const from = pick(up())
      const dataCenter = pick(dataCenters)
      const name = `a-${spawned++}`
      const entry = { knowledge: "Perhaps" as Knowledge, opening: draw(1000), dataCenter }
      names.set(name, entry)
      const exit = yield* Effect.exit(world.run(from.system.spawnOn(Account, name, {
        props: { opening: entry.opening },
        ...(dataCenter === from.dataCenter ? {} : { dataCenter })
      })))
      if (Exit.isSuccess(exit)) entry.knowledge = "Acknowledged"
      count(Exit.isSuccess(exit) ? "spawned" : "spawn refused")
    })
    const race = Effect.gen(function*() {
      const name = `r-${spawned++}`
      const dataCenter = pick(dataCenters)
      const rivals = up().filter((node) => node.dataCenter === dataCenter)
      if (rivals.length < 2) return
      const exits = yield* world.run(Effect.forEach(
        rivals,
        (node) => Effect.exit(node.system.spawn(Account, name, { props: { opening: 1 } })),
        { concurrency: "unbounded" }
      ))
      const winners = exits.filter(Exit.isSuccess).length
      names.set(name, { knowledge: winners > 0 ? "Acknowledged" : "Perhaps", opening: 1, dataCenter })
      if (winners > 1) steps["names granted twice"] = (steps["names granted twice"] ?? 0) + 1
      count("raced")
    })
    const ask = Effect.gen(function*() {
      if (names.size === 0) return
      const [name, entry] = pick([...names])
      const from = pick(up())
      const exit = yield* Effect.exit(world.run(
        Effect.flatMap(
          from.system.actorOf(
            Account,
            name,
            entry.dataCenter === from.dataCenter ? {} : { dataCenter: entry.dataCenter }
          ),
          (account) => account.ask.Balance()
        )
      ))
      count(Exit.isSuccess(exit) ? "asked" : "ask failed")
    })
    const stop = Effect.gen(function*() {
      const known = [...names].filter(([, entry]) => entry.knowledge === "Acknowledged")
      if (known.length === 0) return
      const [name, entry] = pick(known)
      const from = pick(up())
      entry.knowledge = "Perhaps"
      const exit = yield* Effect.exit(world.run(
        Effect.flatMap(
          from.system.actorOf(
            Account,
            name,
            entry.dataCenter === from.dataCenter ? {} : { dataCenter: entry.dataCenter }
          ),
          (account) => from.system.stop(account)
        )
      ))
      if (Exit.isSuccess(exit)) entry.knowledge = "Stopped"
      count(Exit.isSuccess(exit) ? "stopped" : "stop failed")
    })
    /** never the last one of a datacenter: what nobody holds in memory or store is not promised */
    const crash = Effect.gen(function*() {
      const candidates = up().filter((node) => up().filter((other) => other.dataCenter === node.dataCenter).length > 1)
      if (candidates.length === 0) return
      yield* pick(candidates).crash
      count("crashed")
    })
    const leave = Effect.gen(function*() {
      const candidates = up().filter((node) => up().filter((other) => other.dataCenter === node.dataCenter).length > 1)
      if (candidates.length === 0) return
      yield* world.run(pick(candidates).leave)
      count("left")
    })
    const restart = Effect.gen(function*() {
      const down = world.nodes.filter((node) => !node.isUp)
      if (down.length === 0) return
      yield* pick(down).restart
      count("restarted")
    })
    const partition = Effect.gen(function*() {
      if (cut) {
        yield* world.heal
        cut = false
        count("healed")
        return
      }
      const places = [
        ...up().map((node) => node.id),
        ...dataCenters.map((name) => `store:${name}`),
        Simulation.globalControlPlane
      ]
      const lonely = pick([...places, ...dataCenters])
      yield* world.partition([lonely], places.filter((place) => place !== lonely))
      cut = true
      count("cut")
    })

    const reject = Effect.gen(function*() {
      const one = pick(up())
      const others = up().filter((node) => node !== one && node.dataCenter === one.dataCenter)
      if (others.length === 0) return
      yield* world.reject(one.id, pick(others).id)
      cut = true
      count("rejected")
    })

    const menu = [
      ...Array.from({ length: 8 }, () => spawn),
      ...Array.from({ length: 2 }, () => race),
      ...Array.from({ length: 6 }, () => ask),
      ...Array.from({ length: 2 }, () => stop),
      crash,
      leave,
      restart,
      restart,
      partition,
      partition,
      ...(options.refusalIsDeath === true ? [] : [reject])
    ]
    for (let step = 0; step < options.steps; step++) {
      yield* TestClock.adjust(draw(2000))
      if (up().length > 0) yield* pick(menu)
    }

    // Faults stop; the world has time to come to rest. Nodes that are down are started, and once more those that learn only now
    // that they were fenced, as a supervisor of processes would.
    yield* world.heal
    for (let round = 0; round < 2; round++) {
      for (const node of world.nodes) yield* node.restart
      yield* TestClock.adjust("1 minute")
    }
    yield* world.awaitReady

    const lost: Array<string> = []
    const risen: Array<string> = []
    for (const [name, entry] of names) {
      const from = world.nodes.find((node) => node.dataCenter === entry.dataCenter)!
      const exit = yield* Effect.exit(world.run(
        Effect.flatMap(from.system.actorOf(Account, name), (account) => account.ask.Balance())
      ))
      const answered = Exit.isSuccess(exit)
      if (entry.knowledge === "Acknowledged" && (!answered || exit.value !== entry.opening)) {
        lost.push(`${name} in ${entry.dataCenter}: ${answered ? `balance ${exit.value}` : String(exit.cause)}`)
      }
      if (entry.knowledge === "Stopped" && answered) risen.push(name)
    }
    // A crash that was noticed before any lease can have lapsed.
    for (const { at, event, where } of world.trace) {
      const soon = event._tag === "NodeCrashed" && world.trace.some((later) =>
        later.event._tag === "MemberLeft" && later.event.member.node.id === where && later.at >= at &&
        later.at - at < 6_000
      )
      if (soon) count("closed at once")
    }
    const report: Report = {
      options,
      hash: world.traceHash,
      violations: world.violations,
      lost,
      risen,
      steps
    }
    return report
  }))

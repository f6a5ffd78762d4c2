/**
 * Actors by the hundred thousand: what one costs to start and to keep idle, and then a message to each. One side and one round
 * a process, so that no side pays for another's heap.
 */
import { Effect } from "effect"
import { asked, cpuPer, cpuTime, heapUsed, report, since } from "../harness.ts"
import { Arrivals } from "../peers/crowd.ts"

export interface Spawned {
  /** CPU nanoseconds to start one */
  readonly start: number
  /** bytes of heap that an idle one holds */
  readonly bytes: number
  /** CPU nanoseconds of a message to each, where measured */
  readonly tell?: number | undefined
}

const { count, side } = asked<{ side: "troupe" | "queue" | "nact" | "entity"; count: number }>()
const warm = Math.min(count, 20_000)

/** `spawn` starts that many and gives what holds them. */
const measure = async <A>(spawn: (count: number) => Promise<A>): Promise<readonly [Spawned, A]> => {
  await spawn(warm)
  const before = heapUsed()
  const start = cpuTime()
  const held = await spawn(count)
  const spent = since(start) / count
  const bytes = (heapUsed() - before) / count
  return [{ start: spent, bytes }, held]
}

/** Each loads what it needs and no more. */
const sides = {
  troupe: async (): Promise<Spawned> => {
    const { ActorSystem } = await import("effect-troupe")
    const { Counter, startTroupe } = await import("../peers/troupe.ts")
    const arrivals = new Arrivals()
    const runtime = startTroupe("ref", arrivals)
    let names = 0
    const [spawned, actors] = await measure((count) =>
      runtime.runPromise(Effect.gen(function*() {
        const system = yield* ActorSystem.ActorSystem
        return yield* Effect.forEach(Array.from({ length: count }), () => system.spawn(Counter, `actor-${++names}`))
      }))
    )
    const tellAll = () =>
      cpuPer(count, () => {
        const done = arrivals.expect(count)
        runtime.runFork(Effect.forEach(actors, (actor) => actor.tell.Add({ n: 1 }), { discard: true }))
        return done
      })
    await tellAll()
    return { ...spawned, tell: await tellAll() }
  },
  queue: async (): Promise<Spawned> => {
    const { spawnQueue } = await import("../peers/queue.ts")
    const [spawned, actors] = await measure((count) =>
      Effect.runPromise(Effect.forEach(Array.from({ length: count }), () => spawnQueue))
    )
    if (actors.length !== count) throw new Error("some are missing")
    return spawned
  },
  nact: async (): Promise<Spawned> => {
    const { spawnNact } = await import("../peers/nact.ts")
    const [spawned, system] = await measure(async (count) => spawnNact(count))
    if (system === undefined) throw new Error("the system is missing")
    return spawned
  },
  entity: async (): Promise<Spawned> => {
    const { startEntities } = await import("../peers/entity.ts")
    const { client } = await startEntities(new Arrivals())
    let names = 0
    const [spawned] = await measure((count) =>
      Effect.runPromise(Effect.forEach(
        Array.from({ length: count }),
        () => client(`entity-${++names}`).Total({ n: 0 }),
        { concurrency: 100, discard: true }
      ))
    )
    return spawned
  }
}

await report(await sides[side]())
process.exit(0)

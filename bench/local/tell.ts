/** Messages that want no answer: dense, sparse, and to handlers that are generators. A process of its own. */
import { Effect, Ref } from "effect"
import { asked, compete, type Contestant, cpuPer, type Options, report, type Result, troupe } from "../harness.ts"
import { Arrivals, type Crowd } from "../peers/crowd.ts"
import { makeEntities } from "../peers/entity.ts"
import { makeFloor } from "../peers/floor.ts"
import { makeNact } from "../peers/nact.ts"
import { makeQueues } from "../peers/queue.ts"
import { generator, makeTroupe } from "../peers/troupe.ts"

const options = asked<Options>()
const scale = options.quick ? 0.01 : 1

/** One contestant: all its actors, `each` messages in a row to each, about `messages` in all. */
const teller = (
  name: string,
  crowd: Crowd,
  size: number,
  each: number,
  messages: number,
  note?: string
): Contestant => {
  const loops = Math.max(1, Math.round(messages * scale / size / each))
  return { name, note, round: () => cpuPer(size * each * loops, () => crowd.tell(each, loops)) }
}

const dense = async (): Promise<Result> => {
  const size = Math.max(1, 1000 * scale)
  const each = 16
  const crowds = {
    floor: makeFloor(size),
    sync: await makeTroupe(size, "sync"),
    ref: await makeTroupe(size, "ref"),
    queue: await makeQueues(size),
    nact: makeNact(size),
    entity: await makeEntities(size)
  }
  const sides = await compete([
    teller("floor", crowds.floor, size, each, 4_000_000),
    teller(troupe, crowds.sync, size, each, 1_000_000),
    teller(`${troupe}, Ref.update`, crowds.ref, size, each, 1_000_000),
    teller("Queue and fiber", crowds.queue, size, each, 200_000),
    teller("nact", crowds.nact, size, each, 100_000),
    teller("Entity", crowds.entity, size, each, 16_000)
  ], options)
  for (const crowd of Object.values(crowds)) await crowd.close?.()
  return {
    title: `tell, dense: 1 producer, 1,000 actors, ${each} messages in a row to each`,
    unit: "ns CPU per message",
    sides,
    comparisons: [
      { figure: "tell_dense", against: "floor", goal: { most: 5 } },
      { figure: "tell_dense_ref", against: "floor", of: `${troupe}, Ref.update`, goal: { most: 5 } },
      { figure: "tell_dense_queue", against: "Queue and fiber" },
      { figure: "tell_dense_nact", against: "nact" },
      { figure: "tell_dense_entity", against: "Entity" }
    ]
  }
}

const sparse = async (): Promise<Result> => {
  const size = 100_000 * scale
  const few = 5_000 * scale
  const crowds = {
    floor: makeFloor(size),
    troupe: await makeTroupe(size),
    queue: await makeQueues(size),
    nact: makeNact(size),
    entity: await makeEntities(few)
  }
  const sides = await compete([
    teller("floor", crowds.floor, size, 1, 2_000_000, "100,000 rings"),
    teller(troupe, crowds.troupe, size, 1, 500_000),
    teller("Queue and fiber", crowds.queue, size, 1, 100_000),
    teller("nact", crowds.nact, size, 1, 100_000),
    teller("Entity", crowds.entity, few, 1, 5_000, "5,000 entities only")
  ], options)
  for (const crowd of Object.values(crowds)) await crowd.close?.()
  return {
    title: "tell, sparse: one message each over 100,000 actors",
    unit: "ns CPU per message",
    sides,
    comparisons: [
      { figure: "tell_sparse", against: "floor", goal: { most: 3 } },
      { figure: "tell_sparse_queue", against: "Queue and fiber" },
      { figure: "tell_sparse_nact", against: "nact" },
      { figure: "tell_sparse_entity", against: "Entity" }
    ]
  }
}

/** A generator handler run by an actor, and the same one run alone: `count` of them in one fiber. */
const generators = async (): Promise<Result> => {
  const size = Math.max(1, 1000 * scale)
  const count = 200_000 * scale
  const alone = (style: "gen" | "fn"): Contestant => {
    const arrivals = new Arrivals()
    const handle = generator[style](Ref.makeUnsafe(0), arrivals)
    return {
      name: `${style === "gen" ? "Effect.gen" : "Effect.fnUntraced"} alone`,
      round: () =>
        cpuPer(count, () => {
          let done = 0
          return Effect.runPromise(Effect.whileLoop({
            while: () => done++ < count,
            body: () => handle({ n: 1 }),
            step: () => {}
          }))
        })
    }
  }
  const gen = await makeTroupe(size, "gen")
  const fn = await makeTroupe(size, "fn")
  const sides = await compete([
    alone("gen"),
    teller(troupe, gen, size, 16, 200_000, "Effect.gen"),
    alone("fn"),
    teller(`${troupe}, Effect.fnUntraced`, fn, size, 16, 200_000)
  ], options)
  await gen.close?.()
  await fn.close?.()
  return {
    title: "tell to generator handlers, as dense",
    unit: "ns CPU per message",
    sides,
    comparisons: [
      { figure: "tell_gen", against: "Effect.gen alone", goal: { most: 1.3 } },
      { figure: "tell_gen_fn", of: `${troupe}, Effect.fnUntraced`, against: "Effect.fnUntraced alone" }
    ]
  }
}

await report(await dense())
await report(await sparse())
await report(await generators())
process.exit(0)

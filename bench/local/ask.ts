/** Messages that want an answer, each with a timeout: one and 1,000 in flight. A process of its own. */
import { asked, compete, type Contestant, cpuPer, type Options, report, type Result, troupe } from "../harness.ts"
import type { Crowd } from "../peers/crowd.ts"
import { makeEntities } from "../peers/entity.ts"
import { makeFloor } from "../peers/floor.ts"
import { makeNact } from "../peers/nact.ts"
import { makeQueues } from "../peers/queue.ts"
import { makeTroupe } from "../peers/troupe.ts"

const options = asked<Options>()
const scale = options.quick ? 0.01 : 1
const size = 1000

const asker = (name: string, crowd: Crowd, inFlight: number, questions: number): Contestant => {
  const count = Math.max(inFlight, Math.round(questions * scale / inFlight) * inFlight)
  return { name, round: () => cpuPer(count, () => crowd.ask!(inFlight, count)) }
}

const crowds = {
  floor: makeFloor(size),
  troupe: await makeTroupe(size),
  queue: await makeQueues(size),
  nact: makeNact(size),
  entity: await makeEntities(size)
}

const asks = async (inFlight: number, goal: number): Promise<Result> => {
  const loops = Math.max(1, Math.round(250 * scale))
  const floor = "floor's dense tell"
  const sides = await compete([
    { name: floor, round: () => cpuPer(size * 16 * loops, () => crowds.floor.tell(16, loops)) },
    asker(troupe, crowds.troupe, inFlight, 200_000),
    asker("Queue, fiber and Deferred", crowds.queue, inFlight, 50_000),
    asker("nact", crowds.nact, inFlight, 50_000),
    asker("Entity", crowds.entity, inFlight, 10_000)
  ], options)
  const rate = { unit: "asks/s", per: 1e9 }
  const figure = `ask_${inFlight}`
  return {
    title: `ask, ${inFlight.toLocaleString("en")} in flight, with a timeout`,
    unit: "ns CPU per ask",
    sides,
    comparisons: [
      { figure, against: floor, goal: { most: goal } },
      { figure: `${figure}_queue`, against: "Queue, fiber and Deferred" },
      { figure: `${figure}_nact`, against: "nact" },
      { figure: inFlight === 1 ? "ask_entity" : `ask_entity_${inFlight}`, against: "Entity", rate, goal: { least: 25 } }
    ]
  }
}

await report(await asks(1, 15))
await report(await asks(1000, 20))
process.exit(0)

/** One node: messages, questions, actors by the million, and whether cost grows with what is idle. Main-thread CPU. */
import { type Options, type Result, type Side, troupe } from "./harness.ts"
import { ask, tell } from "./local/messages.ts"
import type { Spawned } from "./local/spawn.ts"
import { type Bench, inOneProcess, reports } from "./processes.ts"

const few = `${troupe}, 100,000 actors`

const spawners = [
  { name: troupe, side: "troupe", count: 1_000_000 },
  { name: few, side: "troupe", count: 100_000 },
  { name: "Queue, fiber and Scope", side: "queue", count: 200_000 },
  { name: "nact", side: "nact", count: 200_000 },
  { name: "Entity", side: "entity", count: 10_000 }
] as const

/** Each side in a process of its own, round by round in turn. */
async function* spawn(options: Options): AsyncGenerator<Result> {
  const values = spawners.map(() => [] as Array<Spawned>)
  for (let round = 0; round < options.rounds; round++) {
    for (const [index, { count, side }] of spawners.entries()) {
      const size = options.quick ? Math.max(100, count / 1000) : count
      for await (const spawned of reports<Spawned>("local/spawn.ts", { side, count: size })) {
        values[index]!.push(spawned)
      }
    }
  }
  const sides = (of: (spawned: Spawned) => number | undefined): ReadonlyArray<Side> =>
    spawners.flatMap(({ count, name }, index) => {
      const found = values[index]!.map(of).filter((value) => value !== undefined)
      return found.length === 0 ? [] : [{ name, values: found, note: `${count.toLocaleString("en")} of them` }]
    })
  const rate = { unit: "actors/s", per: 1e9 }
  yield {
    title: "idle actors: heap of each, with a one-field state behind a behaviour built by an Effect",
    unit: "bytes",
    sides: sides((spawned) => spawned.bytes),
    comparisons: [
      { figure: "spawn_bytes", against: "nact", goal: { most: 1 } },
      { figure: "spawn_bytes_queue", against: "Queue, fiber and Scope" },
      { figure: "spawn_bytes_entity", against: "Entity" }
    ]
  }
  yield {
    title: "spawn, one after the other",
    unit: "ns CPU per actor",
    sides: sides((spawned) => spawned.start),
    comparisons: [
      { figure: "spawn_rate", against: "Queue, fiber and Scope", rate, goal: { least: 2 } },
      { figure: "spawn_rate_nact", against: "nact", rate },
      { figure: "spawn_rate_entity", against: "Entity", rate }
    ]
  }
  yield {
    title: "then one message to each of them",
    unit: "ns CPU per message",
    sides: sides((spawned) => spawned.tell),
    comparisons: [{ figure: "spawn_tell", against: few }]
  }
}

export const bench: Bench = {
  tell,
  ask,
  flat: inOneProcess("local/flat.ts"),
  spawn
}

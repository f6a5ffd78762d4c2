// Shows that a user's simulation is a simulation: the program in examples/usage passes 50 times in a row, and each of its worlds leaves the
// same trace each time; worlds with different seeds leave different ones.
import { Effect } from "effect"
import * as Path from "node:path"
import { afterAll, describe, expect, it, vi } from "vitest"

const runs = 50

/** Trace hashes by seed, of every world that the program made. */
const { worlds } = vi.hoisted(() => ({ worlds: [] as Array<{ readonly seed: number; readonly traceHash: string }> }))

vi.mock("effect-troupe/testing", async (original) => {
  const real = await original<typeof import("effect-troupe/testing")>()
  const make: typeof real.Simulation.make = (options) =>
    Effect.tap(real.Simulation.make(options), (world) => Effect.sync(() => void worlds.push(world)))
  return { ...real, Simulation: { ...real.Simulation, make } }
})

const file = Path.join(import.meta.dirname, "../../examples/usage/simulation.test.ts")
for (let run = 0; run < runs; run++) {
  // a query of its own makes each import register the file's tests again
  await import(/* @vite-ignore */ `${file}?run=${run}`)
}

const hashesBySeed = () => {
  const hashes = new Map<number, Array<string>>()
  for (const { seed, traceHash } of worlds) hashes.set(seed, [...hashes.get(seed) ?? [], traceHash])
  return hashes
}

describe("the worlds of examples/usage/simulation.test.ts", () => {
  // registered last, so it runs when all the others have
  it(`left one trace hash for each seed in ${runs} runs, and another one for the other seed`, () => {
    const hashes = [...hashesBySeed().values()]
    expect(hashes.map((ofSeed) => ofSeed.length)).toEqual([runs, runs])
    expect(hashes.map((ofSeed) => new Set(ofSeed).size)).toEqual([1, 1])
    expect(new Set(hashes.flat()).size).toBe(2)
  })
})

afterAll(() => void (worlds.length = 0))

// That each bench runs and says what it promises to say. Sizes are tiny here, so no value means anything and none is looked at.
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"

const run = async (...args: ReadonlyArray<string>): Promise<Record<string, unknown>> => {
  const { stdout } = await promisify(execFile)(process.execPath, ["bench/run.ts", ...args, "--quick", "--json"], {
    maxBuffer: 10_000_000
  })
  return JSON.parse(stdout.trim().split("\n").at(-1)!)
}

const expectFigures = (figures: Record<string, unknown>, names: ReadonlyArray<string>) => {
  for (const name of names) assert.property(figures, name)
  for (const [name, figure] of Object.entries(figures)) {
    const { against, ratio, unit, value } = figure as Record<string, unknown>
    assert.isTrue(Number.isFinite(value), `${name} has a value`)
    assert.isTrue(Number.isFinite(ratio), `${name} has a ratio`)
    assert.isString(unit)
    assert.isString(against)
  }
}

describe("the benchmarks", () => {
  it("measure messages, questions and actors on one node beside their floor and their peers", async () => {
    expectFigures(await run("local"), [
      "tell_dense",
      "tell_sparse",
      "tell_gen",
      "ask_1",
      "ask_1000",
      "ask_entity",
      "spawn_bytes",
      "spawn_rate"
    ])
  })

  it("refuse what they do not know", async () => {
    const failure = await run("nowhere").catch((error: { readonly code: number }) => error)
    assert.strictEqual(failure.code, 2)
  })
})

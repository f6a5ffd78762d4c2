// That each bench runs and says what it promises to say. Sizes are tiny here, so no value means anything and none is looked at.
import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { assert, describe, it } from "vitest"
import { markdown } from "../../bench/harness.ts"

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

describe("the benchmarks", { timeout: 180_000 }, () => {
  it("measure messages, questions and actors on one node beside their floor and their peers", async () => {
    expectFigures(await run("local"), [
      "tell_dense",
      "tell_sparse",
      "tell_gen",
      "ask_1",
      "ask_1000",
      "ask_entity",
      "flat_actors",
      "flat_children",
      "flat_timers",
      "flat_watchers",
      "spawn_bytes",
      "spawn_rate"
    ])
  })

  it("measure messages and questions between two nodes beside a plain socket, rpc and Entity", async () => {
    expectFigures(await run("remote"), [
      "ask_1",
      "ask_1000",
      "ask_1000_rpc",
      "ask_1000_entity",
      "tell",
      "tell_tls",
      "mixed",
      "idle_peer_bytes"
    ])
  })

  it("measure each control store beside its own client, and what idle nodes ask of one", async () => {
    expectFigures(await run("store"), [
      "nats_create_1",
      "nats_create_100",
      "nats_watch_p50",
      "etcd_create_1",
      "etcd_create_100",
      "etcd_watch_p99",
      "sqlite_create_1",
      "store_idle_nodes"
    ])
  })

  it("refuse what they do not know", async () => {
    const failure = await run("nowhere").catch((error: { readonly code: number }) => error)
    assert.strictEqual(failure.code, 2)
  })

  it("give their figures as rows of a table: the median, its ratio, and what was wanted", () => {
    const sides = [{ name: "effect-troupe", values: [30, 10, 20] }, { name: "floor", values: [5, 4, 6] }]
    const page = markdown([
      {
        title: "tell, dense: many",
        unit: "ns",
        sides,
        comparisons: [{ figure: "t", against: "floor", goal: { most: 5 } }]
      }
    ])
    assert.strictEqual(page.split("\n").at(-1), "| `t` | tell, dense | 20 ns | 4 | floor | at most 5 |")
  })
})

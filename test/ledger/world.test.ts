// The demo's own driver in a simulated world: datacenters lose each other in the middle of the transfers, asks time out with unknown outcome
// and are asked again, and not a cent moves twice or is lost. The same seed always gives the same run.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Simulation } from "effect-troupe/testing"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { AccountLive } from "../../examples/ledger/Account.ts"
import { fold } from "../../examples/ledger/fold.ts"
import type { AccountLine, Ledger, Transfer, TransferLine } from "../../examples/ledger/Ledger.ts"
import { balances, openAccounts, perform, type Tally } from "../../examples/ledger/transfers.ts"

/** The first accounts of the demo's ledger, and the transfers among them. */
const someAccounts = (count: number): { readonly text: string; readonly ledger: Ledger } => {
  const lines = Fs.readFileSync(Path.join(import.meta.dirname, "../../examples/ledger/ledger.jsonl"), "utf8").split(
    "\n"
  )
  const accounts = lines.slice(0, count).map((line) => JSON.parse(line) as AccountLine)
  const names = new Set(accounts.map(({ id }) => id))
  const told = new Set<string>()
  const transfers: Array<Transfer> = []
  for (const line of lines.slice(420)) {
    if (!line.startsWith("{") || !line.endsWith("}")) continue
    const entry = JSON.parse(line) as TransferLine
    if (!names.has(entry.from) || !names.has(entry.to) || entry.debit.cents < 1) continue
    transfers.push({ ...entry, line: transfers.length + 1, repeated: told.has(entry.id) })
    told.add(entry.id)
  }
  const kept = transfers.map(({ line: _, repeated: __, ...entry }) => entry)
  return {
    text: [...accounts, ...kept].map((entry) => JSON.stringify(entry)).join("\n"),
    ledger: { accounts, transfers, malformed: [] }
  }
}

const emptyTally = (dataCenter: string): Tally => ({
  dataCenter,
  nodes: 3,
  accounts: 0,
  transfers: 0,
  refused: 0,
  crossDataCenterCalls: 0,
  repeatedAsks: 0,
  latencies: [],
  begun: undefined,
  ended: 0n
})

const dataCenters = ["us-east-1", "eu-west-1"]

describe("the ledger in a simulated world", () => {
  for (const seed of [1, 2, 3]) {
    it.effect(
      `keeps every cent while the datacenters lose each other in the middle of it (seed ${seed})`,
      () =>
        Effect.gen(function*() {
          const { ledger, text } = someAccounts(60)
          const world = yield* Simulation.make({
            seed,
            kinds: AccountLive,
            dataCenters: {
              "us-east-1": { nodes: 3, roles: ["ledger"] },
              "eu-west-1": { nodes: 3, roles: ["ledger"] }
            },
            network: { latency: "10 millis", jitter: "30 millis" }
          })
          yield* world.awaitReady
          const sites = dataCenters.map((dataCenter) => ({
            dataCenter,
            systems: [0, 1, 2].map((index) => world.node(dataCenter, index).system)
          }))
          const tallies = new Map(dataCenters.map((dataCenter) => [dataCenter, emptyTally(dataCenter)]))
          yield* world.run(
            openAccounts(sites, ledger.accounts, (_, { dataCenter }) => void tallies.get(dataCenter)!.accounts++)
          )

          let done = 0
          const driving = yield* Effect.forkChild(perform(sites, ledger, tallies, () => void done++))
          const third = Math.floor(ledger.transfers.length / 3)
          yield* world.run(
            Effect.yieldNow.pipe(Effect.delay("10 millis"), Effect.repeat({ until: () => done >= third }))
          )
          assert.isBelow(done, ledger.transfers.length, "the cut comes in the middle")
          yield* world.partition(["us-east-1"], ["eu-west-1"])
          yield* world.run(Effect.sleep("8 seconds"))
          yield* world.heal
          yield* world.run(Fiber.join(driving))

          const expected = fold(text)
          const found = yield* world.run(balances(sites, ledger.accounts))
          assert.deepStrictEqual([...found].sort(), [...expected.balances].sort())
          const sum = (of: (tally: Tally) => number) =>
            [...tallies.values()].reduce((total, tally) => total + of(tally), 0)
          assert.strictEqual(sum((tally) => tally.transfers), expected.applied)
          assert.strictEqual(sum((tally) => tally.refused), expected.refused)
          assert.isAbove(sum((tally) => tally.repeatedAsks), 0, "some asks had to be repeated")
          assert.deepStrictEqual(world.violations, [])
        }),
      60_000
    )
  }
})

// Exhaustive in the small: every interleaving of one name under two owners and two hosts with a few faults. And bugs planted into
// the model are found, so that the search is known to see.
import { assert, describe, it } from "@effect/vitest"
import { explore, type Options } from "./model.ts"

const calm: Options = {
  spawnB: false,
  stop: false,
  losses: 0,
  ghosts: 0,
  hostDeaths: 0,
  ownerDeaths: 0,
  ends: 0,
  failedWrites: 0
}
const worlds: Readonly<Record<string, Options>> = {
  "two racing spawns, lost and late orders": { ...calm, spawnB: true, losses: 1, ghosts: 1 },
  "an owner dies, an order is late": { ...calm, ownerDeaths: 1, ghosts: 1 },
  "an owner dies, an answer is lost, two spawns race": { ...calm, ownerDeaths: 1, losses: 1, spawnB: true },
  "a host dies, an order is late": { ...calm, hostDeaths: 1, ghosts: 1 },
  "owner and host die": { ...calm, ownerDeaths: 1, hostDeaths: 1 },
  "owner and host die, an order is late": { ...calm, ownerDeaths: 1, hostDeaths: 1, ghosts: 1 },
  "a stop, an owner dies": { ...calm, stop: true, ownerDeaths: 1 },
  "a stop, a host dies, an order is late": { ...calm, stop: true, hostDeaths: 1, ghosts: 1 },
  "a stop, owner and host die": { ...calm, stop: true, ownerDeaths: 1, hostDeaths: 1 },
  "the actor ends by itself, an owner dies": { ...calm, ends: 1, ownerDeaths: 1 },
  "the actor ends by itself, an order is late, two spawns race": { ...calm, ends: 1, ghosts: 1, spawnB: true },
  "writes fail, a host dies": { ...calm, failedWrites: 2, hostDeaths: 1 },
  "writes fail, an owner dies": { ...calm, failedWrites: 1, ownerDeaths: 1 }
}

describe("Names, exhaustively", () => {
  for (const [name, options] of Object.entries(worlds)) {
    it(name, () => {
      const result = explore(options)
      assert.isUndefined(result.problem, `${result.problem?.what}:\n${result.problem?.path.join("\n")}`)
      assert.isTrue(result.complete, `${result.states} states and no end`)
      assert.isAbove(result.states, 10)
    }, 60_000)
  }
})

describe("A planted bug is found:", () => {
  const planted: ReadonlyArray<readonly [NonNullable<Options["bug"]>, Options]> = [
    ["noFloor", { ...calm, ownerDeaths: 1, ghosts: 1 }],
    ["startBeforeCommit", { ...calm, failedWrites: 1 }],
    ["elsewhereOnUnknown", { ...calm, losses: 1, ghosts: 1 }],
    ["noSeal", { ...calm, ownerDeaths: 1, hostDeaths: 1 }],
    ["lateStart", { ...calm, ghosts: 1, ends: 1 }],
    ["stopBeforeRemoval", { ...calm, stop: true, ownerDeaths: 1, hostDeaths: 1 }],
    ["ignoreReports", { ...calm, ownerDeaths: 1 }]
  ]
  for (const [bug, options] of planted) {
    it(bug, () => {
      const result = explore({ ...options, bug })
      assert.isDefined(result.problem, `${result.states} states and nothing found`)
    }, 60_000)
  }
})

// The store's public contract on the embedded store, in virtual time: a client that knows it is cut off, and one whose packets vanish.
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as MemoryBackend from "../../src/ControlPlane/ControlStoreMemory.ts"
import * as ControlStoreContract from "../../src/Testing/ControlStoreContract.ts"

const options = (how: "reachable" | "silent"): ControlStoreContract.Options<never> => {
  const backend = Effect.runSync(MemoryBackend.make({ requestTimeout: "2 seconds" }))
  return {
    client: Effect.sync(() => backend.client()),
    cuttable: Effect.sync(() => {
      let cut = false
      return {
        client: backend.client(how === "reachable" ? { reachable: () => !cut } : { silent: () => cut }),
        cut: Effect.sync(() => void (cut = true)),
        restore: Effect.sync(() => void (cut = false))
      }
    }),
    elapse: TestClock.adjust,
    requestTimeout: "2 seconds"
  }
}

describe("the embedded store keeps the contract", () => {
  for (const { name, run } of ControlStoreContract.cases(options("reachable"))) it.effect(name, () => run)
})

describe("the embedded store keeps the contract when packets vanish", () => {
  for (const { name, run } of ControlStoreContract.cases(options("silent"))) {
    if (name.includes("cut") || name.includes("back") || name.includes("unknown")) it.effect(name, () => run)
  }
})

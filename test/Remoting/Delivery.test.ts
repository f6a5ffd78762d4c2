// The contract of `Delivery` on the simulated network, without latency.
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { cases } from "../../src/Testing/DeliveryContract.ts"
import { simulatedHarness } from "./support.ts"

describe("Delivery on the simulated network", () => {
  for (const { name, run } of cases) {
    it.effect(name, () => Effect.flatMap(simulatedHarness(), run))
  }
})

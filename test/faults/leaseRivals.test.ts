/** The walk of `test/ControlPlane/leaseRivals.test.ts` within wider bounds: about a million worlds. No servers are needed. */
import { assert, describe, it } from "@effect/vitest"
import * as Model from "../ControlPlane/leaseRivals.ts"

describe("two rivals and one who watches, in every order of more events", () => {
  for (
    const [fault, more, atLeast] of [
      ["any of three watches stands still", { stalls: 1 }, 250_000],
      ["any of three watches is lost and comes back", { gaps: 1 }, 240_000],
      ["one renews more often", { renewals: 3, thirdCloses: 0 }, 130_000],
      ["a machine sleeps and one dies", { sleeps: 1, deaths: 1 }, 180_000],
      ["one dies and its port refuses, a third closes, reads are stale", {
        deaths: 1,
        refusals: true,
        staleReads: true
      }, 100_000],
      ["a step more", { steps: 4, thirdCloses: 0 }, 24_000],
      ["proofs, claims and reads are late", { lateClaims: true, lateWords: true, staleReads: true }, 200_000]
    ] as const
  ) {
    it(`${fault}: never do two act at once`, () => {
      const explored = Model.explore({ ...Model.base, ...more })
      assert.isUndefined(explored.violation)
      assert.isAbove(explored.worlds, atLeast)
    })
  }
})

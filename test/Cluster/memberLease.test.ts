// How long a member's lease is when nobody says so: it depends on how long its store may take to fail over.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { makeWorld } from "./world.ts"

/** milliseconds of the lease that a member has written */
const leaseOf = (failoverMillis: number, memberLease?: string) =>
  Effect.gen(function*() {
    const world = yield* makeWorld(1, { failoverMillis })
    yield* world.startAll(["a"], memberLease === undefined ? {} : { memberLease: memberLease as "1 second" })
    return world.backend.entries()
      .filter(({ value }) => value.includes("\"Held\""))
      .map(({ value }) => (JSON.parse(value) as { readonly duration: number }).duration)
  })

describe("The lease of a member", () => {
  it.effect("is ten seconds, and twenty on a store that may take nine to fail over", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* leaseOf(0), [10_000])
      assert.deepStrictEqual(yield* leaseOf(4_100), [10_000])
      assert.deepStrictEqual(yield* leaseOf(9_000), [20_000])
    }))

  it.effect("is what the settings say, whatever the store", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* leaseOf(9_000, "10 seconds"), [10_000])
      assert.deepStrictEqual(yield* leaseOf(0, "30 seconds"), [30_000])
    }))
})

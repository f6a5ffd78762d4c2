// How the controller keeps time: jitter keeps nodes out of step, backoff is capped, a success begins anew.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Random } from "effect"
import { TestClock } from "effect/testing"
import { every } from "../../src/DataCenter/internal/loops.ts"

const pace = (jitterRatio: number) => ({ jitterRatio, maxBackoff: Duration.seconds(30) })

/** Moments (ms) at which the work ran, in so much time; `fails` says which rounds fail. */
const moments = (jitterRatio: number, span: Duration.Input, fails: (round: number) => boolean = () => false) =>
  Effect.gen(function*() {
    const at: Array<number> = []
    const work = Effect.flatMap(
      Clock.currentTimeMillis,
      (now) => at.push(now) > 0 && fails(at.length) ? Effect.fail("no") : Effect.void
    )
    yield* every(work, Duration.seconds(10), pace(jitterRatio)).pipe(Effect.forkScoped)
    yield* TestClock.adjust(span)
    return at
  })
const gaps = (at: ReadonlyArray<number>) => at.slice(1).map((moment, index) => moment - at[index]!)

describe("a loop", () => {
  it.effect("works at once, and then each interval exactly where there is no jitter", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* moments(0, "35 seconds"), [0, 10_000, 20_000, 30_000])
    }))

  it.effect("waits by up to its ratio longer or shorter, and uses the whole of it", () =>
    Effect.gen(function*() {
      const waits = gaps(yield* moments(0.1, "1 hour"))
      for (const wait of waits) assert.isTrue(wait >= 9_000 && wait <= 11_000, `${wait}`)
      assert.isBelow(Math.min(...waits), 9_200)
      assert.isAbove(Math.max(...waits), 10_800)
    }))

  it.effect("backs off while it fails, doubling up to the cap, and keeps its interval again after a success", () =>
    Effect.gen(function*() {
      const at = yield* moments(0, "5 minutes", (round) => round <= 12)
      const waits = gaps(at)
      assert.deepStrictEqual(waits.slice(0, 9), [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600])
      assert.deepStrictEqual(waits.slice(9, 12), [30_000, 30_000, 30_000])
      assert.strictEqual(waits[12], 10_000)
    }))

  it.effect("I24: fifty nodes that lost one control plane together do not come back to it together", () =>
    Effect.gen(function*() {
      const back = 600_000
      const first: Array<number> = []
      for (let node = 0; node < 50; node++) {
        let done = false
        const work = Effect.flatMap(Clock.currentTimeMillis, (now) => {
          if (now < back) return Effect.fail("gone")
          if (!done) first.push(now - back)
          done = true
          return Effect.void
        })
        yield* every(work, Duration.seconds(10), pace(0.1)).pipe(Random.withSeed(`node-${node}`), Effect.forkScoped)
      }
      yield* TestClock.adjust("11 minutes")
      assert.strictEqual(first.length, 50)
      for (const moment of first) assert.isAtMost(moment, 33_000)
      // in no second come more than a fifth of them
      for (let second = 0; second < 33; second++) {
        assert.isAtMost(first.filter((moment) => Math.floor(moment / 1_000) === second).length, 10)
      }
    }))
})

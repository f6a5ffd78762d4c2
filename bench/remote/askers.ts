/** Fibers that ask, for the sides that are used through Effect. */
import { Effect } from "effect"
import { Latencies } from "./sides.ts"

/** `each` for that many askers at once. */
export const askers = <E, R>(inFlight: number, each: (asker: number) => Effect.Effect<unknown, E, R>) =>
  Effect.forEach(Array.from({ length: inFlight }, (_, i) => i), each, { concurrency: "unbounded", discard: true })

/** `count` questions, of which `inFlight` wait at any time: each asker asks again as soon as it is answered. The time of each. */
export const asking = <E, R>(inFlight: number, count: number, ask: (asker: number) => Effect.Effect<unknown, E, R>) =>
  Effect.suspend(() => {
    const latencies = new Latencies(count)
    const one = (asker: number) =>
      Effect.suspend(() => {
        let left = count / inFlight
        let start = 0
        return Effect.whileLoop({
          while: () => left-- > 0,
          body: () => {
            start = performance.now()
            return ask(asker)
          },
          step: () => latencies.since(start)
        })
      })
    return Effect.as(askers(inFlight, one), latencies.times)
  })

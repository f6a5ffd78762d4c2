/**
 * A bounded number of fibers that work through a list in order; none while there is nothing to do. What a semaphore with one waiting
 * fiber for each item would do, without the fibers.
 */
import { Effect, FiberSet, type Scope } from "effect"

export const make = Effect.fnUntraced(
  function*<A>(limit: number, work: (item: A) => Effect.Effect<void>): Effect.fn.Return<
    (item: A) => void,
    never,
    Scope.Scope
  > {
    const fork = yield* FiberSet.makeRuntime<never>()
    let items: Array<A> = []
    let next = 0
    let busy = 0
    const loop = Effect.whileLoop({
      while: () => next < items.length,
      body: () => {
        const item = items[next++]!
        if (next === items.length) {
          items = []
          next = 0
        }
        return work(item)
      },
      step: () => {}
    }).pipe(Effect.ensuring(Effect.sync(() => void busy--)))
    return (item) => {
      items.push(item)
      if (busy >= limit) return
      busy++
      fork(loop)
    }
  }
)

/** What one writes in Effect without actors: a `Queue` and a fiber that takes from it for ever. */
import { Deferred, Effect, Exit, Fiber, Queue, Scope } from "effect"
import { Arrivals, type Crowd, times } from "./crowd.ts"

type Message = { readonly n: number; readonly reply?: Deferred.Deferred<number> | undefined }

const serve = (queue: Queue.Queue<Message>, handle: (message: Message) => Effect.Effect<void>) =>
  Effect.forever(Effect.flatMap(Queue.take(queue), handle), { disableYield: true })

export const makeQueues = async (size: number): Promise<Crowd> => {
  const arrivals = new Arrivals()
  const scope = Scope.makeUnsafe()
  const queues = await Effect.runPromise(Effect.forEach(Array.from({ length: size }), () =>
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Message>()
      let total = 0
      yield* Effect.forkIn(
        serve(queue, ({ n, reply }) =>
          reply === undefined
            ? Effect.sync(() => {
              total += n
              arrivals.arrived()
            })
            : Effect.asVoid(Deferred.succeed(reply, total))),
        scope,
        { startImmediately: true }
      )
      return queue
    })))
  const ask = (queue: Queue.Queue<Message>) =>
    Effect.suspend(() => {
      const reply = Deferred.makeUnsafe<number>()
      return Effect.andThen(Queue.offer(queue, { n: 1, reply }), Effect.timeout(Deferred.await(reply), "5 seconds"))
    })
  return {
    tell: (each, loops) => {
      const done = arrivals.expect(size * each * loops)
      Effect.runFork(times(size * each * loops, (i) => Queue.offer(queues[Math.floor(i / each) % size]!, { n: 1 })))
      return done
    },
    ask: (inFlight, count) =>
      Effect.runPromise(Effect.forEach(
        Array.from({ length: inFlight }, (_, asker) => queues[asker % size]!),
        (queue) => times(count / inFlight, () => ask(queue)),
        { concurrency: "unbounded", discard: true }
      )),
    close: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

/** An idle one: its queue, its fiber, and a scope that ends both. */
export const spawnQueue = Effect.gen(function*() {
  const scope = yield* Scope.make()
  const queue = yield* Queue.unbounded<Message>()
  let total = 0
  const fiber = yield* Effect.forkIn(
    serve(queue, ({ n }) =>
      Effect.sync(() => {
        total += n
      })),
    scope,
    { startImmediately: true }
  )
  return { queue, scope, fiber } as { queue: typeof queue; scope: Scope.Scope; fiber: Fiber.Fiber<void> }
})

/**
 * `effect/cluster`'s `Entity` as `TestRunner` runs it: one runner in memory. Two settings are kinder than its defaults: messages
 * are not serialised for show, and any number of entities may be resident.
 */
import { Effect, Exit, Layer, Schema, Scope } from "effect"
import { Entity, MessageStorage, RunnerHealth, Runners, RunnerStorage, Sharding, ShardingConfig } from "effect/cluster"
import { Rpc } from "effect/rpc"
import { Arrivals, type Crowd, times } from "./crowd.ts"

const Counter = Entity.make("Counter", [
  Rpc.make("Add", { payload: { n: Schema.Number } }),
  Rpc.make("Total", { payload: { n: Schema.Number }, success: Schema.Number })
])

const layerRunner = Sharding.layer.pipe(
  Layer.provideMerge(Runners.layerNoop),
  Layer.provideMerge(MessageStorage.layerMemory),
  Layer.provide([RunnerStorage.layerMemory, RunnerHealth.layerNoop]),
  Layer.provide(ShardingConfig.layer({ simulateRemoteSerialization: false, maxResidentEntities: "unbounded" }))
)

/** A runner, and what finds an entity on it by id. */
export const startEntities = async (arrivals: Arrivals) => {
  const scope = Scope.makeUnsafe()
  const layer = Counter.toLayer(
    Effect.sync(() => {
      let total = 0
      return Counter.of({
        Add: ({ payload }) =>
          Effect.sync(() => {
            total += payload.n
            arrivals.arrived()
          }),
        Total: () => Effect.sync(() => total)
      })
    }),
    { mailboxCapacity: "unbounded", maxIdleTime: "1 hour" }
  ).pipe(Layer.provideMerge(layerRunner))
  const client = await Effect.runPromise(Effect.gen(function*() {
    const context = yield* Layer.buildWithScope(layer, scope)
    return yield* Effect.provideContext(Counter.client, context)
  }))
  return { client, close: () => Effect.runPromise(Scope.close(scope, Exit.void)) }
}

export const makeEntities = async (size: number): Promise<Crowd> => {
  const arrivals = new Arrivals()
  const { client, close } = await startEntities(arrivals)
  const entities = Array.from({ length: size }, (_, i) => client(`entity-${i}`))
  // An entity starts with its first message.
  await Effect.runPromise(Effect.forEach(entities, (entity) => entity.Total({ n: 0 }), {
    concurrency: 100,
    discard: true
  }))
  return {
    tell: (each, loops) => {
      const total = size * each * loops
      const done = arrivals.expect(total)
      Effect.runFork(times(total, (i) => entities[Math.floor(i / each) % size]!.Add({ n: 1 }, { discard: true })))
      return done
    },
    ask: (inFlight, count) =>
      Effect.runPromise(Effect.forEach(
        Array.from({ length: inFlight }, (_, asker) => entities[asker % size]!),
        (entity) => times(count / inFlight, () => entity.Total({ n: 1 })),
        { concurrency: "unbounded", discard: true }
      )),
    close
  }
}

/**
 * `effect/cluster` over its socket runner: one runner, and a process that is only a client; binary serialisation. The runners'
 * storage is memory in each process, told of the one runner, so that no database is in the way.
 */
import { NodeClusterSocket } from "@effect/platform-node"
import { Effect, Exit, Layer, ManagedRuntime, Option, References, Schema } from "effect"
import { Entity, MessageStorage, Runner, RunnerAddress, RunnerStorage } from "effect/cluster"
import { Rpc } from "effect/rpc"
import * as Net from "node:net"
import { times } from "../peers/crowd.ts"
import { askers, asking } from "./askers.ts"
import { body, type Client, Counter, type Ready } from "./sides.ts"

const Echo = Entity.make("Echo", [
  Rpc.make("Ask", { payload: { body: Schema.String }, success: Schema.String }),
  Rpc.make("Tell", { payload: { body: Schema.String } }),
  Rpc.make("Await", { payload: { count: Schema.Number } })
])

const address = (port: number) => RunnerAddress.make("127.0.0.1", port)

const layerSharding = <ClientOnly extends boolean>(port: number, clientOnly: ClientOnly) =>
  NodeClusterSocket.layer({
    clientOnly,
    storage: "byo",
    shardingConfig: {
      runnerAddress: clientOnly ? Option.none() : Option.some(address(port)),
      entityMailboxCapacity: "unbounded",
      maxResidentEntities: "unbounded",
      entityMaxIdleTime: "1 hour",
      simulateRemoteSerialization: false
    }
  }).pipe(Layer.provide([
    MessageStorage.layerNoop,
    Layer.succeed(References.MinimumLogLevel, "Warn"),
    Layer.effect(
      RunnerStorage.RunnerStorage,
      Effect.tap(
        RunnerStorage.makeMemory,
        (storage) => storage.register(Runner.make({ address: address(port), groups: ["default"], weight: 1 }), true)
      )
    )
  ]))

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = Net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as Net.AddressInfo
      server.close(() => resolve(port))
    })
  })

export const serve = async (): Promise<Ready> => {
  const port = await freePort()
  const counter = new Counter()
  const layer = Echo.toLayer(
    Effect.sync(() =>
      Echo.of({
        Ask: ({ payload }) => Effect.succeed(payload.body),
        Tell: () => Effect.sync(() => counter.arrived()),
        Await: ({ payload }) =>
          Effect.callback<void>((resume) => counter.awaiting(payload.count, () => resume(Exit.void)))
      })
    ),
    { maxIdleTime: "1 hour", mailboxCapacity: "unbounded", concurrency: "unbounded" }
  ).pipe(Layer.provideMerge(layerSharding(port, false)))
  const runtime = ManagedRuntime.make(layer)
  await runtime.runPromise(Effect.void)
  return { port }
}

export const connect = async (port: number, actors: number): Promise<Client> => {
  const runtime = ManagedRuntime.make(layerSharding(port, true))
  const client = await runtime.runPromise(Echo.client)
  const entities = Array.from({ length: actors }, (_, i) => client(`echo-${i}`))
  const untraced = Effect.withTracerEnabled(false)
  // An entity starts with its first message.
  await runtime.runPromise(
    Effect.forEach(entities, (entity) => entity.Ask({ body: "" }), { concurrency: 100, discard: true })
  )
  return {
    ask: (inFlight, count) =>
      runtime.runPromise(untraced(asking(inFlight, count, (asker) => entities[asker % actors]!.Ask({ body })))),
    tell: (count) =>
      runtime.runPromise(Effect.andThen(
        untraced(
          askers(1000, (i) => times(count / 1000, () => entities[i % actors]!.Tell({ body }, { discard: true })))
        ),
        entities[0]!.Await({ count })
      )),
    close: () => runtime.dispose()
  }
}

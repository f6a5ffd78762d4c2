/** `effect/rpc` over TCP, one call a message: binary serialisation, no spans (kinder than its defaults). */
import { NodeSocket, NodeSocketServer } from "@effect/platform-node"
import { Effect, Exit, Layer, ManagedRuntime, Schema, Scope } from "effect"
import { Rpc, RpcClient, RpcGroup, RpcSerialization, RpcServer } from "effect/rpc"
import { SocketServer } from "effect/socket"
import { times } from "../peers/crowd.ts"
import { askers, asking } from "./askers.ts"
import { body, type Client, Counter, type Ready } from "./sides.ts"

const Echo = RpcGroup.make(
  Rpc.make("Ask", { payload: { to: Schema.Number, body: Schema.String }, success: Schema.String }),
  Rpc.make("Tell", { payload: { to: Schema.Number, body: Schema.String } }),
  Rpc.make("Await", { payload: { count: Schema.Number } })
)

export const serve = async (actors: number): Promise<Ready> => {
  const counter = new Counter()
  const seen = new Float64Array(actors)
  const handlers = Echo.toLayer({
    Ask: ({ body }) => Effect.succeed(body),
    Tell: ({ to }) =>
      Effect.sync(() => {
        seen[to]! += 1
        counter.arrived()
      }),
    Await: ({ count }) => Effect.callback<void>((resume) => counter.awaiting(count, () => resume(Exit.void)))
  })
  const context = await Effect.runPromise(
    RpcServer.layer(Echo, { disableTracing: true }).pipe(
      Layer.provide(handlers),
      Layer.provide(RpcServer.layerProtocolSocketServer),
      Layer.provide(RpcSerialization.layerSchemaBinary()),
      Layer.provideMerge(NodeSocketServer.layer({ port: 0, host: "127.0.0.1" })),
      (layer) => Layer.buildWithScope(layer, Scope.makeUnsafe())
    )
  )
  const { address } = await Effect.runPromise(Effect.provideContext(SocketServer.SocketServer, context))
  if (address._tag === "UnixPathAddress") throw new Error("no port")
  return { port: address.port }
}

export const connect = async (port: number, actors: number): Promise<Client> => {
  const runtime = ManagedRuntime.make(
    RpcClient.layerProtocolSocket().pipe(
      Layer.provide(RpcSerialization.layerSchemaBinary()),
      Layer.provide(NodeSocket.layerNet({ port, host: "127.0.0.1", noDelay: true }))
    )
  )
  const scope = Scope.makeUnsafe()
  const client = await runtime.runPromise(
    Effect.provideService(RpcClient.make(Echo, { disableTracing: true }), Scope.Scope, scope)
  )
  return {
    ask: (inFlight, count) =>
      runtime.runPromise(asking(inFlight, count, (asker) => client.Ask({ to: asker % actors, body }))),
    // Each waits for an acknowledgement, so many are sent at once.
    tell: (count) =>
      runtime.runPromise(Effect.andThen(
        askers(1000, (to) => times(count / 1000, () => client.Tell({ to: to % actors, body }, { discard: true }))),
        client.Await({ count })
      )),
    close: () => runtime.dispose()
  }
}

/** Tells the log who this node is and when it is ready: Up in its cluster, its actors' kinds open to all, its datacenter in view. */
import { Effect, Layer } from "effect"
import { ActorSystem } from "../../Actor/ActorSystem.ts"
import { endpoint } from "../../Actor/Address.ts"

/** Waits for the node's own datacenter, which takes a moment after start, in the background. */
export const layerReady = Layer.effectDiscard(
  Effect.gen(function*() {
    const system = yield* ActorSystem
    const { dataCenter } = system.node
    yield* Effect.annotateLogs(
      Effect.gen(function*() {
        yield* Effect.logInfo("node is up")
        yield* system.awaitDataCenter(dataCenter, { timeout: "1 hour" })
        yield* Effect.logInfo("node is ready")
      }),
      { node: system.node.id, dataCenter, address: endpoint(system.node) }
    ).pipe(
      Effect.catch((error) => Effect.logWarning("node is not ready", error)),
      Effect.forkScoped
    )
  })
)

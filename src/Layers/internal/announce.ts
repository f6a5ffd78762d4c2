/** Tells the log who this node is, when it is Up in its cluster, and when it is ready: its datacenter in view. */
import { Effect, Layer } from "effect"
import { ActorSystem } from "../../Actor/ActorSystem.ts"
import { endpoint } from "../../Actor/Address.ts"

const isUp = Effect.logInfo("node is up")

/** Says of each line which node it is about. */
const of = ({ node }: ActorSystem["Service"]) =>
  Effect.annotateLogs({ node: node.id, dataCenter: node.dataCenter, address: endpoint(node) })

/** For a node without datacenters, which is ready when it is up. */
export const layerUp = Layer.effectDiscard(Effect.flatMap(ActorSystem, (system) => of(system)(isUp)))

/** Waits for the node's own datacenter, which takes a moment after start, in the background. */
export const layerReady = Layer.effectDiscard(
  Effect.gen(function*() {
    const system = yield* ActorSystem
    yield* of(system)(isUp)
    yield* system.awaitDataCenter(system.node.dataCenter, { timeout: "1 hour" }).pipe(
      Effect.andThen(Effect.logInfo("node is ready")),
      of(system),
      Effect.catch((error) => Effect.logWarning("node is not ready", error)),
      Effect.forkScoped
    )
  })
)

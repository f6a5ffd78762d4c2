/** Deployment: one node, no network. For programs whose actors all live in one process, and for tests. */
import { Layer } from "effect"
import type { ActorHost } from "../Actor/ActorHost.ts"
import type { ActorSystem } from "../Actor/ActorSystem.ts"
import type { Jobs } from "../Actor/Jobs.ts"
import * as Node from "../Actor/Node.ts"
import * as SystemEvents from "../Actor/SystemEvents.ts"
import type { Topics } from "../Actor/Topic.ts"
import type { Topology } from "../Actor/Topology.ts"
import { node } from "./internal/node.ts"
import * as Rings from "./internal/rings.ts"

/**
 * Actors in this process alone. `spawnOn` places here whatever its strategy; a `dataCenter`, a `role` or a member that is not
 * this one is refused typed.
 *
 * @example
 * AccountLive.pipe(Layer.provideMerge(Layers.singleNode({ system: "bank" })))
 */
export const singleNode = (
  options: Node.NodeOptions
): Layer.Layer<ActorSystem | ActorHost | Jobs | Topics | Topology | Node.Node | SystemEvents.SystemEvents> =>
  Rings.singleNode.pipe(
    Layer.provideMerge(Node.layerLocal(options)),
    Layer.provideMerge(SystemEvents.layer),
    node
  )

// One node by itself, as the tests of this ring use it.
import { ActorHost, ActorSystem, Delivery, Node, Placement, SystemEvents, Topology } from "effect-troupe/Actor"
import { Layer } from "effect"

export const layerLocal = ActorSystem.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
  Layer.provideMerge(ActorHost.layer),
  Layer.provideMerge(Layer.mergeAll(Node.layerLocal({ system: "test" }), SystemEvents.layer))
)

/**
 * The rings of a node as one pipe each: what is added, on top of what. Production and simulation share them; they differ in the
 * settings, the `Transport` and the stores at the bottom.
 */
import { Layer } from "effect"
import * as ActorHost from "../../Actor/ActorHost.ts"
import * as ActorSystem from "../../Actor/ActorSystem.ts"
import * as Delivery from "../../Actor/Delivery.ts"
import * as Jobs from "../../Actor/Jobs.ts"
import * as Placement from "../../Actor/Placement.ts"
import * as Topic from "../../Actor/Topic.ts"
import * as Topology from "../../Actor/Topology.ts"
import type { ClusterLayer } from "../../Cluster/Cluster.ts"
import type * as DataCenters from "../../DataCenter/DataCenters.ts"
import * as Client from "../../Remoting/Client.ts"
import type * as Remoting from "../../Remoting/Remoting.ts"

type RemotingLayer = ReturnType<typeof Remoting.layer>
type DataCenterLayer = ReturnType<typeof DataCenters.layer>

/** Actors of this node, and nothing around it. */
const local = Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal).pipe(
  Layer.provideMerge(ActorHost.layer)
)

/** What programs on a node use. */
const face = Layer.mergeAll(ActorSystem.layer, Jobs.layer, Topic.layer)

/** The same, where outsiders that prove themselves as nodes do may call in. Above every placement, so that theirs is the outermost. */
const openFace = Layer.merge(face, Client.layerServer)

/** A node by itself. */
export const singleNode = face.pipe(Layer.provideMerge(local))

/** Nodes that agree on who they are and who runs what. */
export const clusterNode = (remoting: RemotingLayer, cluster: ClusterLayer) =>
  openFace.pipe(
    Layer.provideMerge(cluster),
    Layer.provideMerge(remoting),
    Layer.provideMerge(local)
  )

/** Clusters that know each other. */
export const dataCenterNode = (remoting: RemotingLayer, cluster: ClusterLayer, dataCenter: DataCenterLayer) =>
  openFace.pipe(
    Layer.provideMerge(dataCenter),
    Layer.provideMerge(cluster),
    Layer.provideMerge(remoting),
    Layer.provideMerge(local)
  )

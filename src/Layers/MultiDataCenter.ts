/** Deployment: a node of one datacenter's cluster, among datacenters that share a control plane. */
import { Layer } from "effect"
import * as Cluster from "../Cluster/Cluster.ts"
import * as DataCenters from "../DataCenter/DataCenters.ts"
import * as DataCenterSettings from "../DataCenter/DataCenterSettings.ts"
import * as Remoting from "../Remoting/Remoting.ts"
import * as Transport from "../Remoting/Transport.ts"
import * as Announce from "./internal/announce.ts"
import * as Identity from "./internal/identity.ts"
import { node } from "./internal/node.ts"
import * as ProcessSignals from "./internal/processSignals.edge.ts"
import * as RefusedPeers from "./internal/refusedPeers.ts"
import * as Rings from "./internal/rings.ts"

export interface MultiDataCenterOptions extends Identity.Identity {
  /** where to listen, how to be reached, who is let in */
  readonly remoting?: Remoting.RemotingOptions | undefined
  readonly cluster?: Cluster.ClusterOptions | undefined
  /** which datacenter this node is in, and how its controller keeps time */
  readonly dataCenter: DataCenterSettings.DataCenterOptions
}

/**
 * A node of a datacenter. Needs the `ControlStore` that the nodes of its datacenter share, and the `ControlPlane` that all
 * datacenters share. Built when the node is Up in its cluster; its datacenter is in everybody's view a moment later
 * (`ActorSystem.awaitDataCenter`). Closing it leaves in order.
 */
export const multiDataCenter = (options: MultiDataCenterOptions) =>
  Announce.layerReady.pipe(
    Layer.provideMerge(Rings.dataCenterNode(
      Remoting.layer(options.remoting),
      Cluster.layer(options.cluster ?? {}),
      DataCenters.layer(options.dataCenter)
    )),
    Layer.provideMerge(Identity.layer(options, options.dataCenter.name)),
    Layer.provide(Transport.layerTcp(options.remoting)),
    Layer.provideMerge(RefusedPeers.layerEvents),
    node
  )

/**
 * `multiDataCenter` from the environment (`TROUPE_SYSTEM`, `TROUPE_DATACENTER`, `TROUPE_HOST`, `TROUPE_PORT`,
 * `TROUPE_SECRET`, `TROUPE_ROLES`, ...). A process that leaves on SIGTERM ends with exit code 0, one
 * that was fenced with 1.
 */
export const multiDataCenterConfig = Announce.layerReady.pipe(
  Layer.provideMerge(Rings.dataCenterNode(Remoting.layerConfig, Cluster.layerConfig, DataCenters.layerConfig)),
  Layer.provideMerge(Identity.layerConfig),
  Layer.provide(Transport.layerTcpConfig),
  Layer.provideMerge(ProcessSignals.layer),
  Layer.provideMerge(RefusedPeers.layerEvents),
  node
)

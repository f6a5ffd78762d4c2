/** Deployment: a node of one cluster, in one datacenter that knows of no other. */
import { Layer } from "effect"
import * as Cluster from "../Cluster/Cluster.ts"
import * as Remoting from "../Remoting/Remoting.ts"
import * as Transport from "../Remoting/Transport.ts"
import * as Announce from "./internal/announce.ts"
import * as Identity from "./internal/identity.ts"
import { node } from "./internal/node.ts"
import * as ProcessSignals from "./internal/processSignals.edge.ts"
import * as RefusedPeers from "./internal/refusedPeers.ts"
import * as Rings from "./internal/rings.ts"

/** The datacenter that a node without datacenters is in. */
export const onlyDataCenter = "local"

export interface ClusterNodeOptions extends Identity.Identity {
  /** where to listen, how to be reached, who is let in */
  readonly remoting?: Remoting.RemotingOptions | undefined
  readonly cluster?: Cluster.ClusterOptions | undefined
}

/**
 * A node of a cluster. Needs the `ControlStore` that all of its nodes share. Built when the node is Up; closing it leaves the
 * cluster in order.
 */
export const cluster = (options: ClusterNodeOptions) =>
  Announce.layerUp.pipe(
    Layer.provideMerge(Rings.clusterNode(Remoting.layer(options.remoting), Cluster.layer(options.cluster ?? {}))),
    Layer.provideMerge(Identity.layer(options, onlyDataCenter)),
    Layer.provide(Transport.layerTcp(options.remoting)),
    Layer.provideMerge(RefusedPeers.layerEvents),
    node
  )

/** `cluster` from the environment; a process that leaves on SIGTERM ends with exit code 0, one
 * that was fenced with 1. */
export const clusterConfig = Announce.layerUp.pipe(
  Layer.provideMerge(Rings.clusterNode(Remoting.layerConfig, Cluster.layerConfig)),
  Layer.provideMerge(Identity.layerConfigIn(onlyDataCenter)),
  Layer.provide(Transport.layerTcpConfig),
  Layer.provideMerge(ProcessSignals.layer),
  Layer.provideMerge(RefusedPeers.layerEvents),
  node
)

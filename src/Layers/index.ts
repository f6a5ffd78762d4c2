/** How a node is put together: each deployment is one Layer, to be provided with the stores that it shares with others. */
export { cluster, clusterConfig, type ClusterNodeOptions, onlyDataCenter } from "./ClusterNode.ts"
export { multiDataCenter, multiDataCenterConfig, type MultiDataCenterOptions } from "./MultiDataCenter.ts"
export { singleNode } from "./SingleNode.ts"

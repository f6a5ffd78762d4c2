/** The whole runtime as namespaces; see `ARCHITECTURE.md` for the house. Loads no vendor client. */
export * from "./Actor/index.ts"
export * as Cluster from "./Cluster/Cluster.ts"
export { ControlPlane, ControlStore, Lease } from "./ControlPlane/index.ts"
export * as DataCenters from "./DataCenter/DataCenters.ts"
export * as Layers from "./Layers/index.ts"
export { Client, Remoting, Transport } from "./Remoting/index.ts"

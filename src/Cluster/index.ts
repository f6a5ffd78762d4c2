/** Membership, partitions, directory, placement and relocation inside one datacenter. */
export * as Cluster from "./Cluster.ts"
export * as ClusterSettings from "./ClusterSettings.ts"

/** etcd behind the store port and the control plane. Loads `etcd3`, which is an optional peer. */
export * as ControlPlaneEtcd from "./ControlPlaneEtcd.ts"
export * as ControlStoreEtcd from "./ControlStoreEtcd.ts"

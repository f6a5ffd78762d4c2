/** etcd behind the store port and the control plane. Loads `etcd3`, which is an optional peer. */
export * as ControlStoreEtcd from "./ControlStoreEtcd.ts"

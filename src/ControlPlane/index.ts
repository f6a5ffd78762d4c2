/** Coordination: the store port with its embedded backend, leases on it, and the register of datacenters. No vendor client. */
export * as ControlPlane from "./ControlPlane.ts"
export * as ControlStore from "./ControlStore.ts"
export * as MemoryBackend from "./ControlStoreMemory.ts"
export * as Lease from "./Lease.ts"

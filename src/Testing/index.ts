/** For tests of applications and of backends: whole worlds in virtual time, and the contract suites that a backend can prove itself with. */
export * as ControlPlaneContract from "./ControlPlaneContract.ts"
export * as ControlStoreContract from "./ControlStoreContract.ts"
export * as DeliveryContract from "./DeliveryContract.ts"
export * as SimulatedNetwork from "./SimulatedNetwork.ts"
export * as Simulation from "./Simulation.ts"
export * as TestKit from "./TestKit.ts"
/** the embedded store with clients that can be cut, slow, silent, stale or deaf */
export * as MemoryBackend from "../ControlPlane/ControlStoreMemory.ts"

/** NATS JetStream behind the store port and the control plane. Loads the NATS client, which is an optional peer. */
export * as ControlPlaneNats from "./ControlPlaneNats.ts"
export * as ControlStoreNats from "./ControlStoreNats.ts"

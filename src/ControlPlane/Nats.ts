/** NATS JetStream behind the store port. Loads the NATS client, which is an optional peer. */
export * as ControlStoreNats from "./ControlStoreNats.ts"

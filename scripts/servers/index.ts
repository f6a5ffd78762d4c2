/** Real servers for tests, the demo and benchmarks, each for the length of a scope. */
export { type EtcdOptions, type EtcdServers, startEtcd } from "./etcd.ts"
export { type NatsOptions, type NatsServers, startNats } from "./nats.ts"
export { type Server, ServerFailed, temporaryFolder } from "./process.ts"
export { type Proxy, startProxy } from "./proxy.ts"

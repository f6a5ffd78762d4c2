// A member of a cluster as a process of its own: everything from the environment, etcd as the store.
import { NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { Layers } from "effect-troupe"
import { ControlStoreEtcd } from "effect-troupe/ControlPlane/Etcd"
import { AccountLive } from "../../../examples/usage/account.ts"

AccountLive.pipe(
  Layer.provide(Layers.clusterConfig),
  Layer.provide(ControlStoreEtcd.layerConfig),
  Layer.launch,
  NodeRuntime.runMain
)

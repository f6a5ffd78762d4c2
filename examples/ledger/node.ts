/**
 * One node of the ledger as a process of its own: everything from the environment, as in production. `LEDGER_STORE` says which
 * stores (`sqlite`, `nats` or `etcd`; each reads variables of its own), `LEDGER_JOURNAL` where the accounts' movements are kept.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Layers } from "effect-troupe"
import { Config, Effect, Layer, References } from "effect"
import { AccountLive } from "./Account.ts"
import * as Journal from "./Journal.ts"

const stores = {
  sqlite: Effect.promise(() => import("effect-troupe/ControlPlane/Sqlite")).pipe(
    Effect.map(({ ControlPlaneSqlite: plane, ControlStoreSqlite: store }) =>
      Layer.mergeAll(store.layerConfig, plane.layerConfig)
    ),
    Layer.unwrap
  ),
  nats: Effect.promise(() => import("effect-troupe/ControlPlane/Nats")).pipe(
    Effect.map(({ ControlPlaneNats: plane, ControlStoreNats: store }) =>
      Layer.mergeAll(store.layerConfig, plane.layerConfig)
    ),
    Layer.unwrap
  ),
  etcd: Effect.promise(() => import("effect-troupe/ControlPlane/Etcd")).pipe(
    Effect.map(({ ControlPlaneEtcd: plane, ControlStoreEtcd: store }) =>
      Layer.mergeAll(store.layerConfig, plane.layerConfig)
    ),
    Layer.unwrap
  )
}

// The demo holds the other end: whatever becomes of it, its nodes do not outlive it.
process.stdin.on("end", () => process.exit(1)).resume()

Layer.unwrap(Effect.gen(function*() {
  const store = yield* Config.Literals(["sqlite", "nats", "etcd"], "LEDGER_STORE")
  const journal = yield* Config.String("LEDGER_JOURNAL")
  return AccountLive.pipe(
    Layer.provide(Layers.multiDataCenterConfig),
    Layer.provide(stores[store]),
    Layer.provide(Journal.layerSqlite(journal)),
    Layer.provide(Layer.succeed(References.MinimumLogLevel)("Warn"))
  )
})).pipe(Layer.launch, NodeRuntime.runMain)

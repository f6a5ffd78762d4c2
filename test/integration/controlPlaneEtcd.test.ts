// The control plane's public contract on a real etcd, and what its Layers refuse.
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Context, Duration, Effect, Layer } from "effect"
import { startEtcd } from "../../scripts/servers/index.ts"
import { ControlPlane } from "../../src/ControlPlane/ControlPlane.ts"
import { GlobalStore } from "../../src/ControlPlane/ControlStore.ts"
import { ControlPlaneEtcd, ControlStoreEtcd } from "../../src/ControlPlane/Etcd.ts"
import { planeContract } from "./support/planeContract.ts"

planeContract("the control plane on etcd", {
  start: startEtcd({ data: "memory" }),
  open: ({ endpoints }, place) => ControlStoreEtcd.make({ endpoints, namespace: `/plane/${place}` })
})

describe("the Layers of the control plane on etcd", () => {
  it.live(
    "take their endpoints from the environment, with a prefix where the cluster's differ",
    () =>
      Effect.gen(function*() {
        const { endpoints } = yield* startEtcd({ data: "memory" })
        const environment = ConfigProvider.layer(ConfigProvider.fromUnknown({
          ETCD_ENDPOINTS: "http://127.0.0.1:1",
          CONTROL_PLANE_ETCD_ENDPOINTS: endpoints.join(","),
          ETCD_NAMESPACE: "/someone/elses",
          TROUPE_CONTROL_PLANE_TTL: "5 seconds"
        }))
        const context = yield* Layer.build(ControlPlaneEtcd.layerConfig.pipe(Layer.provide(environment)))
        assert.strictEqual(Duration.toMillis(Context.get(context, ControlPlane).ttl), 5_000)
        const other = yield* ControlStoreEtcd.make({ endpoints, namespace: "/troupe/datacenters" })
        yield* Context.get(context, GlobalStore).create("a", "1")
        assert.isTrue((yield* other.get("a"))._tag === "Some", "under the namespace /troupe/datacenters")
      }),
    60_000
  )

  it.live("refuse a TTL below a second, by name", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(Layer.build(ControlPlaneEtcd.layer({ ttl: "500 millis" })))
      assert.strictEqual(refused._tag === "SettingInvalid" && refused.setting, "controlPlaneEtcd.ttl")
    }))

  it.live("say that no member is there, in time", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(Layer.build(
        ControlPlaneEtcd.layer({ endpoints: ["http://127.0.0.1:1"], connectTimeout: "500 millis" })
      ))
      assert.strictEqual(refused._tag, "StoreUnavailable")
    }), 30_000)
})

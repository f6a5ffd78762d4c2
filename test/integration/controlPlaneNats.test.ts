// The control plane's public contract on a real NATS server, and what its Layers refuse.
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Context, Duration, Effect, Layer } from "effect"
import { startNats } from "../../scripts/servers/index.ts"
import { ControlPlane } from "../../src/ControlPlane/ControlPlane.ts"
import { GlobalStore } from "../../src/ControlPlane/ControlStore.ts"
import { ControlPlaneNats, ControlStoreNats } from "../../src/ControlPlane/Nats.ts"
import { planeContract } from "./support/planeContract.ts"

planeContract("the control plane on NATS", {
  start: startNats({ data: "memory" }),
  open: ({ servers }, place) => ControlStoreNats.make({ servers, bucket: `plane_${place}`, storage: "memory" })
})

describe("the Layers of the control plane on NATS", () => {
  it.live(
    "take their servers from the environment, with a prefix where the cluster's differ",
    () =>
      Effect.gen(function*() {
        const { servers } = yield* startNats({ data: "memory" })
        const environment = ConfigProvider.layer(ConfigProvider.fromUnknown({
          NATS_SERVERS: "127.0.0.1:1",
          CONTROL_PLANE_NATS_SERVERS: servers.join(","),
          NATS_BUCKET: "someone_elses",
          TROUPE_CONTROL_PLANE_TTL: "5 seconds"
        }))
        const context = yield* Layer.build(ControlPlaneNats.layerConfig.pipe(Layer.provide(environment)))
        assert.strictEqual(Duration.toMillis(Context.get(context, ControlPlane).ttl), 5_000)
        const other = yield* ControlStoreNats.make({ servers, bucket: "troupe_datacenters" })
        yield* Context.get(context, GlobalStore).create("a", "1")
        assert.isTrue((yield* other.get("a"))._tag === "Some", "in the bucket troupe_datacenters")
      }),
    60_000
  )

  it.live("refuse a TTL below a second, by name", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(Layer.build(ControlPlaneNats.layer({ ttl: "500 millis" })))
      assert.strictEqual(refused._tag === "SettingInvalid" && refused.setting, "controlPlaneNats.ttl")
    }))

  it.live("say that no server is there, in time", () =>
    Effect.gen(function*() {
      const refused = yield* Effect.flip(Layer.build(
        ControlPlaneNats.layer({ servers: ["127.0.0.1:1"], connectTimeout: "500 millis" })
      ))
      assert.strictEqual(refused._tag, "StoreUnavailable")
    }), 30_000)
})

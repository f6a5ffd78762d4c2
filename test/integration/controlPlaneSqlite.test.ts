// What the Layers of the control plane on a SQLite file read and refuse.
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Context, Duration, Effect, Layer } from "effect"
import { join } from "node:path"
import { temporaryFolder } from "../../scripts/servers/index.ts"
import { ControlPlane } from "../../src/ControlPlane/ControlPlane.ts"
import { GlobalStore } from "../../src/ControlPlane/ControlStore.ts"
import { ControlPlaneSqlite, ControlStoreSqlite } from "../../src/ControlPlane/Sqlite.ts"

const newFile = Effect.map(temporaryFolder("sqlite"), (folder) => join(folder, "store.db"))

describe("the Layers of the control plane on SQLite", () => {
  it.live("take their file from the environment, with a prefix where the cluster's differs", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const environment = ConfigProvider.layer(ConfigProvider.fromUnknown({
        SQLITE_FILE: "/nowhere/cluster.db",
        CONTROL_PLANE_SQLITE_FILE: file,
        SQLITE_NAMESPACE: "someone-elses",
        TROUPE_CONTROL_PLANE_TTL: "5 seconds"
      }))
      const context = yield* Layer.build(ControlPlaneSqlite.layerConfig.pipe(Layer.provide(environment)))
      assert.strictEqual(Duration.toMillis(Context.get(context, ControlPlane).ttl), 5_000)
      const other = yield* ControlStoreSqlite.make({ file, namespace: "datacenters" })
      yield* Context.get(context, GlobalStore).create("a", "1")
      assert.isTrue((yield* other.get("a"))._tag === "Some", "in the namespace datacenters")
    }).pipe(Effect.scoped))

  it.live("refuse a missing file setting, and a TTL below a second, by name", () =>
    Effect.gen(function*() {
      const settingOf = (partial: Parameters<typeof ControlPlaneSqlite.layer>[0]) =>
        Effect.map(Effect.flip(Layer.build(ControlPlaneSqlite.layer(partial))), (error) =>
          error._tag === "SettingInvalid" ? error.setting : error._tag)
      assert.strictEqual(yield* settingOf({} as { readonly file: string }), "controlPlaneSqlite.file")
      assert.strictEqual(yield* settingOf({ file: "x", ttl: "500 millis" }), "controlPlaneSqlite.ttl")
    }).pipe(Effect.scoped))
})

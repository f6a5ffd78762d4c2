import { DataCenters, Layers } from "effect-troupe"
import { Settings } from "effect-troupe/Actor"
import { ControlPlaneEtcd, ControlStoreEtcd } from "effect-troupe/ControlPlane/Etcd"
import { ControlPlaneNats, ControlStoreNats } from "effect-troupe/ControlPlane/Nats"
import { ControlPlaneSqlite, ControlStoreSqlite } from "effect-troupe/ControlPlane/Sqlite"
import { describe, expect, test } from "tstyche"

describe("settings in code", () => {
  const group = Settings.group("store", {
    file: Settings.text({ env: "FILE" }),
    namespace: Settings.text({ env: "NAMESPACE", default: "cluster" }),
    user: Settings.optionalText({ env: "USER_NAME" }),
    ttl: Settings.duration({ env: "TTL", default: "10 seconds" })
  })

  test("are required where they have no default and cannot be absent, and only there", () => {
    expect(group.decode).type.toBeCallableWith({ file: "a.db" })
    expect(group.decode).type.toBeCallableWith({ file: "a.db", namespace: undefined, user: undefined, ttl: 5 })
    expect(group.decode).type.not.toBeCallableWith({})
    expect(group.decode).type.not.toBeCallableWith({ namespace: "b" })
    expect(group.decode).type.not.toBeCallableWith({ file: undefined })
    expect(group.decode).type.not.toBeCallableWith({ file: "a.db", files: "b.db" })
  })

  test("name the file of SQLite, as a cluster's store and as the control plane", () => {
    expect(ControlStoreSqlite.layer).type.toBeCallableWith({ file: "a.db" })
    expect(ControlStoreSqlite.layer).type.not.toBeCallableWith({})
    expect(ControlStoreSqlite.layer).type.not.toBeCallableWith()
    expect(ControlStoreSqlite.make).type.not.toBeCallableWith({ namespace: "b" })
    expect(ControlPlaneSqlite.layer).type.toBeCallableWith({ file: "a.db", ttl: "10 seconds" })
    expect(ControlPlaneSqlite.layer).type.not.toBeCallableWith({})
    expect(ControlPlaneSqlite.layer).type.not.toBeCallableWith()
  })

  test("name the datacenter, and the system", () => {
    expect(Layers.multiDataCenter).type.toBeCallableWith({ system: "bank", dataCenter: { name: "eu" } })
    expect(Layers.multiDataCenter).type.not.toBeCallableWith({ system: "bank", dataCenter: {} })
    expect(Layers.multiDataCenter).type.not.toBeCallableWith({ dataCenter: { name: "eu" } })
    expect(DataCenters.layer).type.not.toBeCallableWith({ region: "eu" })
    expect(Layers.cluster).type.toBeCallableWith({ system: "bank" })
    expect(Layers.cluster).type.not.toBeCallableWith({})
    expect(Layers.singleNode).type.not.toBeCallableWith({})
  })

  test("may be left out together where each has a default", () => {
    for (const { layer } of [ControlPlaneEtcd, ControlPlaneNats, ControlStoreEtcd, ControlStoreNats]) {
      expect(layer).type.toBeCallableWith()
      expect(layer).type.toBeCallableWith({})
    }
    expect(Layers.cluster).type.toBeCallableWith({ system: "bank", remoting: {}, cluster: {} })
  })
})

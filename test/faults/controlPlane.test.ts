/** The control plane's public contract on clusters of three servers, and on a file that two clients share. */
import { startEtcd, startNats, temporaryFolder } from "../../scripts/servers/index.ts"
import * as ControlStoreEtcd from "../../src/ControlPlane/ControlStoreEtcd.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"
import * as ControlStoreSqlite from "../../src/ControlPlane/ControlStoreSqlite.ts"
import { planeContract } from "../integration/support/planeContract.ts"

planeContract("the control plane on three NATS servers", {
  start: startNats({ members: 3, data: "memory" }),
  open: ({ servers }, place) =>
    ControlStoreNats.make({ servers, bucket: `plane_${place}`, storage: "memory", replicas: 3 })
})

planeContract("the control plane on three etcd members", {
  start: startEtcd({ members: 3, data: "memory" }),
  open: ({ endpoints }, place) => ControlStoreEtcd.make({ endpoints, namespace: `/plane/${place}` })
})

planeContract("the control plane on SQLite", {
  start: temporaryFolder("plane", "memory"),
  open: (folder, place) => ControlStoreSqlite.make({ file: `${folder}/plane-${place}.sqlite` })
})

// The store's public contract against a real etcd, with a client behind a proxy that can hang up or swallow all bytes.
import { Effect } from "effect"
import { startEtcd, startProxy } from "../../scripts/servers/index.ts"
import type { EtcdServers } from "../../scripts/servers/index.ts"
import * as ControlStoreEtcd from "../../src/ControlPlane/ControlStoreEtcd.ts"
import type * as ControlStoreContract from "../../src/Testing/ControlStoreContract.ts"
import { storeContract } from "./support/storeContract.ts"

const options =
  (how: "refuse" | "blackHole") =>
  ({ endpoints }: EtcdServers): ControlStoreContract.Options<ControlStoreEtcd.OpenError> => {
    const settings = { namespace: "/contract", requestTimeout: "3 seconds" } as const
    return {
      client: ControlStoreEtcd.make({ ...settings, endpoints }),
      cuttable: Effect.gen(function*() {
        const proxy = yield* startProxy(endpoints[0]!.replace("http://", ""))
        const client = yield* ControlStoreEtcd.make({ ...settings, endpoints: [proxy.address] })
        return { client, cut: proxy[how], restore: proxy.open }
      }),
      requestTimeout: settings.requestTimeout
    }
  }

storeContract("etcd keeps the contract", { start: startEtcd({ data: "memory" }), options: options("refuse") })

storeContract("etcd keeps the contract when packets vanish", {
  start: startEtcd({ data: "memory" }),
  options: options("blackHole"),
  only: ({ needs }) => needs === "cut"
})

storeContract("three etcd members keep the contract", {
  start: startEtcd({ data: "memory", members: 3 }),
  options: options("refuse")
})

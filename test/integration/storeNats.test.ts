// The store's public contract against a real NATS server, with a client behind a proxy that can hang up or swallow all bytes.
import { Effect } from "effect"
import { startNats, startProxy } from "../../scripts/servers/index.ts"
import type { NatsServers } from "../../scripts/servers/index.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"
import type * as ControlStoreContract from "../../src/Testing/ControlStoreContract.ts"
import { storeContract } from "./support/storeContract.ts"

const options =
  (how: "refuse" | "blackHole", replicas = 1) =>
  ({ servers }: NatsServers): ControlStoreContract.Options<ControlStoreNats.OpenError> => {
    const settings = { bucket: "contract", requestTimeout: "3 seconds", replicas } as const
    return {
      client: ControlStoreNats.make({ ...settings, servers }),
      cuttable: Effect.gen(function*() {
        const proxy = yield* startProxy(servers[0]!)
        const client = yield* ControlStoreNats.make({ ...settings, servers: [proxy.address] })
        return { client, cut: proxy[how], restore: proxy.open }
      }),
      requestTimeout: settings.requestTimeout
    }
  }

storeContract("NATS keeps the contract", { start: startNats({ data: "memory" }), options: options("refuse") })

storeContract("NATS keeps the contract when packets vanish", {
  start: startNats({ data: "memory" }),
  options: options("blackHole"),
  only: ({ needs }) => needs === "cut"
})

storeContract("three NATS servers keep the contract", {
  // a client that is to be cut must not hear of ways around its proxy
  start: startNats({ data: "memory", members: 3, advertise: false }),
  options: options("refuse", 3)
})

// The programs of examples/usage as their users start them: as processes of their own, on real sockets and against real servers.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { startEtcd, startNats } from "../../scripts/servers/index.ts"
import { freePort, start } from "./support/program.ts"

describe("examples/usage", () => {
  it.live("two-datacenters.ts prints what its last four lines say, and ends by itself", () =>
    Effect.gen(function*() {
      const program = yield* start("examples/usage/two-datacenters.ts")
      assert.strictEqual(yield* program.exit, 0, program.output())
      const lines = program.output().trimEnd().split("\n").filter((line) => !line.startsWith("(ended"))
      assert.deepStrictEqual(lines.slice(-4), [
        "after withdrawal: 12",
        "refused: missing 988",
        "no such datacenter: mars-1",
        "seen from eu-west-1: 12"
      ])
    }), 60_000)

  it.live(
    "from-environment.ts becomes ready in both of two datacenters, on real NATS and etcd, and leaves on SIGTERM with exit 0",
    () =>
      Effect.gen(function*() {
        const dataCenters = ["us-east-1", "eu-west-1"]
        const global = yield* startEtcd({ data: "memory" })
        const programs = yield* Effect.forEach(dataCenters, (dataCenter) =>
          Effect.gen(function*() {
            const nats = yield* startNats({ data: "memory" })
            return yield* start("examples/usage/from-environment.ts", {
              TROUPE_SYSTEM: "bank",
              TROUPE_SECRET: "a secret that only tests know, and long enough",
              TROUPE_HOST: "127.0.0.1",
              TROUPE_PORT: String(yield* freePort),
              TROUPE_DATACENTER: dataCenter,
              NATS_SERVERS: nats.servers.join(","),
              ETCD_ENDPOINTS: global.endpoints.join(",")
            })
          }))
        for (const program of programs) yield* program.until(/node is ready/, 60_000)
        for (const program of programs) {
          program.child.kill("SIGTERM")
          assert.strictEqual(yield* program.exit, 0, program.output())
        }
      }),
    150_000
  )

  it.live(
    "from-environment.ts without a secret is refused off loopback, by the name of the setting",
    () =>
      Effect.gen(function*() {
        const nats = yield* startNats({ data: "memory" })
        const etcd = yield* startEtcd({ data: "memory" })
        const program = yield* start("examples/usage/from-environment.ts", {
          TROUPE_SYSTEM: "bank",
          TROUPE_HOST: "0.0.0.0",
          TROUPE_PORT: String(yield* freePort),
          TROUPE_DATACENTER: "us-east-1",
          NATS_SERVERS: nats.servers.join(","),
          ETCD_ENDPOINTS: etcd.endpoints.join(",")
        })
        assert.notStrictEqual(yield* program.exit, 0)
        assert.match(program.output(), /secret/i)
      }),
    60_000
  )
})

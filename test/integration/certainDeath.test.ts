// Real processes and signals: whose death is certain at once on this host, and whose is not. What is measured by hand is in docs/cluster.md;
// here the closed leases say why they were closed.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Schedule } from "effect"
import { ActorSystem, ControlStore, Layers } from "effect-troupe"
import { ControlStoreEtcd } from "effect-troupe/ControlPlane/Etcd"
import { Account } from "../../examples/usage/account.ts"
import { startEtcd } from "../../scripts/servers/index.ts"
import { nodeKey } from "../../src/Actor/Address.ts"
import { make as keysOf } from "../../src/Cluster/internal/keys.ts"
import { freePort, start } from "./support/program.ts"

/** Looks again each 50 ms until it holds, for at most 30 s. */
const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(condition, { schedule: Schedule.spaced("50 millis"), until: (holds) => holds }).pipe(
    Effect.timeout("30 seconds")
  )

/** This process as a member that hosts nothing, and child processes that host accounts. */
const cluster = Effect.fnUntraced(function*(memberLease: "10 seconds" | "2 seconds") {
  const etcd = yield* startEtcd({ data: "memory" })
  const child = (id: string, port = 0) =>
    start("test/integration/processes/clusterNode.ts", {
      TROUPE_SYSTEM: "bank",
      TROUPE_NODE_ID: id,
      TROUPE_PORT: String(port),
      TROUPE_MEMBER_LEASE: memberLease,
      ETCD_ENDPOINTS: etcd.endpoints.join(",")
    })
  const context = yield* Layer.build(
    Layers.cluster({ system: "bank", id: "test", cluster: { memberLease } }).pipe(
      Layer.provideMerge(ControlStoreEtcd.layer({ endpoints: etcd.endpoints }))
    )
  )
  const system = Context.get(context, ActorSystem.ActorSystem)
  const store = Context.get(context, ControlStore.ControlStore)
  const up = (id: string) =>
    until(
      Effect.map(
        system.members,
        (members) => members.some(({ kinds, node }) => node.id === id && kinds.includes("Account"))
      )
    )
  /** who closed the lease of that start of a node, and why; undefined: it is not closed */
  const closedBy = Effect.fnUntraced(function*(node: ActorSystem.ActorSystem["Service"]["node"]) {
    const entry = yield* store.get(keysOf("bank", node.dataCenter).lease(nodeKey(node)))
    if (entry._tag === "None") return undefined
    const record = JSON.parse(entry.value.value) as {
      readonly closed?: { readonly by: string; readonly reason: string }
    }
    return record.closed
  })
  return { system, child, up, closedBy }
})

describe("a member that is a process of this host", () => {
  it.live(
    "killed by SIGKILL, is closed because nobody listens at its port, and its names answer elsewhere",
    () =>
      Effect.gen(function*() {
        const { child, closedBy, system, up } = yield* cluster("10 seconds")
        const b = yield* child("b")
        yield* child("c")
        yield* up("b")
        yield* up("c")
        const account = yield* system.spawnOn(Account, "acct-1", { on: "b", props: { opening: 7 } })
        const killed = account.address.node
        b.child.kill("SIGKILL")
        yield* until(Effect.map(system.members, (members) => !members.some((member) => member.node.id === "b")))
        assert.strictEqual(yield* account.ask.Balance({ timeout: "20 seconds" }), 7)
        assert.strictEqual(account.address.node.id, "c")
        assert.match((yield* closedBy(killed))!.reason, /nobody listens at its port/)
      }),
    90_000
  )

  it.live(
    "killed and started again at its port, has its names again without waiting for its former lease",
    () =>
      Effect.gen(function*() {
        const { child, closedBy, system, up } = yield* cluster("10 seconds")
        const port = yield* freePort
        const b = yield* child("b", port)
        yield* up("b")
        const account = yield* system.spawnOn(Account, "acct-1", { on: "b", props: { opening: 7 } })
        const killed = account.address.node
        b.child.kill("SIGKILL")
        yield* b.exit
        yield* child("b", port)
        yield* until(
          Effect.map(
            system.members,
            (members) => members.some(({ node }) => node.id === "b" && node.incarnation !== killed.incarnation)
          )
        )
        assert.strictEqual(yield* account.ask.Balance({ timeout: "20 seconds" }), 7)
        assert.strictEqual(account.address.node.port, port)
        assert.match((yield* closedBy(killed))!.reason, /nobody listens at its port|its port is another member's now/)
      }),
    90_000
  )

  it.live("stopped by SIGSTOP, still accepts: nothing but its lease's lapse closes it", () =>
    Effect.gen(function*() {
      const { child, closedBy, system, up } = yield* cluster("2 seconds")
      const b = yield* child("b")
      yield* child("c")
      yield* up("b")
      yield* up("c")
      const account = yield* system.spawnOn(Account, "acct-1", { on: "b", props: { opening: 7 } })
      const stopped = account.address.node
      b.child.kill("SIGSTOP")
      yield* until(Effect.map(system.members, (members) => !members.some((member) => member.node.id === "b")))
      assert.match((yield* closedBy(stopped))!.reason, /has not renewed its lease/)
      b.child.kill("SIGCONT")
      assert.strictEqual(yield* b.exit, 1, b.output())
      assert.strictEqual(yield* account.ask.Balance({ timeout: "20 seconds" }), 7)
    }), 90_000)
})

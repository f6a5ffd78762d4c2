// Real processes, real signals, a real store: what the simulation says about crashes and pauses holds for members that are processes.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schedule } from "effect"
import { ActorSystem, Layers } from "effect-troupe"
import { ControlStoreEtcd } from "effect-troupe/ControlPlane/Etcd"
import { startEtcd } from "../../scripts/servers/index.ts"
import { Account } from "../../examples/usage/account.ts"
import { start } from "./support/program.ts"

const lease = "2 seconds"

/** This process as a member that hosts nothing, and two child processes that host accounts. */
const cluster = Effect.gen(function*() {
  const etcd = yield* startEtcd({ data: "memory" })
  const child = (id: string) =>
    start("test/integration/processes/clusterNode.ts", {
      TROUPE_SYSTEM: "bank",
      TROUPE_NODE_ID: id,
      TROUPE_MEMBER_LEASE: lease,
      ETCD_ENDPOINTS: etcd.endpoints.join(",")
    })
  const programs = { b: yield* child("b"), c: yield* child("c") }
  // built last, so closed first: it leaves while the others are still there
  const context = yield* Layer.build(
    Layers.cluster({ system: "bank", id: "test", cluster: { memberLease: lease } }).pipe(
      Layer.provide(ControlStoreEtcd.layer({ endpoints: etcd.endpoints }))
    )
  )
  const system = yield* Effect.provideContext(ActorSystem.ActorSystem, context)
  yield* until(
    Effect.map(
      system.members,
      (members) =>
        ["b", "c"].every((id) => members.some((member) => member.node.id === id && member.kinds.includes("Account")))
    )
  )
  return { system, programs, etcd, child }
})

/** Looks again each 50 ms until it holds, for at most 30 s. */
const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(condition, { schedule: Schedule.spaced("50 millis"), until: (holds) => holds }).pipe(
    Effect.timeout("30 seconds")
  )

describe("members that are processes", () => {
  it.live(
    "a member killed by SIGKILL: its actors run on another one, under their names, with their props",
    () =>
      Effect.gen(function*() {
        const { programs, system } = yield* cluster
        const accounts = yield* Effect.forEach(
          [1, 2, 3],
          (opening) => system.spawnOn(Account, `acct-${opening}`, { on: "b", props: { opening } })
        )
        assert.deepStrictEqual(yield* Effect.forEach(accounts, (account) => account.ask.Balance()), [1, 2, 3])
        programs.b.child.kill("SIGKILL")
        yield* until(Effect.map(system.members, (members) => !members.some((member) => member.node.id === "b")))
        // the references of before find them
        const balances = yield* Effect.forEach(accounts, (account) => account.ask.Balance({ timeout: "20 seconds" }))
        assert.deepStrictEqual(balances, [1, 2, 3])
        assert.deepStrictEqual(accounts.map((account) => account.address.node.id), ["c", "c", "c"])
      }),
    90_000
  )

  it.live(
    "a member stopped by SIGSTOP for longer than its lease: its actors move, and it ends with 1 when it wakes",
    () =>
      Effect.gen(function*() {
        const { programs, system } = yield* cluster
        const account = yield* system.spawnOn(Account, "acct-1", { on: "b", props: { opening: 7 } })
        assert.strictEqual(yield* account.ask.Withdraw({ cents: 2 }), 5)
        programs.b.child.kill("SIGSTOP")
        yield* until(Effect.map(system.members, (members) => !members.some((member) => member.node.id === "b")))
        assert.strictEqual(yield* account.ask.Balance({ timeout: "20 seconds" }), 7)
        assert.strictEqual(account.address.node.id, "c")
        programs.b.child.kill("SIGCONT")
        assert.strictEqual(yield* programs.b.exit, 1, programs.b.output())
        assert.strictEqual(yield* account.ask.Balance(), 7)
      }),
    90_000
  )

  it.live("a member asked to go by SIGTERM: its actors move at once, and it ends with 0", () =>
    Effect.gen(function*() {
      const { programs, system } = yield* cluster
      const account = yield* system.spawnOn(Account, "acct-1", { on: "b", props: { opening: 9 } })
      programs.b.child.kill("SIGTERM")
      assert.strictEqual(yield* programs.b.exit, 0, programs.b.output())
      assert.strictEqual(yield* account.ask.Balance(), 9)
      assert.strictEqual(account.address.node.id, "c")
    }), 90_000)
})

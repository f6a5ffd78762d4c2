/** Leases on real stores: whatever stalls, two never act at once, and a holder that is gone is replaced in time. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { startEtcd, startNats, startProxy, temporaryFolder } from "../../scripts/servers/index.ts"
import * as ControlStoreEtcd from "../../src/ControlPlane/ControlStoreEtcd.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"
import type { ControlStoreService } from "../../src/ControlPlane/ControlStore.ts"
import * as ControlStoreSqlite from "../../src/ControlPlane/ControlStoreSqlite.ts"
import * as Lease from "../../src/ControlPlane/Lease.ts"

/** milliseconds */
const duration = 2_000
const margin = 250

const now = () => process.hrtime.bigint()
const millisSince = (moment: bigint) => Number(now() - moment) / 1_000_000

/** Closes the lease as soon as it counts as expired. Returns the moment before the closing that succeeded. */
const takeOver = (store: ControlStoreService, key: string) =>
  Effect.gen(function*() {
    const observer = yield* Lease.observe(store, "")
    while (true) {
      if (observer.status(key) === "Expired") {
        const asked = now()
        const outcome = yield* Effect.result(observer.close(key))
        if (outcome._tag === "Success" && outcome.success === "Closed") return asked
      }
      yield* Effect.sleep("10 millis")
    }
  })

interface Stage {
  readonly owner: ControlStoreService
  readonly rival: ControlStoreService
  /** cuts the owner from the store and leaves everybody else alone */
  readonly cutOwner: Effect.Effect<void>
  /** stalls the store for everybody, for so long */
  readonly stall: (millis: number) => Effect.Effect<void>
}

const nats = Effect.gen(function*() {
  const { members: [server], servers } = yield* startNats()
  const proxy = yield* startProxy(servers[0]!)
  const stage: Stage = {
    owner: yield* ControlStoreNats.make({ servers: [proxy.address] }),
    rival: yield* ControlStoreNats.make({ servers }),
    cutOwner: proxy.blackHole,
    stall: (millis) => Effect.andThen(server!.freeze, Effect.andThen(Effect.sleep(millis), server!.thaw))
  }
  return stage
})

const etcd = Effect.gen(function*() {
  const { endpoints, members: [server] } = yield* startEtcd()
  const proxy = yield* startProxy(endpoints[0]!.slice("http://".length))
  const stage: Stage = {
    owner: yield* ControlStoreEtcd.make({ endpoints: [`http://${proxy.address}`] }),
    rival: yield* ControlStoreEtcd.make({ endpoints }),
    cutOwner: proxy.blackHole,
    stall: (millis) => Effect.andThen(server!.freeze, Effect.andThen(Effect.sleep(millis), server!.thaw))
  }
  return stage
})

const etcdOfThree = Effect.gen(function*() {
  const { endpoints, leader } = yield* startEtcd({ members: 3 })
  const proxy = yield* startProxy(endpoints[0]!.slice("http://".length))
  const stage: Stage = {
    owner: yield* ControlStoreEtcd.make({ endpoints: [`http://${proxy.address}`] }),
    rival: yield* ControlStoreEtcd.make({ endpoints }),
    cutOwner: proxy.blackHole,
    stall: (millis) =>
      Effect.flatMap(
        leader,
        (member) => Effect.andThen(member!.freeze, Effect.andThen(Effect.sleep(millis), member!.thaw))
      )
  }
  return stage
})

const stages: ReadonlyArray<readonly [string, Effect.Effect<Stage, unknown, Scope.Scope>]> = [
  ["one NATS server", nats],
  ["one etcd member", etcd],
  ["three etcd members, one reached by the owner", etcdOfThree]
]

describe.concurrent("a lease whose owner or store stalls", () => {
  for (const [name, open] of stages) {
    it.live(`${name}: cut off for good, the owner stops before another takes over, which it does in time`, () =>
      Effect.gen(function*() {
        const { cutOwner, owner, rival } = yield* open
        const lease = yield* Lease.hold(owner, { key: "lease", duration })
        const taking = yield* Effect.forkChild(takeOver(rival, "lease"), { startImmediately: true })
        yield* Effect.sleep(duration)
        assert.isTrue(lease.isValid(), "it is renewed")
        const cut = now()
        yield* cutOwner
        let lastValid = now()
        while (taking.pollUnsafe() === undefined) {
          const asked = now()
          if (lease.isValid()) lastValid = asked
          assert.isBelow(millisSince(cut), 2 * duration + 5_000, "nobody has taken over")
          yield* Effect.sleep("2 millis")
        }
        const closedAt = yield* taking.pollUnsafe()!
        assert.isTrue(lastValid < closedAt, "the owner acted when it was closed")
        assert.isAtMost(Number(lastValid - cut) / 1e6, duration + 5, "the owner acted for too long")
        assert.isAtLeast(Number(closedAt - cut) / 1e6, duration * 0.6 + margin, "it was not waited for")
        assert.isFalse(lease.isValid())
      }).pipe(Effect.scoped))

    it.live(`${name}: stalled for three leases, it never lets two act`, () =>
      Effect.gen(function*() {
        const { owner, rival, stall } = yield* open
        const lease = yield* Lease.hold(owner, { key: "lease", duration })
        const taking = yield* Effect.forkChild(takeOver(rival, "lease"), { startImmediately: true })
        yield* Effect.sleep(duration)
        yield* Effect.forkChild(stall(3 * duration), { startImmediately: true })
        const begun = now()
        let lastValid = now()
        while (millisSince(begun) < 5 * duration) {
          const asked = now()
          if (lease.isValid()) lastValid = asked
          const taken = taking.pollUnsafe()
          if (taken !== undefined) assert.isTrue(lastValid < (yield* taken), "the owner acted when it was closed")
          yield* Effect.sleep("2 millis")
        }
        // either of them has it: nobody is left without an answer
        const taken = taking.pollUnsafe()
        if (taken === undefined) assert.isTrue(lease.isValid(), "the owner goes on, because nobody took it over")
        else assert.strictEqual(yield* lease.state, "Closed")
      }).pipe(Effect.scoped))
  }

  it.live("SQLite: an owner's process that is stopped for three leases never acts again once it was replaced", () =>
    Effect.gen(function*() {
      const file = join(yield* temporaryFolder("sqlite"), "store.db")
      const store = yield* ControlStoreSqlite.make({ file })
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, [join(import.meta.dirname, "programs/owner.ts"), file, "lease", String(duration)], {
            stdio: ["ignore", "pipe", "inherit"]
          })
        ),
        (running) => Effect.sync(() => running.kill("SIGKILL"))
      )
      let text = ""
      child.stdout.on("data", (chunk: Buffer) => text += chunk.toString())
      const lines = () => text.split("\n").slice(0, -1).map((line) => line.split(" "))
      const taking = yield* Effect.forkChild(takeOver(store, "lease"), { startImmediately: true })
      while (lines().filter(([, valid]) => valid === "true").length < 100) yield* Effect.sleep("20 millis")
      yield* Effect.sleep(duration)
      assert.isUndefined(taking.pollUnsafe())
      child.kill("SIGSTOP")
      const stopped = now()
      yield* Effect.sleep(3 * duration)
      const taken = taking.pollUnsafe()
      assert.isDefined(taken, "it was taken over while it was stopped")
      const closedAt = yield* taken!
      const before = lines().length
      child.kill("SIGCONT")
      while (lines().at(-1)?.[2] !== "Closed" || lines().length < before + 50) {
        assert.isBelow(millisSince(stopped), 5 * duration, "it never learned that it is closed")
        yield* Effect.sleep("20 millis")
      }
      assert.deepStrictEqual(lines().filter(([at, valid]) => valid === "true" && BigInt(at!) >= closedAt), [])
    }).pipe(Effect.scoped))
})

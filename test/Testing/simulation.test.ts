// What a world promises to the tests that use it: repeatable by seed, faults that bite, monitors that watch.
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { TestClock } from "effect/testing"
import { Simulation } from "effect-troupe/testing"
import { Account, AccountLive } from "../../examples/usage/account.ts"

/** A story with a crash and a partition; what it leaves behind. */
const story = (seed: number, network: Simulation.Options["network"] = {}) =>
  Effect.scoped(Effect.gen(function*() {
    const world = yield* Simulation.make({
      seed,
      kinds: AccountLive,
      dataCenters: { "us-east-1": { nodes: 3 }, "eu-west-1": { nodes: 2 } },
      network
    })
    yield* world.awaitReady
    const us = world.node("us-east-1", 0)
    for (let index = 0; index < 8; index++) {
      yield* world.run(us.system.spawnOn(Account, `acct-${index}`, { props: { opening: index } }))
    }
    yield* world.partition(["us-east-1"], ["eu-west-1"])
    yield* world.node("us-east-1", 2).crash
    yield* TestClock.adjust("30 seconds")
    yield* world.heal
    const balances = yield* world.run(Effect.forEach(
      Array.from({ length: 8 }, (_, index) => `acct-${index}`),
      (name) => Effect.flatMap(us.system.actorOf(Account, name), (account) => account.ask.Balance())
    ))
    return { hash: world.traceHash, events: world.trace.length, balances, violations: world.violations }
  }))

describe("a simulated world", () => {
  it.effect("knows every name that a fault is given, or dies of it: a fault that hits nobody proves nothing", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 10, kinds: AccountLive, dataCenters: { eu: { nodes: 2 } } })
      yield* world.awaitReady
      const unknown = Effect.fnUntraced(function*(fault: Effect.Effect<void>) {
        const exit = yield* Effect.exit(fault)
        return Exit.isFailure(exit) ? String(Cause.squash(exit.cause)) : "cut"
      })
      const knows = "(known: eu, store:eu, eu-0, eu-1, global-control-plane)"
      assert.strictEqual(yield* unknown(world.partition(["eu-7"], ["eu"])), `Error: there is no place eu-7 ${knows}`)
      assert.strictEqual(
        yield* unknown(world.partition(["eu"], ["eu-0", "us"])),
        `Error: there is no place us ${knows}`
      )
      assert.strictEqual(
        yield* unknown(world.partition(["eu"], ["constructor"])),
        `Error: there is no place constructor ${knows}`
      )
      assert.strictEqual(
        yield* unknown(world.reject("eu-0", "eu-2")),
        "Error: there is no node eu-2 (known: eu-0, eu-1)"
      )
      assert.strictEqual(yield* unknown(world.reject("eu", "eu-1")), "Error: there is no node eu (known: eu-0, eu-1)")
      assert.deepStrictEqual(world.trace.filter(({ where }) => where === "world"), [])
      assert.strictEqual(yield* unknown(world.partition(["eu-0"], ["store:eu", Simulation.globalControlPlane])), "cut")
      assert.strictEqual(yield* unknown(world.reject("eu-0", "eu-1")), "cut")
    }))

  it.effect("leaves the same trace for the same seed, and another one for another seed", () =>
    Effect.gen(function*() {
      const first = yield* story(11)
      const again = yield* story(11)
      const other = yield* story(12)
      assert.strictEqual(again.hash, first.hash)
      assert.notStrictEqual(other.hash, first.hash)
      assert.deepStrictEqual(first.balances, [0, 1, 2, 3, 4, 5, 6, 7])
      assert.deepStrictEqual([...first.violations, ...other.violations], [])
    }))

  it.effect("with latency and jitter, calls take virtual time and run() moves the clock for them", () =>
    Effect.gen(function*() {
      const first = yield* story(13, { latency: "5 millis", jitter: "3 millis" })
      const again = yield* story(13, { latency: "5 millis", jitter: "3 millis" })
      assert.strictEqual(again.hash, first.hash)
      assert.deepStrictEqual(first.balances, [0, 1, 2, 3, 4, 5, 6, 7])
      assert.deepStrictEqual(first.violations, [])
    }))

  it.effect("a node that leaves in order gives its actors to the others; restarted it is another incarnation", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({ seed: 14, kinds: AccountLive, dataCenters: { "us-east-1": { nodes: 3 } } })
      yield* world.awaitReady
      const [a, b] = [world.node("us-east-1", 0), world.node("us-east-1", 1)]
      const before = b.address.incarnation
      const account = yield* a.system.spawnOn(Account, "acct-1", { on: b.id, props: { opening: 5 } })
      yield* world.run(b.leave)
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* world.run(account.ask.Balance()), 5)
      const members = yield* a.system.members
      assert.deepStrictEqual(members.map((member) => member.node.id).sort(), ["us-east-1-0", "us-east-1-2"])
      yield* b.restart
      yield* world.awaitReady
      assert.notStrictEqual(b.address.incarnation, before)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("says which node waits for what when a world cannot become ready", () =>
    Effect.gen(function*() {
      const world = yield* Simulation.make({
        seed: 15,
        kinds: AccountLive,
        dataCenters: { "us-east-1": { nodes: 1 }, "eu-west-1": { nodes: 1 } }
      })
      yield* world.partition(["eu-west-1"], [Simulation.globalControlPlane])
      const failure = yield* Effect.flip(world.awaitReady)
      assert.strictEqual(failure._tag, "WorldNotReady")
      assert.include(failure.waiting.join("\n"), "us-east-1-0: does not see datacenter eu-west-1")
    }))
})

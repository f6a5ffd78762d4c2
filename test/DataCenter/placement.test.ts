// Spawning, finding and stopping across datacenters, and every typed way in which that is refused.
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { dataCenterId } from "../../src/ControlPlane/ControlPlane.ts"
import type { Target } from "../../src/Actor/Placement.ts"
import * as World from "./world.ts"

const to = (dataCenter: NonNullable<Target["dataCenter"]>, more: Partial<Target> = {}): Target => ({
  strategy: "random",
  ...more,
  dataCenter
})

/** Two datacenters that know each other: two nodes in us, two in eu. */
const two = Effect.gen(function*() {
  const world = yield* World.make
  const us = yield* world.dataCenter({ name: "us", region: "america", labels: { residency: "us" } })
  const eu = yield* world.dataCenter({ name: "eu", region: "europe", labels: { residency: "eu", compliance: "gdpr" } })
  const [u1, u2] = [yield* us.start(), yield* us.start()]
  const [e1, e2] = [yield* eu.start(), yield* eu.start()]
  yield* TestClock.adjust("1 second")
  return { world, us, eu, u1, u2, e1, e2 }
})

describe("spawn into a datacenter", () => {
  it.effect("goes to the cluster's own placement there, with role and strategy, from every node", () =>
    Effect.gen(function*() {
      const { e1, e2, u1, u2 } = yield* two
      for (const [index, from] of [u1, u2].entries()) {
        const address = yield* from.placement.spawn(
          World.spec(`acct-${index}`),
          to("eu", { role: "ledger", strategy: "leastLoad" })
        )
        assert.strictEqual(address.node.dataCenter, "eu")
      }
      const placed = [...e1.placed, ...e2.placed]
      assert.strictEqual(placed.length, 2)
      for (const { target } of placed) assert.deepStrictEqual(target, { strategy: "leastLoad", role: "ledger" })
      assert.strictEqual(u1.placed.length + u2.placed.length, 0)
    }))

  it.effect("without a target, or with its own name, stays here, and needs no control plane", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      node.faults.reachable = false
      yield* node.placement.spawn(World.spec("a"), { strategy: "local" })
      yield* node.placement.spawn(World.spec("b"), to("us"))
      assert.deepStrictEqual(node.placed.map(({ target }) => target), [{ strategy: "local" }, { strategy: "random" }])
      assert.deepStrictEqual(world.wire.calls, [])
    }))

  it.effect("is DataCenterNotReady before the first refresh", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      node.faults.reachable = false
      const refused = yield* Effect.flip(node.placement.spawn(World.spec("a"), to("eu")))
      assert.strictEqual(refused._tag, "DataCenterNotReady")
      assert.isFalse(yield* node.topology.dataCenterReady)
    }))

  it.effect("is StaleRecords with age and limit once the cache is too old, and works again when it is current", () =>
    Effect.gen(function*() {
      const { u1 } = yield* two
      u1.faults.reachable = false
      yield* TestClock.adjust("2 minutes")
      const refused = yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("eu")))
      if (refused._tag !== "StaleRecords") return assert.fail(refused._tag)
      assert.strictEqual(Duration.toMillis(refused.limit), 30_000)
      assert.isAtLeast(Duration.toMillis(refused.age), 118_000)
      assert.isTrue(yield* u1.topology.dataCenterReady, "readiness never falls back")
      u1.faults.reachable = true
      yield* TestClock.adjust("5 seconds")
      yield* u1.placement.spawn(World.spec("a"), to("eu"))
    }))

  it.effect("goes on with a stale cache where the settings say so, as it was when last current", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", failOnStaleCache: false })
      const eu = yield* world.dataCenter({ name: "eu" })
      const u1 = yield* us.start()
      const e1 = yield* eu.start()
      yield* TestClock.adjust("1 second")
      u1.faults.reachable = false
      yield* TestClock.adjust("5 minutes")
      yield* u1.placement.spawn(World.spec("a"), to("eu"))
      assert.strictEqual(e1.placed.length, 1)
    }))

  it.effect("is RecordNotFound for a name that nobody has", () =>
    Effect.gen(function*() {
      const { u1 } = yield* two
      const refused = yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("mars-1")))
      assert.strictEqual(refused._tag, "RecordNotFound")
      assert.strictEqual(refused._tag === "RecordNotFound" && refused.dataCenter, "mars-1")
    }))

  it.effect("is RecordNotFound once the lease has run out by this node's own clock, though nobody changed the record", () =>
    Effect.gen(function*() {
      const { world, e1, e2, u1 } = yield* two
      e1.faults.reachable = false
      e2.faults.reachable = false
      yield* TestClock.adjust("18 seconds")
      yield* u1.placement.spawn(World.spec("still"), to("eu"))
      yield* TestClock.adjust("24 seconds")
      const refused = yield* Effect.flip(u1.placement.spawn(World.spec("late"), to("eu")))
      assert.strictEqual(refused._tag, "RecordNotFound")
      assert.strictEqual((yield* world.plane.list).find(({ dataCenter }) => dataCenter.name === "eu")?.state, "ACTIVE")
      assert.deepStrictEqual(
        u1.events.filter((event) => event._tag === "DataCenterGone"),
        [{ _tag: "DataCenterGone", dataCenter: "eu", reason: "its lease ran out" }]
      )
    }))

  it.effect("an expired datacenter stays refused through an outage of the whole control plane, until it renews", () =>
    Effect.gen(function*() {
      const { e1, e2, u1 } = yield* two
      e1.faults.reachable = false
      e2.faults.reachable = false
      yield* TestClock.adjust("1 minute")
      u1.faults.reachable = false
      yield* TestClock.adjust("1 minute")
      u1.faults.reachable = true
      for (let i = 0; i < 40; i++) {
        yield* TestClock.adjust("1 second")
        const refused = yield* Effect.flip(u1.placement.spawn(World.spec(`a${i}`), to("eu")))
        assert.include(["RecordNotFound", "StaleRecords"], refused._tag)
      }
      e1.faults.reachable = true
      yield* TestClock.adjust("15 seconds")
      yield* u1.placement.spawn(World.spec("back"), to("eu"))
    }))

  it.effect("tries another endpoint when one was certainly not reached, and fails when none was", () =>
    Effect.gen(function*() {
      const { world, e1, e2, u1 } = yield* two
      world.wire.down.set(e1.endpoint, "NotSent")
      for (let i = 0; i < 6; i++) yield* u1.placement.spawn(World.spec(`a${i}`), to("eu"))
      assert.strictEqual(e2.placed.length, 6)
      world.wire.down.set(e2.endpoint, "NotSent")
      const refused = yield* Effect.flip(u1.placement.spawn(World.spec("b"), to("eu")))
      assert.strictEqual(refused._tag === "NodeUnreachable" && refused.outcome, "NotSent")
    }))

  it.effect("does not ask a second endpoint when the first may have acted", () =>
    Effect.gen(function*() {
      const { world, e1, e2, u1 } = yield* two
      world.wire.down.set(e1.endpoint, "Unknown")
      world.wire.down.set(e2.endpoint, "Unknown")
      const before = world.wire.calls.length
      const refused = yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("eu")))
      assert.strictEqual(refused._tag === "NodeUnreachable" && refused.outcome, "Unknown")
      assert.strictEqual(world.wire.calls.length, before + 1)
    }))

  it.effect("chooses among all endpoints", () =>
    Effect.gen(function*() {
      const { e1, e2, u1 } = yield* two
      for (let i = 0; i < 40; i++) yield* u1.placement.spawn(World.spec(`a${i}`), to("eu"))
      assert.isAtLeast(e1.placed.length, 8)
      assert.isAtLeast(e2.placed.length, 8)
    }))

  it.effect("selects by region and labels; more than one match is an error, none is RecordNotFound", () =>
    Effect.gen(function*() {
      const { world, e1, e2, u1 } = yield* two
      yield* u1.placement.spawn(World.spec("a"), to({ region: "europe" }))
      yield* u1.placement.spawn(World.spec("b"), to({ labels: { compliance: "gdpr" } }))
      assert.strictEqual(e1.placed.length + e2.placed.length, 2)
      const none = yield* Effect.flip(u1.placement.spawn(World.spec("c"), to({ name: "eu", region: "america" })))
      assert.strictEqual(none._tag, "RecordNotFound")
      const third = yield* world.dataCenter({ name: "eu-2", region: "europe" })
      yield* third.start()
      yield* TestClock.adjust("1 second")
      const several = yield* Effect.flip(u1.placement.spawn(World.spec("d"), to({ region: "europe" })))
      assert.strictEqual(several._tag, "AmbiguousDataCenter")
    }))

  it.effect("is checked again at the receiving datacenter: old records cannot break a residency", () =>
    Effect.gen(function*() {
      const { e1, e2, eu, u1, world } = yield* two
      u1.faults.reachable = false
      const refused = yield* Effect.gen(function*() {
        yield* e1.dataCenters.drain("eu", { by: "operator", reason: "maintenance" })
        yield* TestClock.adjust("1 second")
        return yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("eu")))
      })
      assert.strictEqual(refused._tag, "RecordNotFound")
      assert.isAbove(world.wire.calls.length, 0, "it was the receiver who refused")
      assert.strictEqual(e1.placed.length + e2.placed.length + eu.names.size, 0)
    }))
})

describe("the receiving datacenter", () => {
  it.effect("takes nothing that was meant for another one, wherever a record sent it", () =>
    Effect.gen(function*() {
      const { e1, e2, u1, world } = yield* two
      const dataCenter = { name: "asia", labels: {} }
      yield* world.plane.register({
        id: dataCenterId(dataCenter),
        dataCenter,
        endpoints: [e1.endpoint],
        state: "ACTIVE",
        writer: "w@1"
      })
      yield* TestClock.adjust("1 second")
      const refused = yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("asia")))
      assert.strictEqual(refused._tag === "RecordNotFound" && refused.dataCenter, "asia")
      assert.strictEqual(world.wire.calls.at(-1)?.to, e1.endpoint, "it was asked, and it refused")
      assert.strictEqual(e1.placed.length + e2.placed.length, 0)
    }))
})

describe("kinds that other datacenters may spawn", () => {
  const allowing = (spawnableKinds: ReadonlyArray<string> | undefined) =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", spawnableKinds: [] })
      const eu = yield* world.dataCenter({ name: "eu", ...(spawnableKinds === undefined ? {} : { spawnableKinds }) })
      const [u1, e1] = [yield* us.start(), yield* eu.start()]
      yield* TestClock.adjust("1 second")
      return { world, u1, e1 }
    })

  it.effect("are all, unless the settings of that datacenter name some", () =>
    Effect.gen(function*() {
      for (const kinds of [undefined, ["*"], ["Other", "Account"]]) {
        const { e1, u1 } = yield* allowing(kinds)
        yield* u1.placement.spawn(World.spec("a"), to("eu"))
        assert.strictEqual(e1.placed.length, 1)
      }
    }))

  it.effect("others are KindNotAllowed, which names the kind and who refused; nothing was placed", () =>
    Effect.gen(function*() {
      for (const kinds of [[], ["Other"], ["account"], ["Account*"]]) {
        const { e1, u1 } = yield* allowing(kinds)
        const refused = yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("eu")))
        if (refused._tag !== "KindNotAllowed") return assert.fail(refused._tag)
        assert.deepInclude(refused, { kind: "Account", refusedBy: e1.address.id, dataCenter: "eu" })
        assert.isFalse(refused.retryable)
        assert.strictEqual(e1.placed.length, 0)
      }
    }))

  it.effect("are checked where they are asked for, by whatever node is asked, and not at home", () =>
    Effect.gen(function*() {
      const { e1, u1, world } = yield* allowing(["Other"])
      yield* Effect.flip(u1.placement.spawn(World.spec("a"), to("eu")))
      assert.strictEqual(world.wire.calls.at(-1)?.to, e1.endpoint, "the sender did not decide")
      yield* e1.placement.spawn(World.spec("a"), to("eu"))
      yield* e1.placement.spawn(World.spec("b"), { strategy: "local" })
      assert.strictEqual(e1.placed.length, 2)
    }))

  it.effect("do not keep others from finding and stopping what is there", () =>
    Effect.gen(function*() {
      const { e1, u1 } = yield* allowing([])
      const address = yield* e1.placement.spawn(World.spec("a"), { strategy: "local" })
      assert.deepStrictEqual(yield* u1.placement.lookup("Account", "a", {}), address)
      yield* u1.placement.stop(address)
      assert.strictEqual((yield* Effect.flip(u1.placement.lookup("Account", "a", {})))._tag, "ActorNotFound")
    }))
})

describe("finding and stopping across datacenters", () => {
  it.effect("asks its own datacenter first, then the others", () =>
    Effect.gen(function*() {
      const { u1, u2, world } = yield* two
      yield* u1.placement.spawn(World.spec("here"), { strategy: "local" })
      yield* u1.placement.spawn(World.spec("there"), to("eu"))
      const before = world.wire.calls.length
      assert.strictEqual((yield* u2.placement.lookup("Account", "here", {})).node.dataCenter, "us")
      assert.strictEqual(world.wire.calls.length, before)
      assert.strictEqual((yield* u2.placement.lookup("Account", "there", {})).node.dataCenter, "eu")
    }))

  it.effect("is ActorNotFound when everybody has answered, NodeUnreachable while somebody has not", () =>
    Effect.gen(function*() {
      const { e1, e2, u1, world } = yield* two
      assert.strictEqual((yield* Effect.flip(u1.placement.lookup("Account", "x", {})))._tag, "ActorNotFound")
      world.wire.down.set(e1.endpoint, "NotSent").set(e2.endpoint, "NotSent")
      assert.strictEqual((yield* Effect.flip(u1.placement.lookup("Account", "x", {})))._tag, "NodeUnreachable")
    }))

  it.effect("two datacenters that know one name are an error that names both, not a guess", () =>
    Effect.gen(function*() {
      const { u1, world } = yield* two
      const asia = yield* world.dataCenter({ name: "asia" })
      const a1 = yield* asia.start()
      yield* TestClock.adjust("1 second")
      yield* a1.placement.spawn(World.spec("x"), { strategy: "local" })
      yield* u1.placement.spawn(World.spec("x"), to("eu"))
      const refused = yield* Effect.flip(u1.placement.lookup("Account", "x", {}))
      assert.deepStrictEqual(refused._tag === "AmbiguousDataCenter" && refused.matches, ["asia", "eu"])
      assert.strictEqual((yield* u1.placement.lookup("Account", "x", { dataCenter: "asia" })).node.dataCenter, "asia")
    }))

  it.effect("finds its own names without a control plane, and says why it cannot look further", () =>
    Effect.gen(function*() {
      const { u1 } = yield* two
      yield* u1.placement.spawn(World.spec("here"), { strategy: "local" })
      u1.faults.reachable = false
      yield* TestClock.adjust("1 minute")
      yield* u1.placement.lookup("Account", "here", {})
      assert.strictEqual((yield* Effect.flip(u1.placement.lookup("Account", "there", {})))._tag, "StaleRecords")
    }))

  it.effect("stops an actor where it lives, by another node of that datacenter if its own is gone, drained or not", () =>
    Effect.gen(function*() {
      const { e1, e2, eu, u1, world } = yield* two
      const address = yield* u1.placement.spawn(World.spec("x"), to("eu"))
      yield* e1.dataCenters.drain("eu")
      yield* TestClock.adjust("1 second")
      world.wire.down.set(`${address.node.host}:${address.node.port}`, "NotSent")
      yield* u1.placement.stop(address)
      assert.isFalse(eu.names.has("x"))
      world.wire.down.set(e1.endpoint, "NotSent").set(e2.endpoint, "NotSent")
      assert.strictEqual((yield* Effect.flip(u1.placement.stop(address)))._tag, "NodeUnreachable")
    }))
})

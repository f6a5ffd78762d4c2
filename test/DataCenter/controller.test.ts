// The controller: who writes the record, when, and what never un-drains it. Numbers like M14 name the bug of a peer that must
// not happen here.
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Fiber, Layer, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as ControlPlane from "../../src/ControlPlane/ControlPlane.ts"
import * as DataCenters from "../../src/DataCenter/DataCenters.ts"
import * as World from "./world.ts"

type Made = Effect.Success<typeof World.make>

const recordOf = (world: Made, name: string) =>
  Effect.map(world.plane.list, (records) => records.find((record) => record.dataCenter.name === name))
const stateOf = (world: Made, name: string) => Effect.map(recordOf(world, name), (record) => record?.state)
const routableAt = (node: World.NodeInWorld) =>
  Effect.map(
    node.dataCenters.known,
    ({ dataCenters }) => dataCenters.filter(({ routable }) => routable).map(({ record }) => record.dataCenter.name)
  )

describe("registration", () => {
  it.effect("M1: a datacenter of a single node registers at once, ACTIVE, with its endpoint", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", region: "america", labels: { tier: "gold" } })
      const node = yield* us.start()
      yield* TestClock.adjust("200 millis")
      const record = yield* recordOf(world, "us")
      assert.strictEqual(record?.state, "ACTIVE")
      assert.deepStrictEqual(record?.endpoints, [node.endpoint])
      assert.deepStrictEqual(record?.dataCenter, { name: "us", region: "america", labels: { tier: "gold" } })
      assert.isTrue(yield* node.topology.dataCenterReady)
    }))

  it.effect("M2: it stays alive for as long as its leader lives", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const node = yield* us.start()
      yield* eu.start()
      for (let i = 0; i < 60; i++) {
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(yield* routableAt(node), ["eu", "us"])
      }
    }))

  it.effect("M3: every node knows every datacenter, not only the leader", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const nodes = [yield* us.start(), yield* us.start(), yield* us.start(), yield* eu.start(), yield* eu.start()]
      yield* TestClock.adjust("1 second")
      for (const node of nodes) {
        assert.deepStrictEqual(yield* routableAt(node), ["eu", "us"])
        assert.isTrue(yield* node.dataCenters.ready)
      }
    }))

  it.effect("is REGISTERED, and not routable, until its cluster has its members", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", formed: Effect.sleep("20 seconds") })
      const node = yield* us.start()
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* stateOf(world, "us"), "REGISTERED")
      assert.deepStrictEqual(yield* routableAt(node), [])
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* stateOf(world, "us"), "ACTIVE")
    }))

  it.effect("its endpoints follow membership, sorted, and are written only when they changed", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const [a, b] = [yield* us.start(), yield* us.start()]
      yield* TestClock.adjust("1 second")
      const first = yield* recordOf(world, "us")
      assert.deepStrictEqual(first?.endpoints, [a.endpoint, b.endpoint].sort())
      yield* us.remove(b.address)
      yield* TestClock.adjust("1 second")
      const second = yield* recordOf(world, "us")
      assert.deepStrictEqual(second?.endpoints, [a.endpoint])
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* recordOf(world, "us"))?.version, second?.version, "M30: heartbeats move no version")
    }))

  it.effect("its endpoints are those of the settings where they are given", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", endpoints: ["lb.example:443"] })
      yield* us.start()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* recordOf(world, "us"))?.endpoints, ["lb.example:443"])
    }))

  it.effect("is retried until the control plane is there, with capped backoff", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      node.faults.reachable = false
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* recordOf(world, "us"), undefined)
      node.faults.reachable = true
      yield* TestClock.adjust("12 seconds")
      assert.strictEqual(yield* stateOf(world, "us"), "ACTIVE")
    }))

  it.effect("that cannot be written is told once, not once a try", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      node.faults.write = "UnknownNotApplied"
      yield* TestClock.adjust("5 minutes")
      const told = node.events.filter((event) => event._tag === "StoreTrouble")
      assert.deepStrictEqual(told, [{
        _tag: "StoreTrouble",
        store: "control plane",
        reason: "the record of us cannot be kept: OutcomeUnknown"
      }])
      node.faults.write = "Normal"
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* stateOf(world, "us"), "ACTIVE")
    }))

  it.effect("recovers its record after an unknown outcome, and when somebody removed it", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      node.faults.write = "UnknownApplied"
      yield* TestClock.adjust("5 seconds")
      node.faults.write = "Normal"
      yield* TestClock.adjust("15 seconds")
      const record = yield* recordOf(world, "us")
      assert.strictEqual(record?.state, "ACTIVE")
      yield* world.plane.deregister(record!.id, record!.version)
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* stateOf(world, "us"), "ACTIVE")
    }))

  it.effect("comes back after the control plane lost everything", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const node = yield* us.start()
      yield* eu.start()
      yield* TestClock.adjust("1 second")
      world.backend.wipe()
      yield* TestClock.adjust("25 seconds")
      assert.deepStrictEqual(yield* routableAt(node), ["eu", "us"])
    }))
})

describe("a change of leader", () => {
  it.effect("the new leader renews at once and takes over the endpoints", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const [a, b] = [yield* us.start(), yield* us.start()]
      yield* TestClock.adjust("9 seconds")
      a.faults.reachable = false
      yield* us.remove(a.address)
      yield* TestClock.adjust("500 millis")
      const record = yield* recordOf(world, "us")
      assert.deepStrictEqual(record?.endpoints, [b.endpoint])
      assert.isAbove(Duration.toMillis(record!.lease.remaining), 29_000)
      assert.strictEqual(record?.state, "ACTIVE")
    }))

  it.effect("the new leader renews at once also where there is nothing to change in the record", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", endpoints: ["lb.example:443"] })
      const [a] = [yield* us.start(), yield* us.start()]
      yield* TestClock.adjust("9 seconds")
      const before = yield* recordOf(world, "us")
      a.faults.reachable = false
      yield* us.remove(a.address)
      yield* TestClock.adjust("500 millis")
      const after = yield* recordOf(world, "us")
      assert.strictEqual(after?.version, before?.version)
      assert.isAbove(Duration.toMillis(after!.lease.remaining), 29_000)
    }))

  it.effect("M14: a rolling restart, leader included, never takes the datacenter out of routing", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const watching = yield* eu.start()
      for (let i = 0; i < 3; i++) yield* us.start()
      yield* TestClock.adjust("2 seconds")
      for (let i = 0; i < 3; i++) {
        yield* us.nodes[i]!.close
        for (let second = 0; second < 15; second++) {
          yield* TestClock.adjust("1 second")
          assert.include(yield* routableAt(watching), "us")
        }
        yield* us.start()
        yield* TestClock.adjust("5 seconds")
      }
      assert.deepStrictEqual(watching.events.filter((event) => event._tag === "DataCenterGone"), [])
    }))

  it.effect("any Up member renews a lease that its leader let grow old", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const watching = yield* eu.start()
      const [a] = [yield* us.start(), yield* us.start()]
      yield* TestClock.adjust("1 second")
      // cut from the control plane, but still the oldest member of its cluster
      a.faults.reachable = false
      for (let i = 0; i < 30; i++) {
        yield* TestClock.adjust("5 seconds")
        assert.include(yield* routableAt(watching), "us")
      }
    }))

  it.effect("a leader whose own lease has lapsed renews, and changes nothing", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const [a, b] = [yield* us.start(), yield* us.start()]
      yield* TestClock.adjust("1 second")
      const before = yield* recordOf(world, "us")
      a.lease.valid = false
      yield* us.remove(b.address)
      yield* TestClock.adjust("2 minutes")
      const after = yield* recordOf(world, "us")
      assert.deepStrictEqual(after?.endpoints, before?.endpoints)
      assert.isAbove(Duration.toMillis(after!.lease.remaining), 10_000)
      a.lease.valid = true
      yield* TestClock.adjust("6 seconds")
      assert.deepStrictEqual((yield* recordOf(world, "us"))?.endpoints, [a.endpoint])
    }))

  it.effect("only the last member to leave makes it INACTIVE, and the next start ACTIVE again", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const [a, b] = [yield* us.start(), yield* us.start()]
      yield* TestClock.adjust("1 second")
      const version = (yield* recordOf(world, "us"))?.version
      yield* b.close
      assert.strictEqual((yield* recordOf(world, "us"))?.version, version, "one of several says nothing")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* stateOf(world, "us"), "ACTIVE")
      yield* a.close
      assert.strictEqual(yield* stateOf(world, "us"), "INACTIVE")
      yield* us.start()
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* stateOf(world, "us"), "ACTIVE")
    }))

  it.effect("leaving ends in time when the control plane does not answer", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      yield* TestClock.adjust("1 second")
      node.faults.silent = true
      const closing = yield* Effect.forkChild(node.close)
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(closing)
    }))

  it.effect("two clusters that believe to be one datacenter are told so", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const one = yield* world.dataCenter({ name: "us" })
      const other = yield* world.dataCenter({ name: "us" })
      const a = yield* one.start()
      yield* TestClock.adjust("1 second")
      const b = yield* other.start()
      yield* TestClock.adjust("20 seconds")
      const told = [...a.events, ...b.events].filter((event) => event._tag === "StoreTrouble")
      assert.isAbove(told.length, 0)
    }))
})

describe("draining", () => {
  const drained = Effect.gen(function*() {
    const world = yield* World.make
    const us = yield* world.dataCenter({ name: "us" })
    const eu = yield* world.dataCenter({ name: "eu" })
    const [u1, u2, e1] = [yield* us.start(), yield* us.start(), yield* eu.start()]
    yield* TestClock.adjust("1 second")
    yield* u1.dataCenters.drain("eu", { by: "ada", reason: "power" })
    yield* TestClock.adjust("1 second")
    return { world, us, eu, u1, u2, e1 }
  })
  const refused = (node: World.NodeInWorld) =>
    Effect.map(
      Effect.flip(node.placement.spawn(World.spec("x"), { strategy: "random", dataCenter: "eu" })),
      (error) => error._tag
    )

  it.effect("is asked for from any datacenter, and nobody places anything there any more", () =>
    Effect.gen(function*() {
      const { e1, u1, u2, world } = yield* drained
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      for (const node of [u1, u2, e1]) assert.strictEqual(yield* refused(node), "RecordNotFound")
      const { dataCenters } = yield* u2.dataCenters.known
      assert.deepStrictEqual(
        dataCenters.find(({ record }) => record.dataCenter.name === "eu")?.wish,
        { state: "DRAINED", by: "ada", reason: "power" }
      )
    }))

  it.effect("is heeded by routers at once, even where the datacenter itself cannot write its record", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const [u1, u2, e1] = [yield* us.start(), yield* us.start(), yield* eu.start()]
      yield* TestClock.adjust("1 second")
      e1.faults.reachable = false
      yield* u1.dataCenters.drain("eu")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* stateOf(world, "eu"), "ACTIVE")
      assert.strictEqual(yield* refused(u2), "RecordNotFound")
    }))

  it.effect("I10: no heartbeat, change of members, change of leader or restart un-drains", () =>
    Effect.gen(function*() {
      const { e1, eu, u1, world } = yield* drained
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      const e2 = yield* eu.start()
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual((yield* recordOf(world, "eu"))?.endpoints.length, 2)
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      yield* e1.close
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      yield* e2.close
      yield* TestClock.adjust("2 minutes")
      yield* eu.start()
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      assert.strictEqual(yield* refused(u1), "RecordNotFound")
    }))

  it.effect("I10: survives a removed record and a control plane that lost everything", () =>
    Effect.gen(function*() {
      const { u1, world } = yield* drained
      const record = yield* recordOf(world, "eu")
      yield* world.plane.deregister(record!.id, record!.version)
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      world.backend.wipe()
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      assert.strictEqual(yield* refused(u1), "RecordNotFound")
      assert.isTrue((yield* world.store.list("datacenters/desired/")).length === 1, "the wish is written again")
    }))

  it.effect("I25: a store that forgets the drain is told again, never believed", () =>
    Effect.gen(function*() {
      const { u1, world } = yield* drained
      yield* u1.dataCenters.activate("eu")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "ACTIVE")
      const before = world.backend.revision()
      yield* u1.dataCenters.drain("eu")
      yield* TestClock.adjust(0)
      world.backend.forget(world.backend.revision() - before)
      for (let i = 0; i < 30; i++) {
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* refused(u1), "RecordNotFound")
      }
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
    }))

  it.effect("is kept where it was set by hand at the control plane", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const eu = yield* world.dataCenter({ name: "eu" })
      const e1 = yield* eu.start()
      yield* TestClock.adjust("1 second")
      const record = yield* recordOf(world, "eu")
      yield* world.plane.setState(record!.id, "DRAINING", record!.version)
      yield* TestClock.adjust("1 minute")
      yield* eu.start()
      yield* TestClock.adjust("10 seconds")
      yield* e1.close
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
      yield* eu.nodes[1]!.close
      yield* TestClock.adjust("1 minute")
      yield* eu.start()
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING", "a restart of the whole datacenter keeps it too")
    }))

  it.effect("a start does not make a drained datacenter routable for the moment in which it has not heard of the drain", () =>
    Effect.gen(function*() {
      const { e1, eu, u1, world } = yield* drained
      yield* e1.close
      const record = yield* recordOf(world, "eu")
      yield* world.plane.deregister(record!.id, record!.version)
      const again = yield* eu.start({ deafToWishes: true })
      for (let i = 0; i < 20; i++) {
        yield* TestClock.adjust("1 second")
        assert.notStrictEqual(yield* stateOf(world, "eu"), "ACTIVE")
        assert.strictEqual(yield* refused(u1), "RecordNotFound")
      }
      again.wishes.openUnsafe()
      yield* TestClock.adjust("15 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "DRAINING")
    }))

  it.effect("is taken back by an operator, and idempotent both ways", () =>
    Effect.gen(function*() {
      const { u1, u2, world } = yield* drained
      yield* u2.dataCenters.drain("eu")
      yield* u2.dataCenters.activate("eu")
      yield* u1.dataCenters.activate("eu")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* stateOf(world, "eu"), "ACTIVE")
      yield* u1.placement.spawn(World.spec("x"), { strategy: "random", dataCenter: "eu" })
    }))

  it.effect("fails typed for an unknown datacenter and where there is no global store", () =>
    Effect.gen(function*() {
      const { u1, world } = yield* drained
      assert.strictEqual((yield* Effect.flip(u1.dataCenters.drain("mars")))._tag, "RecordNotFound")
      const asia = yield* world.dataCenter({ name: "asia", globalStore: false })
      const node = yield* asia.start()
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Effect.flip(node.dataCenters.drain("asia")))._tag, "StoreUnavailable")
    }))
})

describe("the cache", () => {
  it.effect("awaitDataCenter waits for one that starts later, and gives up with DataCenterNotReady", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const node = yield* us.start()
      const waiting = yield* Effect.forkChild(node.topology.awaitDataCenter("eu"))
      yield* TestClock.adjust("20 seconds")
      assert.isUndefined(waiting.pollUnsafe())
      yield* eu.start()
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(waiting)
      const never = yield* Effect.forkChild(Effect.flip(node.topology.awaitDataCenter("mars")))
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(never.pollUnsafe())
      yield* TestClock.adjust("1 second")
      const error = yield* Fiber.join(never)
      assert.strictEqual(error._tag === "DataCenterNotReady" && error.dataCenter, "mars")
    }))

  it.effect("says how long ago it was current", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const node = yield* us.start()
      node.faults.reachable = false
      assert.isTrue(Option.isNone(yield* node.topology.dataCenterLastRefresh))
      node.faults.reachable = true
      yield* TestClock.adjust("3 seconds")
      node.faults.silent = true
      yield* TestClock.adjust("40 seconds")
      const age = Option.getOrThrow(yield* node.topology.dataCenterLastRefresh)
      assert.isAtLeast(Duration.toMillis(age), 39_000)
      assert.isTrue((yield* node.dataCenters.known).stale)
    }))

  it.effect("M6: follows by refreshing alone where watches are off: changes, removal and expiry", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us", watchEnabled: false })
      const eu = yield* world.dataCenter({ name: "eu" })
      const asia = yield* world.dataCenter({ name: "asia" })
      const node = yield* us.start()
      const [e1, a1] = [yield* eu.start(), yield* asia.start()]
      yield* TestClock.adjust("12 seconds")
      assert.deepStrictEqual(yield* routableAt(node), ["asia", "eu", "us"])
      e1.faults.reachable = false
      yield* a1.dataCenters.drain("asia")
      yield* TestClock.adjust("12 seconds")
      assert.deepStrictEqual(yield* routableAt(node), ["eu", "us"])
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* routableAt(node), ["us"])
    }))

  it.effect("does not tell that a datacenter has gone which was dead before this node started", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const first = yield* us.start()
      const e1 = yield* eu.start()
      yield* TestClock.adjust("1 second")
      e1.faults.reachable = false
      yield* TestClock.adjust("1 minute")
      const record = yield* recordOf(world, "eu")
      assert.strictEqual(Duration.toMillis(record!.lease.remaining), 0)
      yield* world.plane.deregister(record!.id, record!.version)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        first.events.filter((event) => event._tag === "DataCenterGone").length,
        1,
        "told once, when it died"
      )
    }))

  it.effect("tells changes as they come, each datacenter once", () =>
    Effect.gen(function*() {
      const world = yield* World.make
      const us = yield* world.dataCenter({ name: "us" })
      const eu = yield* world.dataCenter({ name: "eu" })
      const node = yield* us.start()
      yield* TestClock.adjust("1 second")
      const seen: Array<string> = []
      yield* node.dataCenters.changes.pipe(
        Stream.runForEach(({ dataCenters }) =>
          Effect.sync(() => {
            seen.push(dataCenters.filter(({ routable }) => routable).map(({ record }) => record.dataCenter.name).join())
          })
        ),
        Effect.forkScoped
      )
      yield* TestClock.adjust("1 second")
      const e1 = yield* eu.start()
      yield* TestClock.adjust("1 second")
      yield* e1.close
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(seen.filter((now, index) => now !== seen[index - 1]), ["us", "eu,us", "us"])
      assert.deepStrictEqual(
        node.events.flatMap((event) =>
          event._tag === "DataCenterChanged" && event.dataCenter === "eu" ? [event.state] : []
        ).filter((state, index, all) => state !== all[index - 1]),
        ["ACTIVE", "DRAINING", "INACTIVE"]
      )
    }))
})

describe("settings", () => {
  const refused = (options: Partial<DataCenters.DataCenterOptions>) =>
    Effect.gen(function*() {
      const world = yield* World.make
      const dataCenter = yield* world.dataCenter({ ...options, name: options.name ?? "us" })
      const exit = yield* Effect.exit(dataCenter.start())
      return exit._tag === "Failure" ? String(JSON.stringify(exit.cause)) : "started"
    })

  it.effect("a heartbeat interval above a third of the TTL is refused by name", () =>
    Effect.gen(function*() {
      assert.include(yield* refused({ heartbeatInterval: "11 seconds" }), "dataCenter.heartbeatInterval")
      assert.strictEqual(yield* refused({ heartbeatInterval: "10 seconds" }), "started")
    }))

  it.effect("an identity that no key has room for is refused by name", () =>
    Effect.gen(function*() {
      assert.include(yield* refused({ name: "x".repeat(500) }), "dataCenter.name")
      assert.strictEqual(yield* refused({ name: "x".repeat(400) }), "started")
      assert.include(yield* refused({ name: "東".repeat(100), region: "京".repeat(100) }), "dataCenter.name")
    }))

  it.effect("a jitter above one half is refused by name", () =>
    Effect.gen(function*() {
      assert.include(yield* refused({ jitterRatio: 0.6 }), "dataCenter.jitterRatio")
    }))

  it.effect("a TTL below a second is refused by name", () =>
    Effect.gen(function*() {
      const built = yield* Effect.exit(Layer.build(
        ControlPlane.layerStore({ ttl: "999 millis" }).pipe(Layer.provideMerge(ControlPlane.layerMemory))
      ))
      assert.include(JSON.stringify(built), "controlPlane.ttl")
    }))

  it.effect("the embedded control plane keeps a TTL of 30 seconds", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(ControlPlane.layerMemory)
      assert.strictEqual(Duration.toMillis(Context.get(context, ControlPlane.ControlPlane).ttl), 30_000)
    }))
})

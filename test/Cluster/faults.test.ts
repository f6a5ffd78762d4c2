import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { partitionOf } from "../../src/Cluster/internal/hash.ts"
import { Counter, drive, eventsOf, hosts, makeWorld } from "./world.ts"

const held = (events: ReadonlyArray<{ readonly _tag: string; readonly held?: boolean }>) =>
  events.filter((event) => event._tag === "WorkHeld").map((event) => event.held)

describe("A cluster under faults", () => {
  it.effect("a member cut off from everything holds its actors before the others take over", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 1 } }))
      yield* world.cut(a!, b!)
      yield* world.cut(b!, c!)
      yield* world.cutStore(b!)
      let heldAt: number | undefined
      let movedAt: number | undefined
      for (let at = 0; at < 30_000; at += 50) {
        yield* TestClock.adjust("50 millis")
        if (heldAt === undefined && held(b!.events).at(-1) === true) heldAt = at
        if (movedAt === undefined && hosts([a!, c!], "n").length > 0) movedAt = at
      }
      assert.isDefined(heldAt)
      assert.isDefined(movedAt)
      assert.isBelow(heldAt!, movedAt!)
      assert.isFalse(b!.cluster.mayAct())

      // healed, it learns that it is no member any more and never acts again
      yield* world.heal
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(eventsOf(b!, "MemberFenced").length, 1)
      assert.deepStrictEqual(hosts([b!], "n"), [])
      assert.isFalse(b!.cluster.mayAct())
      assert.strictEqual(held(b!.events).at(-1), true)
      const refused = yield* drive(Effect.flip(b!.system.spawnOn(Counter, "m", { props: { from: 1 } })))
      assert.strictEqual(refused._tag, "NodeUnreachable")
    }))

  it.effect("a store outage of ten minutes holds no actor, moves none, and is over within a lease", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a] = members
      const ref = yield* drive(a!.system.spawnOn(Counter, "n", { on: "a", props: { from: 1 } }))
      yield* world.cutStore(...members)
      yield* TestClock.adjust("10 minutes")
      for (const member of members) {
        assert.deepStrictEqual(held(member.events), [])
        assert.isFalse(member.cluster.mayAct())
        assert.strictEqual(eventsOf(member, "MemberLeft").length, 0)
      }
      assert.strictEqual(yield* drive(ref.ask.Add({ by: 1 })), 2)
      const refused = yield* drive(Effect.flip(a!.system.spawnOn(Counter, "m", { props: { from: 1 } })))
      assert.include(["NodeUnreachable", "StoreUnavailable"], refused._tag)
      yield* world.heal
      yield* TestClock.adjust("10 seconds")
      for (const member of members) assert.isTrue(member.cluster.mayAct())
      yield* drive(a!.system.spawnOn(Counter, "m", { props: { from: 1 } }))
      assert.deepStrictEqual(hosts(members, "n"), ["a"])
    }))

  it.effect("a member cut from the store alone rides on until its lease is closed, then ends", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 1 } }))
      yield* world.cutStore(b!)
      yield* TestClock.adjust("7 seconds")
      assert.deepStrictEqual(held(b!.events), [])
      yield* TestClock.adjust("23 seconds")
      assert.strictEqual(hosts([a!, c!], "n").length, 1)
      assert.strictEqual(eventsOf(b!, "MemberFenced").length, 1)
      assert.deepStrictEqual(hosts([b!], "n"), [])
    }))

  it.effect("a member that comes back within its lease goes on as if nothing had been", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 1 } }))
      yield* world.cut(a!, b!)
      yield* world.cut(b!, c!)
      yield* world.cutStore(b!)
      yield* TestClock.adjust("5 seconds")
      yield* world.heal
      yield* TestClock.adjust("30 seconds")
      assert.isTrue(b!.cluster.mayAct())
      assert.deepStrictEqual(hosts(members, "n"), ["b"])
      for (const member of members) assert.strictEqual(eventsOf(member, "MemberLeft").length, 0)
    }))

  it.effect("an order of a dead owner that arrives after the take-over is refused", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      const text = world.backend.entries().find((entry) => entry.key.endsWith("/state/view"))!.value
      const view = JSON.parse(text) as {
        readonly roster: ReadonlyArray<{ readonly id: string }>
        readonly partitions: ReadonlyArray<ReadonlyArray<number>>
      }
      const ownerOf = (name: string) => view.roster[view.partitions[partitionOf(name, 271)]![0]!]!.id
      const names = Array.from({ length: 60 }, (_, index) => `n-${index}`).filter((name) => ownerOf(name) === "a")
      assert.isAbove(names.length, 5)
      // a has committed them for c, and ordered their starts; the orders take their time, and a dies
      world.net.late = (tag) => tag === "Start" ? 14_000 : 0
      for (const name of names) {
        yield* Effect.forkChild(b!.system.spawnOn(Counter, name, { on: "c", props: { from: 0 } }), {
          startImmediately: true
        })
      }
      yield* TestClock.adjust("200 millis")
      delete world.net.late
      yield* a!.crash
      yield* TestClock.adjust("13 seconds")
      for (const name of names) assert.deepStrictEqual(hosts([b!, c!], name), ["b"], name)
      yield* TestClock.adjust("10 seconds")
      for (const name of names) assert.deepStrictEqual(hosts([b!, c!], name), ["b"], name)
    }))

  it.effect("the last of three members goes on alone with all names", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      for (let index = 0; index < 12; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      yield* a!.crash
      yield* TestClock.adjust("30 seconds")
      yield* b!.crash
      yield* TestClock.adjust("30 seconds")
      for (let index = 0; index < 12; index++) assert.deepStrictEqual(hosts([c!], `n-${index}`), ["c"])
      assert.isTrue(yield* c!.cluster.isLeader)
    }))

  it.effect("two thousand names of a crashed member run again within a lease, its margin and two seconds (I-11)", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      const names = Array.from({ length: 2_000 }, (_, index) => `n-${index}`)
      yield* drive(Effect.forEach(
        names,
        (name) => a!.system.spawnOn(Counter, name, { on: "b", props: { from: 0 } }),
        { concurrency: 100, discard: true }
      ))
      // two milliseconds a call, there and back
      world.net.before = () => Effect.sleep("1 millis")
      world.net.after = () => Effect.sleep("1 millis")
      yield* b!.crash
      yield* TestClock.adjust("12500 millis")
      const missing = names.filter((name) => hosts([a!, c!], name).length !== 1)
      assert.deepStrictEqual(missing, [])
      const completed = [a!, c!].flatMap((member) => eventsOf(member, "RelocationCompleted"))
      assert.strictEqual(completed.reduce((sum, event) => sum + ("actors" in event ? event.actors : 0), 0), 2_000)
    }))

  it.effect("all members killed at once and started again: every name runs again", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const first = yield* world.startAll(["a", "b", "c"])
      for (let index = 0; index < 12; index++) {
        yield* drive(first[0]!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      for (const member of first) yield* member.crash
      const second = yield* world.startAll(["a", "b", "c"])
      yield* TestClock.adjust("40 seconds")
      for (let index = 0; index < 12; index++) assert.strictEqual(hosts(second, `n-${index}`).length, 1, `n-${index}`)
    }))
})

describe("Leaving", () => {
  it.effect("in order moves the actors at once, without waiting for a lease, and loses no name", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      for (let index = 0; index < 12; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { on: "b", props: { from: 0 } }))
      }
      yield* drive(b!.leave)
      yield* TestClock.adjust("2 seconds")
      for (let index = 0; index < 12; index++) assert.strictEqual(hosts([a!, c!], `n-${index}`).length, 1, `n-${index}`)
      assert.strictEqual(eventsOf(a!, "MemberLeft").length, 1)
      assert.strictEqual(eventsOf(b!, "MemberFenced").length, 0)
      const view = yield* a!.cluster.view
      assert.deepStrictEqual(view.members.map((member) => member.node.id), ["a", "c"])
    }))

  it.effect("of the oldest makes the next one lead", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      yield* drive(a!.leave)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* b!.cluster.isLeader)
      assert.isFalse(yield* c!.cluster.isLeader)
      assert.strictEqual(eventsOf(c!, "LeaderChanged").length, 2)
    }))
})

describe("Joining", () => {
  it.effect("with another partition count is refused by name", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      yield* world.startAll(["a"])
      const refused = yield* drive(Effect.flip(world.start("b", { partitionCount: 7 })))
      assert.deepInclude(refused, {
        _tag: "ProtocolMismatch",
        what: "cluster.partitionCount",
        ours: "7",
        theirs: "271"
      })
    }))

  it.effect("gives the newcomer its share of the partitions, and no name is lost on the way", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      for (let index = 0; index < 30; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      const [c] = yield* world.startAll(["c"])
      yield* TestClock.adjust("20 seconds")
      const view = world.backend.entries().find((entry) => entry.key.endsWith("/state/view"))!
      const partitions = (JSON.parse(view.value) as { partitions: Array<[number, number, number]> }).partitions
      const counts = [0, 1, 2].map((owner) => partitions.filter((partition) => partition[0] === owner).length)
      for (const count of counts) assert.isAtLeast(count, 90)
      assert.isTrue(partitions.every((partition) => partition[2] === 0))
      for (let index = 0; index < 30; index++) {
        const found = yield* drive(c!.placement.lookup("Counter", `n-${index}`, {}))
        assert.deepStrictEqual(hosts([a!, b!, c!], `n-${index}`), [found.node.id])
        const taken = yield* drive(Effect.flip(c!.system.spawnOn(Counter, `n-${index}`, { props: { from: 1 } })))
        assert.strictEqual(taken._tag, "NameTaken")
      }
    }))

  it.effect("fewer than the minimum: work fails as ClusterNotFormed after the bootstrap timeout", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a", { minimumMembers: 2 }))
      const refused = yield* drive(Effect.flip(a.system.spawnOn(Counter, "n", { props: { from: 0 } })))
      assert.deepInclude(refused, { _tag: "ClusterNotFormed", members: 1, minimum: 2 })
      const b = yield* drive(world.start("b", { minimumMembers: 2 }))
      yield* TestClock.adjust("1 second")
      yield* drive(a.system.spawnOn(Counter, "n", { props: { from: 0 } }))
      yield* drive(b.system.spawnOn(Counter, "m", { props: { from: 0 } }))
    }))
})

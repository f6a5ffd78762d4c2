// A store that forgets what it acknowledged (rules 11 and 12): it must be noticed, nothing may be granted meanwhile, and what the
// members remember goes back.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { partitionOf } from "../../src/Cluster/internal/hash.ts"
import { Counter, drive, eventsOf, hosts, makeWorld } from "./world.ts"

/** who owns which partition, as the store says */
const partitionsOf = (world: Effect.Success<ReturnType<typeof makeWorld>>) => {
  const text = world.backend.entries().find((entry) => entry.key.endsWith("/state/view"))!.value
  const view = JSON.parse(text) as {
    readonly roster: ReadonlyArray<{ readonly id: string }>
    readonly partitions: ReadonlyArray<ReadonlyArray<number>>
  }
  return { owners: view.partitions.map(([owner]) => view.roster[owner!]?.id) }
}

describe("A store that forgets", () => {
  it.effect("emptied under a running cluster: no actor is held or moved, and the members write the cluster again", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      for (let index = 0; index < 12; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      const before = yield* a!.cluster.view
      world.backend.wipe()
      yield* TestClock.adjust("40 seconds")
      for (const member of members) {
        assert.strictEqual(eventsOf(member, "MemberFenced").length, 0)
        assert.strictEqual(eventsOf(member, "WorkHeld").length, 0)
        assert.strictEqual(eventsOf(member, "MemberLeft").length, 0)
        assert.isTrue(member.cluster.mayAct(), member.id)
        assert.isAbove((yield* member.cluster.view).number, before.number)
        assert.deepStrictEqual((yield* member.cluster.view).members.map((one) => one.kinds), [
          ["Counter"],
          ["Counter"],
          ["Counter"]
        ])
      }
      for (let index = 0; index < 12; index++) {
        const taken = yield* drive(Effect.flip(b!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } })))
        assert.strictEqual(taken._tag, "NameTaken")
      }
      // and all of it still works: owner and hosts die, the names move
      yield* b!.crash
      yield* TestClock.adjust("40 seconds")
      for (let index = 0; index < 12; index++) assert.strictEqual(hosts([a!, c!], `n-${index}`).length, 1, `n-${index}`)
      yield* a!.crash
      yield* TestClock.adjust("60 seconds")
      for (let index = 0; index < 12; index++) assert.deepStrictEqual(hosts([c!], `n-${index}`), ["c"], `n-${index}`)
    }))

  it.effect("a member that dies while the store is empty is missed, and its names move", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      for (let index = 0; index < 9; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      // Names that b both granted and ran went with the store: that window is the price of a store that forgets.
      const { owners } = partitionsOf(world)
      const lost = Array.from({ length: 9 }, (_, index) => `n-${index}`).filter((name) =>
        owners[partitionOf(name, 271)] === "b" && b!.host.find(name) !== undefined
      )
      world.backend.wipe()
      yield* b!.crash
      yield* TestClock.adjust("90 seconds")
      assert.deepStrictEqual((yield* a!.cluster.view).members.map((one) => one.node.id), ["a", "c"])
      assert.isBelow(lost.length, 6)
      for (let index = 0; index < 9; index++) {
        const name = `n-${index}`
        if (!lost.includes(name)) assert.strictEqual(hosts([a!, c!], name).length, 1, name)
      }
    }))

  it.effect("of its last writes: the view that members know goes back, and no number is given twice", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      const [c] = yield* world.startAll(["c"])
      for (let index = 0; index < 9; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      const before = yield* a!.cluster.view
      // the last views among them, and the newest member's own records
      world.backend.forget(40)
      yield* TestClock.adjust("60 seconds")
      // Its lease is missing in the very same store: that counts as closed (rule 11).
      assert.strictEqual(eventsOf(c!, "MemberFenced").length, 1)
      for (const member of [a!, b!]) {
        assert.strictEqual(eventsOf(member, "MemberFenced").length, 0, member.id)
        assert.isTrue(member.cluster.mayAct(), member.id)
        assert.isAtLeast((yield* member.cluster.view).number, before.number)
      }
      const text = world.backend.entries().find((entry) => entry.key.endsWith("/state/view"))!.value
      assert.strictEqual((JSON.parse(text) as { readonly generation: number }).generation, 1)
    }))

  it.effect("of a few renewals and journal records loses no name, whoever dies next", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      yield* TestClock.adjust("30 seconds")
      for (let index = 0; index < 9; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      world.backend.forget(6)
      yield* TestClock.adjust("60 seconds")
      for (const member of members) assert.isTrue(member.cluster.mayAct(), member.id)
      for (let index = 9; index < 14; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
      yield* b!.crash
      yield* TestClock.adjust("90 seconds")
      for (let index = 0; index < 14; index++) assert.strictEqual(hosts([a!, c!], `n-${index}`).length, 1, `n-${index}`)
    }))

  it.effect("and is then taken by another cluster: the members freeze and grant nothing", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 0 } }))
      world.backend.wipe()
      // a node that knows nothing of the old cluster is faster than its members
      const stranger = yield* drive(world.start("x"))
      yield* TestClock.adjust("60 seconds")
      assert.isTrue(stranger.cluster.mayAct())
      for (const member of [a!, b!]) {
        assert.isFalse(member.cluster.mayAct())
        const refused = yield* drive(Effect.flip(member.system.spawnOn(Counter, "m", { props: { from: 0 } })))
        assert.include(["NodeUnreachable", "StoreUnavailable"], refused._tag)
      }
      assert.deepStrictEqual(hosts([b!], "n"), ["b"])
    }))
})

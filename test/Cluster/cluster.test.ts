import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Counter, drive, eventsOf, hosts, makeWorld } from "./world.ts"

describe("A cluster", () => {
  it.effect("forms: every member sees all others, oldest first, and one leads", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      for (const member of members) {
        const view = yield* member.cluster.view
        assert.deepStrictEqual(view.members.map((other) => [other.node.id, other.status, other.age]), [
          ["a", "Up", 1],
          ["b", "Up", 2],
          ["c", "Up", 3]
        ])
        assert.deepStrictEqual(view.members.map((other) => other.kinds), [["Counter"], ["Counter"], ["Counter"]])
        assert.strictEqual(yield* member.cluster.isLeader, member.id === "a")
        assert.isTrue(member.cluster.mayAct())
      }
    }))

  it.effect("places an actor on the member that was asked for, and every member finds it", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b] = members
      yield* drive(a!.system.spawnOn(Counter, "n-1", { on: "b", props: { from: 1 } }))
      assert.deepStrictEqual(hosts(members, "n-1"), ["b"])
      for (const member of members) {
        const found = yield* drive(member.placement.lookup("Counter", "n-1", {}))
        assert.deepStrictEqual(found.node, b!.address)
      }
    }))

  it.effect("relocates the actors of a member that crashes within thirty seconds", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      for (let index = 0; index < 20; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { on: "b", props: { from: index } }))
      }
      yield* b!.crash
      yield* TestClock.adjust("30 seconds")
      const left = [a!, c!]
      for (let index = 0; index < 20; index++) assert.strictEqual(hosts(left, `n-${index}`).length, 1, `n-${index}`)
      assert.strictEqual(eventsOf(a!, "MemberLeft").length, 1)
      const moved = left.flatMap((member) => eventsOf(member, "ActorRelocated"))
      assert.strictEqual(moved.length, 20)
      const address = yield* drive(a!.placement.lookup("Counter", "n-3", {}))
      assert.include(["a", "c"], address.node.id)
    }))
})

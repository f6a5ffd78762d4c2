import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"
import { TestClock } from "effect/testing"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { partitionOf } from "../../src/Cluster/internal/hash.ts"
import { Counter, drive, hosts, makeWorld } from "./world.ts"

describe("A name", () => {
  it.effect("is unique: of racing spawns from all members exactly one wins, the others hear NameTaken", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      for (let round = 0; round < 10; round++) {
        const name = `n-${round}`
        const results = yield* drive(Effect.forEach(
          [...members, ...members],
          (member) => Effect.exit(member.system.spawnOn(Counter, name, { props: { from: round } })),
          { concurrency: "unbounded" }
        ))
        const won = results.filter(Exit.isSuccess)
        assert.strictEqual(won.length, 1)
        for (const result of results) {
          if (Exit.isFailure(result)) assert.include(JSON.stringify(result.cause), "NameTaken")
        }
        assert.strictEqual(hosts(members, name).length, 1)
      }
    }))

  it.effect("is granted once for one spawn id, however often and from wherever it is asked", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b"])
      const spec = { id: "spawn-1", kind: "Counter", name: "n", props: { from: 1 }, relocatable: true }
      const addresses = yield* drive(Effect.forEach(
        [...members, ...members],
        (member) => member.placement.spawn(spec, { strategy: "roundRobin" }),
        { concurrency: "unbounded" }
      ))
      for (const address of addresses) assert.deepStrictEqual(address, addresses[0])
    }))

  it.effect("is free again after its actor was stopped, and stays stopped when its member crashes", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a, b, c] = members
      const ref = yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 1 } }))
      yield* drive(c!.system.stop(ref))
      assert.deepStrictEqual(hosts(members, "n"), [])
      const missing = yield* drive(Effect.flip(a!.placement.lookup("Counter", "n", {})))
      assert.strictEqual(missing._tag, "ActorNotFound")
      yield* b!.crash
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(hosts([a!, c!], "n"), [])
      yield* drive(a!.system.spawnOn(Counter, "n", { props: { from: 2 } }))
      assert.strictEqual(hosts([a!, c!], "n").length, 1)
    }))

  it.effect("is started once although each answer of the first calls is lost (commit, start, acknowledge)", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      let lost = 0
      world.net.after = (_from, to, tag) =>
        (tag === "Grant" || tag === "Start") && lost++ < 6
          ? Effect.fail(new NodeUnreachable({ node: to, outcome: "Unknown", reason: "the answer was lost" }))
          : Effect.void
      for (let index = 0; index < 12; index++) {
        yield* drive(members[index % 3]!.system.spawnOn(Counter, `n-${index}`, { props: { from: index } }))
        assert.strictEqual(hosts(members, `n-${index}`).length, 1)
      }
      assert.isAbove(lost, 6)
    }))

  it.effect("is committed once although the store does not say what became of the writes", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      let turn = 0
      for (const id of ["a", "b", "c"]) {
        world.faults.set(id, {
          write: (operation, key) => {
            if (operation !== "create" || !key.includes("/journal/")) return "Normal"
            turn++
            return turn % 3 === 0 ? "UnknownApplied" : turn % 3 === 1 ? "UnknownNotApplied" : "Normal"
          }
        })
      }
      const members = yield* world.startAll(["a", "b", "c"])
      for (let index = 0; index < 15; index++) {
        yield* drive(members[index % 3]!.system.spawnOn(Counter, `n-${index}`, { props: { from: index } }))
        assert.strictEqual(hosts(members, `n-${index}`).length, 1)
      }
      assert.isAbove(turn, 15)
    }))

  it.effect("that was stopped is not raised by an order for it that was repeated and comes late (X-1)", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b"])
      let starts = 0
      // the first answer is lost, the second order takes twelve seconds, the third finds the actor running
      world.net.after = (_from, to, tag) =>
        tag === "Start" && starts === 1
          ? Effect.fail(new NodeUnreachable({ node: to, outcome: "Unknown", reason: "the answer was lost" }))
          : Effect.void
      world.net.late = (tag) => tag === "Start" && ++starts === 2 ? 12_000 : 0
      const text = world.backend.entries().find((entry) => entry.key.endsWith("/state/view"))!.value
      const view = JSON.parse(text) as {
        readonly roster: ReadonlyArray<{ readonly id: string }>
        readonly partitions: ReadonlyArray<ReadonlyArray<number>>
      }
      const name = Array.from({ length: 50 }, (_, index) => `n-${index}`).find((candidate) =>
        view.roster[view.partitions[partitionOf(candidate, 271)]![0]!]!.id === "a"
      )!
      const spec = { id: "once", kind: "Counter", name, props: { from: 0 }, relocatable: true }
      const spawned = yield* drive(Effect.result(members[0]!.placement.spawn(spec, { strategy: "random", on: "b" })))
      assert.strictEqual(spawned._tag, "Failure")
      const address = yield* drive(members[0]!.placement.spawn(spec, { strategy: "random", on: "b" }))
      assert.isAtLeast(starts, 3)
      yield* drive(members[0]!.placement.stop(address))
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(hosts(members, name), [])
    }))

  it.effect("is freed although word of its actor's end cannot be told for a while", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      const names = Array.from({ length: 6 }, (_, index) => `n-${index}`)
      for (const name of names) yield* drive(a!.system.spawnOn(Counter, name, { on: "b", props: { from: 0 } }))
      world.net.before = (_from, to, tag) =>
        tag === "Release"
          ? Effect.fail(new NodeUnreachable({ node: to, outcome: "NotSent", reason: "no route" }))
          : Effect.void
      for (const name of names) {
        const { placement } = b!.host.find(name)!.address
        yield* drive(b!.host.stop(name, { placement, reason: "Failed" }))
      }
      yield* TestClock.adjust("25 seconds")
      delete world.net.before
      yield* TestClock.adjust("15 seconds")
      for (const name of names) yield* drive(a!.system.spawnOn(Counter, name, { props: { from: 0 } }))
    }))

  it.effect("whose host does not answer is OutcomeUnknown at the deadline, from whichever member it is asked", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b"])
      world.net.late = (tag) => tag === "Start" ? 60_000 : 0
      let unknown = 0
      for (let index = 0; index < 6; index++) {
        const started = Effect.result(members[index % 2]!.system.spawnOn(Counter, `n-${index}`, {
          on: "b",
          props: { from: 0 }
        }))
        const result = yield* drive(started)
        if (result._tag === "Failure") {
          assert.strictEqual(result.failure._tag, "OutcomeUnknown")
          unknown++
        }
      }
      assert.isAbove(unknown, 0)
      delete world.net.late
      yield* TestClock.adjust("70 seconds")
      // unknown was all that it was: each of them is there, once
      for (let index = 0; index < 6; index++) assert.deepStrictEqual(hosts(members, `n-${index}`), ["b"])
    }))

  it.effect("survives the death of its partition's owner and of its host at once", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c", "d"])
      const [a, b, c, d] = members
      for (let index = 0; index < 40; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { on: index % 2 === 0 ? "b" : "c", props: { from: 0 } }))
      }
      yield* b!.crash
      yield* c!.crash
      yield* TestClock.adjust("30 seconds")
      for (let index = 0; index < 40; index++) {
        assert.strictEqual(hosts([a!, d!], `n-${index}`).length, 1, `n-${index}`)
      }
    }))

  it.effect("of an actor that is not relocatable is freed with its member", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      for (let index = 0; index < 6; index++) {
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { on: "b", relocatable: false, props: { from: 0 } }))
      }
      yield* b!.crash
      yield* TestClock.adjust("30 seconds")
      for (let index = 0; index < 6; index++) {
        assert.deepStrictEqual(hosts([a!], `n-${index}`), [])
        yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }))
      }
    }))
})

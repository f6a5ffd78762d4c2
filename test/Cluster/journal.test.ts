import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Record from "../../src/Cluster/internal/journalRecord.ts"
import { Counter, drive, hosts, makeWorld } from "./world.ts"

const keysWith = (world: Effect.Success<ReturnType<typeof makeWorld>>, part: string) =>
  world.backend.entries().filter((entry) => entry.key.includes(part)).map((entry) => entry.key)

const placed = (name: string, placement: number) => ({
  spec: { id: name, kind: "K", name, props: {}, relocatable: true },
  first: placement,
  placement,
  host: "h@1"
})
const put = (name: string, placement: number): Record.Change => ({
  _tag: "Put",
  partition: 0,
  epoch: 1,
  placed: placed(name, placement)
})
const batch = (sequence: number, ...changes: ReadonlyArray<Record.Change>): Record.Numbered => ({
  sequence,
  record: { _tag: "Batch", operation: sequence, changes }
})
const page = (sequence: number, from: number, last: boolean, ...changes: ReadonlyArray<Record.Change>) => ({
  sequence,
  record: { _tag: "Page" as const, operation: sequence, from, last, changes }
})

describe("Reading a journal", () => {
  it("that is listed whole gives all changes and its last number", () => {
    const reading = Record.read([batch(1, put("a", 1)), batch(2, put("b", 2))])
    assert.deepInclude(reading, { _tag: "Open", last: 2 })
    assert.deepStrictEqual(Record.read([]), { _tag: "Open", last: 0, changes: [] })
  })
  it("with a hole is no reading: a stale listing must not pass for a short journal", () => {
    assert.deepStrictEqual(Record.read([batch(1, put("a", 1)), batch(3, put("b", 2))]), { _tag: "Hole" })
    assert.deepStrictEqual(Record.read([batch(2, put("a", 1))]), { _tag: "Hole" })
  })
  it("begins at the last complete run of pages, and takes batches between pages for newer", () => {
    const reading = Record.read([
      batch(1, put("a", 1)),
      page(4, 4, false, put("a", 1)),
      batch(5, put("a", 9)),
      page(6, 4, true, put("b", 2))
    ])
    assert.strictEqual(reading._tag, "Open")
    if (reading._tag === "Hole") return
    assert.strictEqual(reading.last, 6)
    const { placed } = Record.replay(reading.changes, 0, 1)
    assert.deepStrictEqual(Array.from(placed.values(), (entry) => [entry.spec.name, entry.placement]), [["a", 9], [
      "b",
      2
    ]])
  })
  it("does not begin at a run of pages that never ended", () => {
    assert.deepStrictEqual(Record.read([batch(1, put("a", 1)), batch(2), page(3, 3, false, put("a", 1))])._tag, "Open")
    assert.deepStrictEqual(Record.read([page(3, 3, false, put("a", 1)), batch(4)]), { _tag: "Hole" })
  })
  it("a removal removes its placement and lower ones, and no higher one", () => {
    const removed = (placement: number): Record.Change => ({
      _tag: "Removed",
      partition: 0,
      epoch: 1,
      name: "a",
      placement
    })
    assert.strictEqual(Record.replay([put("a", 2), removed(2)], 0, 1).placed.size, 0)
    assert.strictEqual(Record.replay([put("a", 3), removed(2)], 0, 1).placed.size, 1)
    assert.strictEqual(Record.replay([put("a", 2)], 0, 2).placed.size, 0)
  })
})

describe("A journal", () => {
  it.effect("is compacted: hundreds of spawns and stops leave few keys, and after a crash of all exactly the live names", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a] = yield* world.startAll(["a"])
      for (let index = 0; index < 240; index++) {
        const ref = yield* drive(a!.system.spawnOn(Counter, `n-${index}`, { props: { from: 0 } }), "1 millis")
        if (index % 4 !== 0) yield* drive(a!.system.stop(ref), "1 millis")
      }
      yield* TestClock.adjust("1 second")
      assert.isBelow(keysWith(world, "/journal/").length, 140)
      yield* a!.crash
      const [b] = yield* world.startAll(["b"])
      yield* TestClock.adjust("40 seconds")
      for (let index = 0; index < 240; index++) {
        assert.deepStrictEqual(hosts([b!], `n-${index}`), index % 4 === 0 ? ["b"] : [], `n-${index}`)
      }
    }))

  it.effect("and all else of departed members is swept: what is stored is bounded by members, not by history (O-8)", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a] = yield* world.startAll(["a"])
      for (let round = 0; round < 12; round++) {
        const [b] = yield* world.startAll(["b"])
        yield* drive(a!.system.spawnOn(Counter, `n-${round}`, { on: "b", props: { from: 0 } }))
        if (round % 2 === 0) yield* b!.crash
        else yield* drive(b!.leave)
        yield* TestClock.adjust("20 seconds")
      }
      yield* TestClock.adjust("5 minutes")
      assert.strictEqual(keysWith(world, "/member/").length, 1)
      assert.strictEqual(keysWith(world, "/kinds/").length, 1)
      assert.strictEqual(keysWith(world, "/lease/").length, 1)
      for (const key of keysWith(world, "/journal/")) assert.include(key, a!.address.incarnation)
      for (let round = 0; round < 12; round++) assert.deepStrictEqual(hosts([a!], `n-${round}`), ["a"])
    }))
})

// The pure cores, by properties.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import * as fc from "fast-check"
import { hash32, partitionOf } from "../../src/Cluster/internal/hash.ts"
import * as Rendezvous from "../../src/Cluster/internal/rendezvous.ts"
import * as View from "../../src/Cluster/internal/view.ts"

const names = (count: number) => Array.from({ length: count }, (_, index) => `node-${index}@${hash32(String(index))}`)
const empty = (partitions: number) => Array.from({ length: partitions }, () => undefined)
const loads = (owners: ReadonlyArray<string | undefined>) => {
  const counts = new Map<string, number>()
  for (const owner of owners) if (owner !== undefined) counts.set(owner, (counts.get(owner) ?? 0) + 1)
  return counts
}

describe("partitions of names", () => {
  it("are even: no partition of 271 gets more than twice its share of 100,000 names that differ in digits", () => {
    const counts = Array.from({ length: 271 }, () => 0)
    for (let index = 0; index < 100_000; index++) counts[partitionOf(`account-${index}`, 271)]!++
    assert.isBelow(Math.max(...counts), 2 * 100_000 / 271)
    assert.isAbove(Math.min(...counts), 0.5 * 100_000 / 271)
  })
  it("are stable: known names stay where they are for ever", () => {
    assert.deepStrictEqual(["", "a", "acct-1", "名前"].map((name) => partitionOf(name, 271)), [
      11,
      91,
      250,
      106
    ])
  })
})

describe("assignment", () => {
  const shape = { partitions: fc.integer({ min: 1, max: 300 }), members: fc.integer({ min: 1, max: 12 }) }

  it("gives every partition an owner and nobody more than a fair share", () => {
    fc.assert(fc.property(shape.partitions, shape.members, (partitions, members) => {
      const owners = Rendezvous.fill(empty(partitions), names(members))
      assert.isTrue(owners.every((owner) => owner !== undefined))
      for (const load of loads(owners).values()) assert.isAtMost(load, Rendezvous.fairShare(partitions, members))
    }))
  })
  it("leaves partitions that have an owner where they are", () => {
    fc.assert(fc.property(shape.partitions, shape.members, fc.nat(), (partitions, members, at) => {
      const all = names(members + 1)
      const owners = Rendezvous.fill(empty(partitions), all)
      const gone = all[at % all.length]!
      const after = Rendezvous.fill(
        owners.map((owner) => owner === gone ? undefined : owner),
        all.filter((member) => member !== gone)
      )
      after.forEach((owner, partition) => {
        if (owners[partition] !== gone) assert.strictEqual(owner, owners[partition])
        assert.notStrictEqual(owner, gone)
      })
    }))
  })
  it("becomes even within one after a join, when each owner gives its surplus, and moves no more than the newcomer gets", () => {
    fc.assert(fc.property(shape.partitions, shape.members, (partitions, members) => {
      const all = names(members + 1)
      const before = Rendezvous.fill(empty(partitions), all.slice(0, members))
      let owners = [...before]
      for (let round = 0; round < 3; round++) {
        for (const self of all) {
          for (const move of Rendezvous.surplus(owners, all, self)) {
            assert.strictEqual(owners[move.partition], self)
            owners = owners.map((owner, partition) => partition === move.partition ? move.to : owner)
          }
        }
      }
      const newcomer = loads(owners).get(all[members]!) ?? 0
      assert.isAtLeast(newcomer, Math.floor(partitions / all.length))
      const moved = owners.filter((owner, partition) => owner !== before[partition]).length
      assert.strictEqual(moved, newcomer)
      for (const load of loads(owners).values()) assert.isAtMost(load, Rendezvous.fairShare(partitions, members))
    }))
  })
})

// Any history of steps, by members that exist or do not: as a fuzzer would drive the compare-and-sets.
const step = fc.oneof(
  fc.record({ type: fc.constant("join" as const), node: fc.nat(7) }),
  fc.record({ type: fc.constant("dead" as const), node: fc.nat(7) }),
  fc.record({ type: fc.constant("leaving" as const), node: fc.nat(7) }),
  fc.record({
    type: fc.constant("handOver" as const),
    node: fc.nat(7),
    to: fc.nat(7),
    partitions: fc.array(fc.nat(10), { maxLength: 4 })
  }),
  fc.record({ type: fc.constant("rebuilt" as const), node: fc.nat(7) })
)
const nodes = Array.from({ length: 8 }, (_, index) => ({ id: `n${index}`, incarnation: `i${index}` }))
type Command = typeof step extends fc.Arbitrary<infer C> ? C : never
const key = (index: number) => `n${index}@i${index}`
const apply = (view: View.View, command: Command): View.View => {
  switch (command.type) {
    case "join":
      return View.join(view, nodes[command.node]!)
    case "dead":
      return View.dead(view, [key(command.node)])
    case "leaving":
      return View.leaving(view, key(command.node))
    case "handOver":
      return View.handOver(
        view,
        key(command.node),
        command.partitions.map((partition) => ({
          partition,
          to: key(command.to),
          epoch: view.partitions[partition]!.epoch
        }))
      )
    default:
      return View.rebuilt(
        view,
        key(command.node),
        view.partitions.map((entry, partition) => ({ partition, epoch: entry.epoch }))
      )
  }
}

describe("the view", () => {
  it("rises by one with each step, and a step that changes nothing is the same view", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let view = View.empty("c", 11)
      for (const command of steps) {
        const next = apply(view, command)
        if (next !== view) assert.strictEqual(next.number, view.number + 1)
        assert.isTrue(next === view || View.accepts(view, next))
        assert.isFalse(View.accepts(next, view))
        view = next
      }
    }))
  })
  it("never gives a partition away but by death or its owner's own step; epochs rise with each change of owner", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let view = View.empty("c", 11)
      for (const command of steps) {
        const next = apply(view, command)
        next.partitions.forEach((after, partition) => {
          const before = view.partitions[partition]!
          assert.isAtLeast(after.epoch, before.epoch)
          if (after.owner === before.owner) return
          if (before.owner === undefined) return
          const own = command.type === "handOver" && key(command.node) === before.owner
          const died = command.type === "dead" && key(command.node) === before.owner
          assert.isTrue(own || died, `${command.type} took partition ${partition} from ${before.owner}`)
          if (after.owner !== undefined) assert.isAbove(after.epoch, before.epoch)
          // whoever follows knows where to look for the names
          if (before.state !== "Unowned") {
            assert.isTrue(after.sources.some((source) => source.node === before.owner && source.epoch === before.epoch))
          }
        })
        view = next
      }
    }))
  })
  it("brings nobody back, gives each age once, and keeps the dead for as long as their journals are needed", () => {
    fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      let view = View.empty("c", 11)
      const ages = new Map<number, string>()
      for (const command of steps) {
        const wasDead = new Set(view.roster.filter((entry) => entry.status === "Dead").map((entry) => entry.id))
        view = apply(view, command)
        for (const entry of view.roster) {
          if (wasDead.has(entry.id) && command.type !== "join") assert.strictEqual(entry.status, "Dead")
          const known = ages.get(entry.age)
          assert.isTrue(known === undefined || known === entry.id)
          ages.set(entry.age, entry.id)
        }
        const listed = new Set(view.roster.map((entry) => `${entry.id}@${entry.incarnation}`))
        for (const partition of view.partitions) {
          if (partition.owner !== undefined) assert.isTrue(listed.has(partition.owner))
          for (const source of partition.sources) assert.isTrue(listed.has(source.node))
        }
      }
    }))
  })
  it.effect("comes back from its text as it was", () =>
    Effect.promise(() =>
      fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const view = steps.reduce(apply, View.empty("c", 11))
        assert.deepStrictEqual(await Effect.runPromise(View.decode(View.encode(view))), Option.some(view))
      }))
    ))
  it("fits in four kilobytes with three members and 271 partitions", () => {
    const view = [0, 1, 2].reduce((current, index) => View.join(current, nodes[index]!), View.empty("c", 271))
    assert.isBelow(View.encode(view).length, 4_096)
  })
})

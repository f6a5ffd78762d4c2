// The whole runtime on a simulated network: what datacenters promise while leaders restart, links break and stores are gone.
import { assert, describe, it } from "@effect/vitest"
import { Simulation } from "effect-troupe/testing"
import { Context, Effect } from "effect"
import { TestClock } from "effect/testing"
import { Account, AccountLive } from "../../examples/usage/account.ts"
import { Cluster } from "../../src/Cluster/Cluster.ts"
import { DataCenters } from "../../src/DataCenter/DataCenters.ts"

const [US, EU] = ["us-east-1", "eu-west-1"] as const

const make = (seed: number, us = 2, eu = 2) =>
  Effect.gen(function*() {
    const world = yield* Simulation.make({
      seed,
      kinds: AccountLive,
      dataCenters: {
        [US]: { nodes: us, labels: { residency: "us" } },
        [EU]: { nodes: eu, labels: { residency: "eu" } }
      }
    })
    yield* world.awaitReady
    return world
  })

const dataCentersOf = (node: Simulation.SimulatedNode) => Context.get(node.context, DataCenters)
const isLeader = (node: Simulation.SimulatedNode) => Context.get(node.context, Cluster).isLeader

const spawn = (world: Simulation.World, from: Simulation.SimulatedNode, name: string, dataCenter: string = EU) =>
  world.run(from.system.spawnOn(Account, name, { dataCenter, props: { opening: 7 } }))
const refusal = (world: Simulation.World, from: Simulation.SimulatedNode, name: string) =>
  world.run(
    Effect.map(
      Effect.flip(from.system.spawnOn(Account, name, { dataCenter: EU, props: { opening: 0 } })),
      (e) => e._tag
    )
  )

const leaderOf = Effect.fnUntraced(function*(world: Simulation.World, dataCenter: string) {
  for (const node of world.nodes) {
    if (node.dataCenter === dataCenter && node.isUp && (yield* isLeader(node))) return node
  }
  return assert.fail(`${dataCenter} has no leader`)
})

describe("datacenters in a simulated world", () => {
  it.effect("M14: no restart of a leader, in order or by a crash, takes its datacenter out of routing", () =>
    Effect.gen(function*() {
      const world = yield* make(1, 1, 3)
      const us = world.node(US, 0)
      let spawned = 0
      const routable = Effect.gen(function*() {
        for (let second = 0; second < 20; second++) {
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* dataCentersOf(us).select(EU)).dataCenter.name, EU)
        }
        yield* spawn(world, us, `a-${spawned++}`)
      })
      for (const how of ["leave", "crash"] as const) {
        const leader = yield* leaderOf(world, EU)
        yield* world.run(leader[how])
        yield* routable
        yield* leader.restart
        yield* world.awaitReady
      }
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("a drain asked for in one datacenter: nothing new goes into the other, what is there goes on, from every node", () =>
    Effect.gen(function*() {
      const world = yield* make(2)
      const [us0, us1, eu0] = [world.node(US, 0), world.node(US, 1), world.node(EU, 0)]
      const account = yield* spawn(world, us0, "before")
      yield* world.run(dataCentersOf(us1).drain(EU, { by: "ada", reason: "power" }))
      yield* TestClock.adjust("2 seconds")
      for (const [index, node] of [us0, us1, eu0].entries()) {
        assert.strictEqual(yield* refusal(world, node, `new-${index}`), "RecordNotFound")
      }
      assert.strictEqual(yield* world.run(account.ask.Withdraw({ cents: 2 })), 5)
      const found = yield* world.run(us1.system.actorOf(Account, "before"))
      assert.strictEqual(yield* world.run(found.ask.Balance()), 5)

      const leader = yield* leaderOf(world, EU)
      yield* world.run(leader.leave)
      yield* leader.restart
      yield* world.awaitReady.pipe(Effect.ignore)
      assert.strictEqual(yield* refusal(world, us0, "after-restart"), "RecordNotFound")

      yield* world.run(dataCentersOf(world.node(EU, 1)).activate(EU))
      yield* TestClock.adjust("5 seconds")
      yield* spawn(world, us0, "again")
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("X-12: without a control plane for ten minutes, what runs goes on, new placements fail typed, and it recovers by itself", () =>
    Effect.gen(function*() {
      const world = yield* make(3)
      const us = world.node(US, 0)
      const account = yield* spawn(world, us, "before")
      yield* world.partition([US, EU], [Simulation.globalControlPlane])
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(yield* world.run(account.ask.Balance()), 7)
      yield* spawn(world, us, "at-home", US)
      assert.strictEqual(yield* refusal(world, us, "abroad"), "StaleRecords")
      assert.isTrue(yield* us.system.dataCenterReady)
      yield* world.heal
      yield* TestClock.adjust("20 seconds")
      yield* spawn(world, us, "abroad")
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("X-13: a datacenter that is lost is refused once its lease has run out, and taken again when it is back", () =>
    Effect.gen(function*() {
      const world = yield* make(4)
      const us = world.node(US, 0)
      for (const index of [0, 1]) yield* world.node(EU, index).crash
      yield* TestClock.adjust("45 seconds")
      assert.strictEqual(yield* refusal(world, us, "lost"), "RecordNotFound")
      for (const index of [0, 1]) yield* world.node(EU, index).restart
      yield* world.awaitReady
      yield* spawn(world, us, "back")
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("X-14: a datacenter that is cut from the control plane alone keeps its own work", () =>
    Effect.gen(function*() {
      const world = yield* make(5)
      const [us, eu] = [world.node(US, 0), world.node(EU, 0)]
      const account = yield* spawn(world, us, "before")
      yield* world.partition([EU], [Simulation.globalControlPlane])
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* refusal(world, us, "from-us"), "RecordNotFound")
      assert.strictEqual(yield* world.run(account.ask.Balance()), 7)
      yield* spawn(world, eu, "inside", EU)
      yield* world.heal
      yield* TestClock.adjust("30 seconds")
      yield* spawn(world, us, "from-us")
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("an actor that moved to another node of its datacenter is found again from the other datacenter", () =>
    Effect.gen(function*() {
      const world = yield* make(6, 1, 3)
      const us = world.node(US, 0)
      const account = yield* spawn(world, us, "mover")
      const host = world.nodes.find((node) => node.id === account.address.node.id)!
      yield* host.crash
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(yield* world.run(account.ask.Balance()), 7)
      assert.notStrictEqual(account.address.node.id, host.id)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("the last node to leave says so: its datacenter is refused at once, without waiting for a lease", () =>
    Effect.gen(function*() {
      const world = yield* make(7, 1, 1)
      const us = world.node(US, 0)
      yield* world.run(world.node(EU, 0).leave)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* refusal(world, us, "gone"), "RecordNotFound")
      yield* world.node(EU, 0).restart
      yield* world.awaitReady
      yield* spawn(world, us, "back")
    }))
})

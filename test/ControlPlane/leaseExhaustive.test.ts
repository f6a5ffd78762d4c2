// Every order of events in a small world: no owner acts while its lease is closed, and no lost owner goes unnoticed.
import { assert, describe, it } from "@effect/vitest"
import * as Observer from "../../src/ControlPlane/internal/leaseObserver.ts"
import * as Owner from "../../src/ControlPlane/internal/leaseOwner.ts"
import * as Model from "./leaseModel.ts"

/** enough for a lease of two steps to lapse, to be closed, and for late requests to arrive after that */
const bounds: Model.Bounds = { steps: 5, ownerWrites: 2, closings: 1, losses: 0, staleReads: true }
/** the same with a watch that is lost and comes back, one step shorter */
const withLoss: Model.Bounds = { steps: 4, ownerWrites: 2, closings: 1, losses: 1, staleReads: false }
const smaller: Model.Bounds = { steps: 4, ownerWrites: 2, closings: 1, losses: 0, staleReads: false }

const isClosed = (world: Model.World) => world.current.record.state === "Closed"
/** what must never be: the key says closed, and its owner believes that it may act */
const bothAct = (world: Model.World) => isClosed(world) && Model.mayAct(world)

describe("a lease, in every order of events", () => {
  it("never has an owner that acts while its key is closed", () => {
    const reached = { closed: 0, lapsed: 0, noticed: 0, adopted: 0, expired: 0, restarted: 0 }
    const visit = (world: Model.World) => {
      if (isClosed(world)) reached.closed++
      if (world.owner.phase === "Held" && !Model.mayAct(world)) reached.lapsed++
      if (world.owner.phase === "Closed") reached.noticed++
      if (world.owner.unsettled.length === 0 && world.owner.operations > world.owner.counter) reached.adopted++
      if (Observer.status(world.observer, "leases/a") === "Expired") reached.expired++
      if (world.losses > 0 && world.watching) reached.restarted++
    }
    let worlds = 0
    for (const within of [bounds, withLoss]) {
      const explored = Model.explore(within, bothAct, Model.cores, visit)
      assert.isUndefined(explored.violation)
      worlds += explored.worlds
    }
    assert.isAbove(worlds, 90_000)
    // the walk must have been in the interesting places
    for (const [place, times] of Object.entries(reached)) assert.isAbove(times, 0, place)
  }, 120_000)

  it("is noticed by its owner at the first renewal that the store answers, once it is closed", () => {
    let asked = 0
    Model.explore(smaller, () => false, Model.cores, (world) => {
      if (!isClosed(world)) return
      asked++
      assert.strictEqual(Model.healthyRenewals(world, 1).owner.phase, "Closed")
    })
    assert.isAbove(asked, 1_000)
  }, 120_000)

  it("comes back to an owner that lapsed, as soon as the store answers, where nobody closed it", () => {
    let asked = 0
    Model.explore(smaller, () => false, Model.cores, (world) => {
      if (isClosed(world) || world.owner.phase === "Closed") return
      asked++
      assert.isTrue(Model.mayAct(Model.healthyRenewals(world, 3)))
    })
    assert.isAbove(asked, 1_000)
  }, 120_000)

  it("of a lost owner is closed within the duration, the margin and one step of a healthy watch", () => {
    let asked = 0
    const most = Math.ceil((Model.duration + 250) / Model.unit) + 1
    Model.explore(smaller, () => false, Model.cores, (world) => {
      if (isClosed(world)) return
      asked++
      const steps = Model.stepsUntilClosed(world, 20)
      assert.isDefined(steps)
      assert.isAtMost(steps!, most)
    })
    assert.isAbove(asked, 1_000)
  }, 120_000)
})

describe("the walk sees planted bugs", () => {
  const planted: Record<string, Partial<Model.Cores>> = {
    "validity counted from the answer instead of the send time": {
      owner: (state, event) => {
        const [next, commands] = Owner.step(state, event)
        // the answer is heard at the latest at the next step, which is what a core that reads its clock then would count from
        return event._tag === "Written" && state.inFlight !== undefined
          ? [{ ...next, validUntil: next.validUntil + Model.unit }, commands]
          : [next, commands]
      }
    },
    "an unknown outcome taken for success": {
      owner: (state, event) => {
        const [next, commands] = Owner.step(state, event)
        return event._tag === "Unknown" && state.inFlight !== undefined
          ? [{ ...next, validUntil: state.inFlight.sentAt + state.duration }, commands]
          : [next, commands]
      }
    },
    "a conflict taken for somebody else's renewal": {
      owner: (state, event) => {
        const [next, commands] = Owner.step(state, event)
        return event._tag === "Conflict" && state.inFlight !== undefined
          ? [{ ...next, validUntil: state.inFlight.sentAt + state.duration }, commands]
          : [next, commands]
      }
    },
    "closing whatever revision the read shows": {
      decideClose: (state, key, read) =>
        Observer.status(state, key) === "Expired" && read !== undefined
          ? { _tag: "CloseAt", expected: read.revision }
          : { _tag: "Alive" }
    },
    "closing without waiting": {
      decideClose: (_state, _key, read) => ({ _tag: "CloseAt", expected: read?.revision })
    },
    "closing after half of the duration": {
      decideClose: (state, key, read) => {
        const lease = state.leases.get(key)
        return lease !== undefined && read?.revision === lease.revision &&
            (state.provenAt ?? lease.since) - lease.since >= lease.duration / 2
          ? { _tag: "CloseAt", expected: lease.revision }
          : { _tag: "Alive" }
      }
    }
  }
  for (const [bug, cores] of Object.entries(planted)) {
    it(bug, () => {
      const { violation } = Model.explore(bounds, bothAct, { ...Model.cores, ...cores })
      assert.isDefined(violation)
    }, 120_000)
  }
})

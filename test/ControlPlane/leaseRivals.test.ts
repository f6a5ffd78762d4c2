// Three nodes, in every order of events within bounds: no two holders of one piece of work act at once, no lost holder goes
// unnoticed. And the walk can fail: each rule of leases, left out once, is missed.
import { assert, describe, it } from "@effect/vitest"
import * as Observer from "../../src/ControlPlane/internal/leaseObserver.ts"
import * as Owner from "../../src/ControlPlane/internal/leaseOwner.ts"
import * as Model from "./leaseRivals.ts"

const walks: ReadonlyArray<readonly [fault: string, bounds: Model.Bounds, atLeast: number]> = [
  ["one dies, another is slow, a third closes", { ...Model.base, deaths: 1 }, 60_000],
  ["one dies and its port refuses, so that its rival closes at once", {
    ...Model.base,
    deaths: 1,
    refusals: true,
    thirdCloses: 0
  }, 20_000],
  ["a machine sleeps", { ...Model.base, sleeps: 1, thirdCloses: 0 }, 20_000],
  ["a watch stands still", { ...Model.base, stalls: 1, thirdCloses: 0 }, 20_000],
  ["a watch is lost and comes back", { ...Model.base, gaps: 1, thirdCloses: 0 }, 20_000],
  ["reads are stale", { ...Model.base, staleReads: true, thirdCloses: 0 }, 10_000],
  ["proofs and claims are late", { ...Model.base, steps: 2, lateWords: true, lateClaims: true }, 15_000]
]
/** a lease of less than two steps and its margin, seen a step later, and one more until a watch that was lost is back */
const mostSteps = 4

describe("two rivals and one who watches, in every order of events", () => {
  const reached = {
    closedAtOnce: 0,
    acted: 0,
    lapsed: 0,
    takenOver: 0,
    closedByRival: 0,
    closedByThird: 0,
    noticedByOwner: 0
  }
  for (const [fault, bounds, atLeast] of walks) {
    it(`${fault}: never do two act at once`, () => {
      const explored = Model.explore(bounds, Model.rules, (world) => {
        for (const node of world.nodes) {
          if (node.granted) reached.acted++
          if (node.core.phase === "Held" && node.core.validUntil <= world.time * Model.unit) reached.lapsed++
          if (node.core.phase === "Closed") reached.noticedByOwner++
        }
        if (world.work.revision > 2) reached.takenOver++
        if (world.time === 0 && world.leases.some(({ record }) => record.state === "Closed")) reached.closedAtOnce++
        for (const { record } of world.leases) {
          if (record.writer === "c2") reached.closedByThird++
          else if (record.state === "Closed") reached.closedByRival++
        }
      })
      assert.isUndefined(explored.violation)
      assert.isAbove(explored.worlds, atLeast)
    }, 120_000)
  }

  it("the walks have been in the interesting places", () => {
    for (const [place, times] of Object.entries(reached)) assert.isAbove(times, 100, place)
  })

  it("whoever is lost for good is closed by the others within a lease, and the heir has the work", () => {
    let asked = 0
    const seen = { closed: 0, taken: 0 }
    for (const more of [{ gaps: 1, renewals: 1 }, { sleeps: 1, closings: 0 }]) {
      const bounds = { ...Model.base, steps: 2, thirdCloses: 0, ...more }
      Model.explore(bounds, Model.rules, (world) => {
        for (const lost of [0, 1] as const) {
          asked++
          const outcome = Model.noticed(world, lost, 12)
          assert.isDefined(outcome, "nobody noticed")
          assert.isAtMost(outcome!.closed, mostSteps)
          if (outcome!.taken !== undefined) assert.isAtMost(outcome!.taken, mostSteps + 1)
          seen.closed = Math.max(seen.closed, outcome!.closed)
          seen.taken = Math.max(seen.taken, outcome!.taken ?? 0)
        }
      })
    }
    assert.isAbove(asked, 2_000)
    assert.isAbove(seen.closed, 1)
    assert.isAbove(seen.taken, 1)
  }, 120_000)
})

/** A rule left out, the walk that must miss it, and what it must say. */
interface Planted {
  readonly rules: Partial<Model.Rules>
  readonly bounds?: Partial<Model.Bounds>
  readonly says: RegExp
}
const together = /two holders|while its lease is closed/

/**
 * An owner's first renewals, one after the other: `answers` says of each how late its answer comes (in milliseconds; `Infinity`:
 * lost). Returns for how long it might not act in between.
 */
const lapse = (answers: ReadonlyArray<number>, deadline: number, period: number): number => {
  let sentAt = 0
  let lapsed = 0
  let validUntil = 0
  for (const late of [0, ...answers]) {
    const answered = late <= deadline
    const heardAt = sentAt + Math.min(late, deadline)
    if (answered) {
      if (validUntil > 0) lapsed += Math.max(0, heardAt - validUntil)
      validUntil = sentAt + Model.duration
    }
    sentAt = heardAt + (answered ? period * 1.2 : Model.duration / 60 * 1.2)
  }
  return lapsed
}
/** every sequence of renewals in which a lost answer has neighbours that come at once */
const sequences = (length: number, before = 0): ReadonlyArray<ReadonlyArray<number>> =>
  length === 0 ? [[]] : [0, Model.duration / 6, Infinity]
    .filter((late) => before + late < Infinity || before === 0 || late === 0)
    .flatMap((late) => sequences(length - 1, late).map((rest) => [late, ...rest]))
const worstLapse = (deadline: number, period: number) =>
  Math.max(...sequences(8).map((answers) => lapse(answers, deadline, period)))

describe("the timing of renewals", () => {
  const deadline = Owner.callDeadline(Model.duration)
  const period = Owner.renewalPeriod(Model.duration)

  it("costs no owner its lease for one answer that is lost, whichever it is", () => {
    assert.isAbove(sequences(8).length, 100)
    assert.strictEqual(worstLapse(deadline, period), 0)
  })
  it("would, without rule 3's deadline of a quarter of the duration", () => {
    assert.isAbove(worstLapse(5_000, period), 0)
  })
  it("would, without rule 3's interval of a third of the duration", () => {
    assert.isAbove(worstLapse(deadline, Model.duration * 0.6), 0)
  })
})

describe("the walk misses rule", () => {
  const planted: Readonly<Record<string, Planted>> = {
    "1, three outcomes: an unknown one taken for success": {
      rules: {
        owner: (state, event) => {
          const [next, commands] = Owner.step(state, event)
          return event._tag === "Unknown" && state.inFlight !== undefined
            ? [{ ...next, validUntil: state.inFlight.sentAt + state.duration }, commands]
            : [next, commands]
        }
      },
      says: together
    },
    "2, deciding by compare-and-set: the work is taken on the strength of what was read": {
      rules: { mayClaim: (_, status) => status === "Expired" },
      bounds: { renewals: 3, thirdCloses: 0, closings: 0 },
      says: together
    },
    "4, counting from the send time: validity counts from the answer": {
      rules: {
        owner: (state, event) => {
          const [next, commands] = Owner.step(state, event)
          return event._tag === "Written" && state.inFlight !== undefined
            ? [{ ...next, validUntil: next.validUntil + Model.unit }, commands]
            : [next, commands]
        }
      },
      says: together
    },
    "4, comparing at every act: what was valid once stays so": {
      rules: { isValid: (state) => state.phase === "Held" && !state.leaving },
      says: together
    },
    "4, pausing when wall and monotonic time drift apart": {
      rules: { isValid: (state, at) => state.phase === "Held" && !state.leaving && at.now < state.validUntil },
      bounds: { sleeps: 1 },
      says: together
    },
    "5, closing at exactly the revision that was watched": {
      rules: {
        decideClose: (state, key, read) =>
          Observer.status(state, key) === "Expired" && read !== undefined
            ? { _tag: "CloseAt", expected: read.revision }
            : { _tag: "Alive" }
      },
      says: together
    },
    "5, waiting for a whole lease and the margin": {
      rules: {
        decideClose: (state, key, read) => {
          const lease = state.leases.get(key)
          return lease !== undefined && read?.revision === lease.revision &&
              (state.provenAt ?? lease.since) - lease.since >= lease.duration / 2
            ? { _tag: "CloseAt", expected: lease.revision }
            : { _tag: "Alive" }
        }
      },
      says: /watched for a whole one/
    },
    "5, counting proven time only: a gap of the watch is counted in": {
      rules: {
        observer: (state, event, now) => {
          const [next, foreign] = Observer.step(state, event, now)
          const leases = new Map(next.leases)
          for (const [key, lease] of leases) {
            const known = state.leases.get(key)
            if (known !== undefined && known.revision === lease.revision) {
              leases.set(key, { ...lease, since: known.since })
            }
          }
          return [{ ...next, leases }, foreign]
        }
      },
      bounds: { gaps: 1 },
      says: /without a gap/
    },
    "5, closed is final: an owner that reads it goes on at that revision": {
      rules: {
        owner: (state, event) =>
          event._tag === "Read" && event.record?.state === "Closed"
            ? [{ ...state, revision: event.revision, inFlight: undefined }, [{ _tag: "Again" }]]
            : Owner.step(state, event)
      },
      bounds: { renewals: 3, claims: 0, closings: 0 },
      says: /revived/
    },
    "6, certain death: a suspicion is taken for one": {
      rules: { isCertain: () => true },
      says: together
    },
    "6, certain death: a refusal that a firewall gives for a live one is taken for death": {
      rules: { refuses: () => true },
      bounds: { refusals: true, thirdCloses: 0 },
      says: together
    },
    "6, its own lease first: a closer that does not renew": {
      rules: { renewsFirst: false },
      says: /closed member closed/
    },
    "6, its own lease first: a closer that does not renew because a port has refused": {
      rules: { renewsFirstOnRefusal: false },
      bounds: { deaths: 1, refusals: true },
      says: /closed member closed/
    }
  }
  for (const [rule, { bounds, rules, says }] of Object.entries(planted)) {
    it(rule, () => {
      const { violation } = Model.explore({ ...Model.base, ...bounds }, { ...Model.rules, ...rules })
      assert.match(violation ?? "nothing", says)
    }, 120_000)
  }

  for (
    const [rule, observer] of [
      ["5, noticing the lost: each proof begins the count anew", (state, event, now) => {
        const [next, foreign] = Observer.step(state, event, now)
        const leases = new Map(Array.from(next.leases, ([key, lease]) => [key, { ...lease, since: now }] as const))
        return [{ ...next, leases }, foreign]
      }],
      ["5, noticing the lost: what was watched before a gap is never counted again", (state, event, now) => {
        const [next, foreign] = Observer.step(state, event, now)
        if (event._tag !== "Snapshot" || state.leases.size === 0) return [next, foreign]
        return [{
          ...next,
          leases: new Map(Array.from(next.leases, ([key, lease]) => [key, { ...lease, since: 1e12 }]))
        }, []]
      }]
    ] as ReadonlyArray<readonly [string, typeof Observer.step]>
  ) {
    it(rule, () => {
      let unnoticed = false
      const using = { ...Model.rules, observer }
      Model.explore({ ...Model.base, steps: 1, gaps: 2, renewals: 0 }, using, (world) => {
        unnoticed = Model.noticed(world, 0, 12, using) === undefined
        return unnoticed
      })
      assert.isTrue(unnoticed)
    }, 120_000)
  }
})

// The monitors see the bugs they are there for: each is planted here by hand.
import { assert, describe, it } from "@effect/vitest"
import { Monitors } from "../../src/Testing/internal/monitors.ts"

const node = (id: string) => ({ dataCenter: "dc", id, incarnation: "1", host: "h", port: 1 })
const started = (id: string, placement: number) => ({
  _tag: "ActorStarted" as const,
  actor: { kind: "K", name: "x", node: node(id), placement, epoch: 1 }
})
const stopped = (id: string) => ({
  _tag: "ActorStopped" as const,
  actor: { kind: "K", name: "x", node: node(id), placement: 1, epoch: 1 },
  reason: "Stopped" as const
})

describe("monitors", () => {
  it("a second acting owner of a name is a violation", () => {
    const monitors = new Monitors(() => true)
    monitors.event(1, "a", started("a", 1))
    monitors.event(2, "b", started("b", 2))
    assert.deepStrictEqual(monitors.violations.map((violation) => violation.invariant), ["uniqueActingOwner"])
  })

  it("a held owner beside its successor is none, until it acts again", () => {
    const monitors = new Monitors(() => true)
    monitors.event(1, "a", started("a", 1))
    monitors.event(2, "a", { _tag: "WorkHeld", held: true })
    monitors.event(3, "b", started("b", 2))
    assert.deepStrictEqual(monitors.violations, [])
    monitors.event(4, "a", { _tag: "WorkHeld", held: false })
    assert.deepStrictEqual(monitors.violations.map((violation) => violation.at), [4])
  })

  it("a start of a member that is declared dead while it holds a valid lease is one, and none where it is another start", () => {
    const left = (id: string) => ({
      _tag: "MemberLeft" as const,
      member: { node: node(id), status: "Dead" as const, age: 1, roles: [], kinds: [] }
    })
    const monitors = new Monitors((id, incarnation) => id === "b" && incarnation === "1")
    monitors.event(1, "a", left("c"))
    assert.deepStrictEqual(monitors.violations, [])
    monitors.event(2, "a", left("b"))
    assert.deepStrictEqual(monitors.violations.map((violation) => violation.invariant), ["deadDoNotAct"])
    const later = new Monitors((_id, incarnation) => incarnation === "2")
    later.event(1, "a", left("b"))
    assert.deepStrictEqual(later.violations, [])
  })

  it("an owner without a lease beside its successor is one only when nobody tells it in time", () => {
    const monitors = new Monitors((node) => node !== "a")
    monitors.event(1, "a", started("a", 1))
    monitors.event(2, "b", started("b", 2))
    monitors.timePassed(2000)
    assert.deepStrictEqual(monitors.violations, [])
    monitors.timePassed(4000)
    assert.deepStrictEqual(monitors.violations.map((violation) => violation.at), [4000])
  })

  it("an owner that crashed or stopped first makes room", () => {
    const monitors = new Monitors(() => true)
    monitors.event(1, "a", started("a", 1))
    monitors.crashed("a")
    monitors.event(2, "b", started("b", 2))
    monitors.event(3, "b", stopped("b"))
    monitors.event(4, "c", started("c", 3))
    assert.deepStrictEqual(monitors.violations, [])
  })

  it("a placement number that does not rise is a violation", () => {
    const monitors = new Monitors(() => true)
    monitors.event(1, "a", started("a", 2))
    monitors.event(2, "a", stopped("a"))
    monitors.event(3, "b", started("b", 2))
    assert.deepStrictEqual(monitors.violations.map((violation) => violation.invariant), ["placementsRise"])
  })

  it("a view older than one already seen is a violation", () => {
    const monitors = new Monitors(() => true)
    monitors.viewSeen(1, "a", 4)
    monitors.viewSeen(2, "a", 3)
    assert.deepStrictEqual(monitors.violations.map((violation) => violation.invariant), ["viewsAreOrdered"])
  })
})

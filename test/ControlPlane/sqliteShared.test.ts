import { Shared, Vigil } from "../../src/ControlPlane/internal/sqliteShared.edge.ts"
import { describe, expect, it } from "@effect/vitest"

const both = () => {
  const owner = new Shared()
  return { owner, thread: new Shared(owner.memory) }
}

describe("what the store's thread and its owner share", () => {
  it("gives an answer to an owner that is awake, once", () => {
    const { owner, thread } = both()
    owner.wake()
    expect(owner.watchFor(0)).toBe(false)
    expect(thread.answer({ id: 7, revision: 2 ** 40 + 1 })).toBe(true)
    expect(owner.watchFor(0)).toBe(true)
    expect(owner.sleep()).toEqual({ id: 7, revision: 2 ** 40 + 1 })
    expect(owner.sleep()).toBeUndefined()
  })

  it("takes no answer for an owner that sleeps, and writes over none that was not taken", () => {
    const { owner, thread } = both()
    expect(thread.answer({ id: 1, revision: 1 })).toBe(false)
    owner.wake()
    expect(thread.answer({ id: 2, revision: 2 })).toBe(true)
    expect(thread.answer({ id: 3, revision: 3 })).toBe(false)
    expect(owner.sleep()).toEqual({ id: 2, revision: 2 })
    expect(thread.answer({ id: 4, revision: 4 })).toBe(false)
  })

  it("lets the thread sleep through no bell that was rung since it looked", () => {
    const { owner, thread } = both()
    const { rung } = thread
    expect(thread.watchBell(rung, 0)).toBe(false)
    owner.ring()
    expect(thread.watchBell(rung, 0)).toBe(true)
    // would never come back otherwise
    thread.waitFor(rung, Infinity)
    const { hints } = thread
    owner.hint()
    expect(thread.hints).toBe(hints + 1)
    thread.waitFor(rung + 1, Infinity)
  })
})

describe("staying awake", () => {
  /** of so many lone questions, for which it is stayed awake, where each time it pays or not */
  const kept = (questions: number, paid: (index: number) => boolean) => {
    const vigil = new Vigil()
    let count = 0
    for (let i = 0; i < questions; i++) {
      if (!vigil.worthwhile()) continue
      count++
      vigil.kept(paid(i))
    }
    return count
  }

  it("is kept up while it pays, through one slow answer now and then", () => {
    expect(kept(1000, () => true)).toBe(1000)
    expect(kept(1000, (i) => i % 10 !== 0)).toBe(1000)
  })

  it("becomes rare where it never pays, and is taken up again as soon as it does", () => {
    expect(kept(10_000, () => false)).toBeLessThan(170)
    expect(kept(10_000, (i) => i >= 5000)).toBeGreaterThan(4900)
  })
})

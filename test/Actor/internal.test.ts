// The data structures under the cell, against plain models.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Random, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { Names } from "../../src/Actor/internal/Names.ts"
import { Ring } from "../../src/Actor/internal/Ring.ts"
import { Deadline, Timeouts } from "../../src/Actor/internal/Timeouts.ts"

describe("a ring", () => {
  it("gives back what was put in, in order, however pushes and shifts interleave", () => {
    fc.assert(fc.property(fc.array(fc.boolean(), { maxLength: 400 }), (pushes) => {
      const ring = new Ring<number>()
      const model: Array<number> = []
      let next = 0
      for (const push of pushes) {
        if (push) {
          ring.push(next)
          model.push(next++)
        } else if (ring.size > 0) assert.strictEqual(ring.shift(), model.shift())
        assert.strictEqual(ring.size, model.length)
      }
      while (ring.size > 0) assert.strictEqual(ring.shift(), model.shift())
    }))
  })
})

describe("names", () => {
  it("are found, taken and freed as in a Map, and listed in the order of their arrival", () => {
    // Few names, so that they are taken, freed and taken again, and many collide; numbers only tell entries apart.
    const step = fc.tuple(fc.constantFrom("add", "delete", "get"), fc.nat(60))
    fc.assert(fc.property(fc.array(step, { maxLength: 600 }), fc.string(), (steps, seed) => {
      const names = new Names<{ readonly name: string; readonly number: number }>(seed)
      const model = new Map<string, { readonly name: string; readonly number: number }>()
      for (const [number, [what, which]] of steps.entries()) {
        const name = `name-${which}`
        const present = model.get(name)
        if (what === "get") assert.strictEqual(names.get(name), present)
        else if (what === "delete") {
          names.delete({ name, number: -1 })
          assert.strictEqual(names.get(name), present)
          if (present !== undefined) names.delete(present)
          model.delete(name)
        } else {
          const entry = { name, number }
          assert.strictEqual(names.add(entry), present)
          if (present === undefined) model.set(name, entry)
        }
        assert.strictEqual(names.size, model.size)
      }
      assert.deepStrictEqual(names.all(), [...model.values()])
      for (let which = 0; which <= 60; which++) {
        assert.strictEqual(names.get(`name-${which}`), model.get(`name-${which}`))
      }
    }))
  })

  it("keep to few slots however many have come and gone", () => {
    const names = new Names<{ readonly name: string }>("")
    const kept = Array.from({ length: 100 }, (_, index) => ({ name: `kept-${index}` }))
    for (const entry of kept) names.add(entry)
    for (let index = 0; index < 100_000; index++) {
      const entry = { name: `gone-${index}` }
      names.add(entry)
      names.delete(entry)
    }
    assert.deepStrictEqual(names.all(), kept)
    assert.isBelow((Reflect.get(names, "slots") as Int32Array).length, 2048)
    assert.isBelow((Reflect.get(names, "entries") as Array<unknown>).length, 1024)
  })
})

class Alarm extends Deadline {
  private readonly ring: () => void
  constructor(ring: () => void) {
    super()
    this.ring = ring
  }
  expire() {
    this.ring()
  }
}

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))
const Plan = Schema.Array(Schema.Struct({
  at: between(0, 500),
  duration: Schema.Literals([0, 1, 10, 50, 100, 333, 500]),
  cancelAfter: Schema.NullOr(between(0, 400))
})).check(Schema.isMaxLength(60))

describe("deadlines", () => {
  it.effect.prop(
    "each falls due at its very moment, once, unless it was cancelled",
    { plan: Plan },
    ({ plan }) =>
      Effect.gen(function*() {
        const clock = yield* Clock.Clock
        const timeouts = new Timeouts(clock, yield* Effect.context<never>())
        const start = timeouts.now()
        const fired: Array<number | undefined> = plan.map(() => undefined)
        yield* Effect.forEach(plan, (entry, index) =>
          Effect.gen(function*() {
            yield* Effect.sleep(entry.at)
            const alarm = new Alarm(() => {
              assert.isUndefined(fired[index])
              fired[index] = timeouts.now() - start
            })
            timeouts.add(entry.duration, alarm)
            if (entry.cancelAfter === null) return
            yield* Effect.sleep(entry.cancelAfter)
            timeouts.cancel(alarm)
          }).pipe(Effect.forkChild({ startImmediately: true })), { discard: true })
        yield* TestClock.adjust("2 seconds")
        plan.forEach((entry, index) => {
          const due = entry.at + entry.duration
          if (entry.cancelAfter === null || entry.cancelAfter > entry.duration) assert.strictEqual(fired[index], due)
          else if (entry.cancelAfter < entry.duration) assert.isUndefined(fired[index])
        })
        timeouts.close()
      })
  )

  it.effect("what is no length of time falls due at once, what is infinite never, and neither holds up the others", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      const timeouts = new Timeouts(clock, yield* Effect.context<never>())
      const fired: Array<string> = []
      for (const duration of [Number.NaN, 50, -1, Number.POSITIVE_INFINITY, 10, Number.NaN]) {
        timeouts.add(duration, new Alarm(() => fired.push(String(duration))))
      }
      yield* TestClock.adjust(0)
      assert.sameMembers(fired.splice(0), ["NaN", "-1", "NaN"])
      yield* TestClock.adjust(49)
      assert.deepStrictEqual(fired.splice(0), ["10"])
      yield* TestClock.adjust("1000 days")
      assert.deepStrictEqual(fired, ["50"])
    }))

  it.effect("a hundred thousand of them cost one sleeping fiber, and none is looked at before its time", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let sleeps = 0
      const counting: Clock.Clock = Object.assign(Object.create(clock) as Clock.Clock, {
        sleep: (duration: Parameters<Clock.Clock["sleep"]>[0]) => {
          sleeps++
          return clock.sleep(duration)
        }
      })
      const timeouts = new Timeouts(counting, yield* Effect.context<never>())
      let fired = 0
      const alarms = Array.from({ length: 100_000 }, () => new Alarm(() => fired++))
      for (const alarm of alarms) timeouts.add(1000 + (yield* Random.nextIntBetween(0, 3)) * 500, alarm)
      for (const alarm of alarms.slice(0, 50_000)) timeouts.cancel(alarm)
      // four deadlines, so at most four times one that is earlier than all before
      assert.isAtMost(sleeps, 4)
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(fired, 0)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(fired, 50_000)
      assert.isBelow(sleeps, 10)
    }))
})

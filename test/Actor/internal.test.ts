// The data structures under the cell, against plain models.
import { assert, describe, it } from "@effect/vitest"
import { ActorHost, Node } from "effect-troupe/Actor"
import { Clock, Effect, Layer, Random, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { hostOf } from "../../src/Actor/internal/Host.ts"
import { Names } from "../../src/Actor/internal/Names.ts"
import { Ring } from "../../src/Actor/internal/Ring.ts"
import { Deadline, Timeouts } from "../../src/Actor/internal/Timeouts.ts"
import { layerLocal } from "./local.ts"

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

/** So many doublings of names that all have one hash by that salt: of each two blocks both lead from one state to the same next one. */
const collisions = (salt: number, doublings: number): ReadonlyArray<string> => {
  const next = (state: number, block: string) => {
    for (let index = 0; index < block.length; index++) state = Math.imul(state ^ block.charCodeAt(index), 0x01000193)
    return state
  }
  let state = salt
  let names = [""]
  while (doublings-- > 0) {
    const seen = new Map<number, string>()
    for (let n = 0;; n++) {
      const block = String.fromCharCode(n & 0x7fff, Math.imul(n, 0x9e3779b1) >>> 17, Math.imul(n, 0x85ebca6b) >>> 17)
      const reached = next(state, block)
      const other = seen.get(reached)
      seen.set(reached, block)
      if (other === undefined) continue
      names = names.flatMap((name) => [name + other, name + block])
      state = reached
      break
    }
  }
  return names
}

describe("names", () => {
  it("are found, taken and freed as in a Map, and listed in the order of their arrival", () => {
    // Few names, so that they are taken, freed and taken again, and many collide; numbers only tell entries apart.
    const step = fc.tuple(fc.constantFrom("add", "delete", "get"), fc.nat(60))
    fc.assert(fc.property(fc.array(step, { maxLength: 600 }), fc.integer(), (steps, salt) => {
      const names = new Names<{ readonly name: string; readonly number: number }>(salt)
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

  it("that collide by one salt do not by another, so that who knows no salt cannot choose names that do", () => {
    const salt = 0x5eed
    const chosen = collisions(salt, 11)
    const looks = (names: Names<{ readonly name: string }>) => {
      let count = 0
      for (const name of chosen) {
        names.add({
          get name() {
            count++
            return name
          }
        })
      }
      return count / chosen.length
    }
    assert.isAbove(looks(new Names(salt)), 1000, "each meets all those before it")
    assert.isBelow(looks(new Names(salt + 1)), 10)
    assert.isBelow(looks(new Names()), 10)
  })

  it.effect("are hashed by a salt of each host's own, which nothing that others see of the node tells", () =>
    Effect.gen(function*() {
      const salts = yield* Effect.forEach([1, 2], () =>
        Effect.gen(function*() {
          const { address } = yield* Node.Node
          const { cells } = hostOf(yield* ActorHost.ActorHost)
          return [address.incarnation, Reflect.get(cells, "salt")] as const
        }).pipe(Effect.provide(Layer.fresh(layerLocal)), Random.withSeed("same")))
      assert.strictEqual(salts[0]![0], salts[1]![0], "the same seed, so the same incarnation")
      assert.notStrictEqual(salts[0]![1], salts[1]![1])
    }))

  it("keep to few slots however many have come and gone", () => {
    const names = new Names<{ readonly name: string }>(0)
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
  held: Schema.Boolean,
  cancelAfter: Schema.NullOr(between(0, 400))
})).check(Schema.isMaxLength(60))

const Steps = Schema.Array(Schema.Struct({
  what: Schema.Literals(["add", "add", "add", "hold", "release"]),
  passes: Schema.Literals([0, 0, 1, 3000]),
  duration: Schema.Literals([0, 1, 1000])
})).check(Schema.isMaxLength(200))

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
            if (entry.held) timeouts.hold()
            timeouts.add(entry.duration, alarm)
            if (entry.held) timeouts.release()
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

  it.effect.prop(
    "that share a reading of the clock fall due no earlier than theirs, and no later than by what passed until the next reading",
    { steps: Steps },
    ({ steps }) =>
      Effect.gen(function*() {
        let now = 0
        const clock: Clock.Clock = Object.assign(Object.create(yield* Clock.Clock) as Clock.Clock, {
          monotonicTimeNanosUnsafe: () => BigInt(now) * 1_000_000n,
          sleep: () => Effect.never
        })
        const timeouts = new Timeouts(clock, yield* Effect.context<never>())
        interface Set_ {
          readonly alarm: Alarm
          readonly earliest: number
          latest: number
        }
        const alarms: Array<Set_> = []
        let held = 0
        /** from which on they may still be dated by a later reading */
        let open = 0
        for (const { duration, passes, what } of steps) {
          // what takes its time here is a handler, or whoever an answer was brought to
          now += passes
          for (const late of alarms.slice(Math.max(open, alarms.length - 32))) {
            late.latest = Math.max(late.latest, now + late.alarm.list!.duration)
          }
          if (what === "hold") {
            timeouts.hold()
            held++
          } else if (what === "release" && held > 0) {
            timeouts.release()
            held--
          } else if (what === "add") {
            const alarm = new Alarm(() => {})
            alarms.push({ alarm, earliest: now + duration, latest: now + duration })
            timeouts.add(duration, alarm)
          }
          if (held === 0) open = alarms.length
        }
        while (held-- > 0) timeouts.release()
        const lines = new Map<number, number>()
        for (const { alarm, earliest, latest } of alarms) {
          assert.isAtLeast(alarm.due, earliest)
          assert.isAtMost(alarm.due, latest)
          const { duration } = alarm.list!
          assert.isAtLeast(alarm.due, lines.get(duration) ?? 0, "in the order in which they were set")
          lines.set(duration, alarm.due)
        }
        timeouts.close()
      })
  )

  it.effect("one reading of the clock serves many, and one that was cancelled and set anew keeps its own time", () =>
    Effect.gen(function*() {
      let now = 0
      let readings = 0
      const clock: Clock.Clock = Object.assign(Object.create(yield* Clock.Clock) as Clock.Clock, {
        monotonicTimeNanosUnsafe: () => {
          readings++
          return BigInt(now) * 1_000_000n
        },
        sleep: () => Effect.never
      })
      const timeouts = new Timeouts(clock, yield* Effect.context<never>())
      const again = new Alarm(() => {})
      timeouts.hold()
      timeouts.add(10, new Alarm(() => {}))
      const first = readings
      timeouts.add(10, again)
      timeouts.cancel(again)
      now = 5
      timeouts.add(20, again)
      for (let n = 0; n < 20; n++) timeouts.add(10, new Alarm(() => {}))
      assert.strictEqual(readings - first, 0)
      now = 7
      timeouts.release()
      assert.strictEqual(again.due, 27)
      timeouts.close()
    }))

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

  it.effect("one that throws when it falls due holds up none of the others, neither of its moment nor later ones", () =>
    Effect.gen(function*() {
      const timeouts = new Timeouts(yield* Clock.Clock, yield* Effect.context<never>())
      const fired: Array<string> = []
      timeouts.add(10, new Alarm(() => fired.push("before")))
      timeouts.add(
        10,
        new Alarm(() => {
          throw new Error("expired")
        })
      )
      timeouts.add(10, new Alarm(() => fired.push("after")))
      timeouts.add(20, new Alarm(() => fired.push("later")))
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(fired, ["before", "after"])
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(fired, ["before", "after", "later"])
      timeouts.add(5, new Alarm(() => fired.push("new")))
      yield* TestClock.adjust(5)
      assert.deepStrictEqual(fired.at(-1), "new")
      timeouts.close()
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

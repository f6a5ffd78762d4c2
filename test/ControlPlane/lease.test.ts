// Leases in virtual time: what an owner and an observer do when stores are slow, silent or lying, and clocks jump.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Exit, Fiber, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { ControlStore, Lease } from "../../src/ControlPlane/index.ts"

const key = "leases/a@1"
const duration = "10 seconds"

/** A backend, a client with switchable faults for the owner and a clean one for the observer. */
const world = Effect.gen(function*() {
  const backend = yield* ControlStore.makeMemoryBackend
  const faults = {
    reachable: true,
    silent: false,
    write: "Normal" as "Normal" | "UnknownApplied" | "UnknownNotApplied",
    delay: { request: 0, reply: 0 }
  }
  const owner = backend.client({
    reachable: () => faults.reachable,
    silent: () => faults.silent,
    write: () => faults.write,
    delay: () => faults.delay
  })
  const watching = { reachable: true }
  const observerStore = backend.client({ reachable: () => watching.reachable })
  return { backend, faults, owner, watching, observerStore }
})

/** A clock whose wall time can be made to jump; monotonic time and sleeps stay those of the test. */
const jumpingClock = Effect.gen(function*() {
  const real = yield* Clock.Clock
  const jump = { millis: 0 }
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe() + jump.millis,
    currentTimeMillis: Effect.sync(() => real.currentTimeMillisUnsafe() + jump.millis),
    currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe() + BigInt(jump.millis) * 1_000_000n,
    currentTimeNanos: Effect.sync(() => real.currentTimeNanosUnsafe() + BigInt(jump.millis) * 1_000_000n),
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: real.monotonicTimeNanos,
    sleep: (duration) => real.sleep(duration)
  }
  return { jump, clock }
})

describe("an owner", () => {
  it.effect("holds its lease for as long as it renews it", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      for (let i = 0; i < 120; i++) {
        yield* TestClock.adjust("1 second")
        assert.isTrue(lease.isValid())
      }
      assert.strictEqual(observer.status(key), "Live")
      assert.strictEqual(yield* lease.state, "Held")
    }))

  it.effect("renews at least each third of the duration", () =>
    Effect.gen(function*() {
      const { owner, backend } = yield* world
      yield* Lease.hold(owner, { key, duration })
      let last = backend.revision()
      for (let third = 0; third < 30; third++) {
        yield* TestClock.adjust(3_400)
        assert.isAbove(backend.revision(), last)
        last = backend.revision()
      }
    }))

  it.effect("does not take a key that another holds", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      yield* Lease.hold(observerStore, { key, duration })
      const refused = yield* Effect.flip(Lease.hold(owner, { key, duration }))
      assert.strictEqual(refused._tag, "Fenced")
    }))

  it.effect("lapses when the store is cut, and goes on when it is back before anybody closed it", () =>
    Effect.gen(function*() {
      const { owner, faults } = yield* world
      const lease = yield* Lease.hold(owner, { key, duration })
      const seen: Array<Lease.LeaseState> = []
      yield* lease.changes.pipe(Stream.runForEach((s) => Effect.sync(() => seen.push(s))), Effect.forkScoped)
      yield* TestClock.adjust("1 second")
      faults.reachable = false
      yield* TestClock.adjust("9 seconds")
      yield* TestClock.adjust("4 seconds")
      assert.isFalse(lease.isValid())
      assert.strictEqual(yield* lease.state, "Lapsed")
      faults.reachable = true
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(lease.isValid())
      assert.deepStrictEqual(seen, ["Held", "Lapsed", "Held"])
    }))

  it.effect("X-7: a renewal that hangs never lets it act beyond the duration after its last good send time", () =>
    Effect.gen(function*() {
      const { owner, faults } = yield* world
      const lease = yield* Lease.hold(owner, { key, duration })
      faults.silent = true
      yield* TestClock.adjust(9_999)
      assert.isTrue(lease.isValid())
      yield* TestClock.adjust(1)
      assert.isFalse(lease.isValid())
      faults.silent = false
      yield* TestClock.adjust("4 seconds")
      assert.isTrue(lease.isValid())
    }))

  it.effect("gives a renewal up after a quarter of the duration, and tries again", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      let silent = false
      const tries: Array<number> = []
      const store = backend.client({ silent: () => silent })
      const lease = yield* Lease.hold({
        ...store,
        update: (key, value, revision) =>
          Effect.andThen(
            Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.sync(() => tries.push(now))),
            store.update(key, value, revision)
          )
      }, { key, duration })
      silent = true
      yield* TestClock.adjust("9 seconds")
      assert.isAtLeast(tries.length, 3, "tries in nine seconds of silence")
      for (const [index, at] of tries.entries()) if (index > 0) assert.isAtMost(at - tries[index - 1]!, 3_300)
      assert.isTrue(lease.isValid())
      silent = false
      yield* TestClock.adjust("3 seconds")
      assert.isTrue(lease.isValid())
    }))

  it.effect("counts from the send time of a renewal, not from its answer", () =>
    Effect.gen(function*() {
      const { owner, faults } = yield* world
      const lease = yield* Lease.hold(owner, { key, duration })
      yield* TestClock.adjust("2 seconds")
      faults.delay = { request: 0, reply: 2_000 }
      const renewing = yield* Effect.forkChild(lease.renew, { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(renewing)
      faults.reachable = false
      // sent at 2 s: valid until 12 s, it is 4 s now
      assert.strictEqual(lease.remaining(), 8_000)
    }))

  it.effect("X-11: recognises its own write after an unknown outcome", () =>
    Effect.gen(function*() {
      const { owner, faults, backend } = yield* world
      faults.write = "UnknownApplied"
      const holding = yield* Effect.forkScoped(Lease.hold(owner, { key, duration }))
      yield* TestClock.adjust(0)
      faults.write = "Normal"
      yield* TestClock.adjust("2 seconds")
      const lease = yield* Fiber.join(holding)
      assert.isTrue(lease.isValid())
      for (let i = 0; i < 30; i++) {
        faults.write = i % 3 === 0 ? "UnknownApplied" : i % 3 === 1 ? "UnknownNotApplied" : "Normal"
        yield* TestClock.adjust("1 second")
        assert.isTrue(lease.isValid(), `second ${i}`)
      }
      assert.strictEqual(backend.entries().length, 1)
    }))

  it.effect("pauses when the wall clock jumps, until one renewal succeeds (X-15)", () =>
    Effect.gen(function*() {
      const { owner, faults } = yield* world
      const { jump, clock } = yield* jumpingClock
      const lease = yield* Effect.provideService(Lease.hold(owner, { key, duration }), Clock.Clock, clock)
      yield* TestClock.adjust("1 second")
      for (const hour of [3_600_000, -3_600_000]) {
        faults.reachable = false
        jump.millis += hour
        assert.isFalse(lease.isValid())
        yield* TestClock.adjust("1 second")
        assert.isFalse(lease.isValid())
        faults.reachable = true
        assert.isFalse(lease.isValid())
        yield* TestClock.adjust(0)
        assert.isTrue(lease.isValid())
        yield* TestClock.adjust("5 seconds")
      }
    }))

  it.effect("learns from a renewal that it has been closed, and never acts again", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* observer.close(key, { certain: true }), "Closed")
      const refused = yield* Effect.flip(lease.renew)
      assert.strictEqual(refused._tag, "Fenced")
      yield* lease.closed
      assert.isFalse(lease.isValid())
      yield* TestClock.adjust("1 minute")
      assert.isFalse(lease.isValid())
      assert.strictEqual(yield* lease.state, "Closed")
    }))

  it.effect("notices by itself within a third of the duration that it has been closed", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      yield* observer.close(key, { certain: true })
      yield* TestClock.adjust(3_400)
      assert.isTrue(Option.isSome(yield* Effect.option(Effect.timeout(lease.closed, 0))))
    }))

  it.effect("treats a record that is gone as closed", () =>
    Effect.gen(function*() {
      const { owner, backend } = yield* world
      const lease = yield* Lease.hold(owner, { key, duration })
      backend.wipe()
      assert.strictEqual((yield* Effect.flip(lease.renew))._tag, "Fenced")
      assert.isFalse(lease.isValid())
    }))

  it.effect("does not take its record for gone because a stale replica has not heard of it yet", () =>
    Effect.gen(function*() {
      const { backend } = yield* world
      let write: "Normal" | "UnknownApplied" = "Normal"
      let stale = 0
      const owner = backend.client({ write: () => write, staleBy: () => stale-- > 0 ? 5 : 0 })
      const lease = yield* Lease.hold(owner, { key, duration })
      write = "UnknownApplied"
      assert.strictEqual((yield* Effect.flip(lease.renew))._tag, "OutcomeUnknown")
      write = "Normal"
      stale = 1
      yield* lease.renew
      assert.isTrue(lease.isValid())
      assert.isBelow(stale, 1)
    }))

  it.effect("restores renewals that the store forgot while it may still act", () =>
    Effect.gen(function*() {
      const { owner, backend } = yield* world
      const lease = yield* Lease.hold(owner, { key, duration })
      yield* lease.renew
      yield* lease.renew
      backend.forget(1)
      yield* lease.renew
      assert.isTrue(lease.isValid())
      assert.strictEqual(backend.entries().length, 1)
    }))

  it.effect("stops renewing with its scope", () =>
    Effect.gen(function*() {
      const { owner, backend } = yield* world
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(Lease.hold(owner, { key, duration }), scope)
      yield* Scope.close(scope, Exit.void)
      const before = backend.revision()
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(backend.revision(), before)
      assert.isFalse(lease.isValid())
    }))

  it.effect("says goodbye once, and acts no more", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      yield* lease.close
      yield* lease.close
      yield* TestClock.adjust(0)
      assert.strictEqual(observer.status(key), "Closed")
      assert.isFalse(lease.isValid())
    }))

  it.effect("acts no more once it began to say goodbye, even where the store cannot be reached", () =>
    Effect.gen(function*() {
      const { owner, faults } = yield* world
      const lease = yield* Lease.hold(owner, { key, duration })
      faults.reachable = false
      assert.strictEqual((yield* Effect.flip(lease.close))._tag, "StoreUnavailable")
      assert.isFalse(lease.isValid())
      faults.reachable = true
      yield* lease.close
    }))
})

describe("what runs while a lease is held", () => {
  const begin = Effect.gen(function*() {
    const { faults, owner } = yield* world
    const lease = yield* Lease.hold(owner, { key, duration })
    const ended: Array<string> = []
    const work = Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => void ended.push("interrupted"))))
    const fiber = yield* Effect.forkChild(Effect.flip(Lease.whileHeld(lease, work)), { startImmediately: true })
    return { faults, lease, ended, fiber }
  })

  it.effect("is interrupted and ends as fenced when the lease lapses, not before", () =>
    Effect.gen(function*() {
      const { ended, faults, fiber, lease } = yield* begin
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(fiber.pollUnsafe())
      faults.reachable = false
      for (let i = 0; i < 110 && lease.isValid(); i++) {
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("100 millis")
      }
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error._tag, "Fenced")
      assert.include(error.what, key)
      assert.strictEqual(error.current, "Lapsed")
      assert.deepStrictEqual(ended, ["interrupted"])
    }))

  it.effect("is interrupted when the lease lapses though the store is silent and sleeps end early", () =>
    Effect.gen(function*() {
      const { faults, owner } = yield* world
      const { clock } = yield* jumpingClock
      const early: Clock.Clock = {
        ...clock,
        sleep: (duration) => clock.sleep(Duration.millis(0.999 * Duration.toMillis(duration)))
      }
      const lease = yield* Effect.provideService(Lease.hold(owner, { key, duration }), Clock.Clock, early)
      const fiber = yield* Effect.forkChild(Effect.flip(Lease.whileHeld(lease, Effect.never)), {
        startImmediately: true
      })
      faults.silent = true
      while (lease.isValid()) {
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
      }
      yield* TestClock.adjust(1)
      assert.strictEqual((fiber.pollUnsafe())?._tag, "Success")
    }))

  it.effect("is interrupted at once when somebody has seen the lease closed", () =>
    Effect.gen(function*() {
      const { ended, fiber, lease } = yield* begin
      yield* lease.fence
      assert.strictEqual((yield* Fiber.join(fiber)).current, "Closed")
      assert.deepStrictEqual(ended, ["interrupted"])
    }))

  it.effect("is interrupted when the lease lapses outside the scope in which it was held, and when it is fenced there", () =>
    Effect.gen(function*() {
      const { owner } = yield* world
      const scope = yield* Scope.make()
      const lease = yield* Scope.provide(Lease.hold(owner, { key, duration }), scope)
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(lease.isValid())
      const fiber = yield* Effect.forkChild(Effect.flip(Lease.whileHeld(lease, Effect.never)), {
        startImmediately: true
      })
      const left = lease.remaining()
      yield* TestClock.adjust(left - 1)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(fiber.pollUnsafe()?._tag, "Success")
      assert.strictEqual((yield* Fiber.join(fiber)).current, "Lapsed")

      // renewed by hand out there, it goes on, and is still counted
      const third = yield* Scope.make()
      const renewed = yield* Scope.provide(Lease.hold(owner, { key: "leases/c@1", duration }), third)
      yield* Scope.close(third, Exit.void)
      const longer = yield* Effect.forkChild(Effect.flip(Lease.whileHeld(renewed, Effect.never)), {
        startImmediately: true
      })
      yield* TestClock.adjust("9 seconds")
      yield* renewed.renew
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(longer.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(longer.pollUnsafe()?._tag, "Success")
      yield* renewed.close
      assert.strictEqual(yield* renewed.state, "Closed")

      const again = yield* Scope.make()
      const other = yield* Scope.provide(Lease.hold(owner, { key: "leases/b@1", duration }), again)
      yield* Scope.close(again, Exit.void)
      const work = yield* Effect.forkChild(Effect.flip(Lease.whileHeld(other, Effect.never)), {
        startImmediately: true
      })
      yield* other.fence
      assert.strictEqual((yield* Fiber.join(work)).current, "Closed")
    }))

  it.effect("does not begin once the lease is lost, and keeps its own result and errors while it is not", () =>
    Effect.gen(function*() {
      const { fiber, lease } = yield* begin
      assert.strictEqual(yield* Lease.whileHeld(lease, Effect.succeed(1)), 1)
      assert.strictEqual(yield* Effect.flip(Lease.whileHeld(lease, Effect.fail("mine"))), "mine")
      yield* lease.fence
      yield* Fiber.join(fiber)
      let ran = false
      const error = yield* Effect.flip(Lease.whileHeld(lease, Effect.sync(() => void (ran = true))))
      assert.strictEqual(error._tag, "Fenced")
      assert.isFalse(ran)
    }))
})

describe("an observer", () => {
  it.effect("tells what it knows at subscription and each change after that", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      yield* TestClock.adjust(0)
      const seen: Array<string> = []
      yield* observer.changes.pipe(Stream.runForEach((c) => Effect.sync(() => seen.push(c.status))), Effect.forkScoped)
      yield* TestClock.adjust(0)
      yield* lease.close
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(seen, ["Live", "Closed"])
    }))

  it.effect("calls a lease expired after the duration and the margin without change, not before", () =>
    Effect.gen(function*() {
      const { owner, observerStore, faults } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      faults.reachable = false
      yield* TestClock.adjust("10 seconds")
      assert.isFalse(lease.isValid())
      assert.strictEqual(observer.status(key), "Live")
      assert.strictEqual(yield* observer.close(key), "Alive")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(observer.status(key), "Expired")
      assert.strictEqual(yield* observer.close(key), "Closed")
      assert.strictEqual(yield* observer.close(key), "Closed")
      faults.reachable = true
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* lease.state, "Closed")
    }))

  it.effect("starts its count again in full after its watch was lost", () =>
    Effect.gen(function*() {
      const { owner, observerStore, faults, watching } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      yield* Lease.hold(owner, { key, duration })
      faults.reachable = false
      yield* TestClock.adjust("9 seconds")
      watching.reachable = false
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(observer.status(key), "Live")
      assert.isFalse(observer.isCurrent())
      watching.reachable = true
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(observer.status(key), "Live")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(observer.status(key), "Expired")
    }))

  it.effect("closes nobody after an outage of the whole store before each owner had a lease's time to return", () =>
    Effect.gen(function*() {
      const { owner, observerStore, faults, watching } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      faults.reachable = false
      watching.reachable = false
      yield* TestClock.adjust("10 minutes")
      faults.reachable = true
      watching.reachable = true
      for (let i = 0; i < 30; i++) {
        yield* TestClock.adjust("1 second")
        assert.notStrictEqual(observer.status(key), "Expired")
      }
      assert.isTrue(lease.isValid())
    }))

  it.effect("finds an expired lease alive where it was renewed after all", () =>
    Effect.gen(function*() {
      const { owner, backend } = yield* world
      const deaf = backend.client({ watch: () => "Miss" })
      const observer = yield* Lease.observe(deaf, "leases/")
      yield* TestClock.adjust("12 seconds")
      const lease = yield* Lease.hold(owner, { key, duration })
      // this watch misses every change and repairs itself by relisting, later than a lease can wait
      for (let i = 0; i < 60; i++) {
        yield* TestClock.adjust("1 second")
        if (observer.status(key) === "Expired") assert.strictEqual(yield* observer.close(key), "Alive")
        assert.isTrue(lease.isValid())
      }
    }))

  it.effect("skips values that are no leases and keeps the others", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      yield* observerStore.create("leases/garbage", "{\"state\":7}")
      const observer = yield* Lease.observe(observerStore, "leases/")
      yield* Lease.hold(owner, { key, duration })
      yield* observerStore.create("leases/more", "not even json")
      yield* TestClock.adjust(0)
      assert.strictEqual(observer.status("leases/garbage"), "Absent")
      assert.strictEqual(observer.status("leases/more"), "Absent")
      assert.strictEqual(observer.status(key), "Live")
    }))

  it.effect("closes for certain with a tombstone where the key is missing, so that it can never be held", () =>
    Effect.gen(function*() {
      const { owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      assert.strictEqual(yield* observer.close(key, { certain: true }), "Closed")
      assert.strictEqual((yield* Effect.flip(Lease.hold(owner, { key, duration })))._tag, "Fenced")
    }))

  it.effect("closes after a shorter time without a renewal where it is asked to, and never one that is renewed meanwhile", () =>
    Effect.gen(function*() {
      const { owner, faults, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      const lease = yield* Lease.hold(owner, { key, duration })
      const close = observer.close(key, { share: 0.4 })
      for (let i = 0; i < 300; i++) {
        yield* TestClock.adjust("100 millis")
        assert.strictEqual(yield* close, "Alive")
      }
      assert.isTrue(lease.isValid())
      faults.reachable = false
      let waited = 0
      while ((yield* close) === "Alive") {
        yield* TestClock.adjust("100 millis")
        waited += 100
      }
      assert.isAtMost(waited, 4_100)
      faults.reachable = true
      assert.strictEqual((yield* Effect.flip(lease.renew))._tag, "Fenced")
    }))

  it.effect("counts no time in which its watch was lost towards a shorter wait", () =>
    Effect.gen(function*() {
      const { owner, faults, observerStore, watching } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      yield* Lease.hold(owner, { key, duration })
      faults.reachable = false
      yield* TestClock.adjust("3 seconds")
      watching.reachable = false
      yield* TestClock.adjust("3 seconds")
      watching.reachable = true
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* observer.close(key, { share: 0.4 }), "Alive")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* observer.close(key, { share: 0.4 }), "Closed")
    }))

  it.effect("writes who closes it and why into the closed record", () =>
    Effect.gen(function*() {
      const { backend, owner, observerStore } = yield* world
      const observer = yield* Lease.observe(observerStore, "leases/")
      yield* Lease.hold(owner, { key, duration })
      yield* observer.close(key, { certain: true, word: { by: "ann", reason: "its machine burnt" } })
      assert.deepStrictEqual(JSON.parse(backend.entries()[0]!.value).closed, { by: "ann", reason: "its machine burnt" })
    }))

  it.effect("says OutcomeUnknown of a closing whose answer was lost, and Closed when asked again", () =>
    Effect.gen(function*() {
      const { owner, backend, faults } = yield* world
      let fate: "Normal" | "UnknownApplied" = "Normal"
      const observer = yield* Lease.observe(backend.client({ write: () => fate }), "leases/")
      yield* Lease.hold(owner, { key, duration })
      faults.reachable = false
      yield* TestClock.adjust("11 seconds")
      fate = "UnknownApplied"
      assert.strictEqual((yield* Effect.flip(observer.close(key)))._tag, "OutcomeUnknown")
      assert.strictEqual(yield* observer.close(key), "Closed")
    }))
})

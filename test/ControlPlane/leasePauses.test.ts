// Owners and observers that stand still: a pause is the one thing that nobody notices while it happens. X-8 and its relatives, and
// random worlds in which everything goes wrong at once.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Latch, Random, Stream } from "effect"
import { TestClock } from "effect/testing"
import { ControlStore, Lease } from "../../src/ControlPlane/index.ts"
import { decodeLease } from "../../src/ControlPlane/internal/leaseRecord.ts"

const key = "leases/a@1"
const duration = "10 seconds"

/** A process's own clock: while it is paused no sleep of it ends, and time goes on all the same. */
const pausable = Effect.gen(function*() {
  const real = yield* Clock.Clock
  const running = Latch.makeUnsafe(true)
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => real.currentTimeMillisUnsafe(),
    currentTimeMillis: real.currentTimeMillis,
    currentTimeNanosUnsafe: () => real.currentTimeNanosUnsafe(),
    currentTimeNanos: real.currentTimeNanos,
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: real.monotonicTimeNanos,
    sleep: (duration) => Effect.andThen(real.sleep(duration), running.await)
  }
  return { clock, pause: () => running.closeUnsafe(), resume: () => running.openUnsafe() }
})

/** The same store for a process that stands still: what the watch says piles up until it goes on. */
const stalling = (store: ControlStore.ControlStoreService, running: Latch.Latch): ControlStore.ControlStoreService => ({
  ...store,
  watch: (prefix) => Stream.tap(store.watch(prefix), () => running.await)
})

const stateInStore = (backend: ControlStore.MemoryBackend) => {
  const entry = backend.entries().find((entry) => entry.key === key)
  return entry === undefined ? undefined : decodeLease(entry.value)?.state
}

describe("a paused owner", () => {
  it.effect("X-8: that sleeps through three leases acts no more when it wakes, and its late write is refused", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      const observer = yield* Lease.observe(backend.client(), "leases/")
      const { clock, pause, resume } = yield* pausable
      const delay = { request: 0, reply: 0 }
      const lease = yield* Effect.provideService(
        Lease.hold(backend.client({ delay: () => delay }), { key, duration }),
        Clock.Clock,
        clock
      )
      yield* TestClock.adjust("2 seconds")
      // a renewal leaves, travels for long, and its sender falls asleep
      delay.request = 20_000
      yield* TestClock.adjust("1 second")
      pause()
      yield* TestClock.adjust("12 seconds")
      assert.strictEqual(yield* observer.close(key), "Closed")
      yield* TestClock.adjust("18 seconds")
      delay.request = 0
      resume()
      assert.isFalse(lease.isValid(), "at the very moment it wakes, before it has heard of anything")
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* lease.state, "Closed")
      assert.strictEqual(stateInStore(backend), "Closed")
    }))

  it.effect("that wakes before its lease has run out goes on", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      const observer = yield* Lease.observe(backend.client(), "leases/")
      const { clock, pause, resume } = yield* pausable
      const lease = yield* Effect.provideService(Lease.hold(backend.client(), { key, duration }), Clock.Clock, clock)
      for (let i = 0; i < 5; i++) {
        pause()
        yield* TestClock.adjust("6 seconds")
        assert.strictEqual(observer.status(key), "Live")
        resume()
        yield* TestClock.adjust("1 second")
        assert.isTrue(lease.isValid())
      }
    }))

  it.effect("that sleeps for longer than its lease, and that nobody closed, goes on after one renewal", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      const { clock, pause, resume } = yield* pausable
      const lease = yield* Effect.provideService(Lease.hold(backend.client(), { key, duration }), Clock.Clock, clock)
      pause()
      yield* TestClock.adjust("1 minute")
      assert.isFalse(lease.isValid())
      resume()
      yield* TestClock.adjust("1 second")
      assert.isTrue(lease.isValid())
    }))
})

describe("a stalled observer", () => {
  it.effect("X-10: that stood still while the owner renewed does not call it dead when it goes on", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      const running = Latch.makeUnsafe(true)
      const observer = yield* Lease.observe(stalling(backend.client(), running), "leases/")
      const lease = yield* Lease.hold(backend.client(), { key, duration })
      yield* TestClock.adjust("1 second")
      running.closeUnsafe()
      yield* TestClock.adjust("30 seconds")
      assert.isFalse(observer.isCurrent())
      assert.strictEqual(observer.status(key), "Live")
      assert.strictEqual(yield* observer.close(key), "Alive")
      running.openUnsafe()
      for (let i = 0; i < 20; i++) {
        yield* TestClock.adjust("500 millis")
        assert.strictEqual(observer.status(key), "Live")
      }
      assert.isTrue(observer.isCurrent())
      assert.isTrue(lease.isValid())
    }))

  it.effect("counts again in full what it did not see", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      const running = Latch.makeUnsafe(true)
      const reachable = { owner: true }
      const observer = yield* Lease.observe(stalling(backend.client(), running), "leases/")
      yield* Lease.hold(backend.client({ reachable: () => reachable.owner }), { key, duration })
      yield* TestClock.adjust("1 second")
      reachable.owner = false
      running.closeUnsafe()
      yield* TestClock.adjust("30 seconds")
      running.openUnsafe()
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(observer.status(key), "Live")
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(observer.status(key), "Expired")
      assert.strictEqual(yield* observer.close(key), "Closed")
    }))

  it.effect("two observers that close at once agree that it is closed, and one of them did it", () =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      const reachable = { owner: true }
      const observers = [
        yield* Lease.observe(backend.client(), "leases/"),
        yield* Lease.observe(backend.client(), "leases/")
      ]
      yield* Lease.hold(backend.client({ reachable: () => reachable.owner }), { key, duration })
      reachable.owner = false
      yield* TestClock.adjust("12 seconds")
      const before = backend.revision()
      const answers = yield* Effect.forEach(observers, (observer) => observer.close(key), { concurrency: "unbounded" })
      assert.deepStrictEqual(answers, ["Closed", "Closed"])
      assert.strictEqual(backend.revision(), before + 1)
    }))
})

describe("in random worlds", () => {
  // Everything at once: pauses of both, cuts, silence, slow and doubtful writes, missed and late watch events, stale reads.
  const world = (seed: number) =>
    Effect.gen(function*() {
      const random = yield* Random.Random
      const draw = (below: number) => Math.floor(random.nextDoubleUnsafe() * below)
      const backend = yield* ControlStore.makeMemoryBackend
      const makeFaults = () => ({
        reachable: true,
        silent: false,
        doubtful: false,
        slow: 0,
        stale: 0,
        deaf: false,
        late: 0
      })
      const clientOf = (faults: ReturnType<typeof makeFaults>) =>
        backend.client({
          reachable: () => faults.reachable,
          silent: () => faults.silent,
          write: () => faults.doubtful ? draw(2) === 0 ? "UnknownApplied" : "UnknownNotApplied" : "Normal",
          delay: () => ({
            request: faults.slow === 0 ? 0 : draw(faults.slow),
            reply: faults.slow === 0 ? 0 : draw(faults.slow)
          }),
          staleBy: () => faults.stale,
          watch: () => faults.deaf ? "Miss" : "Deliver",
          watchDelay: () => faults.late
        })
      const ownerFaults = makeFaults()
      const observerFaults = makeFaults()
      const { clock, pause, resume } = yield* pausable
      const running = Latch.makeUnsafe(true)
      const observer = yield* Lease.observe(stalling(clientOf(observerFaults), running), "leases/")
      const lease = yield* Effect.provideService(
        Lease.hold(clientOf(ownerFaults), { key, duration: "4 seconds" }),
        Clock.Clock,
        clock
      )
      const seen = { closed: false, lapsed: false, valid: 0 }
      const misdeal = (faults: ReturnType<typeof makeFaults>) => {
        faults.reachable = draw(4) !== 0
        faults.silent = draw(5) === 0
        faults.doubtful = draw(3) === 0
        faults.slow = draw(3) === 0 ? 6_000 : 0
        faults.stale = draw(3) === 0 ? 2 : 0
        faults.deaf = draw(4) === 0
        faults.late = draw(3) === 0 ? draw(5_000) : 0
      }
      yield* Effect.gen(function*() {
        if (draw(2) === 0) yield* Effect.ignore(observer.close(key))
        yield* Effect.sleep(300 + draw(700))
      }).pipe(Effect.forever, Effect.forkScoped)
      for (let tick = 0; tick < 600; tick++) {
        if (tick % 40 === 0) {
          if (tick % 200 < 160) {
            misdeal(ownerFaults)
            misdeal(observerFaults)
            if (draw(3) === 0) pause()
            else resume()
            if (draw(3) === 0) running.closeUnsafe()
            else running.openUnsafe()
          } else {
            Object.assign(ownerFaults, makeFaults())
            Object.assign(observerFaults, makeFaults())
            resume()
            running.openUnsafe()
          }
        }
        yield* TestClock.adjust(100)
        const closed = stateInStore(backend) === "Closed"
        const valid = lease.isValid()
        assert.isFalse(closed && valid, `seed ${seed}, ${tick * 100} ms: closed, and its owner acts`)
        seen.closed ||= closed
        seen.lapsed ||= !valid
        if (valid) seen.valid++
      }
      return seen
    }).pipe(Random.withSeed(`lease/${seed}`))

  it.effect(
    "no owner acts while its lease is closed, and worlds of every kind were seen",
    () =>
      Effect.gen(function*() {
        let closed = 0
        let survived = 0
        for (let seed = 1; seed <= 200; seed++) {
          const seen = yield* Effect.scoped(world(seed))
          assert.isAbove(seen.valid, 0)
          if (seen.closed) closed++
          else survived++
        }
        assert.isAbove(closed, 50)
        assert.isAbove(survived, 50)
      }),
    120_000
  )
})

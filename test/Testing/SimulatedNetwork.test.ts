// What the simulated network promises: order, half-open connections under a cut, refusal after a crash, one run per seed.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Queue } from "effect"
import { TestClock } from "effect/testing"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"

const frame = (...bytes: Array<number>) => Uint8Array.from(bytes)

const joined = Effect.fnUntraced(function*(options?: SimulatedNetwork.Options) {
  const network = yield* SimulatedNetwork.make(options)
  const a = yield* network.transport("a")
  const b = yield* network.transport("b")
  const dialing = yield* Effect.forkChild(a.connect(b.address), { startImmediately: true })
  yield* TestClock.adjust("1 second")
  const near = yield* Fiber.join(dialing)
  const far = yield* Queue.take(b.accept)
  return { network, a, b, near, far }
})

describe("SimulatedNetwork", () => {
  it.effect("frames arrive in order, without moving the clock", () =>
    Effect.gen(function*() {
      const { near, far } = yield* joined()
      for (let i = 0; i < 5; i++) yield* near.send(frame(i))
      assert.deepStrictEqual((yield* far.receive).map((f) => f[0]), [0, 1, 2, 3, 4])
    }))

  it.effect("latency and jitter keep the order of one connection", () =>
    Effect.gen(function*() {
      const { near, far } = yield* joined({ seed: 3, latency: "20 millis", jitter: "50 millis" })
      for (let i = 0; i < 50; i++) near.offer(frame(i))
      const got: Array<number> = []
      const reading = yield* Effect.forkChild(
        Effect.forever(Effect.tap(far.receive, (frames) => Effect.sync(() => got.push(...frames.map((f) => f[0]!)))))
      )
      yield* TestClock.adjust("10 millis")
      assert.deepStrictEqual(got, [])
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(got, Array.from({ length: 50 }, (_, i) => i))
      yield* Fiber.interrupt(reading)
    }))

  it.effect("{a} | {b} => an open connection is half-open, and delivers in order once healed", () =>
    Effect.gen(function*() {
      const { network, near, far } = yield* joined()
      network.partition(["a"], ["b"])
      assert.isTrue(near.offer(frame(1)))
      assert.isTrue(near.offer(frame(2)))
      const reading = yield* Effect.forkChild(far.receive, { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(reading.pollUnsafe())
      assert.strictEqual(near.unsent(), 2)
      network.heal()
      assert.deepStrictEqual((yield* Fiber.join(reading)).map((f) => f[0]), [1, 2])
      assert.strictEqual(near.unsent(), 0)
    }))

  it.effect("a host without a listener refuses and says so, a cut one is silent, and a firewall refuses for one that listens", () =>
    Effect.gen(function*() {
      const { a, b, far, network } = yield* joined()
      const dial = Effect.fnUntraced(function*(port: number) {
        const dialing = yield* Effect.forkChild(Effect.flip(a.connect({ host: "b", port })), { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        return (yield* Fiber.join(dialing)).refused
      })
      assert.isTrue(yield* dial(1))
      network.reject(["a"], ["b"])
      assert.isTrue(yield* dial(b.address.port))
      assert.isTrue(yield* b.isListening!(b.listening!))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(far.receive)))
      network.heal()
      network.isolate("b")
      assert.isUndefined(yield* dial(b.address.port))
      network.heal()
      network.crash("b")
      assert.isTrue(yield* dial(b.address.port))
      assert.isFalse(yield* b.isListening!(b.listening!))
    }))

  it.effect("{a} -> {b} cut forward only => the other direction still delivers", () =>
    Effect.gen(function*() {
      const { network, near, far } = yield* joined()
      network.partition(["a"], ["b"], { direction: "forward" })
      near.offer(frame(1))
      far.offer(frame(2))
      assert.deepStrictEqual((yield* near.receive).map((f) => f[0]), [2])
      assert.strictEqual(near.unsent(), 1)
      assert.isFalse(network.reachable("a", "b"))
    }))

  it.effect("a dial through a cut hangs, then fails; it succeeds if the cut heals in time", () =>
    Effect.gen(function*() {
      const { network, a, b } = yield* joined()
      network.partition(["a"], ["b"])
      const late = yield* Effect.forkChild(Effect.exit(a.connect(b.address)), { startImmediately: true })
      yield* TestClock.adjust("3 seconds")
      const failed = yield* Fiber.join(late)
      assert.isTrue(Exit.isFailure(failed))
      const waiting = yield* Effect.forkChild(a.connect(b.address), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      network.heal()
      yield* Fiber.join(waiting)
    }))

  it.effect("a crash ends connections, refuses dials, and a restart takes the old address", () =>
    Effect.gen(function*() {
      const { network, a, b, near } = yield* joined()
      network.crash("b")
      assert.strictEqual((yield* Effect.flip(near.receive)).outcome, "NotSent")
      assert.isFalse(near.offer(frame(1)))
      assert.strictEqual((yield* Effect.flip(a.connect(b.address))).reason, "connection refused")
      const again = yield* network.transport("b")
      assert.deepStrictEqual(again.address, b.address)
      yield* a.connect(again.address)
    }))

  it.effect("a crash behind a cut is not seen before it heals", () =>
    Effect.gen(function*() {
      const { network, near } = yield* joined()
      network.partition(["a"], ["b"])
      network.crash("b")
      const reading = yield* Effect.forkChild(Effect.exit(near.receive), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(reading.pollUnsafe())
      network.heal()
      assert.isTrue(Exit.isFailure(yield* Fiber.join(reading)))
    }))

  it.effect("groups name hosts, and stores have a place too", () =>
    Effect.gen(function*() {
      const { network } = yield* joined()
      network.group("dc-1", ["a", "b"])
      network.partition(["dc-1"], ["store"])
      assert.isFalse(network.reachable("a", "store"))
      assert.isTrue(network.reachable("a", "b"))
      network.healBetween(["b"], ["store"])
      assert.isFalse(network.reachable("a", "store"))
      assert.isTrue(network.reachable("b", "store"))
    }))

  it.effect("what was sent before a close still arrives", () =>
    Effect.gen(function*() {
      const { near, far } = yield* joined()
      near.offer(frame(9))
      yield* near.close
      assert.deepStrictEqual((yield* far.receive).map((f) => f[0]), [9])
      assert.isTrue(Exit.isFailure(yield* Effect.exit(far.receive)))
    }))

  it.effect("send waits above the outbox bound and goes on when there is room", () =>
    Effect.gen(function*() {
      const { network, near, far } = yield* joined({ outboxBytes: 2 })
      network.partition(["a"], ["b"])
      for (const byte of [1, 2, 3]) yield* near.send(frame(byte))
      const waiting = yield* Effect.forkChild(near.send(frame(4)), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(waiting.pollUnsafe())
      network.heal()
      yield* Fiber.join(waiting)
      const got = (yield* far.receive).map((f) => f[0])
      assert.deepStrictEqual(got.slice(0, 3), [1, 2, 3])
    }))
})

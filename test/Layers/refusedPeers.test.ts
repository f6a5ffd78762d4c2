// What the log hears of peers that are refused: enough to find them, and never as much as strangers like.
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Logger, Stream } from "effect"
import { TestClock } from "effect/testing"
import { SystemEvents } from "../../src/Actor/SystemEvents.ts"
import { layerEvents, most, quiet } from "../../src/Layers/internal/refusedPeers.ts"

describe("refused peers in the log", () => {
  const node = Effect.gen(function*() {
    const lines: Array<string> = []
    const logger = Logger.layer([Logger.make(({ message }) => void lines.push(String(message)))])
    const events = yield* Effect.provide(SystemEvents, Layer.provide(layerEvents, logger))
    const refuse = (peer: string, reason: string) => events.publish({ _tag: "PeerRefused", peer, reason })
    return { events, lines, refuse }
  })

  it.effect("are warned of once a host and reason, and again after a while", () =>
    Effect.gen(function*() {
      const { lines, refuse } = yield* node
      refuse("10.0.0.1:40001", "authentication failed")
      refuse("10.0.0.1:40002", "authentication failed")
      assert.deepStrictEqual(lines, ["a peer is refused: authentication failed"])
      refuse("10.0.0.2:40001", "authentication failed")
      refuse("10.0.0.1:40003", "the handshake took too long")
      assert.strictEqual(lines.length, 3)
      yield* TestClock.adjust(quiet)
      refuse("10.0.0.1:40004", "authentication failed")
      assert.strictEqual(lines.length, 4)
    }))

  it.effect("are not told of without end, from however many hosts they come", () =>
    Effect.gen(function*() {
      const { lines, refuse } = yield* node
      for (let host = 0; host < 2 * most; host++) refuse(`10.0.1.${host}:1`, "no handshake")
      assert.strictEqual(lines.length, most)
      yield* TestClock.adjust(Duration.sum(quiet, Duration.seconds(1)))
      refuse("10.0.1.1:1", "no handshake")
      assert.strictEqual(lines.length, most + 1)
    }))

  it.effect("are events as before, and make nobody listen", () =>
    Effect.gen(function*() {
      const { events, refuse } = yield* node
      assert.isFalse(events.observed?.())
      const seen: Array<string> = []
      yield* events.stream.pipe(
        Stream.runForEach((event) => Effect.sync(() => void seen.push(event._tag))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* TestClock.adjust(0)
      assert.isTrue(events.observed?.())
      refuse("10.0.0.1:1", "authentication failed")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(seen, ["PeerRefused"])
    }))
})

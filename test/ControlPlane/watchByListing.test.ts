// A watch made of listings claims no more than a listing proves.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { ControlStore } from "../../src/ControlPlane/index.ts"

/** What is told within ten seconds by listings that take so long. */
const told = (millis: number) =>
  Effect.gen(function*() {
    const events = yield* Queue.unbounded<string>()
    const list = Effect.as(Effect.sleep(millis), [{ key: "a", value: "1", revision: "1" }])
    yield* ControlStore.watchByListing(list).pipe(
      Stream.runForEach(({ _tag }) => Queue.offer(events, _tag)),
      Effect.forkScoped
    )
    yield* TestClock.adjust("10 seconds")
    return Array.from(new Set(yield* Queue.clear(events)))
  })

describe("a watch by listing", () => {
  it.effect("is current by each listing that comes soon", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* told(500), ["Snapshot", "Current"])
    }))

  it.effect("proves nothing about now by one that was long on its way", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* told(2_000), ["Snapshot"])
    }))

  it.effect("is lost where listings take longer than three seconds", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* told(4_000), ["Lost"])
    }))
})

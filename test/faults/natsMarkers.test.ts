// Removals leave markers in a NATS bucket; watches sweep them, and neither a new life of a key nor a watch suffers.
import { assert, describe, it } from "@effect/vitest"
import { connect } from "@nats-io/transport-node"
import { Effect, Option, Queue, Stream } from "effect"
import { startNats } from "../../scripts/servers/index.ts"
import type { WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"

describe("markers of removals in a bucket", () => {
  it.live("are swept after their retention, and keys that live again are left alone", () =>
    Effect.gen(function*() {
      const { servers } = yield* startNats({ data: "memory" })
      const store = yield* ControlStoreNats.make({ servers, bucket: "swept", markerRetention: "1 second" })
      const events = yield* Queue.unbounded<WatchEvent>()
      yield* store.watch("").pipe(Stream.runForEach((event) => Queue.offer(events, event)), Effect.forkScoped)
      for (let i = 0; i < 12; i++) yield* store.remove(`gone/${i}`, yield* store.create(`gone/${i}`, "1"))
      yield* store.remove("again", yield* store.create("again", "1"))
      const lives = yield* store.create("again", "2")
      const messages = Effect.acquireUseRelease(
        Effect.promise(() => connect({ servers: [...servers] })),
        (connection) =>
          Effect.promise(async () => {
            const answer = await connection.request("$JS.API.STREAM.INFO.KV_swept", "", { timeout: 2_000 })
            return answer.json<{ readonly state: { readonly messages: number } }>().state.messages
          }),
        (connection) => Effect.promise(() => connection.close())
      )
      assert.strictEqual(yield* messages, 13)
      // each renewal of the watch, about every ten seconds, sweeps half of what is due
      let left = 13
      for (let i = 0; i < 75 && left > 5; i++) {
        yield* Effect.sleep("1 second")
        left = yield* messages
      }
      assert.isAtMost(left, 5)
      assert.strictEqual((yield* Effect.fromOption(yield* store.get("again"))).revision, lives)
      assert.isTrue(Option.isNone(yield* store.get("gone/0")))
      yield* store.create("gone/0", "2")
      yield* Effect.sleep("500 millis")
      const told = yield* Queue.clear(events)
      assert.deepStrictEqual(told.filter((event) => event._tag === "Lost"), [])
      assert.isTrue(
        told.some((event) => event._tag === "Put" && event.entry.key === "gone/0" && event.entry.value === "2")
      )
    }).pipe(Effect.scoped), 120_000)
})

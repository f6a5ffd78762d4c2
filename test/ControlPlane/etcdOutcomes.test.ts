// What becomes of a write on etcd whose first answer was lost: settled where the key shows it, unknown where it does not.
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { EtcdLink } from "../../src/ControlPlane/internal/etcdClient.edge.ts"
import { makeNamespace, makeOperations, type Operations } from "../../src/ControlPlane/internal/etcdOperations.ts"
import { EtcdFailure } from "../../src/ControlPlane/internal/etcdProtocol.edge.ts"

const ownId = "0".repeat(31) + "1"
const otherId = "f".repeat(32)

/** A key as a later attempt finds it. */
interface Found {
  readonly value: string
  readonly writer: string
  readonly mod: number
  readonly born: number
}

/**
 * Operations on a link that loses the first answer, and whose next ones say that the comparison failed and what is there. `transactions`
 * are counted.
 */
const afterLostAnswer = <A, E>(
  found: Found | undefined,
  use: (operations: Operations) => Effect.Effect<A, E>,
  seen = { transactions: 0 }
) =>
  Effect.gen(function*() {
    let calls = 0
    const kvs = found === undefined ? [] : [{
      key: Buffer.from("/t/k"),
      value: Buffer.from(`${found.value}\u001e${found.writer}`),
      mod_revision: String(found.mod),
      create_revision: String(found.born)
    }]
    const link = {
      call: (_service: string, method: string) =>
        Effect.suspend(() => {
          if (method === "txn") seen.transactions++
          if (calls++ === 0) return Effect.fail(new EtcdFailure({ kind: "NoAnswer", reason: "lost" }))
          const header = { revision: "90" }
          return Effect.succeed(
            method === "range"
              ? { header, kvs, more: false }
              : { succeeded: false, header, responses: [{ response_range: { kvs } }] }
          )
        })
    } as unknown as EtcdLink
    const operations = makeOperations(link, makeNamespace("/t"), Duration.seconds(5), () => ownId, () => Effect.void)
    const fiber = yield* Effect.forkChild(
      Effect.match(use(operations), {
        onSuccess: (value) => value === undefined ? "done" : String(value),
        onFailure: (error) => (error as { readonly _tag: string })._tag
      }),
      { startImmediately: true }
    )
    yield* TestClock.adjust("6 seconds")
    return yield* Fiber.join(fiber)
  })

describe("a write on etcd whose answer was lost", () => {
  it.effect("was applied where its own id is found", () =>
    Effect.gen(function*() {
      const found = { value: "2", writer: ownId, mod: 8, born: 3 }
      assert.strictEqual(yield* afterLostAnswer(found, (store) => store.update("k", "2", "7")), "8")
      assert.strictEqual(yield* afterLostAnswer(found, (store) => store.create("k", "2")), "8")
    }))

  it.effect("is unknown where others have written since, perhaps after it", () =>
    Effect.gen(function*() {
      const found = { value: "3", writer: otherId, mod: 9, born: 3 }
      assert.strictEqual(yield* afterLostAnswer(found, (store) => store.update("k", "2", "7")), "OutcomeUnknown")
    }))

  it.effect("is not sent again if it is a create: a late first one could bring the key back after a removal", () =>
    Effect.gen(function*() {
      for (const found of [undefined, { value: "3", writer: otherId, mod: 9, born: 9 }]) {
        const seen = { transactions: 0 }
        assert.strictEqual(yield* afterLostAnswer(found, (store) => store.create("k", "2"), seen), "OutcomeUnknown")
        assert.strictEqual(seen.transactions, 1)
      }
    }))

  it.effect("was certainly no removal where others have gone on with the same life of the key", () =>
    Effect.gen(function*() {
      const found = { value: "3", writer: otherId, mod: 9, born: 3 }
      assert.strictEqual(yield* afterLostAnswer(found, (store) => store.remove("k", "7")), "RevisionConflict")
    }))

  it.effect("is unknown of a removal where the key is gone or lives anew: somebody else may have removed it", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* afterLostAnswer(undefined, (store) => store.remove("k", "7")), "OutcomeUnknown")
      const anew = { value: "1", writer: otherId, mod: 9, born: 9 }
      assert.strictEqual(yield* afterLostAnswer(anew, (store) => store.remove("k", "7")), "OutcomeUnknown")
    }))
})

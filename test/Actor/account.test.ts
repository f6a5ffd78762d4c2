import { assert, describe, it } from "@effect/vitest"
import { ActorSystem } from "effect-troupe/Actor"
import { Effect, Layer } from "effect"
import { Account, AccountLive } from "../../examples/usage/account.ts"
import { layerLocal } from "./local.ts"

const layer = AccountLive.pipe(Layer.provideMerge(layerLocal))

describe("the account of the examples, on one node", () => {
  it.effect("is spawned, told, asked, refuses with its typed error, is found again and stopped", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const account = yield* system.spawn(Account, "acct-1", { props: { opening: 10 } })
      yield* account.tell.Deposit({ cents: 5 })
      assert.strictEqual(yield* account.ask.Withdraw({ cents: 3 }), 12)
      const refused = yield* Effect.flip(account.ask.Withdraw({ cents: 1_000 }, { timeout: "2 seconds" }))
      assert.strictEqual(refused._tag, "InsufficientFunds")
      const again = yield* system.actorOf(Account, "acct-1")
      assert.strictEqual(yield* again.ask.Balance(), 12)
      yield* system.stop(account)
      assert.strictEqual((yield* Effect.flip(account.ask.Balance({ timeout: "1 second" })))._tag, "ActorStopped")
      assert.strictEqual((yield* Effect.flip(account.tell.Deposit({ cents: 1 })))._tag, "ActorStopped")
      assert.isFalse(yield* system.actorExists(Account, "acct-1"))
    }).pipe(Effect.provide(layer)))
})

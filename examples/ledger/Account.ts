/**
 * An account of the ledger. Both movements carry the transfer's id and are safe to repeat: an id that was decided here is answered
 * as it was the first time, so that a caller whose ask timed out (outcome unknown) just asks again.
 */
import { Actor } from "effect-troupe"
import { Effect, Exit, Schema } from "effect"
import { Rpc } from "effect/rpc"

export class Overdrawn extends Schema.TaggedError<Overdrawn>()("Overdrawn", {
  account: Schema.String,
  missingCents: Schema.Int
}) {}

const movement = { transfer: Schema.String, cents: Schema.Int }

export const Account = Actor.make("LedgerAccount", {
  protocol: [
    /** the balance after it */
    Rpc.make("Withdraw", { payload: movement, success: Schema.Int, error: Overdrawn }),
    /** the balance after it */
    Rpc.make("Deposit", { payload: movement, success: Schema.Int }),
    Rpc.make("Balance", { success: Schema.Int })
  ],
  props: { openingCents: Schema.Int }
})

export const AccountLive = Account.toLayer(Effect.gen(function*() {
  const { openingCents } = yield* Account.props
  const { name } = yield* Account.self
  let balance = openingCents
  // Grows with the account's transfers. A longer-lived account would keep a window as wide as its callers' patience.
  const withdrawn = new Map<string, Exit.Exit<number, Overdrawn>>()
  const deposited = new Map<string, number>()

  return Account.of({
    Withdraw: ({ cents, transfer }) => {
      const before = withdrawn.get(transfer)
      if (before !== undefined) return before
      const outcome = balance < cents
        ? Exit.fail(new Overdrawn({ account: name, missingCents: cents - balance }))
        : Exit.succeed(balance -= cents)
      withdrawn.set(transfer, outcome)
      return outcome
    },
    Deposit: ({ cents, transfer }) => {
      const before = deposited.get(transfer)
      if (before !== undefined) return Effect.succeed(before)
      balance += cents
      deposited.set(transfer, balance)
      return Effect.succeed(balance)
    },
    Balance: () => Effect.sync(() => balance)
  })
}))

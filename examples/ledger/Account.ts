/**
 * An account of the ledger. Both movements carry the transfer's id and are safe to repeat: an id that was decided here is answered
 * as it was the first time, so that a caller whose ask timed out (outcome unknown) just asks again. What was decided is in the
 * journal before it is answered: an account that is started elsewhere goes on from there.
 */
import { Actor } from "effect-troupe"
import { Effect, Exit, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { Journal } from "./Journal.ts"

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
  const journal = yield* Journal
  let balance = openingCents
  // Grows with the account's transfers. A longer-lived account would keep a window as wide as its callers' patience.
  const withdrawn = new Map<string, Exit.Exit<number, Overdrawn>>()
  const deposited = new Map<string, Exit.Exit<number>>()

  const withdraw = (transfer: string, cents: number): Exit.Exit<number, Overdrawn> => {
    const outcome = Exit.succeed(balance -= cents)
    withdrawn.set(transfer, outcome)
    return outcome
  }
  const refuse = (transfer: string, missingCents: number): Exit.Exit<number, Overdrawn> => {
    const outcome = Exit.fail(new Overdrawn({ account: name, missingCents }))
    withdrawn.set(transfer, outcome)
    return outcome
  }
  const deposit = (transfer: string, cents: number): Exit.Exit<number> => {
    const outcome = Exit.succeed(balance += cents)
    deposited.set(transfer, outcome)
    return outcome
  }
  const act = { withdrawn: withdraw, refused: refuse, deposited: deposit }
  for (const { cents, kind, transfer } of yield* journal.load(name)) act[kind](transfer, cents)

  return Account.of({
    Withdraw: ({ cents, transfer }) =>
      withdrawn.get(transfer) ?? (balance < cents
        ? Effect.flatMap(
          journal.append(name, { transfer, kind: "refused", cents: cents - balance }),
          () => refuse(transfer, cents - balance)
        )
        : Effect.flatMap(
          journal.append(name, { transfer, kind: "withdrawn", cents }),
          () => withdraw(transfer, cents)
        )),
    Deposit: ({ cents, transfer }) =>
      deposited.get(transfer) ??
        Effect.flatMap(journal.append(name, { transfer, kind: "deposited", cents }), () => deposit(transfer, cents)),
    Balance: () => Effect.sync(() => balance)
  })
}))

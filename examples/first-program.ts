import { NodeRuntime } from "@effect/platform-node"
import { Actor, ActorSystem, Layers } from "effect-troupe"
import { Console, Effect, Layer, Ref, Schema } from "effect"
import { Rpc } from "effect/rpc"

class Insufficient extends Schema.TaggedError<Insufficient>()("Insufficient", { missing: Schema.Int }) {}

const Account = Actor.make("Account", {
  protocol: [
    Rpc.make("Deposit", { payload: { cents: Schema.Int } }),
    Rpc.make("Withdraw", { payload: { cents: Schema.Int }, success: Schema.Int, error: Insufficient })
  ],
  props: { opening: Schema.Int }
})

const AccountLive = Account.toLayer(Effect.gen(function*() {
  const { opening } = yield* Account.props
  const balance = yield* Ref.make(opening)
  return Account.of({
    Deposit: ({ cents }) => Ref.update(balance, (n) => n + cents),
    Withdraw: Effect.fnUntraced(function*({ cents }) {
      const have = yield* Ref.get(balance)
      if (have < cents) return yield* new Insufficient({ missing: cents - have })
      return yield* Ref.updateAndGet(balance, (n) => n - cents)
    })
  })
}))

const program = Effect.gen(function*() {
  const system = yield* ActorSystem.ActorSystem
  const account = yield* system.spawn(Account, "acct-1", { props: { opening: 10 } })
  yield* account.tell.Deposit({ cents: 5 })
  yield* Console.log(yield* account.ask.Withdraw({ cents: 3 })) // 12
})

program.pipe(
  Effect.provide(AccountLive.pipe(Layer.provideMerge(Layers.singleNode({ system: "bank" })))),
  NodeRuntime.runMain
)

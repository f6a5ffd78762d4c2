// More asks than one peer may have in flight, or unanswered, and an outbox without room: refused at once, typed, as what it is.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { ActorStopped, type AskError } from "../../src/Actor/errors.ts"
import { type Asker, Resumed } from "../../src/Actor/internal/Envelope.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import { maxServing, maxSlots, Op, tablesOf } from "../../src/Remoting/internal/messageTables.ts"
import { onReply } from "../../src/Remoting/internal/replies.ts"
import { Reader, Writer } from "../../src/Remoting/internal/wire.ts"
import { makeSide } from "./wired.ts"

const Store = {
  name: "Store",
  props: Schema.Struct({}),
  fingerprint: "store-1",
  messages: new Map([
    ["Later", { tag: "Later", payload: Schema.Struct({}), success: Schema.Int, error: Schema.Never, stream: false }]
  ])
} as unknown as KindDefinition

/** `a` asks `b`, whose actors answer later. */
const pair = Effect.gen(function*() {
  const later: Array<Asker> = []
  const delivery = Delivery.of({
    tell: () => Effect.void,
    ask: () => Effect.fail(new ActorStopped({ name: "x" })),
    tryAsk: (_, asker) => {
      later.push(asker)
      return true
    }
  })
  const a = yield* makeSide({ kind: Store, delivery, dialed: true })
  const b = yield* makeSide({ kind: Store, delivery, dialed: false })
  const errors: Array<AskError> = []
  let answers = 0
  const ask = () => {
    const asker = new Resumed({ kind: Store, tag: "Later", payload: {} }, "x", 60_000, (exit) => {
      const error = Exit.findErrorOption(exit)
      if (error._tag === "Some") errors.push(error.value)
      else answers++
    })
    a.messages.outgoing.ask(a.session, a.to("x"), asker)
    return asker
  }
  const talk = () => {
    while (a.wire.taken.length + b.wire.taken.length > 0) {
      b.session.take(a.wire.taken.splice(0))
      a.session.take(b.wire.taken.splice(0))
    }
  }
  return { a, b, ask, talk, errors, later, answers: () => answers }
})

const overloaded = (error: AskError | undefined, reason: string) =>
  assert.isTrue(
    error?._tag === "NodeUnreachable" && error.outcome === "NotSent" && error.overloaded === true &&
      error.reason === reason,
    String(error)
  )

describe("an ask for which there is no room", () => {
  it.effect("among those in flight is NotSent as an overload, and has room again after an answer", () =>
    Effect.gen(function*() {
      const { a, answers, ask, errors, later, talk } = yield* pair
      const { asks } = tablesOf(a.session)
      for (let i = 1; i < maxSlots; i++) asks.put({ slot: 0, use: 0 } as Asker)
      ask()
      assert.strictEqual(errors.length, 0)
      ask()
      assert.strictEqual(errors.length, 1)
      overloaded(errors[0], "too many asks in flight")
      talk()
      later[0]!.succeed(1)
      talk()
      ask()
      assert.deepStrictEqual([answers(), errors.length], [1, 1])
    }))

  it.effect("among those unanswered at its peer is NotSent as an overload", () =>
    Effect.gen(function*() {
      const { ask, b, errors, talk } = yield* pair
      const tables = tablesOf(b.session)
      for (let i = 0; i < maxServing; i++) tables.serving.set(-1 - i, undefined as never)
      ask()
      talk()
      overloaded(errors[0], "too many unanswered asks")
    }))
})

describe("an answer that cannot be read", () => {
  const answered = (op: number) =>
    Effect.gen(function*() {
      const { a, ask, errors } = yield* pair
      const { slot, use } = ask()
      const reader = new Reader(new Writer().number(slot, use).raw(Uint8Array.of(255, 255, 255)).take())
      reader.number()
      onReply(tablesOf(a.session), op, reader, reader.skip(3))
      return errors[0]
    })

  it.effect("is InvalidData of the reply where it is the handler's", () =>
    Effect.gen(function*() {
      for (const op of [Op.Success, Op.Failure]) {
        const error = yield* answered(op)
        assert.isTrue(error?._tag === "InvalidData" && error.reply === true, String(error))
      }
    }))

  it.effect("leaves the outcome open where it is a refusal", () =>
    Effect.gen(function*() {
      const error = yield* answered(Op.Refused)
      assert.isTrue(error?._tag === "NodeUnreachable" && error.outcome === "Unknown", String(error))
    }))
})

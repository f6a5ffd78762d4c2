// Where numbers and sizes end: what is beyond is refused by itself, typed, and the connection and all else go on.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { ActorStopped, type AskError } from "../../src/Actor/errors.ts"
import { type Asker, Resumed } from "../../src/Actor/internal/Envelope.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import { codecOf } from "../../src/Remoting/internal/codec.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import { maxSlots } from "../../src/Remoting/internal/messageTables.ts"
import { Reader, Writer } from "../../src/Remoting/internal/wire.ts"
import { makeSide } from "./wired.ts"

const Shop = {
  name: "Shop",
  props: Schema.Struct({}),
  fingerprint: "shop-1",
  messages: new Map([
    ["List", {
      tag: "List",
      payload: Schema.Struct({}),
      success: Schema.Struct({ items: Schema.Array(Schema.String) }),
      error: Schema.Never,
      stream: false
    }]
  ])
} as unknown as KindDefinition

const pair = Effect.gen(function*() {
  const asked: Array<Asker> = []
  const nobody = Effect.fail(new ActorStopped({ name: "x" }))
  const delivery = Delivery.of({ tell: () => nobody, ask: () => nobody, tryAsk: (_, asker) => asked.push(asker) > 0 })
  const a = yield* makeSide({ kind: Shop, delivery, dialed: true })
  const b = yield* makeSide({ kind: Shop, delivery, dialed: false })
  const to = { kind: Shop.name, name: "x", node: a.session.peer, placement: 1, epoch: 1 }
  const errors: Array<AskError | undefined> = []
  const ask = () => {
    const asker = new Resumed({ kind: Shop, tag: "List", payload: {} }, "x", 60_000, (exit) => {
      const error = Exit.findErrorOption(exit as Exit.Exit<unknown, AskError>)
      errors.push(error._tag === "Some" ? error.value : undefined)
    })
    a.messages.outgoing.ask(a.session, to, asker)
    return asker
  }
  const talk = () => {
    while (a.wire.taken.length + b.wire.taken.length > 0) {
      b.session.take(a.wire.taken.splice(0))
      a.session.take(b.wire.taken.splice(0))
    }
  }
  return { a, b, ask, asked, errors, talk }
})

describe("an answer that is larger than a frame", () => {
  it.effect("is FrameTooLarge for that ask, and the next one is answered", () =>
    Effect.gen(function*() {
      const { a, b, ask, asked, errors, talk } = yield* pair
      ask()
      talk()
      asked[0]!.succeed({ items: Array.from({ length: 20_000 }, () => "x".repeat(100)) })
      talk()
      assert.deepStrictEqual(errors.map((error) => error?._tag), ["FrameTooLarge"])
      ask()
      talk()
      asked[1]!.succeed({ items: [] })
      talk()
      assert.deepStrictEqual(errors.map((error) => error?._tag), ["FrameTooLarge", undefined])
      assert.deepStrictEqual([a.session.over, b.session.over], [undefined, undefined])
    }))
})

describe("a handler that ends with neither success nor error", () => {
  it.effect("is HandlerFailed to whoever asked", () =>
    Effect.gen(function*() {
      const { ask, asked, errors, talk } = yield* pair
      for (const exit of [Exit.die(new Error("on purpose")), Exit.interrupt(1)]) {
        ask()
        talk()
        asked.at(-1)!.reply(exit)
        talk()
      }
      assert.deepStrictEqual(errors.map((error) => error?._tag), ["HandlerFailed", "HandlerFailed"])
    }))
})

describe("asks in flight", () => {
  it.effect("are as many as there are numbers; one more is NotSent, until one of them ends", () =>
    Effect.gen(function*() {
      const { a, ask, errors } = yield* pair
      a.wire.unsent = 1
      const first = ask()
      for (let n = 1; n < maxSlots; n++) ask()
      assert.deepStrictEqual(errors, [])
      ask()
      const [error] = errors
      assert.isTrue(error?._tag === "NodeUnreachable" && error.outcome === "NotSent")
      first.abandon()
      ask()
      assert.strictEqual(errors.length, 1)
      a.session.endUnsafe("over")
    }))
})

class Group extends RpcGroup.make(Rpc.make("Wait", {})) {}

describe("calls that nobody has answered yet", () => {
  it.effect("are served up to a number for one peer; more are not served, typed, and the connection goes on", () =>
    Effect.gen(function*() {
      const { b } = yield* pair
      let waiting = 0
      const handlers = Group.toLayer({
        Wait: () => Effect.andThen(Effect.sync(() => void waiting++), Effect.never)
      })
      yield* b.calls.serveGroup(Group).pipe(Effect.provide(handlers))
      const { payloadSchema } = Group.requests.get("Wait") as unknown as Rpc.AnyWithProps
      const payload = codecOf(payloadSchema, "evolving").encode(undefined)
      const frame = (number: number) =>
        new Writer().byte(FrameType.Control).byte(1).varint(number).text("Wait").varint(60_000).blob(payload).take()
      b.session.take(Array.from({ length: 16_384 }, (_, n) => frame(n + 1)))
      yield* Effect.yieldNow
      assert.deepStrictEqual(b.wire.taken, [])
      b.session.take([frame(20_000)])
      const reader = new Reader(b.wire.taken[0]!)
      assert.deepStrictEqual([reader.byte(), reader.byte(), reader.varint()], [FrameType.Control, 5, 20_000])
      assert.strictEqual(reader.text(100), "too many unanswered calls")
      assert.strictEqual(waiting, 16_384)
      assert.isUndefined(b.session.over)
      b.session.endUnsafe("over")
    }).pipe(Effect.scoped))
})

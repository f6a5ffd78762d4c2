// What travels with a message: how long its asker waits, and the span that it was sent in, whichever way the message goes.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import { Delivery, type Trace } from "../../src/Actor/Delivery.ts"
import { ActorStopped } from "../../src/Actor/errors.ts"
import { Resumed } from "../../src/Actor/internal/Envelope.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import { makeSide } from "./wired.ts"

class Parcel extends Schema.Class<Parcel>("Parcel")({ text: Schema.String }) {}

const message = (tag: string, payload: Schema.Top) =>
  [tag, { tag, payload, success: Schema.Void, error: Schema.Never, stream: false }] as const

const Post = {
  name: "Post",
  props: Schema.Struct({}),
  fingerprint: "post-1",
  messages: new Map([
    message("Plain", Schema.Struct({ text: Schema.String })),
    message("Classed", Schema.Struct({ parcel: Parcel })),
    message("Bytes", Schema.Struct({ bytes: Schema.Uint8Array }))
  ])
} as unknown as KindDefinition

const trace = (n: number): Trace => ({ traceId: `trace-${n}`, spanId: `span-${n}`, sampled: n % 2 === 0 })

const payloads: ReadonlyArray<readonly [string, string, unknown]> = [
  ["small and plain", "Plain", { text: "x" }],
  ["too large to be written where it leaves from", "Plain", { text: "x".repeat(10_000) }],
  ["of a class", "Classed", { parcel: new Parcel({ text: "x" }) }],
  ["in pieces", "Classed", { parcel: new Parcel({ text: "x".repeat(100_000) }) }],
  ["with bytes that travel beside it", "Bytes", { bytes: new Uint8Array(100_000) }]
]

interface Got {
  readonly trace: Trace | undefined
  readonly timeout?: number
}

describe("the envelope of a message", () => {
  for (const [what, tag, payload] of payloads) {
    it.effect(`has its asker's time and its span where it is ${what}, and lends them to no other`, () =>
      Effect.gen(function*() {
        const got: Array<Got> = []
        const nobody = Effect.fail(new ActorStopped({ name: "x" }))
        const delivery = Delivery.of({
          tell: () => nobody,
          ask: () => nobody,
          tryTell: (_, { trace }) => {
            got.push({ trace })
            return Exit.void
          },
          tryAsk: (_, { timeout, trace }) => got.push({ trace, timeout }) > 0
        })
        const a = yield* makeSide({ kind: Post, delivery, dialed: true })
        const b = yield* makeSide({ kind: Post, delivery, dialed: false })
        const { outgoing } = a.messages
        const to = { kind: Post.name, name: "x", node: a.session.peer, placement: 1, epoch: 1 }
        const expected: Array<Got> = []
        for (const [n, span] of [trace(1), undefined, trace(2)].entries()) {
          const sent = { kind: Post, tag, payload, trace: span }
          outgoing.tell(a.session, to, sent)
          expected.push({ trace: span })
          outgoing.ask(a.session, to, new Resumed(sent, "x", 1000 + n, () => {}))
          expected.push({ trace: span, timeout: 1000 + n })
        }
        for (let turns = 0; got.length < expected.length && turns < 100; turns++) {
          b.session.take(a.wire.taken.splice(0))
          a.session.take(b.wire.taken.splice(0))
        }
        assert.deepStrictEqual(got, expected)
      }))
  }
})

// The compact layout of plain messages: what goes in comes out, what does not fit does not, and bytes that went wrong are told.
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { layoutOf, signature } from "../../src/Actor/internal/layout.ts"
import { codecOf } from "../../src/Remoting/internal/codec.ts"
import { noRoom, Reader, Writer } from "../../src/Remoting/internal/wire.ts"

const Order = Schema.Struct({
  id: Schema.Int,
  note: Schema.optional(Schema.String),
  state: Schema.Literals(["open", "paid", "sent"]),
  amounts: Schema.Array(Schema.Number),
  gift: Schema.NullOr(Schema.Boolean),
  seal: Schema.Uint8Array,
  lines: Schema.Array(Schema.Struct({ text: Schema.String, count: Schema.optionalKey(Schema.Number) }))
})
type Order = typeof Order.Type

const order: Order = {
  id: -7,
  state: "paid",
  amounts: [0, -0, 1.5, 2 ** 30, -(2 ** 30), 2 ** 53, NaN, -Infinity, 1e-300],
  gift: null,
  seal: Uint8Array.of(0, 255, 128),
  lines: [{ text: "" }, { text: "ü", count: 3 }, { text: "x".repeat(300) }, { text: "日本語".repeat(100), count: -1 }]
}

const codec = codecOf(Order, "compact")
const copy = (value: Order) => codec.decode(codec.encode(value))

describe("plain data", () => {
  it("comes out as it went in", () => {
    assert.isDefined(codec.compact)
    assert.deepStrictEqual(copy(order), order)
    assert.deepStrictEqual(copy({ ...order, note: "n", gift: true }), { ...order, note: "n", gift: true })
    assert.deepStrictEqual(copy({ ...order, note: undefined, gift: false }), { ...order, note: undefined, gift: false })
  })

  it("texts of every length and width are the same on the other side", () => {
    const text = codecOf(Schema.String, "compact")
    for (const part of ["a", "\u0000", "\u007f", "\u0080", "ÿ", "ß€", "😀", "a😀b"]) {
      for (const times of [0, 1, 5, 11, 12, 13, 23, 24, 25, 63, 64, 65, 5000, 6000, 20_000]) {
        const value = part.repeat(times)
        assert.strictEqual(text.decode(text.encode(value)), value, `${JSON.stringify(part)} ${times} times`)
      }
    }
    // half of a pair of surrogates has no bytes of its own, as with any other encoding
    assert.strictEqual(text.decode(text.encode("a\ud800")), "a\ufffd")
  })

  it("properties that the schema does not know stay behind", () => {
    const value = { ...order, more: 1 }
    assert.deepStrictEqual(copy(value), order)
  })

  it("takes a fraction of what the general encoding takes", () => {
    const small = { ...order, lines: [], seal: new Uint8Array(0) }
    assert.isBelow(codec.encode(small).length, codecOf(Order, "evolving").encode(small).length)
  })

  it("a value that does not fit is refused, and said so in words", () => {
    for (
      const [change, word] of [
        [{ id: 1.5 }, "integer"],
        [{ state: "lost" }, "state"],
        [{ gift: 0 }, "gift"],
        [{ seal: [1] }, "seal"],
        [{ amounts: ["1"] }, "amounts"],
        [{ lines: [{ count: 1 }] }, "text"]
      ] as const
    ) {
      assert.throws(() => codec.encode({ ...order, ...change }), new RegExp(word))
    }
    const { id: _, ...without } = order
    assert.throws(() => codec.encode(without), /id/)
    assert.throws(() => codec.encode(null))
  })

  it("writes into a buffer that must not grow, or says that there is no room", () => {
    const bytes = codec.encode(order).length
    for (const [size, fits] of [[bytes + 1000, true], [64, false], [0, false]] as const) {
      const writer = new Writer(new Uint8Array(size))
      writer.fixed = true
      let thrown: unknown
      try {
        codec.compact!.write(writer, order)
      } catch (error) {
        thrown = error
      }
      assert.strictEqual(thrown, fits ? undefined : noRoom)
      assert.strictEqual(writer.buffer.length, size)
    }
  })
})

describe("bytes that went wrong", () => {
  it("are told, or are another value of the schema: nothing else comes out", () => {
    const isOrder = Schema.is(Order)
    const bytes = codec.encode(order)
    let state = 7
    const pick = (below: number) => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
      return (state >> 8) % below
    }
    let refused = 0
    for (let round = 0; round < 20_000; round++) {
      const broken = bytes.slice(0, pick(8) === 0 ? pick(bytes.length) : bytes.length)
      for (let times = pick(3); times >= 0 && broken.length > 0; times--) broken[pick(broken.length)] = pick(256)
      let value: unknown
      try {
        value = codec.decode(broken)
      } catch {
        refused++
        continue
      }
      assert.isTrue(isOrder(value))
    }
    assert.isAbove(refused, 1000)
  })

  it("counts and lengths that lie take no memory", () => {
    const many = codecOf(Schema.Array(Schema.String), "compact")
    assert.throws(() => many.decode(new Writer().varint(2 ** 50).take()))
    assert.throws(() => codecOf(Schema.String, "compact").decode(new Writer().varint(2 ** 50).take()))
    assert.throws(() => codecOf(Schema.Uint8Array, "compact").decode(new Writer().varint(2 ** 50).take()))
  })

  it("texts must be UTF-8, and a value is all there is", () => {
    const text = codecOf(Schema.String, "compact")
    assert.throws(() => text.decode(Uint8Array.of(4, 0xc3, 0x28)))
    assert.throws(() => text.decode(Uint8Array.of(...text.encode("a"), 0)))
  })
})

describe("a layout", () => {
  it("is for plain data only", () => {
    class Account extends Schema.Class<Account>("Account")({ owner: Schema.String }) {}
    for (
      const schema of [
        Account,
        Schema.Struct({ at: Schema.Date }),
        Schema.Record(Schema.String, Schema.Number),
        Schema.Struct({ n: Schema.NumberFromString }),
        Schema.Union([Schema.String, Schema.Number]),
        Schema.Unknown,
        // without bytes of their own, a count of them could say anything
        Schema.Array(Schema.Struct({}))
      ]
    ) {
      assert.isUndefined(layoutOf(schema))
      assert.strictEqual(codecOf(schema, "compact"), codecOf(schema, "exact"))
    }
  })

  it("differs where bytes would mean something else", () => {
    const different = [
      Schema.NullOr(Schema.String),
      Schema.UndefinedOr(Schema.String),
      Schema.String,
      Schema.Struct({ a: Schema.String }),
      Schema.Struct({ a: Schema.optionalKey(Schema.String) }),
      Schema.Literals(["a", "b"]),
      Schema.Literals(["b", "a"]),
      Schema.Array(Schema.String)
    ]
    const signatures = different.map((schema) => JSON.stringify(signature(layoutOf(schema))))
    assert.strictEqual(new Set(signatures).size, different.length)
  })
})

describe("numbers of asks", () => {
  it("are one varint of 40 bits, read in two parts", () => {
    for (const low of [0, 1, 127, 128, 0x3fff, 0x4000, 0xffff]) {
      for (const high of [0, 1, 31, 32, 0xfff, 0x1000, 0x7ffff, 0x80000, 0xffffff]) {
        const whole = high * 0x10000 + low
        assert.strictEqual(new Reader(new Writer().number(low, high).take()).varint(), whole)
        for (const bytes of [new Writer().number(low, high).take(), new Writer().varint(whole).take()]) {
          const reader = new Reader(bytes)
          reader.number()
          assert.deepStrictEqual([reader.low, reader.high, reader.done], [low, high, true])
        }
      }
    }
    assert.throws(() => new Reader(new Writer().varint(2 ** 40).take()).number())
  })
})

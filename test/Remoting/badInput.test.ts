// A peer that is let in and then says what it must not: lies about its protocol, tags that nobody knows, keys that reach for prototypes,
// depth and repetition. Each is a typed refusal of that one message; the connection and everybody else go on.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Option, Random, Ref, Schema } from "effect"
import { SchemaBinary } from "effect/encoding"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/Actor/Actor.ts"
import * as ActorHost from "../../src/Actor/ActorHost.ts"
import * as ActorSystem from "../../src/Actor/ActorSystem.ts"
import * as Delivery from "../../src/Actor/Delivery.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import * as Placement from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Topology from "../../src/Actor/Topology.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import { codecOf, type Mode } from "../../src/Remoting/internal/codec.ts"
import { Writer } from "../../src/Remoting/internal/wire.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"

interface Tree {
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
})

const protocol = [
  Rpc.make("Put", { payload: { n: Schema.Int }, success: Schema.Int }),
  Rpc.make("Text", { payload: { text: Schema.String }, success: Schema.Int }),
  Rpc.make("Table", { payload: { entries: Schema.Record(Schema.String, Schema.Number) }, success: Schema.Int }),
  Rpc.make("Items", { payload: { items: Schema.Array(Schema.Struct({ name: Schema.String })) }, success: Schema.Int }),
  Rpc.make("Nothings", { payload: { items: Schema.Array(Schema.Null) }, success: Schema.Int }),
  Rpc.make("Grow", { payload: { tree: Tree }, success: Schema.Int }),
  Rpc.make("Any", { payload: { value: Schema.Unknown }, success: Schema.Int })
] as const

const Box = Actor.make("Box", { protocol: [...protocol] })

/** what handlers were given */
const given: Array<unknown> = []
const BoxLive = Box.toLayer(Effect.gen(function*() {
  const count = yield* Ref.make(0)
  const take = (payload: unknown) => {
    given.push(payload)
    return Ref.updateAndGet(count, (n) => n + 1)
  }
  return Box.of({ Put: take, Text: take, Table: take, Items: take, Nothings: take, Grow: take, Any: take })
}))

const startNode = Effect.fnUntraced(function*(network: SimulatedNetwork.SimulatedNetwork, host: string) {
  const layer = BoxLive.pipe(
    Layer.provideMerge(ActorSystem.layer),
    Layer.provideMerge(Remoting.layer({})),
    Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
    Layer.provideMerge(ActorHost.layer),
    Layer.provide(Layer.merge(Remoting.layerNode({ system: "shop", id: host }), SystemEvents.layer)),
    Layer.provide(network.layer(host))
  )
  const random = yield* Random.Random.pipe(Random.withSeed(host))
  return yield* Layer.build(layer).pipe(
    Effect.provideService(Random.Random, random),
    Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
  )
})

const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < 1000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("10 millis")
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* Fiber.join(fiber)
  })

const world = Effect.gen(function*() {
  let hellos = 0
  const onFrame = (_from: string, _to: string, frame: Uint8Array) => {
    if (frame[0] === FrameType.Hello) hellos++
  }
  const network = yield* SimulatedNetwork.make({ seed: 3, onFrame })
  const a = yield* startNode(network, "a")
  const b = yield* startNode(network, "b")
  const box = yield* Context.get(b, ActorSystem.ActorSystem).spawn(Box, "box")
  const bystander = yield* Context.get(b, ActorSystem.ActorSystem).spawn(Box, "bystander")
  const delivery = Context.get(a, Delivery.Delivery)
  const real: KindDefinition = Box.definition
  const ask = (kind: KindDefinition, tag: string, payload: unknown, to = box.address) =>
    Effect.map(settle(delivery.ask(to, { kind, tag, payload }, 5000)), (exit) => {
      if (Exit.isSuccess(exit)) return Exit.isSuccess(exit.value) ? "Success" : "Handler"
      const error = Exit.findErrorOption(exit)
      return Option.isSome(error) ? error.value : assert.fail(`a defect: ${exit.cause}`)
    })
  /** All is as it was: the same connection, and others are answered over it. */
  const undisturbed = Effect.gen(function*() {
    assert.strictEqual(yield* ask(real, "Put", { n: 1 }, bystander.address), "Success")
    assert.deepStrictEqual((yield* Context.get(a, Remoting.Remoting).connected).map(({ id }) => id), ["b"])
    assert.strictEqual(hellos, 1, "nobody had to dial again")
  })
  yield* ask(real, "Put", { n: 1 })
  given.length = 0
  return { network, ask, real, box, undisturbed }
})

/** The kind as a liar has it: another payload for a tag, under the true fingerprint or another one. */
const forge = (
  real: KindDefinition,
  tag: string,
  payload: Schema.Top,
  fingerprint = real.fingerprint
): KindDefinition => ({
  ...real,
  fingerprint,
  messages: new Map([...real.messages, [tag, { ...real.messages.get("Put")!, tag, payload }]])
})
const struct = (fields: Schema.Struct.Fields): Schema.Top => Schema.Struct(fields)

const tagOf = (outcome: "Success" | "Handler" | { readonly _tag: string }) =>
  typeof outcome === "string" ? outcome : outcome._tag

describe("a peer that lies", () => {
  const lies: ReadonlyArray<readonly [string, string, Schema.Top, unknown]> = [
    ["a text for a number", "Put", struct({ n: Schema.String }), { n: "one" }],
    ["a fraction for a whole number", "Put", struct({ n: Schema.Number }), { n: 1.5 }],
    ["no field at all", "Put", struct({}), {}],
    ["one field too many", "Put", struct({ n: Schema.Int, m: Schema.String }), { n: 1, m: "two" }],
    ["a number for a text", "Text", struct({ text: Schema.Number }), { text: 2 ** 40 }],
    ["bytes for a text", "Text", struct({ text: Schema.Uint8Array }), { text: Uint8Array.of(0xff, 0xfe, 0xc0, 0x80) }],
    ["a list for a table", "Table", struct({ entries: Schema.Array(Schema.Number) }), { entries: [1, 2, 3] }],
    ["numbers for items", "Items", struct({ items: Schema.Array(Schema.Number) }), { items: [7, 2 ** 50, -3] }],
    ["a text for a tree", "Grow", struct({ tree: Schema.String }), { tree: "\u0001\u0001\u0001\u0001" }]
  ]
  for (const [what, tag, payload, value] of lies) {
    it.effect(`${what}, under the true fingerprint: InvalidData, and no handler sees what its schema does not allow`, () =>
      Effect.gen(function*() {
        const { ask, real, undisturbed } = yield* world
        const outcome = yield* ask(forge(real, tag, payload), tag, value)
        const schema = real.messages.get(tag)!.payload as Schema.Codec<unknown>
        // bytes that happen to be a value of the schema are one; then that is what arrives
        if (outcome === "Success") { for (const seen of given) assert.isTrue(Schema.is(schema)(seen)) }
        else {
          assert.strictEqual(tagOf(outcome), "InvalidData")
          assert.deepStrictEqual(given, [])
        }
        yield* undisturbed
      }))

    it.effect(`${what}, under another fingerprint: ProtocolMismatch that names the message and both sides`, () =>
      Effect.gen(function*() {
        const { ask, real, undisturbed } = yield* world
        const outcome = yield* ask(forge(real, tag, payload, "other"), tag, value)
        if (outcome === "Success") assert.strictEqual(what, "one field too many", "what is added disturbs nothing")
        else {
          assert.deepInclude(outcome, {
            _tag: "ProtocolMismatch",
            what: `Box.${tag}`,
            ours: "other",
            theirs: real.fingerprint
          })
        }
        yield* undisturbed
      }))
  }

  it.effect("a tag that the other side does not know: ProtocolMismatch, under any fingerprint", () =>
    Effect.gen(function*() {
      const { ask, real, undisturbed } = yield* world
      for (const fingerprint of [real.fingerprint, "other"]) {
        for (const tag of ["Nope", "__proto__", "constructor", "toString"]) {
          const outcome = yield* ask(forge(real, tag, struct({}), fingerprint), tag, {})
          assert.strictEqual(tagOf(outcome), "ProtocolMismatch")
        }
      }
      assert.deepStrictEqual(given, [])
      yield* undisturbed
    }))

  it.effect("a kind that the other side does not know: ActorStopped, whatever its name", () =>
    Effect.gen(function*() {
      const { ask, box, real, undisturbed } = yield* world
      for (const name of ["Nobody", "__proto__", "constructor"]) {
        const outcome = yield* ask({ ...real, name }, "Put", { n: 1 }, { ...box.address, kind: name })
        assert.strictEqual(tagOf(outcome), "ActorStopped")
      }
      yield* undisturbed
    }))
})

describe("values that reach for more than themselves", () => {
  it.effect("keys named after prototypes are keys, or refused: no object gets another prototype", () =>
    Effect.gen(function*() {
      const { ask, real, undisturbed } = yield* world
      const table = JSON.parse("{\"__proto__\": 1, \"constructor\": 2, \"prototype\": 3}") as unknown
      const any = JSON.parse(
        "{\"__proto__\": {\"polluted\": true}, \"constructor\": {\"prototype\": {\"polluted\": true}}}"
      )
      for (const [tag, payload] of [["Table", { entries: table }], ["Any", { value: any }]] as const) {
        assert.include(["Success", "InvalidData"], tagOf(yield* ask(real, tag, payload)))
      }
      for (const seen of given) {
        for (const value of Object.values(seen as object) as ReadonlyArray<object>) {
          assert.strictEqual(Object.getPrototypeOf(value), Object.prototype)
          assert.isUndefined((value as { readonly polluted?: unknown }).polluted)
        }
      }
      assert.isUndefined(({} as { readonly polluted?: unknown }).polluted)
      yield* undisturbed
    }))

  it.effect("a text that is no text arrives as one, or is refused", () =>
    Effect.gen(function*() {
      const { ask, real, undisturbed } = yield* world
      for (const text of ["\ud800", "a\udfffb", "\u0000", "\ufeff", "é".repeat(1000) + "\ud83d"]) {
        assert.include(["Success", "InvalidData"], tagOf(yield* ask(real, "Text", { text })))
      }
      for (const seen of given) assert.notMatch((seen as { readonly text: string }).text, /\p{Surrogate}/u)
      yield* undisturbed
    }))

  it.effect("a tree too deep to be walked is InvalidData, never a defect; one that is not arrives whole", () =>
    Effect.gen(function*() {
      const { ask, real, undisturbed } = yield* world
      const nest = (depth: number): Tree => {
        let tree: Tree = { children: [] }
        for (let i = 0; i < depth; i++) tree = { children: [tree] }
        return tree
      }
      assert.strictEqual(yield* ask(real, "Grow", { tree: nest(50) }), "Success")
      for (const depth of [20_000, 200_000]) {
        assert.strictEqual(tagOf(yield* ask(real, "Grow", { tree: nest(depth) })), "InvalidData")
      }
      const any = (depth: number): unknown => {
        let value: unknown = 1
        for (let i = 0; i < depth; i++) value = [value]
        return value
      }
      assert.include(["Success", "InvalidData"], tagOf(yield* ask(real, "Any", { value: any(200_000) })))
      yield* undisturbed
    }))

  it.effect("many items are bounded, and what is larger than a frame is FrameTooLarge", () =>
    Effect.gen(function*() {
      const { ask, real, undisturbed } = yield* world
      const items = (count: number) => ({ items: Array.from({ length: count }, () => null) })
      assert.strictEqual(yield* ask(real, "Nothings", items(1_000)), "Success")
      const named = { items: Array.from({ length: 400_000 }, () => ({ name: "x" })) }
      assert.include(["FrameTooLarge", "Success"], tagOf(yield* ask(real, "Items", named)))
      const large = { items: Array.from({ length: 400_000 }, () => ({ name: "a name of some length" })) }
      assert.strictEqual(tagOf(yield* ask(real, "Items", large)), "FrameTooLarge")
      yield* undisturbed
    }))
})

describe("a few bytes that say they are many", () => {
  const framed = (body: ReadonlyArray<number>) => Uint8Array.from([...new Writer().varint(body.length).take(), ...body])
  const varint = (value: number) => [...new Writer().varint(value).take()]
  const modes: ReadonlyArray<Mode> = ["evolving", "exact", "compact"]
  /** as a hostile peer has them, whatever this side makes of its schemas */
  const binary = (schema: Schema.Top, value: unknown, mode: Mode) =>
    SchemaBinary.encoder(schema as Schema.Codec<unknown>, { fingerprint: mode !== "evolving" }).encode(value)

  const empty = Schema.Struct({})
  const lists: ReadonlyArray<readonly [string, Schema.Top, unknown]> = [
    ["null", Schema.Null, null],
    ["undefined", Schema.Undefined, undefined],
    ["nothing", Schema.Void, undefined],
    ["null or undefined", Schema.Union([Schema.Null, Schema.Undefined]), null],
    ["a literal", Schema.Literal("x"), "x"],
    ["no fields", empty, {}],
    ["a field of null", Schema.Struct({ a: Schema.Null }), { a: null }],
    ["no elements", Schema.Tuple([]), []]
  ]
  for (const [what, item, value] of lists) {
    it(`lists of ${what} have no more items than the message has bytes, and arrive`, () => {
      for (const mode of modes) {
        const { decode, encode } = codecOf(Schema.Array(item), mode)
        const items = Array.from({ length: 2000 }, () => value)
        assert.isAtLeast(encode(items).length, 2000, mode)
        assert.deepStrictEqual(decode(encode(items)), items)
        // three items, and then a count that says millions
        const few = binary(Schema.Array(item), [value, value, value], mode)
        const at = few.lastIndexOf(3)
        for (const count of [4_000_000, 20_000_000]) {
          const bomb = framed([...few.subarray(1, at), ...varint(count), ...few.subarray(at + 1)])
          assert.throws(() => decode(bomb), undefined, undefined, `${mode}: ${count}`)
        }
      }
    })
  }

  it("lists of such lists, in whatever they are, take no more room than their bytes", () => {
    const nothings = Schema.Array(Schema.Null)
    const schemas: ReadonlyArray<readonly [Schema.Top, unknown]> = [
      [Schema.Array(nothings), [[null, null], []]],
      [Schema.Option(nothings), Option.some([null, null])],
      [Schema.Struct({ a: Schema.optionalKey(Schema.NonEmptyArray(Schema.Null)) }), { a: [null, null] }],
      [Schema.ReadonlySet(Schema.Null), new Set([null])],
      [Schema.Record(Schema.String, nothings), JSON.parse("{\"__proto__\": [null], \"a\": [null, null]}")]
    ]
    for (const [schema, value] of schemas) {
      for (const mode of modes) {
        const { decode, encode } = codecOf(schema, mode)
        assert.deepStrictEqual(decode(encode(value)), value)
        assert.throws(() => decode(binary(schema, value, mode)))
      }
    }
  })

  it("a tree each of whose lists says that it has a million items takes no memory for them", () => {
    // a list is its number of items, and each is [length, 0, name of the field, length of its list times two, its list]
    let list: ReadonlyArray<number> = [0]
    for (let depth = 0; depth < 100; depth++) {
      const row = [0, 0xd2, 0x93, 0xa7, 0xbd, 0x06, ...varint(list.length * 2), ...list]
      list = [...varint(1_000_000), ...varint(row.length), ...row]
    }
    const bomb = framed([0x20, 0x90, 0x9d, 0xb9, 0xea, 0x33, ...varint(list.length), ...list])
    const before = process.resourceUsage().maxRSS
    assert.throws(() => codecOf(Tree, "evolving").decode(bomb))
    assert.isBelow(process.resourceUsage().maxRSS - before, 100 * 1024, "KiB")
  })
})

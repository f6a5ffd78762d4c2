// Probes in virtual time: an actor under test tells and asks others, and the test plays the others.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorSystem } from "effect-troupe/Actor"
import { TestKit } from "effect-troupe/testing"
import { Effect, Fiber, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"

class Empty extends Schema.TaggedError<Empty>()("Empty", {}) {}
const Stock = Actor.make("Stock", {
  protocol: [
    Rpc.make("Take", { payload: { sku: Schema.String }, success: Schema.Int, error: Empty }),
    Rpc.make("Note", { payload: { text: Schema.String } })
  ],
  props: { place: Schema.String }
})
const Feed = Actor.make("Feed", {
  protocol: [
    Rpc.make("Numbers", { payload: { upTo: Schema.Int }, success: Schema.Int, error: Empty, stream: true }),
    Rpc.make("Ping")
  ]
})

describe("a probe", () => {
  it.effect("sees what it is told, answers what it is asked, and moves virtual time while it waits", () =>
    Effect.gen(function*() {
      const stock = yield* TestKit.probe(Stock)
      yield* stock.ref.tell.Note({ text: "one" })
      yield* Effect.forkChild(Effect.delay(stock.ref.tell.Note({ text: "two" }), "2 seconds"), {
        startImmediately: true
      })
      assert.deepStrictEqual((yield* stock.expect("Note")).payload, { text: "one" })
      assert.deepStrictEqual((yield* stock.expect("Note")).payload, { text: "two" })

      const asked = yield* Effect.forkChild(stock.ref.ask.Take({ sku: "x" }), { startImmediately: true })
      yield* (yield* stock.expect("Take")).reply(Effect.succeed(3))
      assert.strictEqual(yield* Fiber.join(asked), 3)

      yield* stock.autoReply("Take", ({ sku }) => sku === "none" ? Effect.fail(new Empty()) : Effect.succeed(7))
      assert.strictEqual(yield* stock.ref.ask.Take({ sku: "y" }), 7)
      assert.strictEqual((yield* Effect.flip(stock.ref.ask.Take({ sku: "none" })))._tag, "Empty")
      assert.strictEqual((yield* stock.waiting).length, 2)
    }).pipe(Effect.scoped, Effect.provide(TestKit.layerSystem)))

  it.effect("fishes for a message among others, expects none, and says what it saw when it fails", () =>
    Effect.gen(function*() {
      const stock = yield* TestKit.probe(Stock, "stock")
      yield* stock.expectNone("10 seconds")
      for (const text of ["a", "b", "c"]) yield* stock.ref.tell.Note({ text })
      const fished = yield* stock.fish("Note", ({ text }) => text === "b")
      assert.deepStrictEqual(fished.payload, { text: "b" })
      const wrong = yield* Effect.flip(stock.expect("Take"))
      assert.strictEqual(wrong.message, "expected Take within 3s, saw Note")
      const some = yield* Effect.flip(stock.expectNone("1 second"))
      assert.deepStrictEqual(some.seen, ["Note"])
      const none = yield* Effect.flip(stock.fish("Note", () => false, { within: "1 second" }))
      assert.strictEqual(none._tag, "ProbeFailed")
    }).pipe(Effect.scoped, Effect.provide(TestKit.layerSystem)))

  it.effect("answers with streams, by hand and by itself, and a stream's failure is its listener's", () =>
    Effect.gen(function*() {
      const feed = yield* TestKit.probe(Feed)
      const listen = Stream.runCollect(feed.ref.ask.Numbers({ upTo: 3 }))
      const first = yield* Effect.forkChild(listen, { startImmediately: true })
      const asked = yield* feed.expect("Numbers")
      assert.deepStrictEqual(asked.payload, { upTo: 3 })
      yield* asked.reply(Stream.make(1, 2, 3))
      assert.deepStrictEqual(yield* Fiber.join(first), [1, 2, 3])
      yield* feed.autoReply("Numbers", ({ upTo }) => Stream.concat(Stream.range(1, upTo), Stream.fail(new Empty())))
      const got: Array<number> = []
      const error = yield* feed.ref.ask.Numbers({ upTo: 2 }).pipe(
        Stream.runForEach((n) => Effect.sync(() => got.push(n))),
        Effect.flip
      )
      assert.strictEqual(error._tag, "Empty")
      assert.deepStrictEqual(got, [1, 2])
    }).pipe(Effect.scoped, Effect.provide(TestKit.layerSystem)))

  it.effect("works with a system of one's own kinds, and two probes of one kind do not meet", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* TestKit.probe(Stock), yield* TestKit.probe(Stock)]
      yield* one.ref.tell.Note({ text: "one" })
      yield* two.expectNone("1 second")
      yield* one.expect("Note")
      const system = yield* ActorSystem.ActorSystem
      const other = yield* system.spawn(Greeter, "g")
      assert.strictEqual(yield* other.ask.Hello(), "hello")
    }).pipe(Effect.scoped, Effect.provide(TestKit.layer(GreeterLive))))
})

const Greeter = Actor.make("Greeter", { protocol: [Rpc.make("Hello", { success: Schema.String })] })
const GreeterLive = Greeter.toLayer(Effect.succeed(Greeter.of({ Hello: () => Effect.succeed("hello") })))

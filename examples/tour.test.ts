// A tour of what an actor can do, in virtual time. docs/actors.md shows parts of it.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorSystem, Jobs, Router, Topic } from "effect-troupe"
import { TestKit } from "effect-troupe/testing"
import { Effect, Layer, Schedule, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"

// ---- a kind and its behaviour

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { sku: Schema.String }) {}

const Shelf = Actor.make("Shelf", {
  protocol: [
    Rpc.make("Fill", { payload: { sku: Schema.String, pieces: Schema.Int } }),
    Rpc.make("Take", { payload: { sku: Schema.String }, success: Schema.Int, error: SoldOut }),
    Rpc.make("List", { success: Schema.String, stream: true })
  ],
  props: { place: Schema.String }
})

const ShelfLive = Shelf.toLayer(
  Effect.gen(function*() {
    const { place } = yield* Shelf.props
    const pieces = new Map<string, number>()
    yield* Effect.addFinalizer(() => Effect.logDebug(`${place} is cleared`))
    return Shelf.of({
      Fill: (more) => Effect.sync(() => void pieces.set(more.sku, (pieces.get(more.sku) ?? 0) + more.pieces)),
      Take: Effect.fnUntraced(function*({ sku }) {
        const left = (pieces.get(sku) ?? 0) - 1
        if (left < 0) return yield* new SoldOut({ sku })
        pieces.set(sku, left)
        return left
      }),
      List: () => Stream.fromIterable(pieces.keys())
    })
  }),
  {
    supervision: {
      decide: (error) => error instanceof RangeError ? "resume" : "restart",
      limit: 5,
      window: "1 minute",
      backoff: Schedule.exponential("100 millis").pipe(Schedule.jittered),
      exhausted: "suspend"
    },
    mailbox: { capacity: 10_000, overflow: "backpressure", control: ["Fill"] },
    passivation: { idle: "10 minutes", cap: 50_000 }
  }
)

// ---- an actor that changes, waits and talks to others

const Till = Actor.make("Till", {
  protocol: [
    Rpc.make("Open"),
    Rpc.make("Sell", { payload: { sku: Schema.String }, success: Schema.Int, error: SoldOut }),
    Rpc.make("Total", { success: Schema.Int })
  ],
  props: { shelf: Schema.String }
})

const sold = Topic.make<string>("sold")

const TillLive = Till.toLayer(Effect.gen(function*() {
  const context = yield* ActorContext.ActorContext
  const system = yield* ActorSystem.ActorSystem
  const { shelf } = yield* Till.props
  const stock = yield* system.actorOf(Shelf, shelf)
  let total = 0

  yield* context.watch(stock, () => context.stop)
  yield* context.timers.every("report", "1 hour", Effect.suspend(() => Effect.log(`sold ${total}`)))

  return Till.of({
    // Whoever comes before it is open is put aside, and served first when it opens.
    Open: () =>
      Effect.andThen(
        Till.become({
          // The shelf answers the customer; meanwhile the till goes on with the next one.
          Sell: ({ sku }) =>
            Effect.tap(context.forward(stock.ask.Take({ sku })), () =>
              Effect.suspend(() => {
                total++
                return sold.publish(sku)
              }))
        }),
        context.unstash
      ),
    Sell: () => context.stash,
    Total: () => Effect.sync(() => total)
  })
}))

const layer = TestKit.layer(Layer.mergeAll(ShelfLive, TillLive))

describe("a tour of actors", () => {
  it.effect("tells, asks, streams, stashes, becomes, forwards, publishes", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const shelf = yield* system.spawn(Shelf, "tea", { props: { place: "aisle 3" } })
      yield* shelf.tell.Fill({ sku: "assam", pieces: 2 })
      const left = yield* shelf.ask.Take({ sku: "assam" })
      const refused = yield* Effect.flip(shelf.ask.Take({ sku: "sencha" }, { timeout: "1 second" }))
      const names = yield* Stream.runCollect(shelf.ask.List())
      assert.deepStrictEqual([left, refused._tag, names], [1, "SoldOut", ["assam"]])

      const seen: Array<string> = []
      yield* Effect.forkChild(Stream.runForEach(sold.stream, (sku) => Effect.sync(() => seen.push(sku))), {
        startImmediately: true
      })
      const till = yield* system.spawn(Till, "till-1", { props: { shelf: "tea" } })
      yield* till.tell.Sell({ sku: "assam" })
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* system.inspectActor(till)).stashed, 1)
      yield* till.tell.Open()
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* till.ask.Total(), 1)
      assert.deepStrictEqual(seen, ["assam"])

      // The till watches its shelf, and stops when that is gone.
      yield* system.stop(shelf)
      yield* TestClock.adjust("1 second")
      assert.isFalse(yield* system.actorExists(Till, "till-1"))
    }).pipe(Effect.provide(layer)))

  it.effect("routes, schedules, and tells what happens", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const dead: Array<string> = []
      yield* Effect.forkChild(
        system.events.pipe(
          Stream.filter((event) => event._tag === "DeadLetter"),
          Stream.runForEach((letter) => Effect.sync(() => dead.push(`${letter.message}: ${letter.reason}`)))
        ),
        { startImmediately: true }
      )

      const pool = yield* system.spawnRouter(Shelf, "pool", {
        size: 3,
        strategy: { consistentHash: ({ payload }) => (payload as { readonly sku: string }).sku },
        props: { place: "cellar" }
      })
      yield* pool.tell.Fill({ sku: "assam", pieces: 5 })
      assert.strictEqual(yield* pool.ask.Take({ sku: "assam" }), 4)
      yield* pool.resize(5)

      const cellar = yield* system.actorOf(Shelf, "pool-1")
      const attic = yield* system.spawn(Shelf, "attic", { props: { place: "attic" } })
      const both = Router.group("both", [cellar, attic], { strategy: "broadcast" })
      yield* both.tell.Fill({ sku: "sencha", pieces: 1 })
      yield* both.remove(cellar)
      assert.strictEqual(yield* both.ask.Take({ sku: "sencha" }), 0)

      const jobs = yield* Jobs.Jobs
      yield* jobs.cron("delivery", "0 6 * * *", pool.tell.Fill({ sku: "assam", pieces: 100 }))
      yield* TestClock.adjust("6 hours")
      // Passivated after ten idle minutes, with what it held; the delivery woke it.
      assert.strictEqual(yield* pool.ask.Take({ sku: "assam" }), 99)
      assert.deepStrictEqual(dead, [])
    }).pipe(Effect.provide(layer)))

  it.effect("is tested with probes: the till's shelf is the test", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const probe = yield* TestKit.probe(Shelf, "tea")
      yield* probe.autoReply("Take", () => Effect.succeed(7))
      assert.strictEqual(yield* probe.ref.ask.Take({ sku: "assam" }), 7)
      const asked = yield* probe.expect("Take", { within: "5 seconds" })
      assert.deepStrictEqual(asked.payload, { sku: "assam" })
      yield* probe.expectNone("1 minute")
      assert.deepStrictEqual((yield* system.inspect).map((actor) => actor.name), ["tea"])
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

// What surrounds actors: passivation, streaming replies, routers, topics, jobs, events, metrics, spans.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorMetrics, ActorSystem, Jobs, Router, SystemEvents, Topic } from "effect-troupe/Actor"
import { Clock, Context, Duration, Effect, Fiber, Layer, Metric, Queue, Ref, Schema, Stream, Tracer } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { hashRing } from "../../src/Actor/internal/hashRing.ts"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

type Services = ActorSystem.ActorSystem | SystemEvents.SystemEvents | Jobs.Jobs | Topic.Topics
const on = (kinds: Layer.Layer<never, never, ActorSystem.ActorSystem>) =>
<A, E, R extends Services>(
  body: (system: ActorSystem.ActorSystem["Service"]) => Effect.Effect<A, E, R>
) =>
  ActorSystem.ActorSystem.use(body).pipe(
    Effect.scoped,
    Effect.provide(
      kinds.pipe(Layer.provideMerge(layerLocal), Layer.provideMerge(Layer.mergeAll(Jobs.layer, Topic.layer)))
    )
  ) as Effect.Effect<A, E>

const Counter = Actor.make("Counter", {
  protocol: [
    Rpc.make("Add", { success: Schema.Int }),
    Rpc.make("Slow", { payload: { millis: Schema.Int }, success: Schema.String }),
    Rpc.make("StayAwake"),
    Rpc.make("Sleep")
  ]
})

const counter = (log: Array<string>, options?: Actor.BehaviorOptions<never>) =>
  Counter.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext.ActorContext
      const { name } = context
      let count = 0
      log.push(`${name} start`)
      yield* Effect.addFinalizer(() => Effect.sync(() => log.push(`${name} end`)))
      return Counter.of({
        Add: () => Effect.sync(() => ++count),
        Slow: ({ millis }) => Effect.as(Effect.sleep(millis), name),
        StayAwake: () => context.keepAwake,
        Sleep: () => context.passivate
      })
    }),
    options
  )

const events = Effect.gen(function*() {
  const seen: Array<SystemEvents.SystemEvent> = []
  const { stream } = yield* SystemEvents.SystemEvents
  yield* Effect.forkChild(Stream.runForEach(stream, (event) => Effect.sync(() => seen.push(event))), {
    startImmediately: true
  })
  return seen
})

describe("passivation", () => {
  it.effect("after idle time the behaviour is given up; the next message builds it anew under the same name", () => {
    const log: Array<string> = []
    return on(counter(log, { passivation: { idle: "1 minute" } }))((system) =>
      Effect.gen(function*() {
        const seen = yield* events
        const ref = yield* system.spawn(Counter, "c")
        yield* ref.ask.Add()
        yield* TestClock.adjust("50 seconds")
        assert.strictEqual(yield* ref.ask.Add(), 2)
        yield* TestClock.adjust("59 seconds")
        assert.deepStrictEqual(log, ["c start"])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(log, ["c start", "c end"])
        assert.strictEqual((yield* system.inspect)[0]!.status, "Passivated")
        assert.strictEqual(yield* ref.ask.Add(), 1)
        assert.deepStrictEqual(seen.map((event) => event._tag), ["ActorStarted", "ActorPassivated"])
      })
    )
  })

  it.effect("after a number of messages, on request, not while it wants to stay awake", () => {
    const log: Array<string> = []
    return on(counter(log, { passivation: { messages: 3, idle: "1 minute" } }))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Counter, "c")
        for (const expected of [1, 2, 3, 1]) {
          assert.strictEqual(yield* ref.ask.Add(), expected)
          yield* settle
        }
        yield* ref.tell.Sleep()
        yield* settle
        assert.strictEqual((yield* system.inspect)[0]!.status, "Passivated")
        yield* ref.tell.StayAwake()
        yield* TestClock.adjust("5 minutes")
        for (const expected of [1, 2, 3, 4]) {
          assert.strictEqual(yield* ref.ask.Add(), expected)
          yield* settle
        }
        assert.strictEqual((yield* system.inspect)[0]!.status, "Idle")
      })
    )
  })

  it.effect("beyond a cap the least recently used goes, and comes back when it is wanted", () => {
    const log: Array<string> = []
    return on(counter(log, { passivation: { cap: 2 } }))((system) =>
      Effect.gen(function*() {
        const [a, b] = [yield* system.spawn(Counter, "a"), yield* system.spawn(Counter, "b")]
        yield* a.ask.Add()
        yield* settle
        yield* system.spawn(Counter, "c")
        assert.deepStrictEqual(log, ["a start", "b start", "c start", "b end"])
        assert.strictEqual(yield* b.ask.Add(), 1)
        assert.deepStrictEqual(log.slice(4), ["b start", "a end"])
      })
    )
  })

  it.effect("those that were busy beyond the cap go as they fall idle, and no more than have to", () =>
    Effect.gen(function*() {
      const Napper = Actor.make("Napper", { protocol: [Rpc.make("Nap", { payload: { millis: Schema.Int } })] })
      const live = Napper.toLayer(Effect.succeed(Napper.of({ Nap: ({ millis }) => Effect.sleep(millis) })), {
        passivation: { cap: 2 }
      })
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const names = ["a", "b", "c", "d", "e"]
          for (const [index, name] of names.entries()) {
            yield* (yield* system.spawn(Napper, name)).tell.Nap({ millis: 1000 * (index + 1) })
            yield* settle
          }
          const states = () => Effect.map(system.inspect, (all) => all.map(({ status }) => status[0]).join(""))
          assert.strictEqual(yield* states(), "BBBBB")
          for (const after of ["PBBBB", "PPBBB", "PPPBB", "PPPIB", "PPPII"]) {
            yield* TestClock.adjust("1 second")
            assert.strictEqual(yield* states(), after)
          }
        })
      )
    }))

  it.effect("passes over an actor with something going: children, a stash, a stream, a message beside the mailbox, a pipeTo", () =>
    Effect.gen(function*() {
      const Engaged = Actor.make("Engaged", {
        protocol: [
          Rpc.make("Child"),
          Rpc.make("Stash"),
          Rpc.make("Unstash"),
          Rpc.make("Fork"),
          Rpc.make("Pipe"),
          Rpc.make("Numbers", { success: Schema.Int, stream: true })
        ]
      })
      const live = Engaged.toLayer(
        Effect.gen(function*() {
          const context = yield* ActorContext.ActorContext
          let open = false
          return Engaged.of({
            Child: () => Effect.orDie(Effect.asVoid(context.spawnChild(Engaged, "child"))),
            Stash: () => open ? Effect.void : context.stash,
            Unstash: () =>
              Effect.suspend(() => {
                open = true
                return context.unstash
              }),
            Fork: () => context.fork(Effect.sleep("50 minutes")),
            Pipe: () => context.pipeTo(Effect.sleep("50 minutes"), () => Effect.void),
            Numbers: () => Stream.range(1, 3).pipe(Stream.rechunk(1))
          })
        }),
        { passivation: { idle: "10 seconds" } }
      )
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const spawned = (name: string) => system.spawn(Engaged, name)
          yield* (yield* spawned("child")).ask.Child()
          const stash = yield* spawned("stash")
          yield* stash.tell.Stash()
          yield* (yield* spawned("fork")).tell.Fork()
          yield* (yield* spawned("pipe")).tell.Pipe()
          yield* spawned("nothing")
          const streaming = yield* spawned("stream")
          const listening = yield* streaming.ask.Numbers().pipe(
            Stream.tap(() => Effect.sleep("30 seconds")),
            Stream.runCollect,
            Effect.forkChild({ startImmediately: true })
          )
          const passivated = Effect.map(system.inspect, (all) =>
            all.filter(({ status }) => status === "Passivated").map(({ name }) => name))
          yield* TestClock.adjust("80 seconds")
          assert.deepStrictEqual(yield* passivated, ["nothing"])
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* Fiber.join(listening), [1, 2, 3])
          assert.deepStrictEqual(yield* passivated, ["nothing", "stream"])
          yield* stash.tell.Unstash()
          yield* TestClock.adjust("1 hour")
          assert.sameMembers([...yield* passivated], ["nothing", "stream", "stash", "fork", "pipe"])
        })
      )
    }))

  it.effect("a message that races with passivation is never lost", () =>
    Effect.gen(function*() {
      const Closer = Actor.make("Closer", { protocol: [Rpc.make("Add", { success: Schema.Int })] })
      // Giving up takes a second: messages arrive in the midst of it.
      const live = Closer.toLayer(
        Effect.gen(function*() {
          const count = yield* Ref.make(0)
          yield* Effect.addFinalizer(() => Effect.sleep("1 second"))
          return Closer.of({ Add: () => Ref.updateAndGet(count, (n) => n + 1) })
        }),
        { passivation: { idle: "10 seconds" } }
      )
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Closer, "c")
          for (const at of [0, 9_999, 10_000, 10_001, 500, 10_999, 11_000, 11_001]) {
            const asked = yield* Effect.forkChild(Effect.delay(ref.ask.Add(), at), { startImmediately: true })
            yield* TestClock.adjust(at)
            yield* TestClock.adjust("1 second")
            assert.isNumber(yield* Fiber.join(asked))
          }
          const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(stopping)
        })
      )
    }))
})

describe("streaming replies", () => {
  class Jammed extends Schema.TaggedError<Jammed>()("Jammed", { at: Schema.Int }) {}
  const Feed = Actor.make("Feed", {
    protocol: [
      Rpc.make("Numbers", { payload: { count: Schema.Int }, success: Schema.Int, stream: true }),
      Rpc.make("Ticks", { success: Schema.Int, stream: true }),
      Rpc.make("Rare", { success: Schema.String, stream: true }),
      Rpc.make("Jam", { success: Schema.Int, error: Jammed, stream: true }),
      Rpc.make("Ping", { success: Schema.String })
    ]
  })
  const feed = (made: Array<number>, ended: Array<string>) =>
    Feed.toLayer(Effect.succeed(Feed.of({
      Numbers: ({ count }) =>
        Stream.range(1, count).pipe(
          Stream.rechunk(1),
          Stream.tap((n) => Effect.sync(() => made.push(n))),
          Stream.ensuring(Effect.sync(() => ended.push("numbers")))
        ),
      Ticks: () =>
        Stream.tick("30 seconds").pipe(
          Stream.map(() => 1),
          Stream.ensuring(Effect.sync(() => ended.push("ticks")))
        ),
      Rare: () =>
        Stream.fromIterable([3, 6, 9]).pipe(
          Stream.rechunk(1),
          Stream.mapEffect((minutes) => Effect.as(Effect.sleep("3 minutes"), `after ${minutes} minutes`))
        ),
      Jam: () => Stream.concat(Stream.make(1, 2), Stream.fail(new Jammed({ at: 3 }))),
      Ping: () => Effect.succeed("pong")
    })))

  it.effect("a stream arrives whole, with its typed error, and the actor handles others meanwhile", () =>
    on(feed([], []))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Feed, "f")
        assert.deepStrictEqual(yield* Stream.runCollect(ref.ask.Numbers({ count: 5 })), [1, 2, 3, 4, 5])
        const got: Array<number> = []
        const error = yield* Effect.flip(Stream.runForEach(ref.ask.Jam(), (n) => Effect.sync(() => got.push(n))))
        assert.strictEqual(error._tag, "Jammed")
        assert.deepStrictEqual(got, [1, 2])
        const ticks: Array<number> = []
        const fiber = yield* Effect.forkChild(
          Stream.runForEach(ref.ask.Ticks(), () => Effect.sync(() => ticks.push(1))),
          { startImmediately: true }
        )
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* ref.ask.Ping(), "pong")
        // Longer than any ask waits: silence of a stream is no timeout.
        yield* TestClock.adjust("2 minutes")
        assert.isAtLeast(ticks.length, 4)
        yield* Fiber.interrupt(fiber)
      })
    ))

  it.effect("a slow listener holds the stream back, and one that stops listening ends it", () => {
    const made: Array<number> = []
    const ended: Array<string> = []
    return on(feed(made, ended))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Feed, "f")
        const fiber = yield* Effect.forkChild(
          ref.ask.Numbers({ count: 1000 }).pipe(Stream.runForEach(() => Effect.sleep("1 second"))),
          { startImmediately: true }
        )
        yield* TestClock.adjust("10 seconds")
        assert.isAtMost(made.length, 14)
        assert.deepStrictEqual(ended, [])
        yield* Fiber.interrupt(fiber)
        yield* settle
        assert.deepStrictEqual(ended, ["numbers"])
        assert.deepStrictEqual(yield* ref.ask.Numbers({ count: 9 }).pipe(Stream.take(2), Stream.runCollect), [1, 2])
        yield* settle
        assert.deepStrictEqual(ended, ["numbers", "numbers"])
      })
    )
  })

  it.effect("a listener that takes longer than a minute is taken for gone, and told so when it asks for more", () => {
    const ended: Array<string> = []
    return on(feed([], ended))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Feed, "f")
        for (const [millis, outcome] of [[55_000, "done"], [65_000, "HandlerFailed"]] as const) {
          const fiber = yield* ref.ask.Numbers({ count: 3 }).pipe(
            Stream.runForEach(() => Effect.sleep(millis)),
            Effect.match({ onSuccess: () => "done", onFailure: (error) => error._tag }),
            Effect.forkChild({ startImmediately: true })
          )
          yield* TestClock.adjust("5 minutes")
          assert.strictEqual(yield* Fiber.join(fiber), outcome)
        }
        assert.deepStrictEqual(ended, ["numbers", "numbers"])
      })
    )
  })

  it.effect("a patient asker keeps a stream alive that is silent for long", () => {
    const ended: Array<string> = []
    return on(feed([], ended))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Feed, "f")
        for (const timeout of ["10 minutes", Duration.infinity] as const) {
          const got: Array<string> = []
          const listening = yield* ref.ask.Rare({ timeout }).pipe(
            Stream.runForEach((line) => Effect.sync(() => got.push(line))),
            Effect.forkChild({ startImmediately: true })
          )
          yield* TestClock.adjust("7 minutes")
          assert.deepStrictEqual(got, ["after 3 minutes", "after 6 minutes"])
          yield* Fiber.interrupt(listening)
        }
      })
    )
  })

  it.effect("what bounds messages beside the mailbox bounds no stream: not their number, nor the time they may take", () =>
    Effect.gen(function*() {
      const Mixed = Actor.make("Mixed", {
        protocol: [
          Rpc.make("Slowly", { success: Schema.Int, stream: true }),
          Rpc.make("Beside", { success: Schema.String }),
          Rpc.make("Ping", { success: Schema.String })
        ]
      })
      const live = Mixed.toLayer(
        Effect.succeed(Mixed.of({
          Slowly: () => Stream.range(1, 2).pipe(Stream.rechunk(1), Stream.tap(() => Effect.sleep("3 seconds"))),
          Beside: () => Effect.as(Effect.sleep("500 millis"), "beside"),
          Ping: () => Effect.succeed("pong")
        })),
        { reentrancy: { messages: ["Beside"], maxInFlight: 1, timeout: "1 second" } }
      )
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Mixed, "m")
          const begin = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })
          const all = yield* Effect.forEach([1, 2, 3], () =>
            begin(Stream.runCollect(ref.ask.Slowly({ timeout: "1 minute" }))))
          yield* TestClock.adjust("10 millis")
          const beside = yield* begin(ref.ask.Beside())
          const ping = yield* begin(ref.ask.Ping())
          yield* settle
          assert.isDefined(ping.pollUnsafe(), "neither a stream nor the message beside it holds the mailbox")
          yield* TestClock.adjust("10 seconds")
          assert.strictEqual(yield* Fiber.join(beside), "beside")
          for (const fiber of all) {
            assert.deepStrictEqual(yield* Fiber.join(fiber), [1, 2])
          }
        })
      )
    }))

  it.effect("what an actor becomes may stream, too, beside streams that go on; its payloads are checked and measured alike", () =>
    Effect.gen(function*() {
      const Changing = Actor.make("Changing", {
        protocol: [
          Rpc.make("Numbers", { payload: { count: Schema.Int }, success: Schema.String, stream: true }),
          Rpc.make("Change")
        ]
      })
      const numbers = (name: string) => ({ count }: { readonly count: number }) =>
        Stream.range(1, count).pipe(Stream.rechunk(1), Stream.map((n) => `${name} ${n}`))
      const live = Changing.toLayer(
        Effect.succeed(Changing.of({
          Numbers: numbers("first"),
          Change: () => Changing.become({ Numbers: numbers("second") })
        })),
        { validate: true, measure: true }
      )
      yield* on(live)((system) =>
        Effect.gen(function*() {
          const ref = yield* system.spawn(Changing, "c")
          const slow = yield* ref.ask.Numbers({ count: 3 }).pipe(
            Stream.tap(() => Effect.sleep("1 second")),
            Stream.runCollect,
            Effect.forkChild({ startImmediately: true })
          )
          yield* ref.ask.Change()
          assert.deepStrictEqual(yield* Stream.runCollect(ref.ask.Numbers({ count: 2 })), ["second 1", "second 2"])
          const wrong = yield* Effect.flip(Stream.runDrain(ref.ask.Numbers({ count: "2" as unknown as number })))
          assert.strictEqual(wrong._tag, "InvalidData")
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual(yield* Fiber.join(slow), ["first 1", "first 2", "first 3"])
        })
      )
    }))

  it.effect("a stream ends with its actor, typed", () => {
    const ended: Array<string> = []
    return on(feed([], ended))((system) =>
      Effect.gen(function*() {
        const ref = yield* system.spawn(Feed, "f")
        const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(ref.ask.Ticks())), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        yield* system.stop(ref)
        yield* TestClock.adjust("10 seconds")
        const error = yield* Fiber.join(fiber)
        assert.include(["ActorStopped", "HandlerFailed"], error._tag)
        assert.deepStrictEqual(ended, ["ticks"])
      })
    )
  })
})

describe("routers", () => {
  const Echo = Actor.make("Echo", {
    protocol: [
      Rpc.make("Who", { payload: { key: Schema.String }, success: Schema.String }),
      Rpc.make("Note", { payload: { key: Schema.String } }),
      Rpc.make("Slow", { payload: { millis: Schema.Array(Schema.Int) }, success: Schema.String })
    ]
  })
  const echo = (notes: Array<string> = []) =>
    Echo.toLayer(Effect.gen(function*() {
      const { name } = yield* ActorContext.ActorContext
      return Echo.of({
        Who: () => Effect.succeed(name),
        Note: () => Effect.sync(() => void notes.push(name)),
        Slow: ({ millis }) => Effect.as(Effect.sleep(millis[Number(name.split("-")[1]) - 1] ?? 0), name)
      })
    }))
  const pool = (system: ActorSystem.ActorSystem["Service"], size: number, strategy: Router.Strategy) =>
    system.spawnRouter(Echo, "e", { size, strategy })
  const who = (router: Router.Router<never>, key = "k") =>
    (router as unknown as { ask: { Who: (p: { key: string }) => Effect.Effect<string> } }).ask.Who({ key })

  it.effect("round-robin is exactly fair", () =>
    on(echo())((system) =>
      Effect.gen(function*() {
        const router = yield* pool(system, 3, "roundRobin")
        const names = yield* Effect.forEach(Array.from({ length: 7 }), () => who(router))
        assert.deepStrictEqual(names, ["e-1", "e-2", "e-3", "e-1", "e-2", "e-3", "e-1"])
      })
    ))

  it.effect("a pool grows and shrinks; a routee that has stopped is left out and its message goes to another", () =>
    on(echo())((system) =>
      Effect.gen(function*() {
        const router = yield* pool(system, 2, "roundRobin")
        yield* router.resize(4)
        assert.deepStrictEqual((yield* router.routees).map((ref) => ref.name), ["e-1", "e-2", "e-3", "e-4"])
        yield* router.resize(1)
        assert.isFalse(yield* system.actorExists(Echo, "e-4"))
        yield* router.resize(3)
        const first = (yield* router.routees)[0]!
        yield* system.stop(first)
        const names = yield* Effect.forEach(Array.from({ length: 4 }), () => who(router))
        assert.notInclude(names, "e-1")
        assert.strictEqual((yield* router.routees).length, 2)
        for (const ref of yield* router.routees) yield* system.stop(ref)
        assert.strictEqual((yield* Effect.flip(router.ask.Who({ key: "k" })))._tag, "ActorStopped")
      })
    ))

  it.effect("broadcast tells all; random and least-mailbox reach everybody in the end", () => {
    const notes: Array<string> = []
    return on(echo(notes))((system) =>
      Effect.gen(function*() {
        const all = yield* pool(system, 3, "broadcast")
        yield* all.tell.Note({ key: "k" })
        yield* settle
        assert.deepStrictEqual(notes, ["e-1", "e-2", "e-3"])
        const refs = (yield* all.routees) as unknown as Parameters<typeof Router.group>[1]
        for (const strategy of ["random", "leastMailbox"] as const) {
          const router = Router.group("g", refs, { strategy })
          const names = new Set<string>()
          for (let turn = 0; turn < 60; turn++) names.add(yield* who(router))
          assert.strictEqual(names.size, 3)
        }
      })
    )
  })

  it.effect("least-mailbox spares those that are busy", () =>
    on(echo())((system) =>
      Effect.gen(function*() {
        const router = yield* pool(system, 2, "leastMailbox")
        const [first] = yield* router.routees
        const busy = first as unknown as Parameters<typeof Router.group<Echo>>[1][0]
        for (let n = 0; n < 5; n++) yield* busy.tell.Slow({ millis: [60_000, 60_000] })
        yield* settle
        const names = yield* Effect.forEach(Array.from({ length: 20 }), () => who(router))
        assert.deepStrictEqual(new Set(names), new Set(["e-2"]))
      })
    ))
  type Echo = typeof Echo extends Actor.Kind<infer Rpcs, infer _> ? Rpcs : never

  it.effect("scatter-gather answers with the first; tail-chopping tries one more after each interval", () =>
    on(echo())((system) =>
      Effect.gen(function*() {
        const scatter = yield* pool(system, 3, "scatterGatherFirst")
        const refs = (yield* scatter.routees) as unknown as Parameters<typeof Router.group<Echo>>[1]
        const first = yield* Effect.forkChild(scatter.ask.Slow({ millis: [300, 100, 200] }), { startImmediately: true })
        yield* TestClock.adjust(100)
        assert.strictEqual(yield* Fiber.join(first), "e-2")
        yield* TestClock.adjust(1000)
        const chopping = Router.group("g", refs, { strategy: { tailChopping: { interval: 100 } } })
        const asked = yield* Effect.forkChild(chopping.ask.Slow({ millis: [1000, 500, 10] }), {
          startImmediately: true
        })
        yield* TestClock.adjust(209)
        assert.isUndefined(asked.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(asked), "e-3")
      })
    ))

  it.effect("consistent hash: a key stays with its routee, and few keys move when one comes", () =>
    on(echo())((system) =>
      Effect.gen(function*() {
        const router = yield* pool(system, 4, { consistentHash: ({ payload }) => (payload as { key: string }).key })
        const keys = Array.from({ length: 200 }, (_, n) => `key-${n}`)
        const before = yield* Effect.forEach(keys, (key) => who(router, key))
        assert.deepStrictEqual(yield* Effect.forEach(keys, (key) => who(router, key)), before)
        assert.strictEqual(new Set(before).size, 4)
        yield* router.resize(5)
        const after = yield* Effect.forEach(keys, (key) => who(router, key))
        const moved = after.filter((name, n) => name !== before[n])
        assert.isTrue(moved.every((name) => name === "e-5"))
        assert.isBelow(moved.length, 80)
      })
    ))

  it("a hash ring is fair within a factor and moves only keys of the member that left", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 8 }), fc.nat(1000), (size, seed) => {
        const members = Array.from({ length: size }, (_, n) => `m${seed}-${n}`)
        const keys = Array.from({ length: 1000 }, (_, n) => `k${n}`)
        const ring = hashRing(members, (m) => m, 150)
        const smaller = hashRing(members.slice(1), (m) => m, 150)
        const counts = new Map<string, number>()
        for (const key of keys) {
          const owner = ring(key)!
          counts.set(owner, (counts.get(owner) ?? 0) + 1)
          if (owner !== members[0]) assert.strictEqual(smaller(key), owner)
        }
        for (const member of members) {
          assert.isAbove(counts.get(member) ?? 0, 1000 / size / 3)
          assert.isBelow(counts.get(member) ?? 0, (1000 / size) * 3)
        }
      }),
      { numRuns: 20 }
    )
  })
})

describe("events and topics", () => {
  it.effect("a slow subscriber loses the oldest, learns how many, and slows nobody", () => {
    const log: Array<string> = []
    return on(counter(log))((system) =>
      Effect.gen(function*() {
        const { publish, stream } = yield* SystemEvents.SystemEvents
        const gate = yield* Queue.unbounded<void>()
        const seen: Array<SystemEvents.SystemEvent> = []
        yield* Effect.forkChild(
          Stream.runForEach(stream, (event) => Effect.andThen(Effect.sync(() => seen.push(event)), Queue.take(gate))),
          { startImmediately: true }
        )
        yield* system.spawn(Counter, "first")
        yield* settle
        for (let n = 0; n < SystemEvents.subscriberBuffer + 10; n++) publish({ _tag: "WorkHeld", held: false })
        for (let n = 0; n < 5; n++) yield* Queue.offer(gate, undefined)
        yield* settle
        assert.strictEqual(seen[0]?._tag, "ActorStarted")
        assert.deepStrictEqual(seen[1], { _tag: "EventsLost", count: 10 })
        assert.strictEqual(seen[2]?._tag, "WorkHeld")
      })
    )
  })

  it.effect("a topic reaches streams and actors that subscribe, from then on", () => {
    const log: Array<string> = []
    return on(counter(log))((system) =>
      Effect.gen(function*() {
        const orders = Topic.make<number>("orders")
        const ref = yield* system.spawn(Counter, "c")
        yield* orders.publish(0)
        const got: Array<number> = []
        yield* Effect.forkChild(Stream.runForEach(orders.stream, (n) => Effect.sync(() => got.push(n))), {
          startImmediately: true
        })
        yield* Effect.scoped(Effect.gen(function*() {
          yield* orders.tellTo(() => ref.tell.Add())
          yield* orders.publish(1)
          yield* orders.publish(2)
          yield* settle
        }))
        yield* orders.publish(3)
        yield* settle
        assert.deepStrictEqual(got, [1, 2, 3])
        assert.strictEqual(yield* ref.ask.Add(), 3)
        assert.deepStrictEqual(yield* Topic.Topics.use((topics) => topics.stats), [{ topic: "orders", lost: 0 }])
      })
    )
  })
})

describe("slow subscribers of a topic", () => {
  it.effect("lose the oldest, are counted, and hold up neither the publisher nor the others", () =>
    on(counter([]))(() =>
      Effect.gen(function*() {
        const topic = Topic.make<number>("busy")
        const gate = yield* Queue.unbounded<void>()
        const [slow, quick]: [Array<number>, Array<number>] = [[], []]
        yield* Effect.forkChild(
          Stream.runForEach(topic.stream, (n) => Effect.andThen(Effect.sync(() => slow.push(n)), Queue.take(gate))),
          { startImmediately: true }
        )
        yield* Effect.forkChild(Stream.runForEach(topic.stream, (n) => Effect.sync(() => quick.push(n))), {
          startImmediately: true
        })
        const published = 2 * Topic.subscriberBuffer + 10
        for (let n = 0; n < published; n++) {
          yield* topic.publish(n)
          if (n % 100 === 0) yield* settle
        }
        yield* settle
        assert.deepStrictEqual(quick, Array.from({ length: published }, (_, n) => n))
        assert.deepStrictEqual(slow, [0])
        // It had 0 in hand; of the rest it finds the last ones.
        const lost = published - 1 - Topic.subscriberBuffer
        assert.deepStrictEqual(yield* Topic.Topics.use((topics) => topics.stats), [{ topic: "busy", lost }])
        yield* Queue.offer(gate, undefined)
        yield* settle
        assert.deepStrictEqual(slow, [0, lost + 1])
      })
    ))
})

describe("jobs", () => {
  it.effect("once, at an interval, by cron; listed, paused, resumed, cancelled", () => {
    const log: Array<string> = []
    return on(counter([]))(() =>
      Effect.gen(function*() {
        const jobs = yield* Jobs.Jobs
        const note = (what: string) => Effect.sync(() => void log.push(what))
        yield* jobs.once("once", "90 seconds", note("once"))
        yield* jobs.every("every", "1 minute", note("every"))
        yield* jobs.cron("cron", "*/5 * * * *", note("cron"))
        const refused = (expression: string, timeZone?: string) =>
          Effect.map(Effect.flip(jobs.cron("cron", expression, note("bad"), { timeZone })), (error) => error.message)
        assert.include(yield* refused("every day"), "cron of job cron")
        assert.include(yield* refused("* * * * *", "Mars/Base"), "time zone")
        assert.include(yield* refused("0 0 31 2 *"), "never comes")
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(log.splice(0), ["every", "once", "every"])
        assert.deepStrictEqual((yield* jobs.list).map((job) => [job.id, job.kind, job.firesIn, job.fired]), [
          ["every", "interval", 60_000, 2],
          ["cron", "cron", 180_000, 0]
        ])
        yield* TestClock.adjust("30 seconds")
        assert.isTrue(yield* jobs.pause("every"))
        yield* TestClock.adjust("150 seconds")
        assert.deepStrictEqual(log.splice(0), ["cron"])
        assert.strictEqual((yield* jobs.list)[0]!.firesIn, 30_000)
        assert.isTrue((yield* jobs.list)[0]!.paused)
        assert.isTrue(yield* jobs.resume("every"))
        yield* TestClock.adjust("30 seconds")
        assert.deepStrictEqual(log.splice(0), ["every"])
        assert.isTrue(yield* jobs.cancel("every"))
        assert.isFalse(yield* jobs.cancel("every"))
        assert.isFalse(yield* jobs.pause("nobody"))
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(log, ["cron", "cron"])
      })
    )
  })

  it.effect("cron fires once at each of its times, though sleeps end late, or a moment early", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      const off = [12, 3, -1, 0, 7, 2, 11, -2]
      let sleeps = 0
      const inexact: Clock.Clock = Object.assign(Object.create(clock), {
        sleep: (duration: Duration.Duration) =>
          clock.sleep(Duration.millis(Duration.toMillis(duration) + off[sleeps++ % off.length]!))
      })
      const fired: Array<number> = []
      yield* Effect.gen(function*() {
        const jobs = yield* Jobs.Jobs
        const note = Effect.sync(() => void fired.push(clock.currentTimeMillisUnsafe()))
        yield* jobs.cron("cron", "* * * * *", note)
        yield* TestClock.adjust("630 seconds")
      }).pipe(Effect.provide(Jobs.layer), Effect.provideService(Clock.Clock, inexact))
      assert.deepStrictEqual(fired.map((at) => Math.round(at / 60_000)), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      assert.deepStrictEqual(fired.slice(0, 4), [60_012, 120_003, 179_999, 240_000])
    }))

  it.effect("a job may cancel, pause or replace itself, and others go on", () =>
    on(counter([]))(() =>
      Effect.gen(function*() {
        const jobs = yield* Jobs.Jobs
        const log: Array<string> = []
        const note = (what: string) => Effect.sync(() => void log.push(what))
        yield* jobs.every("cancels", "1 second", Effect.andThen(note("cancels"), jobs.cancel("cancels")))
        yield* jobs.every("pauses", "1 second", Effect.andThen(note("pauses"), jobs.pause("pauses")))
        yield* jobs.every(
          "replaces",
          "1 second",
          Effect.andThen(note("replaces"), jobs.once("replaces", "5 seconds", note("replaced")))
        )
        yield* jobs.every("other", "4 seconds", note("other"))
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(log, ["cancels", "pauses", "replaces", "other", "replaced", "other"])
        assert.deepStrictEqual((yield* jobs.list).map((job) => [job.id, job.paused]), [["pauses", true], [
          "other",
          false
        ]])
      })
    ))

  it.effect("a job that fails is logged and goes on", () =>
    on(counter([]))(() =>
      Effect.gen(function*() {
        const jobs = yield* Jobs.Jobs
        let runs = 0
        yield* jobs.every("flaky", "1 second", Effect.suspend(() => Effect.fail(`run ${++runs}`)))
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual(runs, 3)
      })
    ))
})

describe("observability", () => {
  it.effect("metrics count messages, failures, restarts, dead letters, actors, depth and handling time by kind", () => {
    const Metered = Actor.make("Metered", {
      protocol: [
        Rpc.make("Work", { payload: { millis: Schema.Int } }),
        Rpc.make("Crash"),
        Rpc.make("Stuck")
      ]
    })
    const live = Metered.toLayer(
      Effect.succeed(Metered.of({
        Work: ({ millis }) => Effect.sleep(millis),
        Crash: () => Effect.die("crash"),
        Stuck: () => Effect.never
      })),
      { measure: true }
    )
    return on(live)((system) =>
      Effect.gen(function*() {
        const of = <S>(metric: Metric.Metric<number, S>) =>
          Metric.value(Metric.withAttributes(metric, { kind: "Metered" }))
        const ref = yield* system.spawn(Metered, "m")
        for (const millis of [1, 10, 100]) yield* ref.tell.Work({ millis })
        yield* ref.tell.Crash()
        yield* TestClock.adjust("1 second")
        yield* ref.tell.Stuck()
        yield* ref.tell.Work({ millis: 1 })
        yield* settle
        assert.strictEqual((yield* of(ActorMetrics.messages)).count, 5)
        assert.strictEqual((yield* of(ActorMetrics.failures)).count, 1)
        assert.strictEqual((yield* of(ActorMetrics.restarts)).count, 1)
        assert.strictEqual((yield* of(ActorMetrics.actors)).value, 1)
        assert.strictEqual((yield* of(ActorMetrics.waiting)).value, 1)
        const times = yield* of(ActorMetrics.handlingTime)
        assert.deepStrictEqual([times.count, times.min, times.max, times.sum], [4, 0, 100, 111])
        const stopping = yield* Effect.forkChild(system.stop(ref), { startImmediately: true })
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(stopping)
        yield* settle
        assert.strictEqual((yield* of(ActorMetrics.deadLetters)).count, 1)
        assert.strictEqual((yield* of(ActorMetrics.actors)).value, 0)
      })
    )
  })

  it.effect("a kind that asks for spans continues its sender's trace; others make none", () => {
    const spans: Array<Tracer.Span> = []
    const tracer = Tracer.make({
      span: (options) => {
        const span = new Tracer.NativeSpan(options)
        spans.push(span)
        return span
      }
    })
    const Traced = Actor.make("Traced", { protocol: [Rpc.make("Go", { success: Schema.Int })] })
    const Silent = Actor.make("Silent", { protocol: [Rpc.make("Go", { success: Schema.Int })] })
    const kinds = Layer.mergeAll(
      Traced.toLayer(Effect.succeed(Traced.of({ Go: () => Effect.succeed(1) })), { trace: true }),
      Silent.toLayer(Effect.succeed(Silent.of({ Go: () => Effect.succeed(1) })))
    )
    return on(kinds)((system) =>
      Effect.gen(function*() {
        const traced = yield* system.spawn(Traced, "t")
        const silent = yield* system.spawn(Silent, "s")
        yield* Effect.withSpan(Effect.all([traced.ask.Go(), silent.ask.Go(), traced.tell.Go()]), "caller")
        yield* settle
        const names = spans.map((span) => span.name)
        assert.deepStrictEqual(names, ["caller", "Traced.Go", "Traced.Go"])
        assert.deepStrictEqual(new Set(spans.map((span) => span.traceId)).size, 1)
        assert.deepStrictEqual(spans[1]!.attributes.get("actor"), "t")
      })
    ).pipe(Effect.provideContext(Context.make(Tracer.Tracer, tracer)))
  })
})

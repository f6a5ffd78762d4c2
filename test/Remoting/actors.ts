// What actors do with each other across nodes, as cases that know nothing of the transport. Where something is said to hold "as on
// the same node", the case runs on the same node too.
import { assert } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Schema, Scope, Stream } from "effect"
import { Rpc } from "effect/rpc"
import * as Actor from "../../src/Actor/Actor.ts"
import { ActorContext } from "../../src/Actor/ActorContext.ts"
import * as ActorHost from "../../src/Actor/ActorHost.ts"
import type { ActorRef } from "../../src/Actor/ActorRef.ts"
import * as ActorSystem from "../../src/Actor/ActorSystem.ts"
import * as Delivery from "../../src/Actor/Delivery.ts"
import { ActorNotFound } from "../../src/Actor/errors.ts"
import type { Node } from "../../src/Actor/Node.ts"
import * as Placement from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Topology from "../../src/Actor/Topology.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import type { Transport } from "../../src/Remoting/Transport.ts"

class Odd extends Schema.TaggedError<Odd>()("Odd", { n: Schema.Int }) {}

export const Player = Actor.make("Player", {
  protocol: [
    Rpc.make("Echo", { payload: { text: Schema.String }, success: Schema.String }),
    Rpc.make("Length", { payload: { bytes: Schema.Uint8Array }, success: Schema.Uint8Array }),
    Rpc.make("Long", { payload: { length: Schema.Int }, success: Schema.String }),
    Rpc.make("Wrong", { payload: { n: Schema.String }, success: Schema.Struct({ n: Schema.Int }) }),
    Rpc.make("Hang", { payload: { id: Schema.String }, success: Schema.String }),
    Rpc.make("HangAside", { payload: { id: Schema.String }, success: Schema.String }),
    Rpc.make("Half", { payload: { n: Schema.Int }, success: Schema.Int, error: Odd }),
    Rpc.make("Pass", { payload: { to: Schema.String, n: Schema.Int }, success: Schema.Int, error: Odd }),
    Rpc.make("PassHang", { payload: { to: Schema.String, id: Schema.String }, success: Schema.String }),
    Rpc.make("Relay", { payload: { to: Schema.String, text: Schema.String } }),
    Rpc.make("Count", { payload: { until: Schema.Int }, success: Schema.Int, error: Odd, stream: true }),
    Rpc.make("Silence", { success: Schema.Int, stream: true }),
    Rpc.make("Watch", { payload: { name: Schema.String } }),
    Rpc.make("WatchNarrow", { payload: { name: Schema.String } }),
    Rpc.make("Crash"),
    Rpc.make("Trace", { success: Schema.String })
  ]
})

/** Has little room, and never takes anything in once it is blocked. */
export const Narrow = Actor.make("Narrow", {
  protocol: [Rpc.make("Block"), Rpc.make("Fill", { payload: { text: Schema.String } })]
})

const layerNarrow = Narrow.toLayer(
  Effect.sync(() => Narrow.of({ Block: () => Effect.never, Fill: () => Effect.void })),
  { mailbox: { capacity: 4, overflow: "backpressure" } }
)

type System = ActorSystem.ActorSystem["Service"]
type PlayerRef = typeof Player extends Actor.Kind<infer Messages, infer _> ? ActorRef<Messages> : never

/** Writes down what happens to all players of all nodes. */
const layerPlayers = (log: Array<string>) =>
  Player.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext
      const system = yield* ActorSystem.ActorSystem
      const write = (text: string) => Effect.sync(() => void log.push(`${context.self.name}: ${text}`))
      const hang = (id: string) =>
        Effect.andThen(write(`has ${id}`), Effect.never).pipe(Effect.onInterrupt(() => write(`lost ${id}`)))
      const named = (name: string) => Effect.orDie(system.actorOf(Player, name))
      return Player.of({
        Echo: ({ text }) => Effect.as(write(text), text),
        Length: ({ bytes }) => Effect.succeed(bytes.subarray(0, bytes.length / 2)),
        Long: ({ length }) => Effect.as(write(`long ${length}`), "x".repeat(length)),
        // no number, whatever its type says
        Wrong: ({ n }) => Effect.as(write("wrong"), { n } as never),
        Hang: ({ id }) => hang(id),
        HangAside: ({ id }) => context.fork(hang(id)),
        Half: ({ n }) => n % 2 === 0 ? Effect.succeed(n / 2) : Effect.fail(new Odd({ n })),
        Pass: ({ n, to }) => Effect.flatMap(named(to), (next) => context.forward(next.ask.Half({ n }))),
        PassHang: ({ id, to }) => Effect.flatMap(named(to), (next) => context.forward(next.ask.Hang({ id }))),
        Relay: ({ text, to }) =>
          Effect.flatMap(named(to), (next) =>
            context.pipeTo(next.ask.Echo({ text }), (exit) =>
              write(Exit.isSuccess(exit) ? `heard ${exit.value}` : "heard nothing"))),
        Count: ({ until }) =>
          Stream.range(1, 1_000_000).pipe(
            Stream.rechunk(1),
            Stream.mapEffect((n) =>
              n > until ? Effect.fail(new Odd({ n })) : Effect.as(write(`made ${n}`), n)
            ),
            Stream.ensuring(write("closed"))
          ),
        Silence: () => Stream.never.pipe(Stream.ensuring(write("closed"))),
        Watch: ({ name }) =>
          Effect.flatMap(named(name), (target) => context.watch(target, () => write(`${name} ended`))),
        WatchNarrow: ({ name }) =>
          Effect.flatMap(
            Effect.orDie(system.actorOf(Narrow, name)),
            (target) => context.watch(target, () => write(`${name} ended`))
          ),
        Crash: () => Effect.die(new Error("boom")),
        Trace: () => Effect.map(Effect.orDie(Effect.withSpan(Effect.currentSpan, "inner")), (span) => span.traceId)
      })
    }),
    { trace: true }
  )

/** Finds actors on all nodes that are up, as a directory would. */
export type Directory = Set<ActorHost.ActorHost["Service"]>

const layerPlacement = (directory: Directory) =>
  Layer.effect(
    Placement.Placement,
    Effect.gen(function*() {
      const local = yield* Placement.Placement
      const host = yield* ActorHost.ActorHost
      yield* Effect.acquireRelease(
        Effect.sync(() => directory.add(host)),
        () => Effect.sync(() => directory.delete(host))
      )
      return Placement.Placement.of({
        ...local,
        lookup: (kind, name) =>
          Effect.suspend(() => {
            for (const one of directory) {
              const found = one.find(name)
              if (found?.spec.kind === kind) return Effect.succeed(found.address)
            }
            return Effect.fail(new ActorNotFound({ kind, name }))
          })
      })
    })
  ).pipe(Layer.provide(Placement.layerLocal))

/** One node, on a transport that is given. */
export const layerNode = (
  id: string,
  { directory, log, options }: {
    readonly directory: Directory
    readonly log: Array<string>
    readonly options?: RemotingOptions
  }
): Layer.Layer<ActorSystem.ActorSystem | Node, never, Transport> =>
  Layer.merge(layerPlayers(log), layerNarrow).pipe(
    Layer.provideMerge(ActorSystem.layer),
    Layer.provideMerge(Layer.merge(layerPlacement(directory), Topology.layerLocal)),
    Layer.provideMerge(Remoting.layer(options ?? {})),
    Layer.provideMerge(Delivery.layerLocal),
    Layer.provideMerge(ActorHost.layer),
    Layer.provideMerge(Layer.merge(
      Remoting.layerNode({ system: "test", dataCenter: "dc", id }),
      SystemEvents.layer
    )),
    Layer.orDie
  )

export interface Nodes {
  readonly a: System
  readonly b: System
  readonly c: System
  readonly log: Array<string>
  /** ends a node as if it had died */
  readonly crash: (id: "a" | "b" | "c") => Effect.Effect<void>
  readonly pass: (duration: number) => Effect.Effect<void>
}

/** Three nodes on transports from `transport`. */
export const startNodes = Effect.fnUntraced(function*<R>(
  build: (id: string, layer: ReturnType<typeof layerNode>) => Layer.Layer<ActorSystem.ActorSystem | Node, never, R>,
  crash: (id: string) => Effect.Effect<void>,
  pass: (duration: number) => Effect.Effect<void>
) {
  const directory: Directory = new Set()
  const log: Array<string> = []
  const scopes = new Map<string, Scope.Closeable>()
  const start = Effect.fnUntraced(function*(id: string) {
    const scope = yield* Scope.fork(yield* Effect.scope)
    scopes.set(id, scope)
    const context = yield* Layer.buildWithScope(build(id, layerNode(id, { directory, log })), scope)
    return Context.get(context, ActorSystem.ActorSystem)
  })
  const nodes: Nodes = {
    a: yield* start("a"),
    b: yield* start("b"),
    c: yield* start("c"),
    log,
    crash: (id) => Effect.andThen(crash(id), Scope.close(scopes.get(id)!, Exit.void)),
    pass
  }
  return nodes
})

export interface ActorCase {
  readonly name: string
  readonly run: (nodes: Nodes) => Effect.Effect<void, unknown, Scope.Scope>
}

const until = (nodes: Nodes, holds: () => boolean, what: string): Effect.Effect<void> => {
  const attempt = (left: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (holds()) return Effect.void
      if (left === 0) return Effect.die(new Error(`never happened: ${what}\n${nodes.log.join("\n")}`))
      return Effect.andThen(nodes.pass(20), attempt(left - 1))
    })
  return attempt(500)
}

const logged = (nodes: Nodes, ...lines: ReadonlyArray<string>) =>
  until(nodes, () => lines.every((line) => nodes.log.includes(line)), lines.join(", "))

const begin = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

/** Runs it, and lets time pass until it is done. */
const settle = <A, E>(nodes: Nodes, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.gen(function*() {
    const fiber = yield* begin(Effect.exit(effect))
    yield* until(nodes, () => fiber.pollUnsafe() !== undefined, "is done")
    return yield* yield* Fiber.join(fiber)
  })

/** A player on `b`, as `a` knows it, and one on `a` itself: what holds for one must hold for the other. */
const bothWays = (
  nodes: Nodes,
  run: (player: PlayerRef, name: string) => Effect.Effect<void, unknown, Scope.Scope>
) =>
  Effect.gen(function*() {
    for (const [name, home] of [["here", nodes.a], ["there", nodes.b]] as const) {
      yield* home.spawn(Player, name)
      nodes.log.length = 0
      yield* run(yield* nodes.a.actorOf(Player, name), name)
    }
  })

export const cases: ReadonlyArray<ActorCase> = [
  {
    name: "an interrupted asker interrupts its handler, which is no failure of the actor",
    run: (nodes) =>
      bothWays(nodes, (player, name) =>
        Effect.gen(function*() {
          for (const ask of [player.ask.Hang({ id: "1" }), player.ask.HangAside({ id: "2" })]) {
            const asking = yield* begin(ask)
            yield* until(nodes, () => nodes.log.length % 2 === 1, "the handler runs")
            yield* Fiber.interrupt(asking)
            yield* until(nodes, () => nodes.log.length % 2 === 0, "the handler is interrupted")
          }
          assert.strictEqual(yield* settle(nodes, player.ask.Echo({ text: "still here" })), "still here")
          assert.deepStrictEqual(
            nodes.log,
            ["has 1", "lost 1", "has 2", "lost 2", "still here"].map((line) => `${name}: ${line}`)
          )
        }))
  },
  {
    name: "a question whose asker is interrupted while it waits is passed over, and those around it are not",
    run: (nodes) =>
      bothWays(nodes, (player, name) =>
        Effect.gen(function*() {
          const first = yield* begin(player.ask.Hang({ id: "first" }))
          yield* logged(nodes, `${name}: has first`)
          const second = yield* begin(player.ask.Hang({ id: "second" }))
          const third = yield* begin(player.ask.Echo({ text: "third" }))
          yield* nodes.pass(20)
          yield* Fiber.interrupt(second)
          yield* nodes.pass(20)
          yield* Fiber.interrupt(first)
          yield* until(nodes, () => third.pollUnsafe() !== undefined, "the third is answered")
          assert.deepStrictEqual(
            nodes.log,
            ["has first", "lost first", "third"].map((line) => `${name}: ${line}`)
          )
        }))
  },
  {
    name: "a handler whose asker's time is up goes on",
    run: (nodes) =>
      bothWays(nodes, (player, name) =>
        Effect.gen(function*() {
          const error = yield* settle(nodes, Effect.flip(player.ask.HangAside({ id: "late" }, { timeout: 300 })))
          assert.strictEqual(error._tag, "AskTimeout")
          yield* nodes.pass(1000)
          assert.deepStrictEqual(nodes.log, [`${name}: has late`])
        }))
  },
  {
    name: "an asker whose node is lost takes its questions back",
    run: (nodes) =>
      Effect.gen(function*() {
        yield* nodes.b.spawn(Player, "there")
        const player = yield* nodes.a.actorOf(Player, "there")
        yield* begin(Effect.exit(player.ask.Hang({ id: "1" })))
        yield* logged(nodes, "there: has 1")
        yield* nodes.crash("a")
        yield* logged(nodes, "there: lost 1")
      })
  },
  {
    name:
      "a forwarded question is answered to its asker by a third node, in success, in error and when it is taken back",
    run: (nodes) =>
      Effect.gen(function*() {
        yield* nodes.b.spawn(Player, "between")
        yield* nodes.c.spawn(Player, "last")
        const between = yield* nodes.a.actorOf(Player, "between")
        assert.strictEqual(yield* settle(nodes, between.ask.Pass({ to: "last", n: 8 })), 4)
        const odd = yield* settle(nodes, Effect.flip(between.ask.Pass({ to: "last", n: 7 })))
        assert.isTrue(odd._tag === "Odd" && odd.n === 7)
        const asking = yield* begin(between.ask.PassHang({ to: "last", id: "far" }))
        yield* logged(nodes, "last: has far")
        // it does not hold the one between up
        assert.strictEqual(yield* settle(nodes, between.ask.Echo({ text: "free" })), "free")
        yield* Fiber.interrupt(asking)
        yield* logged(nodes, "last: lost far")
        yield* nodes.crash("c")
        const lost = yield* settle(nodes, Effect.flip(between.ask.Pass({ to: "last", n: 8 }, { timeout: 2000 })))
        assert.include(["ActorStopped", "NodeUnreachable", "AskTimeout", "HandlerFailed"], lost._tag)
      })
  },
  {
    name: "the answer of another node comes back as a message",
    run: (nodes) =>
      Effect.gen(function*() {
        yield* nodes.b.spawn(Player, "between")
        yield* nodes.c.spawn(Player, "last")
        const between = yield* nodes.a.actorOf(Player, "between")
        yield* settle(nodes, between.tell.Relay({ to: "last", text: "hello" }))
        yield* logged(nodes, "last: hello", "between: heard hello")
      })
  },
  {
    name: "a stream is made as fast as it is taken, and ends with its error",
    run: (nodes) =>
      bothWays(nodes, (player, name) =>
        Effect.gen(function*() {
          const made = () => nodes.log.filter((line) => line.startsWith(`${name}: made`)).length
          let taken = 0
          let go = false
          const taking = yield* begin(
            player.ask.Count({ until: 20 }).pipe(
              Stream.runForEach(() =>
                Effect.suspend(() => {
                  taken++
                  return go ? Effect.void : Effect.never
                })
              ),
              Effect.exit
            )
          )
          yield* until(nodes, () => taken === 1, "the first is taken")
          for (let i = 0; i < 10; i++) yield* nodes.pass(20)
          // the one that is being handled, and at most one chunk on its way
          assert.isAtMost(made(), 2)
          yield* Fiber.interrupt(taking)
          yield* logged(nodes, `${name}: closed`)
          nodes.log.length = 0
          go = true
          const items = yield* settle(nodes, Stream.runCollect(Stream.take(player.ask.Count({ until: 20 }), 5)))
          assert.deepStrictEqual([...items], [1, 2, 3, 4, 5])
          yield* logged(nodes, `${name}: closed`)
          assert.isAtMost(made(), 6)
          const error = yield* settle(nodes, Effect.flip(Stream.runDrain(player.ask.Count({ until: 3 }))))
          assert.isTrue(error._tag === "Odd" && error.n === 4)
        }))
  },
  {
    name: "a stream whose taker is interrupted is closed, though nothing is coming",
    run: (nodes) =>
      bothWays(nodes, (player, name) =>
        Effect.gen(function*() {
          const taking = yield* begin(Stream.runDrain(player.ask.Silence()))
          for (let i = 0; i < 5; i++) yield* nodes.pass(20)
          assert.deepStrictEqual(nodes.log, [])
          yield* Fiber.interrupt(taking)
          yield* logged(nodes, `${name}: closed`)
        }))
  },
  {
    name: "a watched actor of another node is told of when it stops, when it crashes and when its node is lost",
    run: (nodes) =>
      Effect.gen(function*() {
        const watcher = yield* nodes.a.spawn(Player, "watcher")
        for (const name of ["stops", "crashes", "lost"]) {
          yield* nodes.b.spawn(Player, name)
          yield* watcher.tell.Watch({ name })
        }
        yield* nodes.pass(100)
        yield* settle(nodes, nodes.b.stop(yield* nodes.b.actorOf(Player, "stops")))
        yield* logged(nodes, "watcher: stops ended")
        const crashing = yield* nodes.a.actorOf(Player, "crashes")
        // a default actor is restarted, and its watch follows; this one is told until it has failed for good
        yield* Effect.forEach(Array.from({ length: 20 }), () => Effect.ignore(crashing.tell.Crash()), { discard: true })
        yield* logged(nodes, "watcher: crashes ended")
        assert.isFalse(nodes.log.includes("watcher: lost ended"))
        yield* nodes.crash("b")
        yield* logged(nodes, "watcher: lost ended")
        assert.strictEqual(nodes.log.filter((line) => line.endsWith("ended")).length, 3)
      })
  },
  {
    name: "an actor that takes nothing any more can be looked at, watched and ended, though the way to it is full",
    run: (nodes) =>
      Effect.gen(function*() {
        yield* nodes.b.spawn(Narrow, "narrow")
        const watcher = yield* nodes.a.spawn(Player, "watcher")
        const narrow = yield* nodes.a.actorOf(Narrow, "narrow")
        yield* settle(nodes, narrow.tell.Block())
        const text = "x".repeat(60_000)
        const fill = Effect.forever(narrow.tell.Fill({ text }))
        const full = yield* settle(nodes, Effect.flip(fill))
        assert.isTrue(full._tag === "NodeUnreachable" && full.outcome === "NotSent")
        const seen = yield* settle(nodes, nodes.a.inspectActor(narrow))
        assert.deepStrictEqual([seen.name, seen.waiting], ["narrow", 4])
        yield* watcher.tell.WatchNarrow({ name: "narrow" })
        yield* nodes.pass(100)
        assert.deepStrictEqual(nodes.log, [])
        yield* settle(nodes, nodes.a.stop(narrow, { now: true }))
        yield* logged(nodes, "watcher: narrow ended")
      })
  },
  {
    name: "spans of a handler belong to the asker's trace",
    run: (nodes) =>
      bothWays(nodes, (player) =>
        Effect.gen(function*() {
          const [ours, theirs] = yield* settle(
            nodes,
            Effect.all([
              Effect.map(Effect.orDie(Effect.currentSpan), (span) => span.traceId),
              player.ask.Trace()
            ]).pipe(Effect.withSpan("asking"))
          )
          assert.strictEqual(theirs, ours)
        }))
  },
  {
    name: "a reply that does not fit says that it is the reply, and a message that does not fit never does",
    run: (nodes) =>
      Effect.gen(function*() {
        yield* nodes.b.spawn(Player, "there")
        const player = yield* nodes.a.actorOf(Player, "there")
        const long = yield* settle(nodes, Effect.flip(player.ask.Long({ length: 2_000_000 })))
        assert.isTrue(long._tag === "FrameTooLarge" && long.reply === true && long.message.includes("reply"))
        const wrong = yield* settle(nodes, Effect.flip(player.ask.Wrong({ n: "one" })))
        assert.isTrue(wrong._tag === "InvalidData" && wrong.reply === true)
        assert.deepStrictEqual(nodes.log, ["there: long 2000000", "there: wrong"], "both were handled")
        const question = yield* settle(nodes, Effect.flip(player.ask.Echo({ text: "x".repeat(2_000_000) })))
        assert.isTrue(question._tag === "FrameTooLarge" && !("reply" in question))
        const bad = yield* settle(nodes, Effect.flip(player.ask.Long({ length: "one" } as never)))
        assert.isTrue(bad._tag === "InvalidData" && !("reply" in bad))
        assert.strictEqual(nodes.log.length, 2, "neither was handled")
      })
  },
  {
    name: "large bytes that are given away before they have left fail their message typed, and no other",
    run: (nodes) =>
      Effect.gen(function*() {
        yield* nodes.b.spawn(Player, "there")
        const player = yield* nodes.a.actorOf(Player, "there")
        assert.strictEqual(yield* settle(nodes, player.ask.Echo({ text: "first" })), "first")
        const bytes = new Uint8Array(900_000)
        const asking = yield* begin(Effect.flip(player.ask.Length({ bytes })))
        const next = yield* begin(player.ask.Echo({ text: "next" }))
        structuredClone(bytes, { transfer: [bytes.buffer] })
        const error = yield* settle(nodes, Fiber.join(asking))
        assert.strictEqual(error._tag, "InvalidData")
        assert.strictEqual(yield* settle(nodes, Fiber.join(next)), "next")
      })
  },
  {
    name: "a large byte array goes there and back as it was, and what is behind it to the same actor does not pass it",
    run: (nodes) =>
      bothWays(nodes, (player, name) =>
        Effect.gen(function*() {
          const bytes = Uint8Array.from({ length: 900_000 }, (_, i) => i % 251)
          const asking = yield* begin(player.ask.Length({ bytes }))
          yield* player.tell.Echo({ text: "behind" })
          const half = yield* settle(nodes, Fiber.join(asking))
          assert.isTrue(half.length === 450_000 && half.every((byte, i) => byte === i % 251))
          yield* logged(nodes, `${name}: behind`)
        }))
  }
]

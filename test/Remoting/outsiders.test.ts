// What an outsider may ask of actors besides their own messages: to stop, in any of its ways. All else is refused by name, on every lane.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Queue, Random, Redacted, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/Actor/Actor.ts"
import { ActorContext } from "../../src/Actor/ActorContext.ts"
import * as ActorHost from "../../src/Actor/ActorHost.ts"
import * as ActorSystem from "../../src/Actor/ActorSystem.ts"
import * as Delivery from "../../src/Actor/Delivery.ts"
import { NotAllowed } from "../../src/Actor/errors.ts"
import { systemDefinitions } from "../../src/Actor/internal/systemMessages.ts"
import type { KindDefinition, MessageDefinition } from "../../src/Actor/Kind.ts"
import * as Placement from "../../src/Actor/Placement.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Topology from "../../src/Actor/Topology.ts"
import * as Client from "../../src/Remoting/Client.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"

const Till = Actor.make("Till", {
  protocol: [
    Rpc.make("Ping", { success: Schema.String }),
    Rpc.make("Work", { payload: { millis: Schema.Int }, success: Schema.Int }),
    Rpc.make("Hang"),
    Rpc.make("Grow"),
    Rpc.make("Count", { payload: { to: Schema.Int }, success: Schema.Int, stream: true })
  ]
})

const secret = Redacted.make("s")

const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < 2000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("10 millis")
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* yield* Fiber.join(fiber)
  })

/** One node with an actor, and an outsider with a reference to it. */
const world = Effect.gen(function*() {
  const network = yield* SimulatedNetwork.make({ seed: 5 })
  /** what became of behaviours at the node */
  const lives: Array<string> = []
  const TillLive = Till.toLayer(
    Effect.gen(function*() {
      const context = yield* ActorContext
      lives.push(`${context.name} built`)
      yield* Effect.addFinalizer(() => Effect.sync(() => lives.push(`${context.name} closed`)))
      return Till.of({
        Ping: () => Effect.succeed("pong"),
        Work: ({ millis }) => Effect.as(Effect.sleep(millis), millis),
        Hang: () => Effect.never,
        Grow: () => Effect.asVoid(Effect.ignore(context.spawnChild(Till, "child"))),
        Count: ({ to }) => Stream.range(1, to)
      })
    }),
    { stopGrace: "1 minute" }
  )
  const build = <A, E>(layer: Layer.Layer<A, E>, name: string) =>
    Effect.gen(function*() {
      const random = yield* Random.Random.pipe(Random.withSeed(name))
      return yield* Layer.build(layer).pipe(
        Effect.provideService(Random.Random, random),
        Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
      )
    })
  const node = yield* build(
    Layer.mergeAll(TillLive, Client.layerServer).pipe(
      Layer.provideMerge(ActorSystem.layer),
      Layer.provideMerge(Remoting.layer({ secret })),
      Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
      Layer.provideMerge(ActorHost.layer),
      Layer.provideMerge(
        Layer.merge(Remoting.layerNode({ system: "shop", dataCenter: "home", id: "a" }), SystemEvents.layer)
      ),
      Layer.provide(network.layer("a"))
    ),
    "a"
  )
  const outsider = yield* build(
    Client.layerTransport({ system: "shop", secret, endpoints: ["a:7000"], refreshInterval: Infinity }).pipe(
      Layer.provide(network.layer("client"))
    ),
    "client"
  )
  const dead = yield* Queue.unbounded<string>()
  yield* Context.get(node, SystemEvents.SystemEvents).stream.pipe(
    Stream.runForEach((event) =>
      event._tag === "DeadLetter" ? Queue.offer(dead, `${event.message} ${event.reason}`) : Effect.void
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  const system = Context.get(outsider, ActorSystem.ActorSystem)
  const ref = yield* settle(system.spawnOn(Till, "till"))
  return {
    lives,
    system,
    ref,
    /** what the outsider's program may not have, but its wire has */
    delivery: Context.getUnsafe(outsider as Context.Context<never>, Delivery.Delivery) as Delivery.Delivery["Service"],
    there: Context.get(node, ActorSystem.ActorSystem),
    dead: Effect.sync(() => Effect.runSync(Queue.clear(dead)))
  }
})

type World = Effect.Success<typeof world>

const refusal = (operation: string) =>
  new NotAllowed({ operation, name: "till", caller: "a client", refusedBy: "a", dataCenter: "home" })

const definitionOf = (tag: string): MessageDefinition => systemDefinitions.find((known) => known.tag === tag)!

/** The kind as a liar has it, who leaves out what the runtime adds and adds what it likes. */
const lying = (messages: ReadonlyArray<MessageDefinition>): KindDefinition => ({
  ...Till.definition,
  messages: new Map(messages.map((message) => [message.tag, message]))
})

describe("an outsider may", () => {
  it.effect("spawn, tell, ask, listen, look whether somebody exists, and stop", () =>
    Effect.gen(function*() {
      const { lives, ref, system } = yield* world
      yield* settle(ref.tell.Ping())
      assert.strictEqual(yield* settle(ref.ask.Ping()), "pong")
      assert.deepStrictEqual(yield* settle(Stream.runCollect(ref.ask.Count({ to: 3 }))), [1, 2, 3])
      assert.isTrue(yield* settle(system.actorExists(Till, "till")))
      yield* settle(system.stop(ref))
      assert.isFalse(yield* settle(system.actorExists(Till, "till")))
      assert.deepStrictEqual(lives, ["till built", "till closed"])
    }))

  it.effect("stop with drain: what waits is handled first", () =>
    Effect.gen(function*() {
      const { ref, system } = yield* world
      const works = yield* Effect.forEach([100, 200], (millis) =>
        Effect.forkChild(ref.ask.Work({ millis }), { startImmediately: true }))
      yield* TestClock.adjust("10 millis")
      yield* settle(system.stop(ref, { drain: "1 minute" }))
      assert.deepStrictEqual(
        yield* Effect.forEach(works, (work) =>
          Fiber.join(work)),
        [100, 200]
      )
    }))

  it.effect("stop now: the message in hand is interrupted, without the grace", () =>
    Effect.gen(function*() {
      const { lives, ref, system } = yield* world
      yield* settle(ref.tell.Hang())
      yield* TestClock.adjust("10 millis")
      const stopping = yield* Effect.forkChild(system.stop(ref, { now: true }), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(lives, ["till built", "till closed"])
    }))
})

describe("an outsider may not", () => {
  for (
    const [operation, run] of [
      ["suspend", ({ ref, system }) => system.suspend(ref)],
      ["reinstate", ({ ref, system }) => system.reinstate(ref)],
      ["restart", ({ ref, system }) => system.restart(ref)],
      ["inspect", ({ ref, system }) => system.inspectActor(ref)]
    ] as ReadonlyArray<
      readonly [string, (parts: World) => Effect.Effect<unknown, { readonly _tag: string }>]
    >
  ) {
    it.effect(`${operation}: it is refused by name, and nothing is disturbed`, () =>
      Effect.gen(function*() {
        const parts = yield* world
        const { lives, ref, there } = parts
        assert.deepStrictEqual(yield* settle(Effect.flip(run(parts))), refusal(operation))
        assert.deepStrictEqual((yield* there.inspect).map(({ restarts, status }) => [restarts, status]), [[0, "Idle"]])
        assert.strictEqual(yield* settle(ref.ask.Ping()), "pong")
        assert.deepStrictEqual(lives, ["till built"])
      }))
  }

  it.effect("lift a suspension that an operator has made", () =>
    Effect.gen(function*() {
      const { ref, system, there } = yield* world
      yield* there.suspend(yield* there.actorOf(Till, "till"))
      assert.deepStrictEqual(yield* settle(Effect.flip(system.reinstate(ref))), refusal("reinstate"))
      assert.deepStrictEqual((yield* there.inspect).map(({ status }) => status), ["Suspended"])
    }))

  it.effect("watch: it is refused where nobody of its own could ask, too", () =>
    Effect.gen(function*() {
      const { delivery, ref, there } = yield* world
      const message = { kind: Till.definition, tag: "$watch", payload: { wait: 1000 } }
      const answer = yield* settle(delivery.ask(ref.address, message, 5000))
      assert.deepStrictEqual(yield* Effect.flip(answer), refusal("watch"))
      assert.strictEqual((yield* there.inspect).length, 1)
    }))

  it.effect("tell any of it: what is told is a dead letter that says why", () =>
    Effect.gen(function*() {
      const { dead, delivery, lives, ref, there } = yield* world
      const told = ["$suspend", "$restart", "$watch", "$reinstate"]
      for (const tag of told) {
        const payload = tag === "$watch" ? { wait: 1000 } : undefined
        yield* settle(delivery.tell(ref.address, { kind: Till.definition, tag, payload }))
      }
      assert.strictEqual(yield* settle(ref.ask.Ping()), "pong")
      assert.deepStrictEqual(yield* dead, told.map((tag) => `${tag} NotAllowed`))
      assert.deepStrictEqual((yield* there.inspect).map(({ restarts, status }) => [restarts, status]), [[0, "Idle"]])
      assert.deepStrictEqual(lives, ["till built"])
    }))

  it.effect("ask any of it on the data lane, past the lane that such questions have, or by a protocol of its own making", () =>
    Effect.gen(function*() {
      const { delivery, lives, ref, there } = yield* world
      const liar = lying([definitionOf("$inspect"), definitionOf("$suspend"), {
        ...definitionOf("$restart"),
        tag: "$nonsense"
      }])
      // by its name it goes as a call; the other ones as messages
      for (const [tag, operation] of [["$inspect", "inspect"], ["$suspend", "suspend"]] as const) {
        const answer = yield* settle(delivery.ask(ref.address, { kind: liar, tag, payload: undefined }, 5000))
        assert.deepStrictEqual(yield* Effect.flip(answer), refusal(operation))
      }
      const unknown = delivery.ask(ref.address, { kind: liar, tag: "$nonsense", payload: undefined }, 5000)
      assert.include(
        ["ProtocolMismatch", "NotAllowed"],
        ((yield* settle(Effect.flip(Effect.flatten(unknown)))) as { readonly _tag: string })._tag
      )
      assert.deepStrictEqual((yield* there.inspect).map(({ status }) => status), ["Idle"])
      assert.deepStrictEqual(lives, ["till built"])
    }))

  it.effect("end another's child, which is its parent's to stop", () =>
    Effect.gen(function*() {
      const { delivery, lives, ref, there } = yield* world
      yield* settle(ref.tell.Grow())
      yield* TestClock.adjust("10 millis")
      const { placement } = ref.address
      const to = { ...ref.address, name: "till/child" }
      yield* settle(delivery.tell(to, { kind: Till.definition, tag: "$end", payload: { placement } }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* there.inspect).flatMap(({ children }) => children.map(({ name }) => name)), [
        "till/child"
      ])
      assert.deepStrictEqual(lives, ["till built", "till/child built"])
    }))
})

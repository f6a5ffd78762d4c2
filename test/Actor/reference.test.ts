// References over ports that fail: what is repeated, where, and what never is.
import { assert, describe, it } from "@effect/vitest"
import {
  Actor,
  ActorContext,
  ActorHost,
  ActorNotFound,
  type ActorRef,
  ActorStopped,
  ActorSystem,
  type Address,
  type AskError,
  Delivery,
  DirectoryRebuilding,
  type LookupError,
  Node,
  NodeUnreachable,
  Placement,
  SystemEvents,
  Topology
} from "effect-troupe/Actor"
import { Effect, Equal, Exit, Fiber, HashSet, Layer, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const Counter = Actor.make("Counter", {
  protocol: [Rpc.make("Add", { payload: { n: Schema.Int }, success: Schema.Int })]
})

const Other = Actor.make("Other", { protocol: [] })

const node = (id: string): Address.NodeAddress => ({
  dataCenter: "local",
  id,
  incarnation: `${id}-1`,
  host: id,
  port: 1
})
const at = (id: string, placement: number): Address.ActorAddress => ({
  kind: "Counter",
  name: "c",
  node: node(id),
  placement,
  epoch: 0
})
const unreachable = (outcome: "NotSent" | "Unknown") => new NodeUnreachable({ node: "b", outcome, reason: "gone" })

/** A system whose only actor lives elsewhere: what each node answers, and where lookups say it is. */
const system = (options: {
  readonly nodes: Record<string, () => Effect.Effect<number, AskError>>
  readonly lookups: Array<Effect.Effect<Address.ActorAddress, LookupError>>
}) => {
  const sent: Array<string> = []
  const deliver = (to: Address.ActorAddress) =>
    Effect.suspend(() => {
      sent.push(`${to.node.id}/${to.placement}`)
      return options.nodes[to.node.id]!()
    })
  const ports = Layer.mergeAll(
    Layer.succeed(Placement.Placement)({
      spawn: () => Effect.succeed(at("b", 1)),
      lookup: () =>
        Effect.suspend(() => options.lookups.shift() ?? Effect.fail(new ActorNotFound({ name: "c", kind: "Counter" }))),
      stop: () => Effect.void
    }),
    Layer.succeed(Delivery.Delivery)({
      tell: (to) => Effect.asVoid(deliver(to)) as Effect.Effect<void, ActorStopped>,
      ask: (to) => Effect.map(deliver(to), (n) => Exit.succeed(n))
    }),
    Topology.layerLocal
  )
  const layer = ActorSystem.layer.pipe(
    Layer.provide(ports),
    Layer.provide(ActorHost.layer),
    Layer.provide(Layer.mergeAll(Node.layerLocal({ system: "test" }), SystemEvents.layer))
  )
  return { sent, layer }
}

const spawned = ActorSystem.ActorSystem.use((system) => system.spawn(Counter, "c"))

describe("a reference", () => {
  it.effect("follows a relocation at once when the message certainly was not delivered", () => {
    const { layer, sent } = system({
      nodes: { b: () => Effect.fail(unreachable("NotSent")), c: () => Effect.succeed(7) },
      lookups: [Effect.succeed(at("c", 2))]
    })
    return Effect.gen(function*() {
      const ref = yield* spawned
      assert.strictEqual(yield* ref.ask.Add({ n: 1 }), 7)
      assert.strictEqual(yield* ref.ask.Add({ n: 1 }), 7)
      yield* ref.tell.Add({ n: 1 })
      assert.deepStrictEqual(sent, ["b/1", "c/2", "c/2", "c/2"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("never repeats a message whose outcome is unknown", () => {
    const { layer, sent } = system({
      nodes: { b: () => Effect.fail(unreachable("Unknown")), c: () => Effect.succeed(7) },
      lookups: [Effect.succeed(at("c", 2))]
    })
    return Effect.gen(function*() {
      const ref = yield* spawned
      const error = yield* Effect.flip(ref.ask.Add({ n: 1 }))
      assert.strictEqual(error._tag === "NodeUnreachable" && error.outcome, "Unknown")
      assert.strictEqual((yield* Effect.flip(ref.tell.Add({ n: 1 })))._tag, "NodeUnreachable")
      assert.deepStrictEqual(sent, ["b/1", "b/1"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("says ActorStopped when the name is nowhere any more", () => {
    const { layer, sent } = system({ nodes: { b: () => Effect.fail(new ActorStopped({ name: "c" })) }, lookups: [] })
    return Effect.gen(function*() {
      const ref = yield* spawned
      assert.strictEqual((yield* Effect.flip(ref.ask.Add({ n: 1 })))._tag, "ActorStopped")
      assert.deepStrictEqual(sent, ["b/1"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("waits for a directory that rebuilds, within the ask's timeout", () => {
    const rebuilding = Effect.fail(new DirectoryRebuilding({ name: "c", partition: 1 }))
    const { layer, sent } = system({
      nodes: { b: () => Effect.fail(unreachable("NotSent")), c: () => Effect.succeed(7) },
      lookups: [rebuilding, rebuilding, Effect.succeed(at("c", 2))]
    })
    return Effect.gen(function*() {
      const ref = yield* spawned
      const asked = yield* Effect.forkChild(ref.ask.Add({ n: 1 }), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(asked), 7)
      assert.deepStrictEqual(sent, ["b/1", "c/2"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("asks again where the directory still says the old place, until it says the new one", () => {
    const { layer, sent } = system({
      nodes: { b: () => Effect.fail(unreachable("NotSent")), c: () => Effect.succeed(7) },
      lookups: [Effect.succeed(at("b", 1)), Effect.succeed(at("b", 1)), Effect.succeed(at("c", 2))]
    })
    return Effect.gen(function*() {
      const ref = yield* spawned
      const asked = yield* Effect.forkChild(ref.ask.Add({ n: 1 }), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isDefined(asked.pollUnsafe())
      assert.strictEqual(yield* Fiber.join(asked), 7)
      assert.deepStrictEqual(sent, ["b/1", "c/2"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("that waits in vain says that nothing was sent, at the ask's deadline", () => {
    const lost = Array.from({ length: 100 }, () => Effect.succeed(at("b", 1)))
    const { layer, sent } = system({ nodes: { b: () => Effect.fail(unreachable("NotSent")) }, lookups: lost })
    return Effect.gen(function*() {
      const ref = yield* spawned
      const asked = yield* Effect.forkChild(Effect.flip(ref.ask.Add({ n: 1 }, { timeout: "3 seconds" })), {
        startImmediately: true
      })
      yield* TestClock.adjust("2999 millis")
      assert.isUndefined(asked.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const error = yield* Fiber.join(asked)
      assert.strictEqual(error._tag === "NodeUnreachable" && error.outcome, "NotSent")
      assert.deepStrictEqual(sent, ["b/1"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("fails at once where there is no room for its message, and asks no directory where its actor is", () => {
    const full = new NodeUnreachable({ node: "b", outcome: "NotSent", reason: "full", overloaded: true })
    const lookups = [Effect.succeed(at("c", 2))]
    const { layer, sent } = system({
      nodes: { b: () => Effect.fail(full), c: () => Effect.succeed(7) },
      lookups
    })
    return Effect.gen(function*() {
      const ref = yield* spawned
      assert.strictEqual(yield* Effect.flip(ref.ask.Add({ n: 1 })), full)
      assert.strictEqual(yield* Effect.flip(ref.tell.Add({ n: 1 })), full)
      assert.deepStrictEqual(sent, ["b/1", "b/1"])
      assert.strictEqual(lookups.length, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("whose second attempt is on its way at the deadline says that the outcome is unknown", () => {
    const { layer, sent } = system({
      nodes: { b: () => Effect.fail(unreachable("NotSent")), c: () => Effect.never },
      lookups: [Effect.succeed(at("c", 2))]
    })
    return Effect.gen(function*() {
      const ref = yield* spawned
      const asked = yield* Effect.forkChild(Effect.flip(ref.ask.Add({ n: 1 }, { timeout: "3 seconds" })), {
        startImmediately: true
      })
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(asked))._tag, "AskTimeout")
      assert.deepStrictEqual(sent, ["b/1", "c/2"])
    }).pipe(Effect.provide(layer))
  })
})

describe("two references", () => {
  it.effect("are equal where they are to one name of one kind, whatever has become of the actor", () => {
    const kinds = Layer.mergeAll(
      Counter.toLayer(Effect.succeed(Counter.of({ Add: ({ n }) => Effect.succeed(n) }))),
      Other.toLayer(Effect.succeed(Other.of({})))
    )
    return Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const [a, b] = [yield* system.spawn(Counter, "a"), yield* system.spawn(Counter, "b")]
      yield* a.ask.Add({ n: 1 })
      const again = yield* system.actorOf(Counter, "a")
      assert.isTrue(Equal.equals(a, again))
      assert.isFalse(Equal.equals(a, b))
      assert.strictEqual(HashSet.size(HashSet.make(a, again, b)), 2)
      yield* system.stop(a)
      assert.isFalse(Equal.equals(a, yield* system.spawn(Other, "a")))
      assert.isTrue(Equal.equals(a, again))
    }).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))
  })
})

describe("a kind's fingerprint", () => {
  const of = (payload: Schema.Struct.Fields, props: Schema.Struct.Fields = {}) =>
    Actor.make("K", { protocol: [Rpc.make("A", { payload }), Rpc.make("B", { success: Schema.Date })], props })
      .definition.fingerprint

  it("is the same for the same schemas, and differs for any other", () => {
    const one = of({ n: Schema.Int })
    assert.strictEqual(of({ n: Schema.Int }), one)
    const others = [
      of({ n: Schema.String }),
      of({ m: Schema.Int }),
      of({ n: Schema.optionalKey(Schema.Int) }),
      of({ n: Schema.Int }, { p: Schema.Int }),
      Actor.make("K", { protocol: [Rpc.make("A", { payload: { n: Schema.Int } })] }).definition.fingerprint
    ]
    assert.strictEqual(new Set([one, ...others]).size, others.length + 1)
  })

  it("does not depend on the order of the protocol's list", () => {
    const [a, b] = [Rpc.make("A"), Rpc.make("B")]
    assert.strictEqual(
      Actor.make("K", { protocol: [a, b] }).definition.fingerprint,
      Actor.make("K", { protocol: [b, a] }).definition.fingerprint
    )
  })
})

describe("a kind", () => {
  it("has no message whose name is the runtime's own, is empty, or comes twice", () => {
    const streamed = Rpc.make("Feed", { success: Schema.Int, stream: true })
    for (
      const [protocol, reason] of [
        [[Rpc.make("$restart")], /\$restart/],
        [[Rpc.make("")], /empty/],
        [[Rpc.make("A"), Rpc.make("A", { success: Schema.Int })], /A .*twice/],
        [[streamed, Rpc.make("Feed$pull")], /Feed\$pull .*twice/]
      ] as const
    ) assert.throws(() => Actor.make("K", { protocol: [...protocol] }), reason)
    Actor.make("K", { protocol: [streamed, Rpc.make("a$b")] })
  })
})

describe("the rest of a mailbox", () => {
  it.effect("follows an actor that is withdrawn from here, in order, once it lives elsewhere; asks follow by their own", () => {
    const arrived: Array<string> = []
    const Slow = Actor.make("Slow", {
      protocol: [Rpc.make("Note", { payload: { n: Schema.Int } }), Rpc.make("Get", { success: Schema.Int })]
    })
    const live = Slow.toLayer(Effect.succeed(Slow.of({
      Note: ({ n }) => Effect.asVoid(Effect.sleep(n)),
      Get: () => Effect.succeed(1)
    })))
    let moved = false
    let lookups = 0
    let crowded = 2
    const elsewhere: Address.ActorAddress = { ...at("c", 9), kind: "Slow", name: "s" }
    const ports = Layer.mergeAll(
      Layer.effect(
        Placement.Placement,
        Effect.map(Placement.makeLocal, (local) => ({
          ...local,
          lookup: (_kind: string, name: string) =>
            Effect.suspend(() => {
              if (!moved) return Effect.fail(new DirectoryRebuilding({ name, partition: 0 }))
              lookups++
              return Effect.succeed(elsewhere)
            })
        }))
      ),
      Layer.effect(
        Delivery.Delivery,
        Effect.map(Delivery.makeLocal, (local) => ({
          tell: (to: Address.ActorAddress, message: Delivery.Message) =>
            Effect.suspend(() => {
              if (to.node.id !== "c") return local.tell(to, message)
              if (crowded-- > 0) {
                return Effect.fail(
                  new NodeUnreachable({ node: "c", outcome: "NotSent", reason: "full", overloaded: true })
                )
              }
              return Effect.sync(() => void arrived.push(`${message.tag} ${JSON.stringify(message.payload)}`))
            }),
          ask: (to: Address.ActorAddress, message: Delivery.Message, timeout: number) =>
            to.node.id === "c" ? Effect.succeed(Exit.succeed(42)) : local.ask(to, message, timeout)
        }))
      ),
      Topology.layerLocal
    )
    const layer = live.pipe(
      Layer.provideMerge(ActorSystem.layer),
      Layer.provide(ports),
      Layer.provideMerge(ActorHost.layer),
      Layer.provideMerge(Layer.mergeAll(Node.layerLocal({ system: "test" }), SystemEvents.layer))
    )
    return Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const host = yield* ActorHost.ActorHost
      const ref = yield* system.spawn(Slow, "s")
      for (const n of [100, 1, 2, 3]) yield* ref.tell.Note({ n })
      const asked = yield* Effect.forkChild(ref.ask.Get(), { startImmediately: true })
      yield* TestClock.adjust(0)
      const stopping = yield* Effect.forkChild(
        host.stop("s", { placement: Number.MAX_SAFE_INTEGER, reason: "Withdrawn" }),
        { startImmediately: true }
      )
      yield* TestClock.adjust("100 millis")
      assert.isDefined(stopping.pollUnsafe())
      assert.deepStrictEqual(arrived, [])
      moved = true
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(arrived, ["Note {\"n\":1}", "Note {\"n\":2}", "Note {\"n\":3}"])
      assert.isDefined(asked.pollUnsafe())
      assert.strictEqual(yield* Fiber.join(asked), 42)
      assert.strictEqual(lookups, 2, "one for each of both, none because there was no room")
    }).pipe(Effect.provide(layer))
  })
})

describe("a watch", () => {
  it.effect("of an actor that was withdrawn waits for the directory, however long that cannot tell where it lives now", () => {
    const Watched = Actor.make("Watched", { protocol: [Rpc.make("Ping")] })
    const Watcher = Actor.make("Watcher", { protocol: [Rpc.make("Watch"), Rpc.make("Seen", { success: Schema.Int })] })
    let moved = false
    let ended = false
    const elsewhere: Address.ActorAddress = { ...at("c", 9), kind: "Watched", name: "s" }
    const watched: { ref: ActorRef.ActorRef | undefined } = { ref: undefined }
    const kinds = Layer.mergeAll(
      Watched.toLayer(Effect.succeed(Watched.of({ Ping: () => Effect.void }))),
      Watcher.toLayer(Effect.gen(function*() {
        const context = yield* ActorContext.ActorContext
        let seen = 0
        return Watcher.of({
          Watch: () => Effect.suspend(() => context.watch(watched.ref!, () => Effect.sync(() => seen++))),
          Seen: () => Effect.sync(() => seen)
        })
      }))
    )
    const ports = Layer.mergeAll(
      Layer.effect(
        Placement.Placement,
        Effect.map(Placement.makeLocal, (local) => ({
          ...local,
          lookup: (_kind: string, name: string, { not }: { readonly not?: Address.ActorAddress | undefined }) =>
            !moved
              ? Effect.fail(new DirectoryRebuilding({ name, partition: 0 }))
              : ended && not?.placement === 9
              ? Effect.fail(new ActorNotFound({ name, kind: "Watched" }))
              : Effect.succeed(elsewhere)
        }))
      ),
      Layer.effect(
        Delivery.Delivery,
        Effect.map(Delivery.makeLocal, (local) => ({
          tell: local.tell,
          ask: (to: Address.ActorAddress, message: Delivery.Message, timeout: number) =>
            to.node.id === "c"
              ? Effect.as(Effect.sleep("20 seconds"), Exit.succeed(ended ? "Stopped" : null))
              : local.ask(to, message, timeout)
        }))
      ),
      Topology.layerLocal
    )
    const layer = kinds.pipe(
      Layer.provideMerge(ActorSystem.layer),
      Layer.provide(ports),
      Layer.provideMerge(ActorHost.layer),
      Layer.provideMerge(Layer.mergeAll(Node.layerLocal({ system: "test" }), SystemEvents.layer))
    )
    return Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const host = yield* ActorHost.ActorHost
      watched.ref = yield* system.spawn(Watched, "s")
      const watcher = yield* system.spawn(Watcher, "w")
      yield* watcher.ask.Watch()
      yield* host.stop("s", { placement: Number.MAX_SAFE_INTEGER, reason: "Withdrawn" })
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* watcher.ask.Seen(), 0, "nobody knows that it has ended")
      moved = true
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* watcher.ask.Seen(), 0)
      ended = true
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* watcher.ask.Seen(), 1)
    }).pipe(Effect.provide(layer))
  })
})

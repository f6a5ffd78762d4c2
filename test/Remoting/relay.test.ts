// An outsider that cannot reach the node which hosts an actor: a node that it can reach carries its frames.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Queue, Random, Redacted, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import { ClientRpcs } from "../../src/Remoting/ClientRpcs.ts"
import * as Handshake from "../../src/Remoting/internal/handshake.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import { cases, layerRecorders, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { startNode } from "./support.ts"

const secret = Redacted.make("s")
const port = 7000

const startClient = Effect.fnUntraced(
  function*(
    network: SimulatedNetwork.SimulatedNetwork,
    outsider: Remoting.Outsider,
    options: RemotingOptions = { secret }
  ) {
    const random = yield* Random.Random.pipe(Random.withSeed("client"))
    const context = yield* Layer.build(
      Remoting.layerClient(options, outsider).pipe(
        Layer.provideMerge(Layer.mergeAll(
          Remoting.layerNode({ system: "test", dataCenter: "client", id: "client" }),
          layerRecorders()
        )),
        Layer.provide(network.layer("client"))
      )
    ).pipe(
      Effect.provideService(Random.Random, random),
      Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
    )
    return context
  }
)

const through = (...hosts: ReadonlyArray<string>) => ({
  gateways: { endpoints: hosts.map((host) => ({ host, port })), only: false }
})

/** Nodes a, b and c; a and b carry frames of outsiders; the client reaches neither b nor c itself, unless told otherwise. */
const world = Effect.fnUntraced(function*(options: {
  readonly outsider?: Remoting.Outsider
  readonly cut?: ReadonlyArray<string>
  readonly remoting?: RemotingOptions
} = {}) {
  const network = yield* SimulatedNetwork.make({ seed: 3 })
  const nodes = yield* Effect.forEach(["a", "b", "c"], (host) => startNode(network, host, { remoting: { secret } }))
  for (const node of nodes.slice(0, 2)) yield* Context.get(node, Remoting.Remoting).relays
  network.partition(["client"], options.cut ?? ["b", "c"])
  const client = yield* startClient(network, options.outsider ?? through("a"), options.remoting)
  const [a, b, c] = nodes
  return { network, a: a!, b: b!, c: c!, client, delivery: Context.get(client, Delivery) }
})

const to = (node: Context.Context<Node>, name = "x") => ({
  kind: Recorder.name,
  name,
  node: Context.get(node, Node).address,
  placement: 1,
  epoch: 1
})
const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
const parse = { kind: Recorder, tag: "Parse", payload: { text: "42" } }
const received = (node: Context.Context<Recorders>) =>
  Context.get(node, Recorders).received.flatMap(({ payload, tag }) =>
    tag === "Put" ? [(payload as { readonly n: number }).n] : []
  )
const ids = (node: Context.Context<Remoting.Remoting>) =>
  Effect.map(Context.get(node, Remoting.Remoting).connected, (nodes) => nodes.map(({ id }) => id).sort())

const settle = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    for (let i = 0; i < 2000 && fiber.pollUnsafe() === undefined; i++) yield* TestClock.adjust("10 millis")
    assert.isDefined(fiber.pollUnsafe(), "is done")
    return yield* yield* Fiber.join(fiber)
  })

const refusal = <A, R>(effect: Effect.Effect<A, { readonly _tag: string }, R>) =>
  Effect.map(Effect.flip(settle(effect)), (error) => {
    if (!(error instanceof NodeUnreachable)) return assert.fail(error._tag)
    assert.strictEqual(error.outcome, "NotSent")
    return error.reason
  })

describe("Delivery through a gateway", () => {
  for (const { name, run } of cases) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const gateways = { endpoints: [{ host: "a", port }], only: true }
        const { client, c, network } = yield* world({ outsider: { gateways }, cut: [] })
        // connected before time passes: two handshakes take more turns than one
        const { call } = Context.get(client, Remoting.Remoting)
        yield* settle(Effect.exit(call(Context.get(c, Node).address, ClientRpcs, "Client.Info", undefined)))
        yield* run({
          a: client,
          b: c,
          reset: Effect.sync(() => network.reset(["client", "a"], ["c"])),
          crashB: Effect.sync(() => network.crash("c")),
          pass: (duration) => TestClock.adjust(duration)
        })
      }).pipe(Effect.scoped))
  }
})

describe("an outsider's messages through a gateway", () => {
  it.effect("arrive in order at the node that they are for, and answers come back", () =>
    Effect.gen(function*() {
      const { a, b, c, client, delivery } = yield* world()
      for (let n = 1; n <= 20; n++) yield* settle(delivery.tell(to(c), put(n)))
      assert.deepStrictEqual(yield* settle(delivery.ask(to(c, "y"), parse, 5000)), Exit.succeed(42))
      assert.deepStrictEqual(received(c), Array.from({ length: 20 }, (_, index) => index + 1))
      assert.deepStrictEqual([received(a), received(b)], [[], []])
      assert.deepStrictEqual(yield* ids(client), ["c"], "the session is with that very node")
    }))

  it.effect("go straight where the node can be dialed, and to the gateway itself without a detour", () =>
    Effect.gen(function*() {
      const { a, b, c, delivery } = yield* world({ cut: ["c"] })
      for (const node of [a, b]) yield* settle(delivery.tell(to(node), put(1)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([received(a), received(b), received(c)], [[1], [1], []])
      assert.deepStrictEqual(yield* ids(a), [], "nobody was reached by way of a")
    }))

  it.effect("where only gateways are to be dialed, nothing else is, and the gateway hosts actors too", () =>
    Effect.gen(function*() {
      const gateways = { endpoints: [{ host: "a", port }], only: true }
      const { a, b, c, delivery } = yield* world({ outsider: { gateways }, cut: ["c"] })
      for (const node of [a, b, c]) yield* settle(delivery.tell(to(node), put(1)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([received(a), received(b), received(c)], [[1], [1], [1]])
      assert.deepStrictEqual(yield* ids(a), ["b", "c"], "a has carried both")
    }))

  it.effect("the next gateway takes over where one does not answer, and after one is lost", () =>
    Effect.gen(function*() {
      const { c, delivery, network } = yield* world({ outsider: through("a", "b"), cut: ["a", "c"] })
      yield* settle(delivery.tell(to(c), put(1)))
      network.heal()
      network.partition(["client"], ["c"])
      network.crash("b")
      yield* TestClock.adjust("5 seconds")
      yield* settle(delivery.tell(to(c), put(2)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(received(c), [1, 2])
    }))

  it.effect("what was asked when the gateway was lost has an unknown outcome, within the time of a lost node", () =>
    Effect.gen(function*() {
      const { c, delivery, network } = yield* world()
      const asking = yield* Effect.forkChild(
        Effect.exit(delivery.ask(to(c), { kind: Recorder, tag: "Never", payload: {} }, 60_000)),
        { startImmediately: true }
      )
      yield* TestClock.adjust("3 seconds")
      network.partition(["a"], ["c"])
      yield* TestClock.adjust("10 seconds")
      const exit = asking.pollUnsafe()
      assert.isTrue(exit !== undefined && Exit.isSuccess(exit) && Exit.isFailure(exit.value))
      const error = yield* Effect.flip(Effect.flatten(Fiber.join(asking)))
      assert.isTrue(error instanceof NodeUnreachable && error.outcome === "Unknown")
    }))

  it.effect("a node that is gone is NotSent with the gateway's reason", () =>
    Effect.gen(function*() {
      const { c, delivery, network } = yield* world()
      network.crash("c")
      assert.include(yield* refusal(delivery.tell(to(c), put(1))), "cannot reach c:7000")
    }))

  it.effect("a node that does not let outsiders through says so", () =>
    Effect.gen(function*() {
      const { b, delivery } = yield* world({ outsider: through("c"), cut: ["a", "b"] })
      assert.include(yield* refusal(delivery.tell(to(b), put(1))), "does not relay")
    }))

  it.effect("no longer, once what lets outsiders in has closed", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 3 })
      const a = yield* startNode(network, "a", { remoting: { secret } })
      const b = yield* startNode(network, "b", { remoting: { secret } })
      const scope = yield* Scope.make()
      yield* Scope.provide(Context.get(a, Remoting.Remoting).relays, scope)
      yield* Scope.close(scope, Exit.void)
      network.partition(["client"], ["b"])
      const client = yield* startClient(network, through("a"))
      assert.include(yield* refusal(Context.get(client, Delivery).tell(to(b), put(1))), "does not relay")
    }))

  it.effect("without the secret nothing is carried anywhere", () =>
    Effect.gen(function*() {
      const { a, c, delivery } = yield* world({ remoting: {} })
      assert.include(yield* refusal(delivery.tell(to(c), put(1))), "authentication failed")
      assert.deepStrictEqual(yield* ids(a), [], "and nobody was dialed for it")
    }))

  it.effect("are not carried to a host that does not prove that it is one of ours", () =>
    Effect.gen(function*() {
      const { client, delivery, network } = yield* world()
      const foreign = yield* startNode(network, "d", { remoting: { secret: Redacted.make("other") } })
      network.partition(["client"], ["d"])
      assert.include(yield* refusal(delivery.tell(to(foreign), put(1))), "cannot reach d:7000")
      const refused = Context.get(foreign, Recorders).events.filter((event) => event._tag === "PeerRefused")
      assert.isAtMost(refused.length, 1, "what the gateway itself tried")
      assert.deepStrictEqual(yield* ids(client), [])
    }))

  it.effect("leave no connection behind at an endpoint that did not carry them", () =>
    Effect.gen(function*() {
      const { b, c, client, network } = yield* world({ outsider: through("silent", "silent", "silent", "a") })
      const silent = yield* network.transport("silent")
      const open: Array<string> = []
      yield* Queue.take(silent.accept).pipe(
        Effect.tap(({ receive }) => {
          const number = open.push("open") - 1
          return Effect.forever(receive).pipe(
            Effect.catch(({ reason }) => Effect.sync(() => void (open[number] = reason))),
            Effect.forkScoped
          )
        }),
        Effect.forever,
        Effect.forkScoped
      )
      yield* settle(Context.get(client, Delivery).tell(to(b), put(1)))
      yield* settle(Context.get(client, Delivery).tell(to(c), put(2)))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([received(b), received(c)], [[1], [2]])
      assert.deepStrictEqual([...new Set(open)], ["closed by the peer"])
    }))

  it.effect("are carried for clients only, and only to what is an endpoint", () =>
    Effect.gen(function*() {
      const { a, c, network } = yield* world()
      // who speaks the protocol by hand, with the secret
      const transport = yield* network.transport("stranger")
      const stranger: Handshake.Identity = {
        system: "test",
        dataCenter: "dc",
        id: "stranger",
        incarnation: "1",
        host: "stranger",
        port,
        client: true,
        maxFrameBytes: 65_536,
        windowBytes: 65_536,
        kinds: new Map()
      }
      const shakeHands = Effect.fnUntraced(function*(
        more: Partial<Handshake.Identity>,
        behind?: Partial<Handshake.Identity>
      ) {
        const connection = yield* transport.connect({ host: "a", port })
        const config: Handshake.Config = {
          self: { ...stranger, ...more },
          nonce: new Uint8Array(Handshake.nonceBytes).fill(7),
          secrets: ["s"],
          insecure: false,
          peer: "a",
          admit: () => undefined
        }
        let [state, commands] = Handshake.dial(config)
        let refused: string | undefined
        const seen: Array<number> = []
        while (refused === undefined) {
          for (const command of commands) {
            if (command._tag === "Send") connection.offer(command.frame)
            if (command._tag === "Refused") refused = JSON.stringify(command.refusal)
          }
          if (refused !== undefined) break
          const frames = yield* Effect.catch(connection.receive, () => Effect.succeed([]))
          if (frames.length === 0) break
          for (const frame of frames) {
            seen.push(frame[0]!)
            // after the handshake with the gateway a refusal may still come: it could not carry
            if (state._tag === "Done") refused = Buffer.from(frame).toString()
            else [state, commands] = Handshake.step(state, config, frame)
            if (state._tag === "Done" && behind !== undefined) {
              const self = { ...config.self, relay: undefined, ...behind }
              for (const command of Handshake.dial({ ...config, self })[1]) {
                if (command._tag === "Send") connection.offer(command.frame)
              }
            }
          }
        }
        yield* connection.close
        return refused ?? ""
      })
      assert.include(yield* settle(shakeHands({ relay: "c:7000", client: false })), "does not relay")
      for (const relay of ["nonsense", "c:0", "c:99999", ":7000", "c:7000/x", "c:-1", ""]) {
        assert.match(yield* settle(shakeHands({ relay })), /is no endpoint|cannot reach/, relay)
      }
      assert.deepStrictEqual(yield* ids(a), [], "nobody was dialed")
      // the node behind a gateway sees the gateway's certificate, which names a node
      const welcome = yield* settle(shakeHands({ relay: "c:7000" }, { client: true }))
      assert.strictEqual(welcome.charCodeAt(0), Handshake.FrameType.Welcome)
      assert.include(yield* settle(shakeHands({ relay: "c:7000" }, { client: false })), "carries outsiders only")
      // nor is anybody carried from a gateway to itself, and from there again
      const nested = yield* settle(Effect.gen(function*() {
        const connection = yield* transport.connect({ host: "a", port })
        const { address } = Context.get(a, Node)
        const self = { ...stranger, relay: `${address.host}:${address.port}` }
        const config: Handshake.Config = {
          self,
          nonce: new Uint8Array(Handshake.nonceBytes).fill(7),
          secrets: ["s"],
          insecure: false,
          peer: "a",
          admit: () => undefined
        }
        let rounds = 0
        let [state, commands] = Handshake.dial(config)
        while (rounds < 5) {
          for (const command of commands) {
            if (command._tag === "Send") connection.offer(command.frame)
            if (command._tag === "Refused") return `${rounds} ${JSON.stringify(command.refusal)}`
          }
          if (state._tag === "Done") {
            rounds++
            ;[state, commands] = Handshake.dial(config)
            continue
          }
          for (const frame of yield* connection.receive) [state, commands] = Handshake.step(state, config, frame)
        }
        return `${rounds}`
      }))
      assert.match(nested, /^1 .*does not relay/)
      // nor does an outsider take a node's place by calling itself the same
      const asking = yield* Effect.forkChild(
        Effect.exit(Context.get(c, Delivery).ask(to(a), { kind: Recorder, tag: "Never", payload: {} }, 60_000)),
        { startImmediately: true }
      )
      yield* TestClock.adjust("100 millis")
      const { id, incarnation } = Context.get(c, Node).address
      yield* settle(shakeHands({ id, incarnation }))
      assert.isUndefined(asking.pollUnsafe())
    }))
})

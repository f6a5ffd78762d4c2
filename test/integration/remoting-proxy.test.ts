// Something stands between the nodes: a proxy under another address, which goes black, holds back, or leads to another node.
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import * as Net from "node:net"
import type { ActorAddress } from "../../src/Actor/Address.ts"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import { ClientRpcs } from "../../src/Remoting/ClientRpcs.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"
import { layerRecorders, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import { startProxy } from "./support/proxy.ts"

const brisk = { pingInterval: "50 millis", pingTimeout: "200 millis", reconnectDelay: "10 millis" } as const

/** A port that is free now. */
const freePort = Effect.scoped(
  Effect.map(Layer.build(Transport.layerTcp({})), (context) => Context.get(context, Transport.Transport).address.port)
)

const start = (id: string, options: RemotingOptions = {}, scope?: Scope.Scope) =>
  Effect.gen(function*() {
    const layer = Remoting.layer({ ...brisk, ...options }).pipe(
      Layer.provideMerge(
        Layer.mergeAll(Remoting.layerNode({ system: "test", dataCenter: "dc", id }), layerRecorders())
      ),
      Layer.provide(Transport.layerTcp({ ...brisk, ...options }))
    )
    return yield* Layer.buildWithScope(layer, scope ?? (yield* Effect.scope))
  })

/** Node a dials node b at the proxy's address, which is not the one where b listens. */
const pairWith = Effect.fnUntraced(function*(options: RemotingOptions) {
  const proxy = yield* startProxy()
  const bound = yield* freePort
  proxy.spread([bound])
  const behind = { ...options, port: bound, advertisedHost: "127.0.0.1", advertisedPort: proxy.port }
  const a = yield* start("a")
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const b = yield* start("b", behind, scope)
  const delivery = Context.get(a, Delivery)
  return { proxy, bound, behind, a, b, scope, delivery, to: addressOf(b) }
})
const pair = pairWith({})

const addressOf = (node: Context.Context<Node>): ActorAddress => ({
  kind: Recorder.name,
  name: "x",
  node: Context.get(node, Node).address,
  placement: 1,
  epoch: 1
})
const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
const parse = { kind: Recorder, tag: "Parse", payload: { text: "42" } }
const never = { kind: Recorder, tag: "Never", payload: {} }
const received = (node: Context.Context<Recorders>) =>
  Context.get(node, Recorders).received.flatMap(({ payload, tag }) =>
    tag === "Put" ? [(payload as { readonly n: number }).n] : []
  )
const connected = (node: Context.Context<Remoting.Remoting>) => Context.get(node, Remoting.Remoting).connected

const until = (condition: Effect.Effect<boolean>, what: string): Effect.Effect<void> =>
  Effect.sleep("10 millis").pipe(
    Effect.andThen(condition),
    Effect.repeat({ until: (done) => done }),
    Effect.timeoutOrElse({ duration: "10 seconds", orElse: () => Effect.die(new Error(`never happened: ${what}`)) }),
    Effect.asVoid
  )

const refused = <A>(exit: Exit.Exit<A, { readonly _tag: string }>): NodeUnreachable => {
  const error = Exit.findErrorOption(exit)
  if (error._tag !== "Some" || !(error.value instanceof NodeUnreachable)) return assert.fail("is not NodeUnreachable")
  return error.value
}

describe("an advertised address that is not the bound one", () => {
  it.live("is what others dial: all that is said goes that way, and none where the node listens", () =>
    Effect.gen(function*() {
      const { a, b, bound, delivery, proxy, to } = yield* pair
      assert.strictEqual(to.node.port, proxy.port)
      assert.notStrictEqual(proxy.port, bound)
      yield* delivery.tell(to, put(1))
      assert.deepStrictEqual(yield* delivery.ask(to, parse, 5000), Exit.succeed(42))
      assert.deepStrictEqual(received(b), [1])
      assert.deepStrictEqual(proxy.taken, [bound])
      // the other way goes to an address that is bound
      yield* Context.get(b, Delivery).tell(addressOf(a), put(2))
      yield* until(Effect.sync(() => received(a).length === 1), "b reaches a")
      assert.deepStrictEqual(proxy.taken, [bound])
      // with the way gone the node is unreachable, though it listens
      proxy.spread([])
      proxy.cut()
      yield* until(Effect.map(Effect.exit(delivery.tell(to, put(3))), Exit.isFailure), "a has noticed")
      const error = refused(yield* Effect.exit(delivery.tell(to, put(4))))
      assert.strictEqual(error.outcome, "NotSent")
    }).pipe(Effect.scoped))
})

describe("a way that goes black", () => {
  it.live("is noticed by pings on both sides; what was asked has an unknown outcome, and light brings it back", () =>
    Effect.gen(function*() {
      const { a, b, delivery, proxy, to } = yield* pair
      yield* delivery.tell(to, put(1))
      const asking = yield* Effect.forkChild(Effect.exit(delivery.ask(to, never, 60_000)), { startImmediately: true })
      yield* Effect.sleep("20 millis")
      proxy.black()
      const [took, exit] = yield* Effect.timed(Fiber.join(asking))
      assert.strictEqual(refused(exit).outcome, "Unknown")
      assert.isBelow(Duration.toMillis(took), 2_000, "long before the ask's own time")
      yield* until(
        Effect.map(Effect.all([connected(a), connected(b)]), ([x, y]) => x.length === 0 && y.length === 0),
        "both have given it up"
      )
      proxy.cut()
      proxy.release()
      yield* until(
        Effect.map(Effect.exit(delivery.ask(to, parse, 1000)), Exit.isSuccess),
        "the next connection"
      )
      assert.deepStrictEqual(received(b), [1])
    }).pipe(Effect.scoped))

  it.live("and holds back what was sent: once the peer has dialed anew, it arrives no more", () =>
    Effect.gen(function*() {
      // b is patient: nothing but the new connection ends the old one there
      const { b, delivery, proxy, to } = yield* pairWith({ pingInterval: "5 seconds", pingTimeout: "20 seconds" })
      yield* delivery.tell(to, put(1))
      yield* until(Effect.sync(() => received(b).length === 1), "the first")
      proxy.hold()
      // accepted for delivery, and on the way when the connection is given up
      for (const n of [2, 3, 4]) yield* delivery.tell(to, put(n))
      // the pings get no answer, so a dials again, and then the old bytes come through
      yield* until(
        Effect.map(Effect.exit(delivery.tell(to, put(5))), (exit) => Exit.isSuccess(exit) && proxy.taken.length > 1),
        "a new connection"
      )
      yield* until(Effect.sync(() => received(b).includes(5)), "what goes by the new one")
      proxy.release()
      yield* Effect.sleep("100 millis")
      yield* delivery.tell(to, put(6))
      yield* until(Effect.sync(() => received(b).includes(6)), "and goes on")
      const numbers = received(b)
      for (const n of [2, 3, 4]) assert.notInclude(numbers, n, "late, so dropped")
      assert.deepStrictEqual(numbers, [...numbers].sort((x, y) => x - y), "in order")
      assert.strictEqual(numbers.filter((n) => n === 6).length, 1)
    }).pipe(Effect.scoped))

  it.live("again and again: nothing arrives twice or out of order", () =>
    Effect.gen(function*() {
      const { b, delivery, proxy, to } = yield* pair
      for (let n = 1; n <= 300; n++) {
        yield* Effect.exit(delivery.tell(to, put(n)))
        if (n % 25 === 0) proxy.cut()
        if (n % 5 === 0) yield* Effect.sleep("4 millis")
      }
      yield* until(Effect.map(Effect.exit(delivery.ask(to, parse, 1000)), Exit.isSuccess), "all is well")
      const numbers = received(b)
      assert.deepStrictEqual(numbers, [...new Set(numbers)].sort((x, y) => x - y))
      assert.isAtLeast(numbers.length, 20)
      assert.isAtLeast(proxy.taken.length, 3)
    }).pipe(Effect.scoped))
})

describe("a conversation that was listened to", () => {
  it.live("lets nobody in when it is played again, by the same or another connection, to either side", () =>
    Effect.gen(function*() {
      const secret = Redacted.make("s")
      const proxy = yield* startProxy()
      const b = yield* start("b", { secret })
      proxy.spread([Context.get(b, Node).address.port])
      const a = yield* start("a", { secret })
      // by an endpoint, so that it goes through the proxy, which takes down what a says
      const { host, port } = proxy
      yield* Effect.exit(Context.get(a, Remoting.Remoting).call({ host, port }, ClientRpcs, "Client.Info", undefined))
      const said = proxy.heard()
      assert.isAbove(said.length, 100)
      const before = yield* connected(b)
      const refusals = () => Context.get(b, Recorders).events.filter((event) => event._tag === "PeerRefused").length
      for (let n = 1; n <= 3; n++) {
        yield* play(Context.get(b, Node).address.port, said)
        assert.strictEqual(refusals(), n, "refused each time, however often")
      }
      assert.deepStrictEqual(yield* connected(b), before, "and the one that is connected is not disturbed")
      // to the side that said it: it is no answer to anything
      yield* play(Context.get(a, Node).address.port, said)
      assert.isFalse((yield* connected(a)).some(({ id }) => id === "a"))
    }).pipe(Effect.scoped))
})

/** Sends these bytes; done when the other side has ended the connection. */
const play = (port: number, bytes: Uint8Array) =>
  Effect.callback<void>((resume) => {
    const socket = Net.connect(port, "127.0.0.1", () => void socket.write(bytes))
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.void))
    socket.resume()
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: "5 seconds", orElse: () => Effect.die(new Error("was not closed")) }))

describe("a node that is started again at the same address", () => {
  it.live("is another incarnation: what is for the earlier one fails NotSent and reaches nobody", () =>
    Effect.gen(function*() {
      const { b, behind, delivery, proxy, scope, to } = yield* pair
      yield* delivery.tell(to, put(1))
      yield* until(Effect.sync(() => received(b).length === 1), "the first")
      yield* Scope.close(scope, Exit.void)
      proxy.cut()
      for (const id of ["b", "c"]) {
        const next = yield* Scope.make()
        const fresh = yield* start(id, behind, next)
        assert.strictEqual(Context.get(fresh, Node).address.port, to.node.port)
        yield* Effect.sleep("100 millis")
        const [took, exit] = yield* Effect.timed(Effect.exit(delivery.tell(to, put(2))))
        const error = refused(exit)
        assert.strictEqual(error.outcome, "NotSent")
        assert.match(error.reason, id === "b" ? /another incarnation answers there/ : /node b did not answer there/)
        assert.isBelow(Duration.toMillis(took), 5_000)
        yield* delivery.tell(addressOf(fresh), put(3))
        yield* until(Effect.sync(() => received(fresh).length === 1), "what is for the new one")
        assert.deepStrictEqual(received(fresh), [3])
        yield* Scope.close(next, Exit.void)
        proxy.cut()
        yield* Effect.sleep("100 millis")
      }
    }).pipe(Effect.scoped))
})

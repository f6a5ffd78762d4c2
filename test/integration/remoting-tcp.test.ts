// The contract of `Delivery` over real sockets, and what only sockets can show: hostile bytes, refusals at bind time.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Queue, Redacted, Scope } from "effect"
import * as net from "node:net"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"
import {
  cases,
  type ContractNode,
  type Harness,
  layerRecorders,
  Recorder,
  Recorders
} from "../../src/Testing/DeliveryContract.ts"

/** TCP whose connections can be cut from outside. */
const layerCuttable = (options: RemotingOptions, connections: Set<Transport.Connection>) =>
  Layer.effect(
    Transport.Transport,
    Effect.gen(function*() {
      const inner = yield* Transport.Transport
      const accept = yield* Queue.unbounded<Transport.Connection>()
      yield* Queue.take(inner.accept).pipe(
        Effect.tap((connection) => {
          connections.add(connection)
          return Queue.offer(accept, connection)
        }),
        Effect.forever,
        Effect.forkScoped
      )
      return Transport.Transport.of({
        ...inner,
        accept,
        connect: (to) => Effect.tap(inner.connect(to), (connection) => Effect.sync(() => connections.add(connection)))
      })
    })
  ).pipe(Layer.provide(Transport.layerTcp(options)))

const start = (id: string, options: RemotingOptions, connections = new Set<Transport.Connection>()) =>
  Remoting.layer(options).pipe(
    Layer.provideMerge(Layer.mergeAll(
      Remoting.layerNode({ system: "test", dataCenter: "dc", id }),
      layerRecorders()
    )),
    Layer.provide(layerCuttable(options, connections))
  )

const harnessWith = Effect.fnUntraced(function*(options: RemotingOptions) {
  const connections = new Set<Transport.Connection>()
  const scopeB = yield* Scope.make()
  const a: ContractNode = yield* Layer.build(start("a", options, connections))
  const b: ContractNode = yield* Layer.buildWithScope(start("b", options, connections), scopeB)
  yield* Effect.addFinalizer(() => Scope.close(scopeB, Exit.void))
  const reset = Effect.suspend(() => {
    const all = [...connections]
    connections.clear()
    return Effect.forEach(all, (connection) => connection.close, { discard: true })
  })
  const result: Harness = {
    a,
    b,
    reset,
    crashB: Effect.andThen(reset, Scope.close(scopeB, Exit.void)),
    pass: (duration) => Effect.sleep(duration)
  }
  return result
})

const harness = harnessWith({})

describe("Delivery over TCP", () => {
  for (const { name, run } of cases) {
    it.live(name, () => Effect.scoped(Effect.flatMap(harness, run)))
  }
})

/** Sends bytes to a port as fast as they come; done when the other side ends the connection. */
const throwAt = (port: number, chunks: ReadonlyArray<Uint8Array>) =>
  Effect.callback<void>((resume) => {
    const socket = net.connect(port, "127.0.0.1", () => {
      for (const chunk of chunks) socket.write(chunk)
    })
    socket.on("error", () => {})
    socket.on("close", () => resume(Exit.void))
    socket.resume()
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeoutOrElse({ duration: "5 seconds", orElse: () => Effect.die(new Error("was not closed")) }))

const framed = (...bytes: Array<number>) => Uint8Array.from([0, 0, 0, bytes.length, ...bytes])

describe("hostile bytes", () => {
  it.live("close their own connection and disturb nobody", () =>
    Effect.gen(function*() {
      const { a, b } = yield* harnessWith({ handshakeTimeout: "300 millis" })
      const { port } = Context.get(b, Node).address
      const to = { kind: Recorder.name, name: "x", node: Context.get(b, Node).address, placement: 1, epoch: 1 }
      const put = (n: number) => ({ kind: Recorder, tag: "Put", payload: { n } })
      yield* Context.get(a, Delivery).tell(to, put(1))
      for (
        const bytes of [
          [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
          [Uint8Array.of(0xff, 0xff, 0xff, 0xff)],
          [Uint8Array.of(0, 0, 0, 0)],
          [framed(1)],
          [framed(1, 1, 2, 3)],
          [framed(18, 5, 0, 0, 0)],
          [framed(99)],
          [framed(1, ...Buffer.from("TROUPE"), 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)],
          // a frame that is announced and never comes
          [Uint8Array.of(0, 0, 1, 0, 7)],
          [Uint8Array.of(0, 0), Uint8Array.of(0, 9), Uint8Array.of(1)]
        ]
      ) {
        yield* throwAt(port, bytes)
      }
      yield* Context.get(a, Delivery).tell(to, put(2))
      yield* Effect.sleep("50 millis")
      const { events, received } = Context.get(b, Recorders)
      assert.deepStrictEqual(received.map((message) => message.payload), [{ n: 1 }, { n: 2 }])
      assert.isTrue(events.filter((event) => event._tag === "PeerRefused").length >= 6)
    }).pipe(Effect.scoped), 60_000)

  it.live("a stranger may say little: what is longer ends its connection before it has come", () =>
    Effect.gen(function*() {
      const { b } = yield* harnessWith({ handshakeTimeout: "20 seconds" })
      const { port } = Context.get(b, Node).address
      // 64 KiB and a byte, of which only the beginning is sent
      yield* throwAt(port, [Uint8Array.of(0, 1, 0, 1, 1, ...Buffer.from("TROUPE"))])
      assert.deepStrictEqual(Context.get(b, Recorders).received, [])
    }).pipe(Effect.scoped))

  it.live("a frame one byte at a time is one frame", () =>
    Effect.gen(function*() {
      const { b } = yield* harness
      const { port } = Context.get(b, Node).address
      const bytes = framed(1, ...Buffer.from("TROUPE"), 9, 9)
      yield* throwAt(port, [...bytes].map((byte) => Uint8Array.of(byte)))
      const reasons = Context.get(b, Recorders).events.flatMap((event) =>
        event._tag === "PeerRefused" ? [event.reason] : []
      )
      assert.deepStrictEqual(reasons, ["wire protocol: ours 1 to 2, theirs 9"])
    }).pipe(Effect.scoped))
})

describe("a frame that drips", () => {
  it.live("ends its connection once it takes longer than frameTimeout; one that is slow but in time arrives", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Transport.layerTcp({ frameTimeout: "400 millis" }))
      const { accept, address } = Context.get(context, Transport.Transport)
      const socket = yield* Effect.acquireRelease(
        Effect.sync(() => net.connect(address.port, "127.0.0.1")),
        (socket) => Effect.sync(() => socket.destroy())
      )
      socket.on("error", () => {})
      socket.setNoDelay(true)
      const connection = yield* Queue.take(accept)
      const drip = (bytes: ReadonlyArray<number>) =>
        Effect.forEach(
          bytes,
          (byte) =>
            Effect.andThen(Effect.sync(() => void socket.write(Uint8Array.of(byte))), Effect.sleep("20 millis")),
          {
            discard: true
          }
        )
      const hearing = yield* Effect.forkChild(connection.receive, { startImmediately: true })
      yield* drip([0, 0, 0, 2, 7, 8])
      assert.deepStrictEqual((yield* Fiber.join(hearing)).map((frame) => [...frame]), [[7, 8]])
      const dripping = yield* Effect.forkChild(drip([0, 0, 0, 255, ...Array.from({ length: 200 }, () => 1)]))
      const error = yield* Effect.flip(connection.receive)
      assert.strictEqual(error.reason, "protocol violation: a frame took too long")
      assert.isUndefined(dripping.pollUnsafe(), "long before its end")
    }).pipe(Effect.scoped))
})

describe("many tiny frames", () => {
  /** Both ends of a connection. */
  const ends = Effect.fnUntraced(function*(options: RemotingOptions = {}) {
    const node = Effect.map(
      Layer.build(Layer.fresh(Transport.layerTcp(options))),
      (context) => Context.get(context, Transport.Transport)
    )
    const near = yield* node
    const far = yield* node
    const dialed = yield* near.connect(far.address)
    const accepted = yield* Queue.take(far.accept)
    dialed.offer(Uint8Array.of(1))
    yield* accepted.receive
    return { dialed, accepted }
  })
  const tiny = Uint8Array.of(1)

  it.live("do not wait here beyond a bound of their number while nobody takes them", () =>
    Effect.gen(function*() {
      const { accepted, dialed } = yield* ends()
      for (let i = 0; i < 300_000; i++) dialed.offer(tiny)
      yield* Effect.sleep("500 millis")
      const frames = yield* accepted.receive
      assert.isAbove(frames.length, 1000)
      assert.isBelow(frames.length, 60_000)
      let all = frames.length
      while (all < 300_000) all += (yield* accepted.receive).length
      assert.strictEqual(all, 300_000)
    }).pipe(Effect.scoped))

  it.live("make whoever passes them on wait before their number is a burden", () =>
    Effect.gen(function*() {
      const { accepted, dialed } = yield* ends({ outboxBytes: 32 * 1024 * 1024 })
      // more than the platform takes
      for (let i = 0; i < 20; i++) dialed.offer(new Uint8Array(1024 * 1024))
      let sent = 0
      const one = Effect.tap(dialed.send(tiny), () => Effect.sync(() => void sent++))
      const sending = yield* Effect.forkChild(Effect.repeat(one, { times: 199_999 }))
      // until it waits, or has sent too much
      for (let before = -1; before !== sent && sent < 150_000;) {
        before = sent
        yield* Effect.sleep("300 millis")
      }
      assert.isBelow(sent, 100_000)
      let all = 0
      while (all < 200_020) all += (yield* accepted.receive).length
      yield* Fiber.join(sending)
    }).pipe(Effect.scoped))
})

describe("Transport.layerTcp", () => {
  const refused = (options: RemotingOptions) =>
    Effect.map(Effect.flip(Effect.scoped(Layer.build(Transport.layerTcp(options)))), (error) => error.setting)

  it.live("off loopback without a secret is refused before anything is bound, unless allowed by name", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* refused({ host: "0.0.0.0", advertisedHost: "node-1" }), "remoting.host")
      assert.strictEqual(yield* refused({ advertisedHost: "10.0.0.7" }), "remoting.advertisedHost")
      assert.strictEqual(yield* refused({ host: "0.0.0.0", allowInsecure: true }), "remoting.advertisedHost")
      assert.strictEqual(yield* refused({ host: "203.0.113.1", secret: Redacted.make("s") }), "remoting.port")
      assert.strictEqual(yield* refused({ port: -1 }), "remoting.port")
      yield* Effect.scoped(
        Layer.build(Transport.layerTcp({ host: "0.0.0.0", advertisedHost: "n", allowInsecure: true }))
      )
    }))

  it.live("advertises another address than it binds", () =>
    Effect.gen(function*() {
      const options = { advertisedHost: "localhost", advertisedPort: 4711 }
      const context = yield* Layer.build(Transport.layerTcp(options))
      assert.deepStrictEqual(Context.get(context, Transport.Transport).address, { host: "localhost", port: 4711 })
    }).pipe(Effect.scoped))

  it.live("a port that is taken is a setting that is wrong", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Transport.layerTcp({}))
      const { port } = Context.get(context, Transport.Transport).address
      assert.strictEqual(yield* refused({ port }), "remoting.port")
    }).pipe(Effect.scoped))
})

// A hundred thousand frames that went wrong on the way: none may throw, reach an actor as something it is not, disturb another
// connection, or take more memory than it has bytes.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Timeouts } from "../../src/Actor/internal/Timeouts.ts"
import { Node } from "../../src/Actor/Node.ts"
import { Buffers } from "../../src/Remoting/internal/buffers.ts"
import { Calls } from "../../src/Remoting/internal/calls.ts"
import { Framer } from "../../src/Remoting/internal/framer.ts"
import * as Handshake from "../../src/Remoting/internal/handshake.ts"
import { Bulk } from "../../src/Remoting/internal/bulk.ts"
import { Messages } from "../../src/Remoting/internal/messages.ts"
import { Session } from "../../src/Remoting/internal/session.ts"
import { Turns } from "../../src/Remoting/internal/turns.ts"
import { Malformed, Writer } from "../../src/Remoting/internal/wire.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import type { Connection } from "../../src/Remoting/Transport.ts"
import { layerRecorders, Recorder, RecorderNext, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { ActorHost } from "../../src/Actor/ActorHost.ts"
import { identityOf, startNode } from "./support.ts"

const frames = 100_000

class Group extends RpcGroup.make(
  Rpc.make("Fuzz", {
    payload: { items: Schema.Array(Schema.Struct({ name: Schema.String, n: Schema.Number })), any: Schema.Unknown },
    success: Schema.Int
  })
) {}

/** A small generator of numbers, so that a failing run can be repeated from its seed. */
const generator = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

/** as an assertion, a hundred thousand times as fast */
const check = (condition: boolean, what = "holds"): void => {
  if (!condition) assert.fail(what)
}

const nasty = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x10, 0x40]

const mutate = (frame: Uint8Array, others: ReadonlyArray<Uint8Array>, pick: (below: number) => number): Uint8Array => {
  let bytes = Uint8Array.from(frame)
  for (let times = 1 + pick(4); times > 0; times--) {
    const at = pick(Math.max(1, bytes.length))
    switch (pick(7)) {
      case 0:
        bytes[at] = bytes[at]! ^ (1 << pick(8))
        break
      case 1:
        bytes[at] = nasty[pick(nasty.length)]!
        break
      case 2:
        bytes = bytes.slice(0, at)
        break
      case 3:
        bytes = Uint8Array.from([...bytes.slice(0, at), ...bytes.slice(Math.min(bytes.length, at + pick(8)))])
        break
      case 4:
        bytes = Uint8Array.from([
          ...bytes.slice(0, at),
          ...Array.from({ length: 1 + pick(9) }, () => pick(256)),
          ...bytes.slice(at)
        ])
        break
      case 5: {
        const other = others[pick(others.length)]!
        bytes = Uint8Array.from([...bytes.slice(0, at), ...other.slice(pick(Math.max(1, other.length)))])
        break
      }
      default:
        bytes = Uint8Array.from([...bytes, ...bytes.slice(at)])
    }
  }
  return bytes.length === 0 ? Uint8Array.of(pick(256)) : bytes.slice(0, 4096)
}

/** What two nodes said to each other while they did a bit of everything. */
const conversation = Effect.gen(function*() {
  const seen: Array<Uint8Array> = []
  const network = yield* SimulatedNetwork.make({ seed: 1, onFrame: (_from, _to, frame) => void seen.push(frame) })
  const a = yield* startNode(network, "a")
  const b = yield* startNode(network, "b")
  const delivery = Context.get(a, Delivery)
  const at = (name: string) => ({
    kind: Recorder.name,
    name,
    node: Context.get(b, Node).address,
    placement: 1,
    epoch: 1
  })
  const handlers = Group.toLayer({ Fuzz: ({ items }) => Effect.succeed(items.length) })
  yield* Context.get(b, Remoting).serve(Group).pipe(Effect.provide(handlers))
  for (const kind of [Recorder, RecorderNext]) {
    yield* delivery.tell(at("x"), { kind, tag: "Put", payload: { n: 1, text: "hello" } })
    yield* delivery.ask(at("y"), { kind, tag: "Parse", payload: { text: "42" } }, 5000)
    yield* delivery.ask(at("y"), { kind, tag: "Parse", payload: { text: "forty" } }, 5000)
  }
  // what an outsider says that wants to be carried on, and what becomes of who shows a bad certificate
  const asking = { ...config({ secrets: ["s"], insecure: false }), self: { ...identity("a"), relay: "node-7:7000" } }
  const [waiting, hello] = Handshake.dial(asking)
  const untrusted = { ...config({ secrets: ["s"], insecure: false }), untrusted: "its certificate has expired" }
  for (const command of hello) {
    if (command._tag !== "Send") continue
    seen.push(command.frame)
    const [, refusal] = Handshake.step(Handshake.accept()[0], untrusted, command.frame)
    for (const answer of refusal) if (answer._tag === "Send") seen.push(answer.frame)
  }
  assert.strictEqual(waiting._tag, "AwaitWelcome")
  const items = [{ name: "one", n: 1 }, { name: "two", n: 2 }]
  yield* Context.get(a, Remoting).call(at("x").node, Group, "Fuzz", { items, any: { deep: [[[1, "x"]]] } })
  return seen
}).pipe(Effect.scoped)

/** The same batches as if they were large: in two parts, of a piece each. */
const inPieces = (seen: ReadonlyArray<Uint8Array>): ReadonlyArray<Uint8Array> =>
  seen.filter((frame) => frame[0] === Handshake.FrameType.Data).flatMap((batch) => {
    const bulk = new Bulk(batch.subarray(1), new Uint8Array(0), [Uint8Array.of(120, 120, 120)], 0, () => {})
    const pieces: Array<Uint8Array> = []
    while (!bulk.over) {
      const writer = new Writer().byte(Handshake.FrameType.Chunk)
      bulk.write(writer)
      pieces.push(writer.take())
    }
    return pieces
  })

const identity = (id: string) => identityOf(id, { kinds: new Map([[Recorder.name, Recorder.fingerprint]]) })

/** whoever wants to know that all has left */
let idle = () => {}

const connection = (): Connection => ({
  peer: "fuzz",
  loopback: true,
  send: () => Effect.void,
  offer: () => true,
  unsent: () => 0,
  onIdle: (listener) => {
    idle = listener
  },
  limitInbound: () => {},
  receive: Effect.never,
  close: Effect.void
})

describe("frames that went wrong", () => {
  it.effect(
    "never throw, never reach an actor as what they are not, and end their own session at most",
    () =>
      Effect.gen(function*() {
        const said = yield* conversation
        assert.isTrue(said.length >= 8)
        const pieces = inPieces(said)
        const seen = [...said, ...pieces]
        const pick = generator(20_260_101)
        const context = yield* Effect.context<never>()
        const recorders = yield* Recorders
        const host = yield* ActorHost
        const timeouts = new Timeouts(yield* Clock.Clock, context)
        const runFork = Effect.runForkWith(context)
        const messages = new Messages({
          delivery: yield* Delivery,
          kinds: host.kinds,
          self: identity("b"),
          timeouts,
          publish: () => {},
          runFork
        })
        const calls = new Calls({ timeouts, runFork, self: "b" })
        let served = 0
        const handlers = Group.toLayer({
          Fuzz: ({ items }) =>
            Effect.sync(() => {
              served++
              for (const item of items) assert.isTrue(typeof item.name === "string" && typeof item.n === "number")
              return items.length
            })
        })
        yield* calls.serveGroup(Group).pipe(Effect.provide(handlers))
        let number = 0
        const buffers = new Buffers()
        const turns = new Turns()
        const open = () =>
          new Session({
            connection: connection(),
            self: identity("b"),
            peer: identity("a"),
            dialed: false,
            number: ++number,
            outboxBytes: 1024 * 1024,
            buffers,
            turns,
            now: () => 0,
            onData: messages.onData,
            onControl: calls.onControl,
            onEnd: (session) => {
              messages.onEnd(session)
              calls.onEnd(session)
            },
            onLost: messages.onLost
          })

        let ended = 0
        let lived = 0
        const secret = { secrets: ["s"], insecure: false }
        for (let i = 0; i < frames; i++) {
          const frame = mutate(seen[pick(seen.length)]!, seen, pick)
          // as it comes from a socket: cut anywhere
          const framer = new Framer(64 * 1024)
          const wire = Uint8Array.from([0, 0, frame.length >> 8, frame.length & 0xff, ...frame])
          const cut = pick(wire.length)
          const framed = [...framer.feed(wire.subarray(0, cut)), ...framer.feed(wire.subarray(cut))]
          check(framed.length === 1, "one frame")

          // to somebody unknown
          for (const [state] of [Handshake.accept(), Handshake.dial({ ...config(secret), self: identity("b") })]) {
            try {
              const [next] = Handshake.step(state, config(secret), frame)
              // a stranger may get as far as being asked for its proof, and no further
              check(next._tag === "Done" || next._tag === "AwaitProof", next._tag)
            } catch (error) {
              check(error instanceof Malformed, String(error))
            }
          }

          // to a session that has heard the right things before
          const session = open()
          session.take(seen.filter((one) => one[0] === Handshake.FrameType.Data).slice(0, pick(3)))
          const before = recorders.received.length
          session.take(pick(4) === 0 ? [pieces[pick(pieces.length)]!, frame] : [frame])
          check(recorders.received.length - before <= frame.length)
          idle()
          if (session.over === undefined) lived++
          else ended++
          session.endUnsafe("over")
          if (recorders.received.length > 10_000) {
            for (const { payload, tag } of recorders.received.splice(0)) {
              const schema = Recorder.messages.get(tag)!.payload as Schema.Codec<unknown>
              check(Schema.is(schema)(payload))
            }
          }
        }
        // the run has seen both ends, and much of what is between
        assert.isTrue(ended > frames / 20 && lived > frames / 20, `${ended} ended, ${lived} lived`)
        assert.isTrue(served > 100, `${served} calls got through`)
        assert.isUndefined(Object.getOwnPropertyDescriptor(Object.prototype, "polluted"))
        timeouts.close()
      }).pipe(Effect.provide(layerRecorders()), Effect.scoped),
    120_000
  )

  it.effect("lengths that lie take no memory", () =>
    Effect.sync(() => {
      const framer = new Framer(1024)
      for (const header of [[0xff, 0xff, 0xff, 0xff], [0x80, 0, 0, 0], [0, 0, 4, 1], [0, 0, 0, 0]]) {
        let thrown: unknown
        try {
          new Framer(1024).feed(Uint8Array.from(header))
        } catch (error) {
          thrown = error
        }
        assert.isTrue(thrown instanceof Malformed)
      }
      assert.deepStrictEqual(framer.feed(Uint8Array.of(0, 0, 4, 0, 1)), [])
      assert.isTrue(framer.partial)
    }))

  it("bytes that come one by one take no more memory than they are", () => {
    const framer = new Framer(1024 * 1024)
    const { parts } = framer as unknown as { readonly parts: ReadonlyArray<unknown> }
    assert.deepStrictEqual(parts, [])
    framer.feed(Uint8Array.of(0, 1, 0, 0))
    let most = 0
    for (let i = 0; i < 0xffff; i++) {
      framer.feed(Uint8Array.of(i))
      most = Math.max(most, (framer as unknown as { readonly parts: ReadonlyArray<unknown> }).parts.length)
    }
    assert.isAtMost(most, 256)
    const [frame] = framer.feed(Uint8Array.of(7))
    assert.deepStrictEqual([...frame!.subarray(0, 5), frame!.length, frame!.at(-1)], [0, 1, 2, 3, 4, 0x10000, 7])
  })
})

const config = (secret: { readonly secrets: ReadonlyArray<string>; readonly insecure: boolean }): Handshake.Config => ({
  self: identity("b"),
  nonce: new Uint8Array(Handshake.nonceBytes),
  peer: "fuzz",
  admit: () => undefined,
  ...secret
})

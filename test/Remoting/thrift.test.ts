// What a message costs beside its own bytes: frames, names, timers. And that neither a message nor a layout is taken twice or on trust.
import { assert, describe, it } from "@effect/vitest"
import { Clock, Context, Effect, Exit, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { ActorStopped, AskError } from "../../src/Actor/errors.ts"
import { type Asker, Resumed } from "../../src/Actor/internal/Envelope.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import { codecOf } from "../../src/Remoting/internal/codec.ts"
import { FrameType, kindsFrame } from "../../src/Remoting/internal/handshake.ts"
import { maxTargets, modes, Op } from "../../src/Remoting/internal/messageTables.ts"
import { Reader } from "../../src/Remoting/internal/wire.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import { Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { startNode } from "./support.ts"
import { makeSide } from "./wired.ts"

const message = (tag: string, payload: Schema.Top, success: Schema.Top) =>
  [tag, { tag, payload, success, error: Schema.Never, stream: false }] as const

/** Nothing of it travels beside its message. */
const Items = Schema.Struct({ items: Schema.Array(Schema.String) })

const Warehouse = {
  name: "Warehouse",
  props: Schema.Struct({}),
  fingerprint: "warehouse-1",
  messages: new Map([
    message("Store", Schema.Struct({ n: Schema.Int }), Schema.Void),
    message("Fetch", Schema.Struct({ n: Schema.Int }), Schema.Int),
    message("Move", Items, Items)
  ])
} as unknown as KindDefinition

/** Both ends of a session, and what reached the second. */
const pair = Effect.gen(function*() {
  const told: Array<number> = []
  const at: Array<string> = []
  const asked: Array<Asker> = []
  const nobody = Effect.fail(new ActorStopped({ name: "x" }))
  const delivery = Delivery.of({
    tell: () => nobody,
    ask: () => nobody,
    tryTell: ({ address }, { payload }) => {
      at.push(address.name)
      told.push((payload as { readonly n: number }).n)
      return Exit.void
    },
    tryAsk: (_, asker) => asked.push(asker) > 0
  })
  const a = yield* makeSide({ kind: Warehouse, delivery, dialed: true })
  const b = yield* makeSide({ kind: Warehouse, delivery, dialed: false })
  return { a, b, asked, at, told }
})

describe("messages on a connection", () => {
  it.effect("leave at once where they are alone, and together once a write that is in flight is over", () =>
    Effect.gen(function*() {
      const { a, b, told } = yield* pair
      for (const n of [1, 2, 3]) {
        a.tell("Store", { n }, "shelf")
        assert.strictEqual(a.wire.taken.length, n, "alone")
      }
      a.wire.unsent = 1
      for (let n = 4; n <= 1000; n++) a.tell("Store", { n }, "shelf")
      assert.strictEqual(a.wire.taken.length, 3, "a write is in flight")
      a.wire.unsent = 0
      a.wire.idle()
      assert.strictEqual(a.wire.taken.length, 4, "together")
      b.session.take(a.wire.taken)
      assert.deepStrictEqual(told, Array.from({ length: 1000 }, (_, n) => n + 1))
    }))

  it.effect("that are written while frames are taken in leave together", () =>
    Effect.gen(function*() {
      const { a, b, asked } = yield* pair
      a.wire.unsent = 1
      for (let n = 0; n < 100; n++) a.ask("Fetch", { n }, "shelf")
      a.wire.unsent = 0
      a.wire.idle()
      b.session.take(a.wire.taken.splice(0))
      assert.strictEqual(asked.length, 100)
      // as an actor does that is told so where it is read
      b.session.options.turns.begin()
      for (const asker of asked) asker.succeed(1)
      assert.deepStrictEqual(b.wire.taken, [])
      b.session.options.turns.end()
      assert.strictEqual(b.wire.taken.length, 1)
      a.session.take(b.wire.taken)
      assert.strictEqual(a.outcomes.filter((outcome) => outcome === "Success").length, 100)
    }))

  it.effect("say names of kinds, messages and targets once, and numbers from then on", () =>
    Effect.gen(function*() {
      const { a, b, asked, told } = yield* pair
      for (let n = 0; n < 50; n++) {
        for (const name of ["shelf-1", "shelf-2"]) {
          a.tell("Store", { n }, name)
          a.ask("Fetch", { n }, name)
        }
      }
      const said = Buffer.concat(a.wire.taken).toString("latin1")
      // a target is told with its kind
      const times = { Warehouse: 3, "warehouse-1": 1, Store: 1, Fetch: 1, "shelf-1": 1, "shelf-2": 1 }
      for (const [name, count] of Object.entries(times)) assert.strictEqual(said.split(name).length - 1, count, name)
      b.session.take(a.wire.taken)
      assert.deepStrictEqual([told.length, asked.length], [100, 100])
    }))
})

describe("a large message and a large answer", () => {
  it.effect("leave in pieces of 16 KiB, of whatever they consist, and small ones leave between them", () =>
    Effect.gen(function*() {
      const { a, b, asked } = yield* pair
      const value = { items: Array.from({ length: 3000 }, (_, n) => `${n}`.padStart(100, "x")) }
      /** All that each says until neither says more. */
      const talk = () => {
        const said = { a: Array<Uint8Array>(), b: Array<Uint8Array>() }
        a.wire.unsent = b.wire.unsent = 0
        a.wire.idle()
        b.wire.idle()
        while (a.wire.taken.length + b.wire.taken.length > 0) {
          const [fromA, fromB] = [a.wire.taken.splice(0), b.wire.taken.splice(0)]
          said.a.push(...fromA)
          said.b.push(...fromB)
          b.session.take(fromA)
          a.session.take(fromB)
        }
        return said
      }
      a.wire.unsent = 1
      a.ask("Move", value, "shelf")
      a.ask("Fetch", { n: 1 }, "other shelf")
      const { a: question } = talk()
      assert.deepStrictEqual(asked.map(({ tag }) => tag), ["Fetch", "Move"])
      const [small, large] = asked
      b.wire.unsent = 1
      large!.succeed(value)
      small!.succeed(1)
      const { b: answer } = talk()
      for (const frames of [question, answer]) {
        const pieces = frames.filter((frame) => frame[0] === FrameType.Chunk)
        assert.isAbove(pieces.length, 15)
        for (const piece of pieces) assert.isBelow(piece.length, 16 * 1024 + 64)
        // the small one in a batch of its own, before the last piece
        const [last, batch] = [
          frames.lastIndexOf(pieces.at(-1)!),
          frames.findIndex(([type]) => type === FrameType.Data)
        ]
        assert.isTrue(batch >= 0 && batch < last)
      }
      assert.deepStrictEqual(a.outcomes, ["Success", "Success"])
    }))
})

describe("a large ask that is given up half way", () => {
  it.effect("takes its rest with it, reaches nobody, and is in nobody's way", () =>
    Effect.gen(function*() {
      const { a, b, asked, told } = yield* pair
      const items = Array.from({ length: 10_000 }, () => "x".repeat(100))
      const to = { kind: Warehouse.name, name: "shelf", node: a.session.peer, placement: 1, epoch: 1 }
      const asker = new Resumed({ kind: Warehouse, tag: "Move", payload: { items } }, "shelf", 60_000, () => {})
      a.wire.stuck = true
      a.messages.outgoing.ask(a.session, to, asker)
      a.tell("Store", { n: 1 }, "shelf")
      assert.isAbove(a.wire.taken.length, 2)
      b.session.take(a.wire.taken.splice(0))
      asker.abandon()
      a.wire.stuck = false
      a.wire.unsent = 0
      a.wire.idle()
      let rest = 0
      while (a.wire.taken.length + b.wire.taken.length > 0) {
        const frames = a.wire.taken.splice(0)
        for (const { length } of frames) rest += length
        b.session.take(frames)
        a.session.take(b.wire.taken.splice(0))
      }
      assert.isBelow(rest, 1000)
      assert.deepStrictEqual([asked.length, told], [0, [1]])
      assert.isUndefined(b.session.over)
    }))
})

describe("numbers of targets", () => {
  it.effect("begin anew where there are too many, and each message still reaches the one that it is for", () =>
    Effect.gen(function*() {
      const { a, b, at } = yield* pair
      const names: Array<string> = []
      // twice as many as there are numbers, with old ones in between, by references that remember their numbers
      const routes = ["kept-1", "kept-2"].map((name) => ({
        address: { kind: Warehouse.name, name, node: a.session.peer, placement: 1, epoch: 1 },
        found: undefined
      }))
      for (let n = 0; n < 2 * maxTargets; n++) {
        const route = n % 1000 === 0 ? routes[n / 1000 % 2] : undefined
        const name = route?.address.name ?? `shelf-${n}`
        const message = { kind: Warehouse, tag: "Store", payload: { n } }
        const address = route?.address ??
          { kind: Warehouse.name, name, node: a.session.peer, placement: 1, epoch: 1 }
        if (a.messages.outgoing.tell(a.session, address, message, route) !== undefined) assert.fail(name)
        names.push(name)
        a.wire.unsent = n % 256 === 255 ? 0 : 1
        if (a.wire.unsent > 0) continue
        a.wire.idle()
        b.session.take(a.wire.taken.splice(0))
      }
      assert.isUndefined(b.session.over)
      assert.deepStrictEqual(at, names)
    }))
})

describe("a sign of life", () => {
  it.effect("leaves before whatever waits, be it messages or calls", () =>
    Effect.gen(function*() {
      const { a, b } = yield* pair
      b.wire.unsent = 1024 * 1024
      for (let n = 0; n < 100; n++) b.tell("Store", { n }, "shelf")
      for (let n = 0; n < 100; n++) b.session.outbox.sendControl(Uint8Array.of(FrameType.Control, 1, n))
      b.session.take([Uint8Array.of(FrameType.Ping)])
      assert.deepStrictEqual(b.wire.taken, [])
      b.wire.unsent = 0
      b.wire.idle()
      const types = b.wire.taken.map((frame) => frame[0])
      const { Control, Data, Pong } = FrameType
      assert.deepStrictEqual(types, [Pong, ...Array.from({ length: 100 }, () => Control), Data])
      // and one that is asked for does not even wait for those
      a.wire.unsent = 1024 * 1024
      a.session.outbox.sendControl(Uint8Array.of(FrameType.Control, 1, 1))
      a.session.beat(10_000, 1000, 3000)
      assert.deepStrictEqual(a.wire.taken, [Uint8Array.of(FrameType.Ping)])
    }))
})

describe("an ask that comes twice", () => {
  it.effect("is handled once, and whoever says it twice is given up", () =>
    Effect.gen(function*() {
      const { a, b, asked } = yield* pair
      a.tell("Store", { n: 1 }, "shelf")
      b.session.take(a.wire.taken.splice(0))
      a.ask("Fetch", { n: 1 }, "shelf")
      a.ask("Fetch", { n: 2 }, "shelf")
      const [, second] = a.wire.taken
      b.session.take(a.wire.taken)
      b.session.take([second!])
      assert.deepStrictEqual(asked.map(({ payload }) => payload), [{ n: 1 }, { n: 2 }])
      assert.strictEqual(b.session.over, "protocol violation: an ask came twice")
    }))
})

describe("what comes in one read with what ends the session", () => {
  it.effect("is taken up to there, and not behind it", () =>
    Effect.gen(function*() {
      const { a, b, told } = yield* pair
      a.tell("Store", { n: 1 }, "shelf")
      a.tell("Store", { n: 2 }, "shelf")
      const [first, second] = a.wire.taken
      b.session.take([first!, Uint8Array.of(99), second!])
      assert.deepStrictEqual(told, [1])
      assert.strictEqual(b.session.over, "protocol violation: unknown frame type")
    }))
})

describe("a name that is no UTF-8", () => {
  it.effect("ends the session that says it, and reaches nobody under another name", () =>
    Effect.gen(function*() {
      const { a, b, asked, told } = yield* pair
      a.tell("Store", { n: 1 }, "shelf")
      const [frame] = a.wire.taken
      const bytes = Buffer.from(frame!)
      const at = bytes.indexOf("shelf")
      for (const wrong of [[0xff], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xc0, 0xaf]]) {
        const other = yield* pair
        other.b.session.take([
          Buffer.concat([bytes.subarray(0, at), Buffer.from(wrong), bytes.subarray(at + wrong.length)])
        ])
        assert.strictEqual(other.b.session.over, "protocol violation: a text is not UTF-8")
        assert.deepStrictEqual(other.told, [])
      }
      b.session.take([bytes])
      assert.deepStrictEqual([told, asked], [[1], []])
    }))
})

describe("kinds that a peer registers later", () => {
  it.effect("are written by position from then on where both sides have the same, and by name where they differ", () =>
    Effect.gen(function*() {
      const { a, b, told } = yield* pair
      const modeOf = (frame: Uint8Array) => {
        const reader = new Reader(frame)
        assert.deepStrictEqual([reader.byte(), reader.byte()], [FrameType.Data, Op.Kind])
        assert.deepStrictEqual([reader.text(100), reader.text(100)], ["Warehouse", "warehouse-1"])
        return modes[reader.byte()]
      }
      const cases = [["warehouse-1", "compact"], ["warehouse-2", "evolving"], [undefined, "evolving"]] as const
      for (const [fingerprint, mode] of cases) {
        const { a } = yield* pair
        a.session.kinds = new Map()
        const kinds = fingerprint === undefined ? [] : [[Warehouse.name, fingerprint] as const]
        a.session.take([kindsFrame(new Map(kinds), 1000)])
        a.tell("Store", { n: 1 }, "shelf")
        assert.strictEqual(modeOf(a.wire.taken[0]!), mode)
      }
      // by name, they are understood all the same
      a.session.kinds = new Map()
      a.tell("Store", { n: 1 }, "shelf")
      b.session.take(a.wire.taken)
      assert.deepStrictEqual(told, [1])
    }))
})

describe("a fingerprint that is another", () => {
  it.effect("is ProtocolMismatch for messages of that kind, though the peer claims that layouts are the same", () =>
    Effect.gen(function*() {
      const { a, b, asked, told } = yield* pair
      a.tell("Store", { n: 1 }, "shelf")
      a.ask("Fetch", { n: 2 }, "shelf")
      const lies = a.wire.taken.splice(0).map((frame) =>
        Buffer.from(Buffer.from(frame).toString("latin1").replace("warehouse-1", "warehouse-2"), "latin1")
      )
      b.session.take(lies)
      assert.deepStrictEqual([told, asked], [[], []])
      assert.deepStrictEqual(b.lost(), ["shelf", "shelf"])
      assert.isUndefined(b.session.over)
      const reader = new Reader(Buffer.concat(b.wire.taken))
      assert.deepStrictEqual([reader.byte(), reader.byte()], [FrameType.Data, Op.Refused])
      reader.number()
      const error = codecOf(AskError, "evolving").decode(reader.blob()) as AskError
      assert.isTrue(error._tag === "ProtocolMismatch", error._tag)
      assert.deepInclude(error, { what: "Warehouse.Fetch", ours: "warehouse-2", theirs: "warehouse-1" })
    }))
})

describe("peers that are quiet", () => {
  /** Sleeps of a node that so many are connected to: in a minute, and for a thousand asks and as many tells. */
  const sleepsBeside = Effect.fnUntraced(function*(count: number) {
    const network = yield* SimulatedNetwork.make({ seed: 1 })
    const clock = yield* Clock.Clock
    let sleeps = 0
    const counting: Clock.Clock = {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
      currentTimeMillis: clock.currentTimeMillis,
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
      currentTimeNanos: clock.currentTimeNanos,
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      monotonicTimeNanos: clock.monotonicTimeNanos,
      sleep: (duration) => {
        sleeps++
        return clock.sleep(duration)
      }
    }
    const hub = yield* startNode(network, "hub").pipe(Effect.provideService(Clock.Clock, counting))
    const to = { kind: Recorder.name, name: "x", node: Context.get(hub, Node).address, placement: 1, epoch: 1 }
    const parse = { kind: Recorder, tag: "Parse", payload: { text: "1" } }
    const peers = yield* Effect.forEach(
      Array.from({ length: count }),
      (_, n) => Effect.tap(startNode(network, `peer-${n}`), (peer) => Context.get(peer, Delivery).ask(to, parse, 5000))
    )
    yield* TestClock.adjust("10 seconds")
    sleeps = 0
    yield* TestClock.adjust("1 minute")
    const quiet = sleeps
    assert.strictEqual((yield* Context.get(hub, Remoting).connected).length, count)
    const { ask, tell } = Context.get(peers[0]!, Delivery)
    sleeps = 0
    for (let n = 0; n < 1000; n++) {
      yield* tell(to, { kind: Recorder, tag: "Put", payload: { n } })
      yield* ask(to, parse, 5000)
    }
    assert.strictEqual(Context.get(hub, Recorders).received.length, count + 2000)
    return { quiet, busy: sleeps }
  }, Effect.scoped)

  it.effect("cost no timers of their own, neither in time nor for a message of others", () =>
    Effect.gen(function*() {
      const few = yield* sleepsBeside(2)
      const many = yield* sleepsBeside(40)
      assert.strictEqual(many.quiet, few.quiet)
      assert.isAtMost(few.quiet, 130)
      assert.isAtMost(many.busy, 2)
    }))
})

// Deflated frames: who sends and takes them, and what a peer cannot do with them.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit } from "effect"
import { deflateRawSync } from "node:zlib"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { Buffers } from "../../src/Remoting/internal/buffers.ts"
import { deflateCapability, Deflater, maxInside, unpack } from "../../src/Remoting/internal/compression.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import { Session } from "../../src/Remoting/internal/session.ts"
import { Turns } from "../../src/Remoting/internal/turns.ts"
import { Malformed, Reader, Writer } from "../../src/Remoting/internal/wire.ts"
import { decode } from "../../src/Remoting/Settings.ts"
import type { Connection } from "../../src/Remoting/Transport.ts"
import { cases, Recorder } from "../../src/Testing/DeliveryContract.ts"
import { identityOf, simulatedHarness } from "./support.ts"

describe("Delivery with deflated frames", () => {
  for (const { name, run } of cases) {
    it.effect(
      name,
      () => Effect.flatMap(simulatedHarness({ remoting: { compression: "all", compressionThreshold: 64 } }), run)
    )
  }
})

describe("compression", () => {
  /** Bytes on the way for one message with that text, from a node with these settings to one of the same datacenter. */
  const bytesFor = (text: string, compression: string) =>
    Effect.gen(function*() {
      let sent = 0
      const { a, b } = yield* simulatedHarness({
        remoting: { compression },
        network: { onFrame: (_from, _to, frame) => void (sent += frame.length) }
      })
      const to = { kind: Recorder.name, name: "x", node: Context.get(b, Node).address, placement: 1, epoch: 1 }
      const ask = { kind: Recorder, tag: "Parse", payload: { text } }
      assert.isTrue(Exit.isFailure(yield* Context.get(a, Delivery).ask(to, ask, 5000)))
      return sent
    })
  const words = Array.from({ length: 20_000 }, (_, i) => `word${i % 700}`).join(" ")

  it.effect("saves most of a text, there and back, where it is asked for", () =>
    Effect.gen(function*() {
      const plain = yield* bytesFor(words, "none")
      const packed = yield* bytesFor(words, "all")
      assert.isAbove(plain, words.length)
      assert.isBelow(packed, plain / 3)
      assert.isAbove(yield* bytesFor(words, "otherDataCenters"), words.length)
    }))

  it.effect("is one of three words", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* Effect.flip(decode({ compression: "zip" }))).setting, "remoting.compression")
    }))
})

const frameOf = (content: Uint8Array) => Uint8Array.from([FrameType.Data, ...content])
const text = new TextEncoder().encode("again and ".repeat(1000))

describe("a frame", () => {
  it("comes out as it was", () => {
    const frame = frameOf(text)
    const packed = new Deflater(64).pack(frame, 8)!
    assert.isBelow(packed.length, frame.length / 10)
    assert.strictEqual(packed.byteOffset, 8)
    assert.deepStrictEqual(unpack(new Reader(packed, 1), 1024 * 1024), Buffer.from(frame))
  })

  it("leaves as it is where it is small, or would not become smaller, and then those after it for a while", () => {
    const deflater = new Deflater(64)
    assert.isUndefined(deflater.pack(frameOf(text.subarray(0, 50)), 8))
    let state = 1
    const noise = Uint8Array.from(
      { length: 10_000 },
      () => (state = Math.imul(state, 1_664_525) + 1_013_904_223) >>> 24
    )
    assert.isUndefined(deflater.pack(frameOf(noise), 8))
    const tries = Array.from({ length: 20 }, () => deflater.pack(frameOf(text), 8) !== undefined)
    assert.deepStrictEqual([tries[0], tries.at(-1)], [false, true])
  })
})

describe("what a peer sends deflated", () => {
  const deflatedFrame = (length: number, content: Uint8Array) =>
    new Writer().byte(FrameType.Deflated).varint(length).raw(content).take()
  const refused = (frame: Uint8Array) => {
    const before = process.memoryUsage()
    let thrown: unknown
    try {
      unpack(new Reader(frame, 1), 1024 * 1024)
    } catch (error) {
      thrown = error
    }
    assert.isTrue(thrown instanceof Malformed, String(thrown))
    assert.isBelow(process.memoryUsage().arrayBuffers - before.arrayBuffers, 4 * 1024 * 1024)
  }

  it("is refused where it becomes more than it says: a bomb takes no memory", () => {
    const bomb = deflateRawSync(new Uint8Array(64 * 1024 * 1024))
    for (const length of [1, 1000, maxInside, maxInside + 1, 64 * 1024 * 1024, Number.MAX_SAFE_INTEGER]) {
      refused(deflatedFrame(length, bomb))
    }
  })

  it("is refused where it is garbage, cut off, empty, or less than it says", () => {
    const good = deflateRawSync(frameOf(text))
    refused(deflatedFrame(text.length + 1, Uint8Array.from({ length: 100 }, (_, i) => (i * 37) % 256)))
    refused(deflatedFrame(text.length + 1, good.subarray(0, 20)))
    refused(deflatedFrame(text.length + 1, new Uint8Array(0)))
    refused(deflatedFrame(0, good))
    refused(deflatedFrame(text.length + 2, good))
  })

  it("is refused where it is no message: calls, heartbeats, or a deflated one again", () => {
    for (const type of [FrameType.Control, FrameType.Ping, FrameType.Credit, FrameType.Deflated, FrameType.Hello, 99]) {
      refused(deflatedFrame(3, deflateRawSync(Uint8Array.of(type, 1, 2))))
    }
  })
})

describe("a session", () => {
  const open = (peer: ReadonlyArray<string>) => {
    const frames: Array<Uint8Array> = []
    const connection: Connection = {
      peer: "test",
      loopback: true,
      send: () => Effect.void,
      offer: (frame) => frames.push(frame) > 0,
      unsent: () => 0,
      onIdle: () => {},
      limitInbound: () => {},
      receive: Effect.never,
      close: Effect.void
    }
    const session = new Session({
      connection,
      self: identityOf("a", { capabilities: [deflateCapability] }),
      peer: identityOf("b", { capabilities: peer }),
      dialed: true,
      number: 1,
      outboxBytes: 1024 * 1024,
      deflateFrom: 64,
      buffers: new Buffers(),
      turns: new Turns(),
      now: () => 0,
      onData: () => {},
      onControl: () => {},
      onEnd: () => {},
      onLost: () => {}
    })
    return { frames, session }
  }
  const write = (session: Session) => {
    session.outbox.writer(text.length).raw(text)
    session.outbox.wrote()
  }

  it("deflates only for a peer that has named the capability", () => {
    for (const [peer, type] of [[[deflateCapability], FrameType.Deflated], [[], FrameType.Data]] as const) {
      const { frames, session } = open(peer)
      write(session)
      assert.deepStrictEqual(frames.map((frame) => frame[0]), [type])
    }
  })

  it("ends where a deflated frame is not what it says, and no other does", () => {
    const { session } = open([])
    const other = open([]).session
    session.take([new Writer().byte(FrameType.Deflated).varint(9).raw(text).take()])
    assert.include(session.over!, "protocol violation")
    assert.isUndefined(other.over)
  })
})

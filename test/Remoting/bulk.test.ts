// Large messages: in pieces there and back, whatever a peer says about them, and how many may be under way.
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { attach, detach, placesOf } from "../../src/Remoting/internal/attached.ts"
import { Assembly, Bulk, maxParts, Pace } from "../../src/Remoting/internal/bulk.ts"
import { Framer } from "../../src/Remoting/internal/framer.ts"
import { Slabs } from "../../src/Remoting/internal/memory.edge.ts"
import { Malformed, Reader, Writer } from "../../src/Remoting/internal/wire.ts"

const bytes = (length: number, seed = 1) => Uint8Array.from({ length }, (_, i) => (i * 31 + seed) % 251)

/** All pieces of a message. */
const pieces = (bulk: Bulk): ReadonlyArray<Uint8Array> => {
  const pieces: Array<Uint8Array> = []
  while (!bulk.over) {
    const writer = new Writer()
    bulk.write(writer)
    pieces.push(writer.take())
  }
  return pieces
}

const put = (assembly: Assembly, all: ReadonlyArray<Uint8Array>) => all.map((piece) => assembly.take(new Reader(piece)))

const refused = (run: () => unknown) => {
  try {
    run()
  } catch (error) {
    assert.isTrue(error instanceof Malformed, String(error))
    return
  }
  assert.fail("was taken")
}

const limit = 1024 * 1024
const ignore = () => {}
const begins = 2
const last = 1

describe("a large message", () => {
  it("comes out as it went in, with what travels beside it in buffers of its own", () => {
    const beside = [bytes(200_000, 2), bytes(70_000, 3)]
    const bulk = new Bulk(bytes(100, 4), bytes(50_000, 5), beside, 0, ignore)
    const parts = put(new Assembly(limit), pieces(bulk)).at(-1)!
    assert.deepStrictEqual(parts.map((part) => part.length), [50_100, 200_000, 70_000])
    assert.deepStrictEqual(parts.slice(1), beside)
    for (const part of parts) assert.strictEqual(part.buffer.byteLength, part.length)
  })

  it("comes out as one part where the peer knows of none", () => {
    const bulk = new Bulk(bytes(100, 4), bytes(200_000, 5), undefined, 0, ignore)
    const parts = put(new Assembly(limit), pieces(bulk)).at(-1)!
    assert.strictEqual(parts.length, 1)
    assert.deepStrictEqual(parts[0]!.subarray(100), bytes(200_000, 5))
  })

  it("that is given up half way is forgotten, and so is one whose bytes were given away", () => {
    const assembly = new Assembly(limit)
    const one = new Bulk(bytes(10), bytes(100_000), [], 0, ignore)
    const writer = new Writer()
    one.write(writer)
    assert.isUndefined(assembly.take(new Reader(writer.take())))
    one.cancelled = true
    put(assembly, pieces(one))
    assert.isTrue(one.abandoned && one.left < one.length)
    const given = bytes(100_000)
    const two = new Bulk(bytes(10), bytes(10), [given], 0, ignore)
    structuredClone(given, { transfer: [given.buffer] })
    assert.deepStrictEqual(put(assembly, pieces(two)), [undefined])
    const three = new Bulk(bytes(10), bytes(100_000), [], 0, ignore)
    assert.strictEqual(put(assembly, pieces(three)).at(-1)!.length, 1)
  })

  it("takes memory for the bytes that came, not for those that were announced", () => {
    const assembly = new Assembly(16 * limit)
    const before = process.memoryUsage().arrayBuffers
    assembly.take(new Reader(new Writer().byte(begins).varint(16 * limit).byte(0).take()))
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 64 * 1024)
  })

  it("is refused where it lies about its lengths or its parts", () => {
    const take = (...all: ReadonlyArray<Writer>) => () => put(new Assembly(limit), all.map((writer) => writer.take()))
    const piece = (flags: number, length: number, content: number) =>
      new Writer().byte(flags).varint(length).raw(bytes(content))
    refused(take(piece(begins, limit + 1, 10)))
    refused(take(piece(begins, Number.MAX_SAFE_INTEGER, 10)))
    refused(take(piece(begins, 10, 20)))
    refused(take(piece(begins, 20, 10), piece(begins, 20, 10)))
    refused(take(piece(begins | last, 20, 10)))
    refused(take(piece(begins, 10, 10), piece(begins, limit - 5, 10)))
    refused(take(...Array.from({ length: maxParts + 1 }, () => piece(begins, 0, 0))))
    // without announcement it ends at the limit too
    refused(take(...Array.from({ length: 100 }, () => new Writer().byte(0).raw(bytes(16_000)))))
    refused(take(new Writer()))
  })
})

describe("what travels beside its message", () => {
  const schema = Schema.Struct({
    name: Schema.String,
    data: Schema.Uint8Array,
    short: Schema.String.check(Schema.isMaxLength(1_000_000)),
    note: Schema.optionalKey(Schema.String)
  })
  const value = { name: "n", data: bytes(100_000), short: "x".repeat(100_000), note: "\u00e9".repeat(70_000) }

  it("are large byte arrays and texts in plain fields, not what a check must see", () => {
    const places = placesOf(schema)!
    const { names, parts, rest } = detach(places, value)!
    assert.deepStrictEqual(names, ["data", "note"])
    assert.strictEqual(parts[0], value.data)
    assert.deepStrictEqual(rest, { ...value, data: new Uint8Array(0), note: "" })
    assert.deepStrictEqual(attach(places, rest, names, parts), value)
    assert.isUndefined(detach(places, { ...value, data: bytes(10), note: "short" }))
  })

  it("may be the value itself, and is nowhere in what is no plain struct", () => {
    const whole = placesOf(Schema.Uint8Array)!
    const data = bytes(100_000)
    const { names, parts, rest } = detach(whole, data)!
    assert.strictEqual(attach(whole, rest, names, parts), data)
    for (const other of [Schema.Int, Schema.Array(Schema.String), Schema.NullOr(Schema.String), Schema.Struct({})]) {
      assert.isUndefined(placesOf(other))
    }
  })

  it("is dropped where the other side does not have the field, and refused where it is something else there", () => {
    const older = placesOf(Schema.Struct({ name: Schema.String, n: Schema.Int }))!
    const part = new TextEncoder().encode("text")
    assert.deepStrictEqual(attach(older, { name: "", n: 1 }, ["note"], [part]), { name: "", n: 1 })
    assert.deepStrictEqual(attach(older, { name: "", n: 1 }, ["__proto__"], [part]), { name: "", n: 1 })
    assert.throws(() => attach(older, { name: "", n: 1 }, ["n"], [part]))
    assert.throws(() => attach(older, { name: "", n: 1 }, [""], [part]))
    assert.throws(() => attach(older, { name: "", n: 1 }, ["name"], [Uint8Array.of(0xff)]))
  })
})

describe("pieces under way", () => {
  /** How many bytes leave until a ping must be answered. */
  const burst = (pace: Pace, now: number) => {
    let sent = 0
    while (pace.mayGo) {
      sent += 16_384
      if (pace.left(16_384, false)) pace.asked(now)
    }
    return sent
  }
  /** Bursts one after the other, each answered after so many milliseconds. */
  const bursts = (pace: Pace, times: ReadonlyArray<number>, others = false) => {
    let now = 0
    return times.map((took) => {
      if (others) pace.others()
      const sent = burst(pace, now)
      now += took
      for (let i = 0; i < 64; i++) pace.heard(now)
      return sent
    })
  }
  const most = 2 * 1024 * 1024

  it("become more while answers stay quick, up to a bound", () => {
    const sent = bursts(new Pace(most), Array.from({ length: 20 }, () => 0.2))
    assert.isTrue(sent[19]! >= most && sent[19]! < most * 1.1, sent.join(" "))
  })

  it("become few when answers come late", () => {
    const sent = bursts(new Pace(most), [
      ...Array.from({ length: 20 }, () => 0.2),
      ...Array.from({ length: 20 }, () => 9)
    ])
    assert.isTrue(sent[39]! < 200 * 1024, sent.join(" "))
  })

  it("never stop for good, whatever bound they meet", () => {
    const pace = new Pace(most)
    bursts(pace, Array.from({ length: 20 }, () => 50))
    // some have left that no ping tells of, when the bound falls
    pace.left(16_384, false)
    pace.others()
    for (let i = 0; i < 10; i++) assert.isAbove(bursts(pace, [0])[0]!, 0)
  })

  it("are few beside other messages, and more the longer the way is", () => {
    assert.isBelow(bursts(new Pace(most), Array.from({ length: 20 }, () => 0.2), true)[19]!, 64 * 1024)
    assert.isAbove(bursts(new Pace(most), Array.from({ length: 20 }, () => 40), true)[19]!, 500 * 1024)
  })
})

describe("memory that was read into", () => {
  /** A stream of frames in reads of that many bytes, each in memory of its own. */
  const reads = (frames: ReadonlyArray<Uint8Array>, size: number) => {
    const stream = Buffer.concat(
      frames.flatMap((frame) => [Uint8Array.of(0, 0, frame.length >> 8, frame.length), frame])
    )
    const chunks: Array<Uint8Array> = []
    for (let at = 0; at < stream.length; at += size) {
      // as the platform gives them: a Buffer's own slice is no copy
      const chunk = Buffer.allocUnsafeSlow(Math.min(size, stream.length - at))
      stream.copy(chunk, 0, at)
      chunks.push(chunk)
    }
    return chunks
  }

  it("is given back once every frame in it is spent, and not before, wherever reads cut them", () => {
    const frames = Array.from({ length: 60 }, (_, i) => bytes(8000 + i, i + 1))
    for (const size of [16 * 1024, 20_000, 24_007, 64 * 1024, 8005 * 3 + 1, 8005 * 3 + 3]) {
      const slabs = new Slabs()
      const framer = new Framer(64 * 1024)
      const chunks = reads(frames, size)
      const seen: Array<Uint8Array> = []
      const spend = (some: ReadonlyArray<Uint8Array>) => {
        for (const frame of some) {
          seen.push(Uint8Array.from(frame))
          slabs.spent(frame)
        }
      }
      let waiting: ReadonlyArray<Uint8Array> = []
      for (const [index, chunk] of chunks.entries()) {
        const complete = framer.feed(chunk)
        slabs.hold(chunk, complete)
        spend(waiting)
        // some are looked at before the next read has come, some after
        waiting = index % 2 === 0 ? complete : []
        if (index % 2 === 1) spend(complete)
      }
      spend(waiting)
      assert.deepStrictEqual(seen, frames)
      const back = chunks.filter((chunk) => chunk.length === 0).length
      assert.isAtLeast(back, chunks.length - 3, `${back} of ${chunks.length} with reads of ${size}`)
    }
  })

  it("is kept while one frame in it is not spent, and where reads are small", () => {
    const slabs = new Slabs()
    const chunk = new Uint8Array(32 * 1024)
    const frames = [chunk.subarray(0, 10), chunk.subarray(10, 20)]
    slabs.hold(chunk, frames)
    slabs.spent(frames[0]!)
    assert.strictEqual(chunk.length, 32 * 1024)
    const small = new Uint8Array(100)
    slabs.hold(small, [small])
    slabs.spent(small)
    assert.strictEqual(small.length, 100)
  })
})

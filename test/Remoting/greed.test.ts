// A peer that takes more than it gives: asks and does not read the answers, or asks so much that what waits here is what it said. Its
// memory here is bounded, whatever it does; who is only slow loses nothing.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import { TestClock } from "effect/testing"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { ActorStopped } from "../../src/Actor/errors.ts"
import type { Asker } from "../../src/Actor/internal/Envelope.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import { codecOf } from "../../src/Remoting/internal/codec.ts"
import { FrameType } from "../../src/Remoting/internal/handshake.ts"
import { Writer } from "../../src/Remoting/internal/wire.ts"
import { makeSide } from "./wired.ts"

const message = (tag: string, payload: Schema.Top, success: Schema.Top) =>
  [tag, { tag, payload, success, error: Schema.Never, stream: false }] as const

const Store = {
  name: "Store",
  props: Schema.Struct({}),
  fingerprint: "store-1",
  messages: new Map([
    message("Fetch", Schema.Struct({ bytes: Schema.Int }), Schema.String),
    message("Later", Schema.Struct({ text: Schema.String }), Schema.String),
    message("Bytes", Schema.Struct({}), Schema.Uint8Array),
    message("Put", Schema.Struct({ n: Schema.Int }), Schema.Void)
  ])
} as unknown as KindDefinition

const kibi = 1024
const outboxBytes = 64 * kibi

const pair = (options: { readonly dialed?: boolean; readonly windowBytes?: number } = {}) =>
  Effect.gen(function*() {
    /** what reached an actor, in order */
    const seen: Array<string> = []
    const later: Array<Asker> = []
    /** tells that wait for room */
    const room: Array<(exit: Exit.Exit<void>) => void> = []
    const nobody = Effect.fail(new ActorStopped({ name: "x" }))
    const delivery = Delivery.of({
      tell: () =>
        Effect.andThen(Effect.sync(() => void seen.push("waits")), Effect.callback((resume) => void room.push(resume))),
      ask: () => nobody,
      tryTell: ({ address }, { payload }) => {
        if (address.name.startsWith("nobody")) return Exit.fail(new ActorStopped({ name: address.name }))
        if (address.name === "full") return undefined
        if (address.name === "broken") throw new Error("on purpose")
        seen.push(`Put ${(payload as { readonly n: number }).n}`)
        return Exit.void
      },
      tryAsk: (_, asker) => {
        seen.push(asker.tag)
        if (asker.tag === "Fetch") asker.succeed("x".repeat((asker.payload as { readonly bytes: number }).bytes))
        else later.push(asker)
        return true
      }
    })
    const windowBytes = options.windowBytes ?? 64 * kibi
    const a = yield* makeSide({ kind: Store, delivery, dialed: true, windowBytes })
    const b = yield* makeSide({ kind: Store, delivery, dialed: options.dialed ?? false, windowBytes, outboxBytes })
    /** What one has said goes to the other, until neither says anything. */
    const talk = () => {
      while (a.wire.taken.length + b.wire.taken.length > 0) {
        b.session.take(a.wire.taken.splice(0))
        a.session.take(b.wire.taken.splice(0))
      }
    }
    /** The frames in which one says that, apart from those before. */
    const frames = (say: () => void): ReadonlyArray<Uint8Array> => {
      a.wire.unsent = 1
      say()
      a.wire.unsent = 0
      a.wire.idle()
      return a.wire.taken.splice(0)
    }
    b.wire.stuck = true
    const read = () => {
      b.wire.stuck = false
      b.wire.unsent = 0
      b.wire.idle()
      talk()
    }
    const held = () => b.wire.taken.reduce((sum, frame) => sum + frame.length, 0)
    return { a, b, frames, held, later, read, room, seen, talk }
  })

const times = (count: number, say: (index: number) => void) => {
  for (let i = 0; i < count; i++) say(i)
}

describe("a peer that asks and does not read", () => {
  it.effect("asks in vain once as much waits for it as an outbox holds, and is given up beyond its window", () =>
    Effect.gen(function*() {
      const { a, b, frames, seen } = yield* pair()
      b.session.take(frames(() => void a.ask("Fetch", { bytes: 1000 })))
      const again = frames(() => times(200, () => a.ask("Fetch", { bytes: 1000 })))
      let rounds = 0
      while (b.session.over === undefined && rounds++ < 2000) b.session.take(again)
      assert.strictEqual(b.session.over, "protocol violation: more than the window")
      // what is in the transport, what waits, and a batch between
      assert.isBelow(seen.length * 1000, outboxBytes + 128 * kibi)
    }))

  it.effect("gets every answer in the end where it is only slow, and what it said is taken in order", () =>
    Effect.gen(function*() {
      const { a, b, read, seen, talk } = yield* pair()
      const expected: Array<string> = []
      times(5000, (n) => {
        a.ask("Fetch", { bytes: 1000 })
        a.tell("Put", { n }, "x")
        expected.push("Fetch", `Put ${n}`)
      })
      talk()
      assert.isBelow(seen.length, 500)
      assert.isUndefined(b.session.over)
      assert.isTrue(a.session.outbox.stalled, "whoever asks waits meanwhile")
      read()
      assert.deepStrictEqual(seen, expected)
      assert.deepStrictEqual(a.outcomes, Array.from({ length: 5000 }, () => "Success"))
      assert.isFalse(a.session.outbox.stalled, "all is settled")
    }))

  it.effect("has what it says meanwhile taken whole afterwards, where that is large too", () =>
    Effect.gen(function*() {
      const { a, b, later, read, talk } = yield* pair({ windowBytes: 1024 * kibi })
      times(200, () => a.ask("Fetch", { bytes: 1000 }))
      const texts = Array.from({ length: 5 }, (_, i) => `${i}`.repeat(200_000))
      for (const text of texts) a.ask("Later", { text })
      talk()
      assert.deepStrictEqual([later.length, b.session.over], [0, undefined])
      read()
      assert.deepStrictEqual(later.map(({ payload }) => (payload as { readonly text: string }).text), texts)
      for (const asker of later.splice(0)) asker.succeed("")
      read()
      assert.strictEqual(a.outcomes.filter((outcome) => outcome === "Success").length, 205)
      // as much again as its window, so all is settled
      times(1000, () => a.ask("Later", { text: "x".repeat(3000) }))
      read()
      assert.strictEqual(later.length, 1000)
    }))

  it.effect("says nonsense meanwhile: its session ends when that is taken, and never is more settled than was charged", () =>
    Effect.gen(function*() {
      let seed = 7
      const pick = (below: number) => {
        seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff
        return (seed >> 8) % below
      }
      const ends = { over: 0, alive: 0 }
      for (let round = 0; round < 300; round++) {
        const { a, b, frames, read } = yield* pair({ windowBytes: 1024 * kibi })
        b.session.take(frames(() => times(150, () => a.ask("Fetch", { bytes: 1000 }))))
        const said = frames(() => {
          times(3, (n) => void a.tell("Put", { n }, "x"))
          times(3, () => a.ask("Fetch", { bytes: 10 }))
          a.ask("Later", { text: "x".repeat(100_000) })
          a.tell("Put", { n: 9 }, "full")
        })
        for (const frame of said) {
          // what kind of frame it is stays as it is
          for (let flips = pick(8) === 0 ? 1 + pick(3) : 0; flips > 0; flips--) {
            frame[1 + pick(frame.length - 1)]! ^= 1 << pick(8)
          }
          b.session.take([pick(16) === 0 ? frame.subarray(0, 1 + pick(frame.length)) : frame])
        }
        read()
        const { unsettled } = b.session as unknown as { readonly unsettled: number }
        assert.isAtLeast(unsettled, 0)
        if (b.session.over === undefined) ends.alive++
        else ends.over++
      }
      assert.isTrue(ends.over > 30 && ends.alive > 30, JSON.stringify(ends))
    }))

  it.effect("disturbs nobody else where this side fails over what it said meanwhile", () =>
    Effect.gen(function*() {
      const { a, b, read, talk } = yield* pair()
      times(200, () => a.ask("Fetch", { bytes: 1000 }))
      a.tell("Put", { n: 1 }, "broken")
      talk()
      assert.isUndefined(b.session.over)
      read()
      assert.strictEqual(b.session.over, "this side has failed")
      const exit = yield* Effect.exit(b.session.run)
      assert.include(String(Exit.isFailure(exit) && exit.cause), "on purpose")
    }))

  it.effect("is refused answers beyond a bound that it asked for before, as Unknown, and the rest arrives", () =>
    Effect.gen(function*() {
      const bytes = (asker: Asker) => asker.succeed(new Uint8Array(500_000))
      const text = (asker: Asker) => asker.succeed("x".repeat(50_000))
      const cases = [["Later", text, 3000], ["Bytes", bytes, 300]] as const
      for (const [tag, answer, count] of cases) {
        const { a, b, held, later, read, talk } = yield* pair({ windowBytes: 64 * 1024 * kibi })
        times(count, () => a.ask(tag, tag === "Later" ? { text: "" } : {}))
        talk()
        assert.strictEqual(later.length, count)
        for (const asker of later.splice(0)) answer(asker)
        b.wire.stuck = false
        b.wire.unsent = 0
        b.wire.idle()
        // pings come back, so more of what is large may leave
        times(2000, () => {
          b.session.take([Uint8Array.of(FrameType.Pong)])
          b.wire.idle()
        })
        assert.isBelow(held(), 12 * 1024 * kibi, "8 MiB, a frame, and refusals")
        read()
        const success = a.outcomes.filter((outcome) => outcome === "Success").length
        assert.isAbove(success, count / 30)
        assert.deepStrictEqual(a.outcomes.filter((outcome) => outcome === "Unknown").length, count - success)
        assert.isUndefined(b.session.over)
      }
    }))

  it.effect("is given up where it was dialed: nobody asks there who means well", () =>
    Effect.gen(function*() {
      const { a, b, frames, seen } = yield* pair({ dialed: true, windowBytes: 64 * 1024 * kibi })
      b.session.take(frames(() => void a.ask("Fetch", { bytes: 1000 })))
      const again = frames(() => times(200, () => a.ask("Fetch", { bytes: 1000 })))
      let rounds = 0
      while (b.session.over === undefined && rounds++ < 2000) b.session.take(again)
      assert.include(b.session.over, "asks where it was dialed, and more than is taken")
      assert.isBelow(seen.length * 1000, 10 * 1024 * kibi)
    }))

  it.effect("tells nobody, time and again: that it is gone is not said without bound either", () =>
    Effect.gen(function*() {
      const { a, b, frames, held } = yield* pair()
      const name = "nobody".padEnd(1000, "-").slice(0, 341)
      b.session.take(frames(() => void a.tell("Put", { n: 1 }, name)))
      const again = frames(() => times(200, () => a.tell("Put", { n: 1 }, name)))
      let rounds = 0
      while (b.session.over === undefined && rounds++ < 20_000) b.session.take(again)
      assert.include(b.session.over, "more than the window")
      assert.isBelow(b.lost().length * 341, outboxBytes + 128 * kibi)
      assert.isBelow(held(), 128 * kibi)
    }))

  it.effect("pings without end, and says that it has heard of pings: control frames do not pile up in the transport", () =>
    Effect.gen(function*() {
      const { b, held } = yield* pair()
      const both = Array.from(
        { length: 1000 },
        (_, i) => Uint8Array.of(i % 2 === 0 ? FrameType.Ping : FrameType.Pong)
      )
      let rounds = 0
      while (b.session.over === undefined && rounds++ < 1000) b.session.take(both)
      assert.strictEqual(b.session.over, "protocol violation: asks and does not listen")
      assert.isBelow(held(), 256 * kibi)
    }))
})

describe("a peer that calls and does not read", () => {
  const text = "x".repeat(500_000)
  class Group extends RpcGroup.make(
    Rpc.make("Fetch", { success: Schema.String }),
    Rpc.make("Hang", { payload: { text: Schema.String } })
  ) {}
  const hang = codecOf(Group.requests.get("Hang")!.payloadSchema, "evolving").encode({ text: "" })
  const rpc = (tag: string) => Group.requests.get(tag) as unknown as Rpc.AnyWithProps

  const served = Effect.gen(function*() {
    const world = yield* pair()
    let calls = 0
    const handlers = Group.toLayer({
      Fetch: () =>
        Effect.sync(() => {
          calls++
          return text
        }).pipe(Effect.delay("10 millis")),
      Hang: () => Effect.andThen(Effect.sync(() => void calls++), Effect.never)
    })
    yield* world.b.calls.serveGroup(Group).pipe(Effect.provide(handlers))
    /** what becomes of so many calls */
    const call = Effect.fnUntraced(function*(count: number, tag: string, payload: unknown) {
      const { a, b } = world
      const reasons: Array<string> = []
      times(count, () =>
        a.runFork(
          a.calls.call(a.session, rpc(tag), payload, 60_000).pipe(
            Effect.match({
              onFailure: (error) => {
                const { outcome, reason } = error as { readonly outcome: string; readonly reason: string }
                reasons.push(`${outcome} ${reason}`)
              },
              onSuccess: () => void reasons.push("Success")
            })
          )
        ))
      yield* TestClock.adjust("1 millis")
      b.session.take(a.wire.taken.splice(0))
      yield* TestClock.adjust("1 millis")
      return reasons
    })
    return { ...world, call, calls: () => calls }
  })

  it.effect("gets no more answers than a bound, typed, and all of them once it reads", () =>
    Effect.gen(function*() {
      const { call, calls, read } = yield* served
      const first = yield* call(100, "Fetch", undefined)
      yield* TestClock.adjust("1 second")
      const second = yield* call(100, "Fetch", undefined)
      read()
      const count = (reasons: ReadonlyArray<string>, start: string) =>
        reasons.filter((reason) => reason.startsWith(start)).length
      assert.isAbove(count(first, "Success"), 10)
      assert.isBelow(count(first, "Success") + count(second, "Success"), 25)
      assert.strictEqual(count(first, "Success") + count(first, "Unknown Fetch: too many answers"), 100)
      assert.strictEqual(count(second, "NotSent Fetch: too many answers"), 100)
      assert.strictEqual(calls(), 100)
      const third = yield* call(1, "Fetch", undefined)
      yield* TestClock.adjust("1 second")
      read()
      assert.deepStrictEqual(third, ["Success"])
    }).pipe(Effect.scoped))

  it.effect("keeps no more here than a bound by calls that nobody has answered", () =>
    Effect.gen(function*() {
      const { call, calls, read } = yield* served
      const reasons = yield* call(300, "Hang", { text })
      read()
      assert.isBelow(calls() * text.length, 80 * 1024 * kibi)
      assert.strictEqual(reasons.length, 300 - calls())
      for (const reason of reasons) assert.strictEqual(reason, "NotSent Hang: too many unanswered calls")
    }).pipe(Effect.scoped))

  it.effect("leaves nothing behind by times of its own that are long: each call has another", () =>
    Effect.gen(function*() {
      const { b, read } = yield* served
      read()
      const lines = () => (b.timeouts as unknown as { readonly lines: Map<number, unknown> }).lines.size
      for (let number = 1; number <= 20_000; number++) {
        const timeout = 2 ** 40 + number * 1000
        const frame = new Writer().byte(FrameType.Control).byte(1).varint(number).text("Hang").varint(timeout)
        b.wire.taken.length = 0
        b.session.take([frame.blob(hang).take(), new Writer().byte(FrameType.Control).byte(2).varint(number).take()])
      }
      assert.isBelow(lines(), 1000)
    }).pipe(Effect.scoped))
})

describe("a peer whose tells no mailbox takes", () => {
  it.effect("keeps no more here than its window and a bounded number that wait, and loses none", () =>
    Effect.gen(function*() {
      const { a, b, read, room, seen, talk } = yield* pair({ windowBytes: 4 * 1024 * kibi })
      read()
      times(40_000, (n) => void a.tell("Put", { n }, "full"))
      a.tell("Put", { n: 7 }, "x")
      talk()
      assert.isBelow(seen.length, 20_000)
      assert.isUndefined(b.session.over)
      let ended = 0
      while (room.length > 0) {
        for (const resume of room.splice(0)) {
          ended++
          resume(Exit.void)
        }
        yield* TestClock.adjust("1 millis")
        talk()
      }
      assert.strictEqual(ended, 40_000)
      assert.strictEqual(seen.at(-1), "Put 7")
      assert.isFalse(a.session.outbox.stalled, "all is settled")
    }))
})

describe("a peer whose asks nobody answers", () => {
  it.effect("keeps no more here than a bound by what they say, and may say more when some are answered", () =>
    Effect.gen(function*() {
      const { a, later, read, talk } = yield* pair()
      read()
      const text = "x".repeat(50_000)
      times(3000, () => a.ask("Later", { text }))
      talk()
      assert.isBelow(later.length * text.length, 80 * 1024 * kibi)
      assert.strictEqual(a.outcomes.length, 3000 - later.length)
      assert.deepStrictEqual([...new Set(a.outcomes)], ["NotSent"])
      for (const asker of later.splice(0)) asker.succeed("")
      a.outcomes.length = 0
      talk()
      times(100, () => a.ask("Later", { text }))
      talk()
      assert.strictEqual(later.length, 100)
    }))
})

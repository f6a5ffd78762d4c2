// Questions to a thread that may hang: each ends by its deadline, in virtual time, and nothing is left behind.
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Answer, Request } from "../../src/ControlPlane/internal/sqliteProtocol.ts"
import { makeAskWithin } from "../../src/ControlPlane/internal/sqliteQuestions.ts"
import type { SqliteThread } from "../../src/ControlPlane/internal/sqliteThread.edge.ts"

const deadline = Duration.seconds(5)
const request: Request = { op: "get", key: "k" }

/** A thread that answers when the test says so. */
const makeThread = () => {
  const open = new Map<number, (answer: Answer | undefined) => void>()
  let last = 0
  const thread: SqliteThread = {
    ask: (_, onAnswer) => {
      const id = last += 1
      open.set(id, onAnswer)
      return () => void open.delete(id)
    },
    tell: () => undefined,
    close: () => Promise.resolve()
  }
  return {
    thread,
    open,
    answer: (id: number) => {
      open.get(id)?.({ _tag: "Done" })
      open.delete(id)
    }
  }
}

const start = Effect.gen(function*() {
  const thread = makeThread()
  const askWithin = yield* makeAskWithin(() => thread.thread, deadline)
  const ask = Effect.forkChild(
    Effect.exit(askWithin(request, (answer) => Effect.succeed(answer?._tag), (reason) => Effect.fail(reason))),
    { startImmediately: true }
  )
  return { ...thread, ask }
})

describe("a question to the store's thread", () => {
  it.effect("ends by its deadline while the thread hangs, is withdrawn, and its late answer changes nothing", () =>
    Effect.gen(function*() {
      const { answer, ask, open } = yield* start
      const early = yield* ask
      yield* TestClock.adjust("2 seconds")
      const later = yield* ask
      yield* TestClock.adjust("2700 millis")
      assert.isUndefined(early.pollUnsafe(), "it had time left")
      yield* TestClock.adjust("300 millis")
      assert.deepStrictEqual(yield* Fiber.join(early), Exit.fail("no answer within 5s"))
      assert.deepStrictEqual([...open.keys()], [2])
      answer(1)
      assert.isUndefined(later.pollUnsafe(), "each has a deadline of its own")
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(later)))
      assert.strictEqual(open.size, 0)
    }))

  it.effect("is answered as soon as the answer comes, and the next one is watched over again", () =>
    Effect.gen(function*() {
      const { answer, ask, open } = yield* start
      const first = yield* ask
      yield* TestClock.adjust("1 second")
      answer(1)
      assert.deepStrictEqual(yield* Fiber.join(first), Exit.succeed("Done" as const))
      // long after the last one ended, when nobody looks at deadlines any more
      yield* TestClock.adjust("1 minute")
      const second = yield* ask
      yield* TestClock.adjust(deadline)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(second)))
      assert.strictEqual(open.size, 0)
    }))

  it.effect("that is interrupted is withdrawn at once", () =>
    Effect.gen(function*() {
      const { ask, open } = yield* start
      const fiber = yield* ask
      assert.strictEqual(open.size, 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(open.size, 0)
    }))
})

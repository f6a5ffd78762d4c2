// What the store makes of a NATS server's answers to a write: refusals under either code, and answers that were lost.
import { assert, describe, it } from "@effect/vitest"
import { PermissionViolationError } from "@nats-io/transport-node"
import { Duration, Effect, Fiber, Logger } from "effect"
import { TestClock } from "effect/testing"
import { makeBucket } from "../../src/ControlPlane/internal/natsBucket.ts"
import { LinkFailure, linkFailure } from "../../src/ControlPlane/internal/natsConnection.edge.ts"
import type { Message, NatsLink } from "../../src/ControlPlane/internal/natsConnection.edge.ts"
import { makeOperations, type Operations } from "../../src/ControlPlane/internal/natsOperations.ts"
import { isTooOld } from "../../src/ControlPlane/internal/natsReport.ts"
import { makeSeen } from "../../src/ControlPlane/internal/natsSeen.ts"

const own = "0".repeat(31) + "1"

/** The message that a key's subject ends with. */
interface Stored {
  readonly sequence: number
  readonly value: string
  readonly header: string
}

const message = (body: object): Message => ({
  subject: "",
  reply: undefined,
  data: new TextEncoder().encode(JSON.stringify(body)),
  status: 0,
  description: "",
  header: () => ""
})

/** what was said of losses */
const warnings: Array<string> = []
const listening = Logger.layer([Logger.make(({ message }) => void warnings.push(String(message)))])

/** Runs an operation on a server that gives these answers to writes, one after the other, and that holds this. */
const answered = <A, E>(
  replicated: boolean,
  answers: ReadonlyArray<"lost" | object>,
  stored: Stored | undefined,
  use: (operations: Operations) => Effect.Effect<A, E>
) =>
  Effect.gen(function*() {
    const sent: Array<ReadonlyArray<readonly [string, string]>> = []
    const link = {
      isConnected: () => true,
      connected: Effect.void,
      request: (subject: string, _: string, __: number, headers: ReadonlyArray<readonly [string, string]> = []) =>
        Effect.suspend(() => {
          if (subject.includes("STREAM.MSG.GET")) {
            return Effect.succeed(message(
              stored === undefined ? { error: { code: 404, err_code: 10037, description: "no message found" } } : {
                message: {
                  seq: stored.sequence,
                  data: Buffer.from(stored.value).toString("base64"),
                  hdrs: Buffer.from(`NATS/1.0\r\n${stored.header}\r\n\r\n`).toString("base64")
                }
              }
            ))
          }
          const answer = answers[sent.length] ?? "lost"
          sent.push(headers)
          return answer === "lost"
            ? Effect.fail(new LinkFailure({ kind: "NoAnswer", reason: "lost" }))
            : Effect.succeed(message(answer))
        })
    } as unknown as NatsLink
    const operations = makeOperations(link, makeBucket("b"), Duration.seconds(5), replicated, () => own, makeSeen())
    const fiber = yield* Effect.forkChild(
      Effect.match(use(operations), {
        onSuccess: (value) => value === undefined ? "done" : String(value),
        onFailure: (error) => (error as { readonly _tag: string })._tag
      }),
      { startImmediately: true }
    )
    yield* TestClock.adjust("5 seconds")
    return { outcome: yield* Fiber.join(fiber), sent }
  })

const refused = (err_code: number) => ({
  error: { code: 400, err_code, description: err_code === 10164 ? "wrong last sequence" : "wrong last sequence: 9" }
})

describe("a write that a NATS server refuses", () => {
  for (const code of [10071, 10164]) {
    it.effect(`with code ${code} is a conflict`, () =>
      Effect.gen(function*() {
        const theirs = { sequence: 9, value: "3", header: "Nats-Msg-Id: theirs" }
        for (const replicated of [false, true]) {
          for (
            const use of [
              (store: Operations) => store.update("k", "2", "7"),
              (store: Operations) => store.create("k", "2"),
              (store: Operations) => store.remove("k", "7")
            ]
          ) {
            assert.strictEqual((yield* answered(replicated, [refused(code)], theirs, use)).outcome, "RevisionConflict")
          }
        }
      }))
  }
})

describe("a write to NATS whose answer was lost", () => {
  for (const [replicated, header] of [[false, "Troupe-Write"], [true, "Nats-Msg-Id"]] as const) {
    it.effect(`was applied where the key holds its id (${replicated ? "replicas" : "one server"})`, () =>
      Effect.gen(function*() {
        const ours = { sequence: 8, value: "2", header: `${header}: ${own}` }
        const { outcome, sent } = yield* answered(
          replicated,
          ["lost", refused(10071)],
          ours,
          (store) => store.update("k", "2", "7")
        )
        assert.strictEqual(outcome, "8")
        // the very same write again: same id, same expected sequence
        const expected = [[header, own] as const, ["Nats-Expected-Last-Subject-Sequence", "7"] as const]
        assert.deepStrictEqual(sent.map((headers) => headers.slice(0, 2)), [expected, expected])
      }))

    it.effect(`is unknown where others have written since (${replicated ? "replicas" : "one server"})`, () =>
      Effect.gen(function*() {
        const theirs = { sequence: 9, value: "3", header: `${header}: theirs` }
        const { outcome } = yield* answered(
          replicated,
          ["lost", refused(10071)],
          theirs,
          (store) => store.update("k", "2", "7")
        )
        assert.strictEqual(outcome, "OutcomeUnknown")
      }))
  }

  it.effect("is unknown where the server broke off while it stored it: other replicas may have it", () =>
    Effect.gen(function*() {
      const brokenOff = { error: { code: 503, err_code: 10077, description: "no space left on device" } }
      const theirs = { sequence: 9, value: "3", header: "Nats-Msg-Id: theirs" }
      for (const replicated of [false, true]) {
        const answers = [brokenOff, refused(10071)]
        const { outcome } = yield* answered(replicated, answers, theirs, (store) => store.update("k", "2", "7"))
        assert.strictEqual(outcome, "OutcomeUnknown")
      }
      const ours = { sequence: 8, value: "2", header: `Nats-Msg-Id: ${own}` }
      const { outcome } = yield* answered(true, [brokenOff, refused(10071)], ours, (s) => s.update("k", "2", "7"))
      assert.strictEqual(outcome, "8")
    }))

  it.effect("is tried again with a pause, however fast the answers are lost", () =>
    Effect.gen(function*() {
      const brokenOff = { error: { code: 503, err_code: 10077, description: "no space left on device" } }
      const answers = Array.from({ length: 10_000 }, () => brokenOff)
      const { outcome, sent } = yield* answered(false, answers, undefined, (store) => store.update("k", "2", "7"))
      assert.strictEqual(outcome, "OutcomeUnknown")
      assert.isBelow(sent.length, 400)
    }))

  it.effect("is not believed to be applied on the word of a duplicate's sequence alone", () =>
    Effect.gen(function*() {
      const theirs = { sequence: 9, value: "3", header: "Nats-Msg-Id: theirs" }
      const { outcome } = yield* answered(
        true,
        ["lost", { seq: 9, stream: "KV_b", duplicate: true }],
        theirs,
        (store) => store.update("k", "2", "7")
      )
      assert.strictEqual(outcome, "OutcomeUnknown")
    }))
})

describe("a NATS server", () => {
  it("is too old below 2.9.10, and not where it names no version", () => {
    const old = [
      "0.0.0",
      "1.4.1",
      "2.8.4",
      "2.9.9",
      "2.9.10-beta",
      "2.9.10",
      "2.9.25",
      "2.10.0",
      "2.14.1",
      "3.0.0",
      "v2.2.6",
      "unknown",
      ""
    ]
    assert.deepStrictEqual(old.filter(isTooOld), ["0.0.0", "1.4.1", "2.8.4", "2.9.9", "v2.2.6"])
  })
})

describe("a request that the server does not permit", () => {
  const permissions = (operation: "publish" | "subscription") =>
    linkFailure(new PermissionViolationError("Permissions Violation", operation, "$KV.b.k")).kind

  it("was not sent where sending is forbidden", () => {
    assert.strictEqual(permissions("publish"), "Denied")
  })

  it("was perhaps taken where only the answer may not be heard", () => {
    assert.strictEqual(permissions("subscription"), "NoAnswer")
  })
})

describe("an operation while NATS is not connected", () => {
  it.effect("waits for the connection and ends by its deadline, certainly not applied", () =>
    Effect.gen(function*() {
      const link = {
        isConnected: () => false,
        connected: Effect.never,
        request: () => Effect.die("nothing may be sent")
      } as unknown as NatsLink
      for (const replicated of [false, true]) {
        const store = makeOperations(link, makeBucket("b"), Duration.seconds(5), replicated, () => own, makeSeen())
        const all = [
          store.get("k"),
          store.create("k", "1"),
          store.update("k", "2", "7"),
          store.remove("k", "7")
        ] as const
        const ends = yield* Effect.forkChild(
          Effect.forEach(all, (one: Effect.Effect<unknown, { readonly _tag: string }>) => Effect.flip(one), {
            concurrency: "unbounded"
          }),
          { startImmediately: true }
        )
        yield* TestClock.adjust("4 seconds")
        assert.isUndefined(ends.pollUnsafe())
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(
          (yield* Fiber.join(ends)).map(({ _tag }) => _tag),
          Array.from({ length: 4 }, () => "StoreUnavailable")
        )
      }
    }))
})

describe("updates of a bucket with replicas, which take turns", () => {
  it.effect("are certainly not applied where the deadline comes before their turn", () =>
    Effect.gen(function*() {
      const link = {
        isConnected: () => true,
        connected: Effect.void,
        request: () => Effect.never
      } as unknown as NatsLink
      const operations = makeOperations(link, makeBucket("b"), Duration.seconds(5), true, () => own, makeSeen())
      const outcomes = yield* Effect.forkChild(
        Effect.forEach(["a", "b"], (key) => Effect.flip(operations.update(key, "2", "7")), {
          concurrency: "unbounded"
        })
      )
      yield* TestClock.adjust("5 seconds")
      const [first, second] = yield* Fiber.join(outcomes)
      assert.deepStrictEqual([first?._tag, second?._tag], ["OutcomeUnknown", "StoreUnavailable"])
    }))
})

describe("a server whose sequence falls", () => {
  const acknowledged = (...sequences: ReadonlyArray<number>) =>
    Effect.gen(function*() {
      warnings.length = 0
      const answers = sequences.map((seq) => ({ seq, stream: "KV_b" }))
      yield* answered(
        true,
        answers,
        undefined,
        (store) => Effect.forEach(sequences, (_, i) => store.create(`k${i}`, ""))
      ).pipe(Effect.provide(listening))
      return warnings.slice()
    })

  it.effect("has lost what it acknowledged before, and the next write says so", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* acknowledged(10, 11, 8, 9), [
        "nats: bucket b lost acknowledged writes: its last is 7, 11 was seen"
      ])
    }))

  it.effect("has lost nothing where it only rises", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* acknowledged(10, 11, 17, 18), [])
    }))
})

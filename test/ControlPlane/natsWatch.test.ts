// A watch of NATS in virtual time: a server that answers as it is told, whose meta leader, stream leader and replicas fail apart.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import { makeBucket, subjectOf } from "../../src/ControlPlane/internal/natsBucket.ts"
import { LinkFailure } from "../../src/ControlPlane/internal/natsConnection.edge.ts"
import type { Message, NatsLink } from "../../src/ControlPlane/internal/natsConnection.edge.ts"
import { watchBucket } from "../../src/ControlPlane/internal/natsRead.ts"
import { makeSeen } from "../../src/ControlPlane/internal/natsSeen.ts"

const bucket = makeBucket("b")

const message = (parts: Partial<Message> & { readonly headers?: Readonly<Record<string, string>> }): Message => ({
  subject: "",
  reply: undefined,
  data: new Uint8Array(),
  status: 0,
  description: "",
  header: (name) => parts.headers?.[name] ?? "",
  ...parts
})
const json = (body: object) => message({ data: new TextEncoder().encode(JSON.stringify(body)) })

interface Consumer {
  readonly deliver: (message: Message) => void
  /** messages delivered, by which it numbers them */
  sent: number
  /** messages that were waiting when it was made, and are delivered in a moment */
  backlog: ReadonlyArray<Stored>
}
interface Stored {
  readonly sequence: number
  readonly key: string
  readonly value: string | undefined
}

/** A server with one bucket. */
const makeServer = () => {
  const messages: Array<Stored> = []
  const consumers = new Map<string, Consumer>()
  const inboxes = new Map<string, (message: Message) => void>()
  const can = { makeConsumers: true, askLeader: true, beat: true, stalled: false, infoMillis: 0 }
  let made = 0
  const deliver = (consumer: Consumer, { key, sequence, value }: Stored, pending: number) => {
    consumer.sent += 1
    consumer.deliver(message({
      subject: subjectOf(bucket, key),
      reply: `$JS.ACK.KV_b.c.1.${sequence}.${consumer.sent}.0.${pending}`,
      data: new TextEncoder().encode(value ?? ""),
      headers: value === undefined ? { "KV-Operation": "DEL" } : {}
    }))
  }
  const drain = (consumer: Consumer) => {
    const { backlog } = consumer
    consumer.backlog = []
    backlog.forEach((one, i) => deliver(consumer, one, backlog.length - 1 - i))
  }
  const last = () => messages.at(-1)?.sequence ?? 0
  const link = {
    isConnected: () => true,
    connected: Effect.void,
    lost: Effect.never,
    send: (subject: string) => void consumers.delete(subject.split(".").at(-1)!),
    inbox: (onMessage: (message: Message) => void) =>
      Effect.sync(() => {
        const name = `inbox-${made++}`
        inboxes.set(name, onMessage)
        return name
      }),
    request: (subject: string, payload: string, timeoutMillis: number) => {
      const unanswered = Effect.andThen(
        Effect.sleep(timeoutMillis),
        Effect.fail(new LinkFailure({ kind: "NoAnswer", reason: "timeout" }))
      )
      if (subject.includes("CONSUMER.CREATE")) {
        if (!can.makeConsumers) return unanswered
        return Effect.sync(() => {
          const consumer: Consumer = {
            deliver: inboxes.get(JSON.parse(payload).config.deliver_subject)!,
            sent: 0,
            backlog: messages.slice()
          }
          consumers.set(subject.split(".").at(-1)!, consumer)
          return json({ num_pending: messages.length })
        })
      }
      if (!can.askLeader) return unanswered
      if (subject.includes("STREAM.INFO")) {
        return Effect.suspend(() =>
          Effect.as(Effect.sleep(can.infoMillis), json({ created: "once", state: { last_seq: last() } }))
        )
      }
      if (subject.includes("STREAM.MSG.GET")) {
        return Effect.sync(() => json(last() === 0 ? { error: { err_code: 10037 } } : { message: { seq: last() } }))
      }
      return unanswered
    }
  } as unknown as NatsLink
  const beat = () => {
    for (const consumer of consumers.values()) {
      if (consumer.backlog.length > 0) drain(consumer)
      else if (can.beat) {
        consumer.deliver(message({
          status: 100,
          headers: {
            "Nats-Last-Consumer": String(consumer.sent),
            ...(can.stalled ? { "Nats-Consumer-Stalled": "reply" } : {})
          }
        }))
      }
    }
  }
  return {
    link,
    can,
    consumers,
    write: (key: string, value: string | undefined) => {
      const one = { sequence: last() + 1, key, value }
      messages.push(one)
      for (const consumer of consumers.values()) {
        drain(consumer)
        deliver(consumer, one, 0)
      }
    },
    /** Writes that the consumers do not tell, as of a replica that was left behind. */
    hide: (key: string, value: string) => void messages.push({ sequence: last() + 1, key, value }),
    run: Effect.andThen(Effect.sleep("200 millis"), Effect.sync(beat)).pipe(Effect.forever)
  }
}

/** A watch of that server, and what it has told since the last question; time goes by in steps of a quarter of a second. */
const watched = Effect.gen(function*() {
  const server = makeServer()
  const told = yield* Queue.unbounded<WatchEvent>()
  yield* Effect.forkScoped(server.run)
  yield* watchBucket(server.link, bucket, "", 600_000, makeSeen(), () => Effect.void).pipe(
    Stream.runForEach((event) => Queue.offer(told, event)),
    Effect.forkScoped
  )
  const pass = (seconds: number) =>
    Effect.forEach(Array.from({ length: seconds * 4 }), () => TestClock.adjust("250 millis"), { discard: true })
  const since = Effect.map(Queue.clear(told), (events) =>
    Array.from(events, (event) =>
      event._tag === "Snapshot"
        ? `Snapshot ${event.entries.map(({ key }) => key).join(" ")}`.trim()
        : event._tag === "Put"
        ? `Put ${event.entry.key}`
        : event._tag === "Removed"
        ? `Removed ${event.key}`
        : event._tag))
  return { server, pass, since }
})
const changes = (told: ReadonlyArray<string>) => told.filter((one) => one !== "Current")

describe("a watch of NATS", () => {
  it.effect("is renewed without a word, beside writes, and keeps one consumer", () =>
    Effect.gen(function*() {
      const { pass, server, since } = yield* watched
      server.write("a", "1")
      yield* pass(1)
      assert.deepStrictEqual(changes(yield* since), ["Snapshot a"])
      const first = Array.from(server.consumers.keys())
      const wrote: Array<string> = []
      for (let i = 0; i < 120; i++) {
        server.write(`k${i}`, "1")
        wrote.push(`Put k${i}`)
        if (i % 2 === 0) {
          server.write(`k${i}`, undefined)
          wrote.push(`Removed k${i}`)
        }
        yield* pass(0.25)
      }
      const told = changes(yield* since)
      // what was created and removed between one session and the next may go untold, nothing else
      const lasting = (all: ReadonlyArray<string>) => all.filter((one) => Number(one.split("k")[1]) % 2 === 1)
      assert.deepStrictEqual(lasting(told), lasting(wrote))
      assert.deepStrictEqual(told.filter((one) => !wrote.includes(one)), [])
      assert.isAtLeast(told.length, wrote.length - 6)
      assert.strictEqual(server.consumers.size, 1)
      assert.notDeepEqual(Array.from(server.consumers.keys()), first, "it was renewed")
    }))

  it.effect("goes on where no new consumer can be had, and is renewed once one can", () =>
    Effect.gen(function*() {
      const { pass, server, since } = yield* watched
      server.write("a", "1")
      yield* pass(5)
      const first = Array.from(server.consumers.keys())
      server.can.makeConsumers = false
      yield* pass(20)
      server.write("b", "1")
      yield* pass(2)
      const told = yield* since
      assert.deepStrictEqual(changes(told), ["Snapshot a", "Put b"])
      assert.isAbove(told.length, 25, "it proves that it is current")
      server.can.makeConsumers = true
      yield* pass(5)
      assert.deepStrictEqual(changes(yield* since), [])
      assert.strictEqual(server.consumers.size, 1)
      assert.notDeepEqual(Array.from(server.consumers.keys()), first, "it was renewed")
    }))

  it.effect("knows nothing where the stream's leader does not answer, and says so within five seconds", () =>
    Effect.gen(function*() {
      const { pass, server, since } = yield* watched
      server.write("a", "1")
      yield* pass(6)
      yield* since
      server.can.askLeader = false
      yield* pass(5)
      assert.deepStrictEqual(changes(yield* since), ["Lost"])
      yield* pass(20)
      assert.deepStrictEqual(yield* since, [])
      server.can.askLeader = true
      yield* pass(5)
      assert.deepStrictEqual(changes(yield* since), ["Snapshot a"])
    }))

  it.effect("takes no write that overtakes the leader's answer for a loss", () =>
    Effect.gen(function*() {
      const { pass, server, since } = yield* watched
      server.can.infoMillis = 400
      yield* pass(2)
      yield* since
      for (let i = 0; i < 60; i++) {
        server.write(`k${i}`, "1")
        yield* pass(0.25)
      }
      assert.strictEqual(changes(yield* since).length, 60)
    }))

  it.effect("misses what its replica does not tell within five seconds, and tells it", () =>
    Effect.gen(function*() {
      const { pass, server, since } = yield* watched
      server.write("a", "1")
      yield* pass(2)
      yield* since
      server.hide("b", "1")
      yield* pass(5)
      assert.deepStrictEqual(changes(yield* since), ["Lost", "Snapshot a b"])
    }))

  it.effect("proves nothing by the heartbeat of a consumer that is stalled", () =>
    Effect.gen(function*() {
      const { pass, server, since } = yield* watched
      server.write("a", "1")
      yield* pass(2)
      yield* since
      server.can.stalled = true
      yield* pass(1)
      yield* since
      yield* pass(2)
      assert.deepStrictEqual(yield* since, [])
    }))
})

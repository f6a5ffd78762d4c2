/**
 * What every `Delivery` between two nodes must do, as cases that know nothing of the transport: a network offers a harness with two
 * nodes and the means to break it, and runs them all. The actors behind are recorders, so that a case sees exactly what arrived.
 */
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, PubSub, Schema, Stream } from "effect"
import { ActorHost } from "../Actor/ActorHost.ts"
import type { ActorAddress, NodeAddress } from "../Actor/Address.ts"
import { Delivery, type Message } from "../Actor/Delivery.ts"
import { ActorStopped, MailboxFull } from "../Actor/errors.ts"
import type { KindDefinition } from "../Actor/Kind.ts"
import { Node } from "../Actor/Node.ts"
import { type SystemEvent, SystemEvents } from "../Actor/SystemEvents.ts"
import type { Remoting } from "../Remoting/Remoting.ts"

export class NotANumber extends Schema.TaggedError<NotANumber>()("NotANumber", { text: Schema.String }) {}

const kind = (fingerprint: string, messages: ReadonlyArray<readonly [string, Schema.Top, Schema.Top, Schema.Top]>) =>
  ({
    name: "Recorder",
    props: Schema.Struct({}),
    fingerprint,
    messages: new Map(messages.map(([tag, payload, success, error]) => [
      tag,
      { tag, payload, success, error, stream: false }
    ]))
  }) as KindDefinition

/** The protocol of the recorders: `Put` is told; `Parse`, `Never` and `Die` are asked. */
export const Recorder: KindDefinition = kind("recorder-1", [
  ["Put", Schema.Struct({ n: Schema.Int, text: Schema.optionalKey(Schema.String) }), Schema.Void, Schema.Never],
  ["Parse", Schema.Struct({ text: Schema.String }), Schema.Int, NotANumber],
  ["Never", Schema.Struct({}), Schema.Void, Schema.Never]
])

/** The next version of it: a new optional field and a new message. */
export const RecorderNext: KindDefinition = kind("recorder-2", [
  [
    "Put",
    Schema.Struct({
      n: Schema.Int,
      text: Schema.optionalKey(Schema.String),
      note: Schema.optionalKey(Schema.String)
    }),
    Schema.Void,
    Schema.Never
  ],
  ["Parse", Schema.Struct({ text: Schema.String }), Schema.Int, NotANumber],
  ["Never", Schema.Struct({}), Schema.Void, Schema.Never],
  ["Clear", Schema.Struct({}), Schema.Void, Schema.Never]
])

/** The actors of a node under test: they record, and answer as their name says. */
export class Recorders extends Context.Service<Recorders, {
  readonly received: Array<{ readonly to: string; readonly tag: string; readonly payload: unknown }>
  readonly events: Array<SystemEvent>
  /** names that refuse every message as full */
  readonly full: Set<string>
  /** names that are not there */
  readonly stopped: Set<string>
  /** asks that were interrupted */
  readonly interrupted: Array<string>
  /** while held, tells wait for room, in order */
  hold: (held: boolean) => void
}>()("effect-troupe/Testing/DeliveryContract/Recorders") {}

/** `ActorHost`, local `Delivery`, `SystemEvents` and `Recorders` of one node. */
export const layerRecorders = (
  definition: KindDefinition = Recorder
): Layer.Layer<Recorders | ActorHost | Delivery | SystemEvents> =>
  Layer.effectContext(Effect.gen(function*() {
    const hub = yield* PubSub.unbounded<SystemEvent>()
    let held: Array<() => void> | undefined
    const recorders = Recorders.of({
      received: [],
      events: [],
      full: new Set(),
      stopped: new Set(),
      interrupted: [],
      hold: (hold) => {
        const waiting = held
        held = hold ? held ?? [] : undefined
        if (!hold) { for (const resume of waiting ?? []) resume() }
      }
    })
    const take = (to: ActorAddress, message: Message): Exit.Exit<void, ActorStopped | MailboxFull> => {
      if (recorders.stopped.has(to.name)) return Exit.fail(new ActorStopped({ name: to.name }))
      if (recorders.full.has(to.name)) return Exit.fail(new MailboxFull({ name: to.name, capacity: 1 }))
      recorders.received.push({ to: to.name, tag: message.tag, payload: message.payload })
      return Exit.void
    }
    const delivery = Delivery.of({
      tell: (to, message) =>
        Effect.suspend(() => {
          const waiting = held
          if (waiting === undefined) return take(to, message)
          return Effect.callback((resume) => {
            waiting.push(() => resume(take(to, message)))
          })
        }),
      ask: (to, message) =>
        Effect.flatMap(take(to, message), () => {
          if (message.tag === "Never") {
            return Effect.onInterrupt(Effect.never, () => Effect.sync(() => recorders.interrupted.push(to.name)))
          }
          const { text } = message.payload as { readonly text: string }
          const value = Number(text)
          return Effect.succeed(Number.isNaN(value) ? Exit.fail(new NotANumber({ text })) : Exit.succeed(value))
        })
    })
    // A recorder has no mailboxes of its own: the rest of the host is never asked here.
    const unused = () => Effect.die(new Error("a recorder has no such operation"))
    const host = ActorHost.of({
      start: unused,
      stop: unused,
      find: () => undefined,
      actors: () => [],
      load: () => 0,
      kinds: () => new Map([[definition.name, definition]]),
      kindChanges: Stream.make([definition.name]),
      terminations: unused() as never,
      suspend: unused
    })
    const events = SystemEvents.of({
      publish: (event) => {
        recorders.events.push(event)
        PubSub.publishUnsafe(hub, event)
      },
      stream: Stream.fromPubSub(hub)
    })
    return Context.make(Recorders, recorders).pipe(
      Context.add(Delivery, delivery),
      Context.add(ActorHost, host),
      Context.add(SystemEvents, events)
    )
  }))

/** One node of the harness. */
export type ContractNode = Context.Context<Recorders | Delivery | Remoting | Node>

/** Two nodes that can reach each other, and how to break that. */
export interface Harness {
  readonly a: ContractNode
  readonly b: ContractNode
  /** ends every connection between the two at once; dialing works */
  readonly reset: Effect.Effect<void>
  /** the second node's process is gone */
  readonly crashB: Effect.Effect<void>
  /** lets that much time pass */
  readonly pass: (duration: Duration.Input) => Effect.Effect<void>
}

export interface ContractCase {
  readonly name: string
  /** fails (or dies) where the contract is broken */
  readonly run: (harness: Harness) => Effect.Effect<void, unknown>
}

const address = (node: NodeAddress, name: string, placement = 1): ActorAddress => ({
  kind: Recorder.name,
  name,
  node,
  placement,
  epoch: 1
})

const put = (n: number, text?: string): Message => ({
  kind: Recorder,
  tag: "Put",
  payload: text === undefined ? { n } : { n, text }
})

const parse = (text: string): Message => ({ kind: Recorder, tag: "Parse", payload: { text } })
const never: Message = { kind: Recorder, tag: "Never", payload: {} }

class ContractBroken extends Error {
  override readonly name = "ContractBroken"
}

const expect = (condition: boolean, what: string): Effect.Effect<void> =>
  condition ? Effect.void : Effect.die(new ContractBroken(what))

const same = (actual: unknown, expected: unknown, what: string) =>
  expect(
    JSON.stringify(actual) === JSON.stringify(expected),
    `${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`
  )

/** Waits for something to become true, at most ten seconds. */
const until = ({ pass }: Harness, condition: () => boolean, what: string): Effect.Effect<void> => {
  const attempt = (left: number): Effect.Effect<void> =>
    Effect.suspend(() =>
      condition()
        ? Effect.void
        : left === 0
        ? Effect.die(new ContractBroken(`never happened: ${what}`))
        : Effect.andThen(pass("50 millis"), attempt(left - 1))
    )
  return attempt(200)
}

const parts = (harness: Harness) => {
  const node = (context: ContractNode) => ({
    self: Context.get(context, Node).address,
    delivery: Context.get(context, Delivery),
    recorders: Context.get(context, Recorders)
  })
  return { a: node(harness.a), b: node(harness.b) }
}

const failureTag = (exit: Exit.Exit<unknown, { readonly _tag: string }>) => {
  if (Exit.isSuccess(exit)) return "Success"
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" ? error.value._tag : Cause.pretty(exit.cause)
}

const numbers = (received: ReadonlyArray<{ readonly to: string; readonly payload: unknown }>, to: string) =>
  received.filter((message) => message.to === to).map((message) => (message.payload as { readonly n: number }).n)

const outcomeOf = (exit: Exit.Exit<unknown, { readonly _tag: string }>) => {
  const error = Exit.findErrorOption(exit)
  return error._tag === "Some" && "outcome" in error.value ? error.value.outcome : undefined
}

export const cases: ReadonlyArray<ContractCase> = [
  {
    name: "a thousand tells arrive once and in order",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        for (let n = 0; n < 1000; n++) yield* a.delivery.tell(to, put(n))
        yield* until(harness, () => b.recorders.received.length === 1000, "all arrive")
        yield* same(numbers(b.recorders.received, "x"), Array.from({ length: 1000 }, (_, n) => n), "order")
      })
  },
  {
    name: "order holds for each pair while both directions and many actors are busy",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const send = (from: typeof a, to: typeof b, name: string) =>
          Effect.forEach(Array.from({ length: 200 }, (_, n) => n), (n) =>
            from.delivery.tell(address(to.self, name), put(n)), {
            discard: true
          })
        yield* Effect.all(
          ["x", "y", "z"].flatMap((name) => [send(a, b, name), send(b, a, name)]),
          { concurrency: "unbounded", discard: true }
        )
        for (const { recorders } of [a, b]) {
          yield* until(harness, () =>
            recorders.received.length === 600, "all arrive")
          for (const name of ["x", "y", "z"]) {
            yield* same(
              numbers(recorders.received, name),
              Array.from({ length: 200 }, (_, n) =>
                n),
              `order at ${name}`
            )
          }
        }
      })
  },
  {
    name: "an ask is answered with the handler's success or typed error",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        const right = yield* a.delivery.ask(to, parse("42"), 5000)
        yield* expect(Exit.isSuccess(right) && right.value === 42, "the success arrives")
        const wrong = yield* a.delivery.ask(to, parse("forty"), 5000)
        const error = Exit.findErrorOption(wrong)
        yield* expect(
          error._tag === "Some" && error.value instanceof NotANumber && error.value.text === "forty",
          "the typed error arrives as its class"
        )
      })
  },
  {
    name: "a tell before an ask to the same actor is handled before it",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        for (let n = 0; n < 50; n++) {
          yield* a.delivery.tell(to, put(n))
          yield* a.delivery.ask(to, parse(String(n)), 5000)
        }
        const tags = b.recorders.received.map((message) => message.tag)
        yield* same(tags, Array.from({ length: 100 }, (_, i) => i % 2 === 0 ? "Put" : "Parse"), "turn by turn")
      })
  },
  {
    name: "an ask without an answer fails AskTimeout, and the handler is interrupted",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const asking = yield* Effect.forkChild(
          Effect.exit(a.delivery.ask(address(b.self, "x"), never, 300)),
          { startImmediately: true }
        )
        yield* until(harness, () => asking.pollUnsafe() !== undefined, "the ask ends")
        yield* same(failureTag(yield* Fiber.join(asking)), "AskTimeout", "kind of failure")
        yield* until(harness, () => b.recorders.interrupted.length === 1, "the handler is interrupted")
      })
  },
  {
    name: "an interrupted asker interrupts the handler on the other node",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const asking = yield* Effect.forkChild(a.delivery.ask(address(b.self, "x"), never, 60_000), {
          startImmediately: true
        })
        yield* until(harness, () => b.recorders.received.length === 1, "the ask arrives")
        yield* Fiber.interrupt(asking)
        yield* until(harness, () => b.recorders.interrupted.length === 1, "the handler is interrupted")
      })
  },
  {
    name: "what the actor's node refuses comes back typed: stopped, full",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        b.recorders.stopped.add("gone")
        b.recorders.full.add("full")
        const gone = yield* Effect.exit(a.delivery.ask(address(b.self, "gone"), parse("1"), 5000))
        yield* same(failureTag(gone), "ActorStopped", "stopped")
        const full = yield* Effect.exit(a.delivery.ask(address(b.self, "full"), parse("1"), 5000))
        yield* same(failureTag(full), "MailboxFull", "full")
      })
  },
  {
    name: "a tell that nobody takes is a dead letter, and the next one to that placement fails ActorStopped",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        b.recorders.stopped.add("gone")
        yield* a.delivery.tell(address(b.self, "gone"), put(1))
        yield* until(harness, () => b.recorders.events.some((event) => event._tag === "DeadLetter"), "a dead letter")
        yield* harness.pass("100 millis")
        const next = yield* Effect.exit(a.delivery.tell(address(b.self, "gone"), put(2)))
        yield* same(failureTag(next), "ActorStopped", "the next tell")
        b.recorders.stopped.clear()
        yield* a.delivery.tell(address(b.self, "gone", 2), put(3))
        yield* until(harness, () => numbers(b.recorders.received, "gone").includes(3), "a newer placement is reached")
      })
  },
  {
    name: "a message that is not of the protocol is refused here, one that is unknown there is refused there",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        const bad = yield* Effect.exit(a.delivery.tell(to, { kind: Recorder, tag: "Put", payload: { n: "one" } }))
        yield* same(failureTag(bad), "InvalidData", "a payload that does not fit")
        const clear = { kind: RecorderNext, tag: "Clear", payload: {} }
        const unknown = yield* Effect.exit(a.delivery.ask(to, clear, 5000))
        yield* same(failureTag(unknown), "ProtocolMismatch", "a message that the other side does not have")
        const foreign = { ...Recorder, name: "Foreign" }
        const missing = yield* Effect.exit(
          a.delivery.ask({ ...to, kind: "Foreign" }, { kind: foreign, tag: "Parse", payload: { text: "1" } }, 5000)
        )
        yield* same(failureTag(missing), "ActorStopped", "a kind that the other side does not have")
        const still = yield* a.delivery.ask(to, parse("7"), 5000)
        yield* expect(Exit.isSuccess(still), "the connection is kept")
      })
  },
  {
    name: "an added optional field and an added message do not disturb the rest",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        yield* a.delivery.tell(to, { kind: RecorderNext, tag: "Put", payload: { n: 1, note: "new" } })
        yield* until(harness, () => numbers(b.recorders.received, "x").includes(1), "the newer message arrives")
        const answer = yield* a.delivery.ask(to, { ...parse("9"), kind: RecorderNext }, 5000)
        yield* expect(Exit.isSuccess(answer) && answer.value === 9, "the newer ask is answered")
      })
  },
  {
    name: "a large message arrives whole; others pass it, but not those to the same actor",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const text = "0123456789".repeat(60_000)
        yield* a.delivery.tell(address(b.self, "x"), put(0, text))
        for (let n = 1; n < 20; n++) yield* a.delivery.tell(address(b.self, "x"), put(n))
        for (let n = 0; n < 20; n++) yield* a.delivery.tell(address(b.self, "y"), put(n))
        yield* until(harness, () => b.recorders.received.length === 40, "all arrive")
        const { received } = b.recorders
        yield* same(numbers(received, "x"), Array.from({ length: 20 }, (_, n) => n), "order at x")
        yield* same(numbers(received, "y"), Array.from({ length: 20 }, (_, n) => n), "order at y")
        const whole = received.find(({ to }) => to === "x")!.payload as { readonly text: string }
        yield* expect(whole.text === text, "whole")
        yield* expect(received.findIndex(({ to }) => to === "y") < received.findIndex(({ to }) => to === "x"), "passed")
        const answer = yield* a.delivery.ask(address(b.self, "x"), parse("1".padStart(500_000, "0")), 5000)
        yield* expect(Exit.isSuccess(answer) && answer.value === 1, "a large ask is answered")
      })
  },
  {
    name: "large messages to an actor that takes none are held within bounds, and arrive in order in the end",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const text = "x".repeat(900_000)
        b.recorders.hold(true)
        let accepted = 0
        while (accepted < 100) {
          const telling = yield* Effect.forkChild(
            Effect.exit(a.delivery.tell(address(b.self, "x"), put(accepted, text))),
            { startImmediately: true }
          )
          yield* until(harness, () => telling.pollUnsafe() !== undefined, "the tell ends")
          if (Exit.isFailure(yield* Fiber.join(telling))) break
          accepted++
        }
        // default window 4 MiB and outbox 8 MiB, and what is put together
        yield* expect(accepted > 5 && accepted < 30, `bounded: ${accepted} were accepted`)
        b.recorders.hold(false)
        yield* until(harness, () => b.recorders.received.length === accepted, "all that was accepted arrives")
        yield* same(numbers(b.recorders.received, "x"), Array.from({ length: accepted }, (_, n) => n), "order")
      })
  },
  {
    name: "a message larger than a frame fails FrameTooLarge",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const large = yield* Effect.exit(a.delivery.tell(address(b.self, "x"), put(1, "x".repeat(17 * 1024 * 1024))))
        yield* same(failureTag(large), "FrameTooLarge", "kind of failure")
      })
  },
  {
    name: "tells wait for a full mailbox and arrive in order, and control overtakes them",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        b.recorders.hold(true)
        for (let n = 0; n < 100; n++) yield* a.delivery.tell(to, put(n))
        const answer = yield* a.delivery.ask(address(b.self, "y"), parse("5"), 5000)
        yield* expect(Exit.isSuccess(answer), "another actor is not held up")
        yield* same(numbers(b.recorders.received, "x"), [], "held")
        b.recorders.hold(false)
        yield* until(harness, () => numbers(b.recorders.received, "x").length === 100, "all arrive")
        yield* same(numbers(b.recorders.received, "x"), Array.from({ length: 100 }, (_, n) => n), "order")
      })
  },
  {
    name:
      "a receiver that takes nothing fills bounded queues, then tells fail NotSent and nothing is lost that was accepted",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        b.recorders.hold(true)
        const text = "x".repeat(60_000)
        let accepted = 0
        let refused: Exit.Exit<void, { readonly _tag: string }> = Exit.void
        // default window 4 MiB and outbox 8 MiB: about 210 of these
        while (accepted < 1000) {
          const telling = yield* Effect.forkChild(Effect.exit(a.delivery.tell(to, put(accepted, text))), {
            startImmediately: true
          })
          yield* until(harness, () => telling.pollUnsafe() !== undefined, "the tell ends")
          refused = yield* Fiber.join(telling)
          if (Exit.isFailure(refused)) break
          accepted++
        }
        yield* same(failureTag(refused), "NodeUnreachable", "kind of failure")
        yield* same(outcomeOf(refused), "NotSent", "outcome")
        yield* expect(accepted > 50 && accepted < 400, `bounded: ${accepted} were accepted`)
        b.recorders.hold(false)
        yield* until(harness, () => b.recorders.received.length === accepted, "all that was accepted arrives")
        yield* same(numbers(b.recorders.received, "x"), Array.from({ length: accepted }, (_, n) => n), "order")
      })
  },
  {
    name: "a lost connection fails asks in flight as Unknown; afterwards a new one is dialed, and order goes on",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        const asking = yield* Effect.forkChild(Effect.exit(a.delivery.ask(to, never, 60_000)), {
          startImmediately: true
        })
        yield* until(harness, () => b.recorders.received.length === 1, "the ask arrives")
        yield* harness.reset
        yield* until(harness, () => asking.pollUnsafe() !== undefined, "the ask ends")
        const lost = yield* Fiber.join(asking)
        yield* same([failureTag(lost), outcomeOf(lost)], ["NodeUnreachable", "Unknown"], "kind of failure")
        yield* until(harness, () => b.recorders.interrupted.length === 1, "the handler is interrupted")
        for (let n = 0; n < 20; n++) yield* a.delivery.tell(to, put(n))
        yield* until(harness, () => b.recorders.received.length === 21, "all arrive")
        yield* same(numbers(b.recorders.received.slice(1), "x"), Array.from({ length: 20 }, (_, n) => n), "order")
      })
  },
  {
    name: "at most once and in order, whatever connections are lost under way",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        for (let n = 0; n < 300; n++) {
          yield* Effect.exit(a.delivery.tell(to, put(n)))
          if (n % 10 === 0) yield* harness.pass("5 millis")
          if (n % 50 === 25) {
            yield* harness.reset
            yield* harness.pass("200 millis")
          }
        }
        const answer = yield* a.delivery.ask(to, parse("1"), 5000)
        yield* expect(Exit.isSuccess(answer), "the connection is there again")
        const got = numbers(b.recorders.received.filter((message) => message.tag === "Put"), "x")
        yield* expect(got.every((n, i) => i === 0 || n > got[i - 1]!), `rising, none twice: ${got.join(" ")}`)
        yield* expect(got.length > 200, `most arrive: ${got.length}`)
      })
  },
  {
    name: "a node that is gone fails NotSent, at once after the first attempt",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address(b.self, "x")
        yield* a.delivery.tell(to, put(1))
        yield* until(harness, () => b.recorders.received.length === 1, "it arrives")
        yield* harness.crashB
        yield* harness.pass("500 millis")
        const telling = yield* Effect.forkChild(Effect.exit(a.delivery.tell(to, put(2))), { startImmediately: true })
        yield* until(harness, () => telling.pollUnsafe() !== undefined, "the tell ends")
        const exit = yield* Fiber.join(telling)
        yield* same([failureTag(exit), outcomeOf(exit)], ["NodeUnreachable", "NotSent"], "kind of failure")
      })
  },
  {
    name: "another incarnation at the same address is not the one that was meant",
    run: (harness) =>
      Effect.gen(function*() {
        const { a, b } = parts(harness)
        const to = address({ ...b.self, incarnation: "another" }, "x")
        const exit = yield* Effect.exit(a.delivery.ask(to, parse("1"), 5000))
        yield* same([failureTag(exit), outcomeOf(exit)], ["NodeUnreachable", "NotSent"], "kind of failure")
      })
  }
]

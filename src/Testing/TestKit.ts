/**
 * For tests of actors on one node, in virtual or real time: a system as a Layer, and probes: actors that keep what they are sent
 * until the test looks.
 *
 * Under `TestClock` waiting moves the clock: a probe that expects a message within 3 seconds lets virtual time pass until it comes,
 * at most those 3 seconds. So the test, through its probes, stays the one owner of the clock.
 */
import { Clock, Duration, Effect, Exit, Layer, Schema, Stream } from "effect"
import type { Scope } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import type { Kind } from "../Actor/Actor.ts"
import * as Actor from "../Actor/Actor.ts"
import * as ActorHost from "../Actor/ActorHost.ts"
import type { ActorRef } from "../Actor/ActorRef.ts"
import * as ActorSystem from "../Actor/ActorSystem.ts"
import * as Delivery from "../Actor/Delivery.ts"
import type { SpawnError } from "../Actor/errors.ts"
import { ownMessages } from "../Actor/internal/streams.ts"
import * as Jobs from "../Actor/Jobs.ts"
import * as Node from "../Actor/Node.ts"
import * as Placement from "../Actor/Placement.ts"
import * as SystemEvents from "../Actor/SystemEvents.ts"
import * as Topic from "../Actor/Topic.ts"
import * as Topology from "../Actor/Topology.ts"

/** One node by itself, with everything of the actor ring. */
export const layerSystem = ActorSystem.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(Placement.layerLocal, Delivery.layerLocal, Topology.layerLocal)),
  Layer.provideMerge(ActorHost.layer),
  Layer.provideMerge(
    Layer.mergeAll(Node.layerLocal({ system: "test", id: "test-node" }), SystemEvents.layer, Jobs.layer, Topic.layer)
  )
)

/** The same with the given kinds registered: `TestKit.layer(AccountLive)`. */
export const layer = <E, R>(kinds: Layer.Layer<never, E, ActorSystem.ActorSystem | R>) =>
  kinds.pipe(Layer.provideMerge(layerSystem))

/** A probe did not see what the test expected. `seen` are the tags that it had. */
export class ProbeFailed extends Schema.TaggedError<ProbeFailed>()("ProbeFailed", {
  expected: Schema.String,
  within: Schema.String,
  seen: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `expected ${this.expected} within ${this.within}, saw ${
      this.seen.length === 0 ? "nothing" : this.seen.join(", ")
    }`
  }
}

/** What answers a message: an Effect of the reply, or a Stream of replies where it is declared with `stream: true`. */
export type Answer<R extends Rpc.Any> = Rpc.Success<R> extends Stream.Stream<infer A, infer E, infer _>
  ? Stream.Stream<A, E | Rpc.Error<R>>
  : Effect.Effect<Rpc.Success<R>, Rpc.Error<R>>

/** A message that a probe was sent. One `Received` for each message of the protocol. */
export type Received<Rpcs extends Rpc.Any> = Rpcs extends Rpc.Any ? {
    readonly _tag: Rpcs["_tag"]
    readonly payload: Rpc.Payload<Rpcs>
    /** Answers its asker; only the first answer counts. A tell has nobody to hear it, and that is no failure. */
    readonly reply: (answer: Answer<Rpcs>) => Effect.Effect<void>
  }
  : never

type Tagged<Rpcs extends Rpc.Any, Tag extends Rpcs["_tag"]> = Extract<Received<Rpcs>, { readonly _tag: Tag }>

export interface WithinOptions {
  /** default 3 seconds */
  readonly within?: Duration.Input | undefined
}

export interface Probe<Rpcs extends Rpc.Any> {
  /** send to this; it passes for an actor of the kind */
  readonly ref: ActorRef<Rpcs>
  /** The next message, which must have that tag. Takes it out. */
  readonly expect: <const Tag extends Rpcs["_tag"]>(
    tag: Tag,
    options?: WithinOptions
  ) => Effect.Effect<Tagged<Rpcs, Tag>, ProbeFailed>
  /** The next message that has that tag and, if given, meets the predicate; others before it are thrown away. */
  readonly fish: <const Tag extends Rpcs["_tag"]>(
    tag: Tag,
    predicate?: (payload: Tagged<Rpcs, Tag>["payload"]) => boolean,
    options?: WithinOptions
  ) => Effect.Effect<Tagged<Rpcs, Tag>, ProbeFailed>
  /** Nothing is waiting, and nothing comes for that long. */
  readonly expectNone: (during: Duration.Input) => Effect.Effect<void, ProbeFailed>
  /** Answers all messages of that tag from now on, those that wait included; they are still seen. */
  readonly autoReply: <const Tag extends Rpcs["_tag"]>(
    tag: Tag,
    answer: (payload: Tagged<Rpcs, Tag>["payload"]) => Answer<Rpc.ExtractTag<Rpcs, Tag>>
  ) => Effect.Effect<void>
  /** messages that wait to be looked at */
  readonly waiting: Effect.Effect<ReadonlyArray<Received<Rpcs>>>
}

type AnyAnswer = Effect.Effect<unknown, unknown> | Stream.Stream<unknown, unknown>

interface Entry {
  readonly _tag: string
  readonly payload: unknown
  readonly reply: (answer: AnyAnswer) => Effect.Effect<void>
}

const isTestClock = (clock: Clock.Clock): clock is TestClock.TestClock => "adjust" in clock

/** Lets time pass until `done`, at most `limit` milliseconds; false: it never was. */
const waitUntil = (done: () => boolean, limit: number): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const virtual = isTestClock(clock)
    const step = virtual ? Math.max(1, limit / 100) : 5
    if (virtual) yield* clock.adjust(0)
    let left = limit
    while (!done()) {
      if (left <= 0) return false
      const millis = Math.min(step, left)
      left -= millis
      yield* virtual ? clock.adjust(millis) : Effect.sleep(millis)
    }
    return true
  })

let probes = 0

/** A probe that passes for an actor of the kind, for as long as the scope lives. The kind itself may be registered or not. */
export const probe = <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
  kind: Kind<Rpcs, Props>,
  name?: string
): Effect.Effect<Probe<Rpcs>, SpawnError, ActorSystem.ActorSystem | Scope.Scope> =>
  Effect.gen(function*() {
    const system = yield* ActorSystem.ActorSystem
    const id = ++probes
    const messages = ownMessages(kind.definition)
    // A kind of its own, so that it stands beside the real one; senders only see the protocol.
    const own = Actor.make(`${kind.definition.name}Probe${id}`, {
      protocol: messages.filter(({ stream }) => stream).map(({ tag }) =>
        Rpc.make(tag, { success: Schema.Unknown, stream: true })
      )
    })
    const entries: Array<Entry> = []
    const answers = new Map<string, (payload: unknown) => AnyAnswer>()

    const handler = (tag: string) => (payload: unknown) =>
      Effect.callback<unknown, unknown>((resume) => {
        // A stream is run by whoever listens to it, with the failures that it has then.
        const reply = (answer: AnyAnswer) =>
          Stream.isStream(answer)
            ? Effect.sync(() => resume(Effect.succeed(answer)))
            : Effect.map(Effect.exit(answer), (exit: Exit.Exit<unknown, unknown>) => resume(exit))
        entries.push({ _tag: tag, payload, reply })
        const answer = answers.get(tag)?.(payload)
        if (answer !== undefined) resume(Stream.isStream(answer) ? Effect.succeed(answer) : answer)
      })
    const streaming = (tag: string) => (payload: unknown) =>
      Stream.unwrap(handler(tag)(payload) as Effect.Effect<Stream.Stream<unknown, unknown>>)
    const live = own.toLayer(
      Effect.succeed(
        Object.fromEntries(messages.map(({ stream, tag }) => [tag, stream ? streaming(tag) : handler(tag)])) as never
      ),
      { reentrancy: { messages: "all", maxInFlight: Infinity } }
    )
    const disguised = { ...own, definition: { ...own.definition, messages: kind.definition.messages } }
    yield* Layer.build(live)
    const ref = yield* system.spawn(
      disguised as unknown as Kind<Rpcs, {}>,
      name ?? `probe-${id}`
    )
    const failed = (expected: string, within: Duration.Input) =>
      new ProbeFailed({
        expected,
        within: Duration.format(Duration.fromInputUnsafe(within)),
        seen: entries.map((entry) => entry._tag)
      })

    const expect = (tag: string, options: WithinOptions = {}) =>
      Effect.gen(function*() {
        const within = options.within ?? "3 seconds"
        yield* waitUntil(() => entries.length > 0, Duration.toMillis(within))
        if (entries[0]?._tag !== tag) return yield* failed(tag, within)
        return entries.shift()!
      })

    const fish = (tag: string, predicate: (payload: never) => boolean = () => true, options: WithinOptions = {}) =>
      Effect.gen(function*() {
        const within = options.within ?? "3 seconds"
        const find = () => entries.findIndex((entry) => entry._tag === tag && predicate(entry.payload as never))
        if (!(yield* waitUntil(() => find() >= 0, Duration.toMillis(within)))) {
          return yield* failed(`a fitting ${tag}`, within)
        }
        return entries.splice(0, find() + 1).pop()!
      })

    return {
      ref,
      expect: expect as never,
      fish: fish as never,
      expectNone: (during) =>
        Effect.flatMap(
          waitUntil(() => entries.length > 0, Duration.toMillis(during)),
          (some) => some ? Effect.fail(failed("nothing", during)) : Effect.void
        ),
      autoReply: (tag, answer) =>
        Effect.suspend(() => {
          answers.set(tag, answer as never)
          return Effect.forEach(
            entries.filter((entry) => entry._tag === tag),
            (entry) => entry.reply(answer(entry.payload as never)),
            { discard: true }
          )
        }),
      waiting: Effect.sync(() => [...entries] as unknown as Array<Received<Rpcs>>)
    }
  })

/**
 * Kinds of actors: a protocol and props in one value (`make`), and behaviours for them as Layers (`toLayer`).
 *
 * Not for: starting actors (`ActorSystem`), nor what a behaviour can do while it runs (`ActorContext`).
 */
import { Duration, Effect, Layer, Schema } from "effect"
import type { Scope, Stream } from "effect"
import type { Rpc } from "effect/rpc"
import { ActorContext, type BecomeOptions } from "./ActorContext.ts"
import type { ActorRef } from "./ActorRef.ts"
import { ActorSystem } from "./ActorSystem.ts"
import type { HandlerTable } from "./internal/Cell.ts"
import type { Envelope } from "./internal/Envelope.ts"
import { fingerprint } from "./internal/fingerprint.ts"
import type { CellOptions } from "./internal/Host.ts"
import { RecentlyUsed } from "./internal/Idleness.ts"
import { Ring } from "./internal/Ring.ts"
import { closeTag, pullTag, streamDefinitions } from "./internal/streams.ts"
import { isSystemTag, systemDefinitions } from "./internal/systemMessages.ts"
import { type KindDefinition, type MessageDefinition, messageOf } from "./Kind.ts"
import { type MailboxOptions, type MessageQueue, priorityQueue } from "./Mailbox.ts"
import * as Supervision from "./Supervision.ts"

/** What a handler gives: an Effect of the reply, or a Stream of replies where the message is declared with `stream: true`. */
export type HandlerResult<R extends Rpc.Any> = Rpc.Success<R> extends Stream.Stream<infer A, infer E, infer _>
  ? Stream.Stream<A, E | Rpc.Error<R>, unknown>
  : Effect.Effect<Rpc.Success<R>, Rpc.Error<R>, unknown>

/** One handler for each message of a protocol. A handler's typed error goes to the asker; it is no failure of the actor. */
export type Handlers<Rpcs extends Rpc.Any> = {
  readonly [R in Rpcs as R["_tag"]]: (payload: Rpc.Payload<R>) => HandlerResult<R>
}

/** The services that handlers need, all together. */
export type HandlerServices<H> = {
  [K in keyof H]: H[K] extends (...args: infer _Args) => infer Result
    ? Result extends Effect.Effect<infer _A, infer _E, infer R> ? R
    : Result extends Stream.Stream<infer _A, infer _E, infer R> ? R
    : never
    : never
}[keyof H]

/** How a kind's actors live on this node. Policies are named with the kind, never sent with a spawn. */
export interface BehaviorOptions<Tag extends string = string> {
  /** how a behaviour is built, before its spawn fails `StartFailed`; a restart is supervision's business */
  readonly start?: {
    /** of each attempt; one that takes longer is interrupted, and its finalizers run. Default 5 seconds */
    readonly timeout?: Duration.Input | undefined
    /** attempts after the first one: after 100 ms, 200 ms, 400 ms, doubling to 10 seconds. Default 3 */
    readonly retries?: number | undefined
  } | undefined
  /** how long a handler may go on when its actor is stopped, before it is interrupted; default 5 seconds */
  readonly stopGrace?: Duration.Input | undefined
  /** what becomes of an actor that fails; default: restart at most 10 times in a minute, then stop */
  readonly supervision?: Supervision.SupervisionOptions | undefined
  /** default: unbounded, in order of arrival */
  readonly mailbox?: MailboxOptions<Tag> | undefined
  /** messages that `ActorContext.stash` may put aside; default 1000 */
  readonly stash?: number | undefined
  /**
   * Messages whose handlers, once they suspend, let the actor handle others meanwhile. At most `maxInFlight` (default 64) do so
   * at a time, each for at most `timeout` (default: no limit), after which it is interrupted and its asker told.
   */
  readonly reentrancy?: {
    readonly messages: "all" | ReadonlyArray<Tag>
    readonly maxInFlight?: number | undefined
    readonly timeout?: Duration.Input | undefined
  } | undefined
  /**
   * When an actor gives up its behaviour until its next message: after being idle, after that many messages, or as the least
   * recently used when more than `cap` of its kind are live on this node. Name, props and mailbox stay; state, timers and watches do
   * not. Passed over are those that have something going: live children, stashed messages, open streams, messages beside the
   * mailbox, a `pipeTo` under way, or `keepAwake`. Default: never.
   */
  readonly passivation?: {
    readonly idle?: Duration.Input | undefined
    readonly messages?: number | undefined
    readonly cap?: number | undefined
  } | undefined
  /** put the actor's name and kind on what its behaviour logs; default true */
  readonly annotateLogs?: boolean | undefined
  /** a span for each message, the child of its sender's; default false, because it costs as much as dozens of messages */
  readonly trace?: boolean | undefined
  /** take the time of each handler for the metric `troupe_handling_milliseconds`; default false */
  readonly measure?: boolean | undefined
  /**
   * check payloads that come from this node as well, and refuse what does not fit as `InvalidData`; default false, because the
   * compiler has checked them. What comes from other nodes always is.
   */
  readonly validate?: boolean | undefined
}

/** A kind of actor: its name, its protocol `Rpcs`, its props. */
export interface Kind<in out Rpcs extends Rpc.Any, in out Props extends Schema.Struct.Fields> {
  readonly definition: KindDefinition
  /** Inside a behaviour: the props this actor was spawned with. */
  readonly props: Effect.Effect<Schema.Struct<Props>["Type"], never, ActorContext>
  /** Inside a behaviour: a reference to this very actor. */
  readonly self: Effect.Effect<ActorRef<Rpcs>, never, ActorContext>
  /** The handlers as they are; gives them their types. */
  readonly of: <H extends Handlers<Rpcs>>(handlers: H) => H
  /**
   * Inside a behaviour: lays these handlers over the present ones, until `ActorContext.unbecome`; with `replace` over those that the
   * actor was built with. Messages without a handler here are handled as before. From the next message on; a restart forgets it.
   */
  readonly become: <H extends Partial<Handlers<Rpcs>>>(
    handlers: H,
    options?: BecomeOptions
  ) => Effect.Effect<void, never, ActorContext | HandlerServices<H>>
  /**
   * Registers the behaviour on this node for as long as the Layer lives. `build` runs at each start and restart of an actor, in
   * a scope of its own: its finalizers run when that incarnation ends. Building may fail with any error; the spawn then fails
   * `StartFailed`. When the Layer closes, the kind's actors here stop as `Withdrawn`.
   */
  readonly toLayer: <H extends Handlers<Rpcs>, E, R>(
    build: Effect.Effect<H, E, R>,
    options?: BehaviorOptions<Rpcs["_tag"]>
  ) => Layer.Layer<never, never, ActorSystem | Exclude<R | HandlerServices<H>, ActorContext | Scope.Scope>>
}

const mailboxOf = (options: MailboxOptions | undefined, streams: ReadonlyArray<string>): CellOptions["mailbox"] => {
  if (options === undefined) return undefined
  const { priority, queue } = options
  return {
    capacity: Math.max(1, options.capacity ?? Infinity),
    overflow: options.overflow ?? "fail",
    // A stream that was let in goes on, however full the mailbox is.
    control: new Set([...options.control ?? [], ...streams.flatMap((tag) => [pullTag(tag), closeTag(tag)])]),
    makeQueue: queue !== undefined
      ? queue as unknown as () => MessageQueue<Envelope>
      : priority !== undefined
      ? () => priorityQueue<Envelope>(priority)
      : () => new Ring<Envelope>()
  }
}

const cellOptions = (options: BehaviorOptions, streams: ReadonlyArray<string>): CellOptions => {
  const { passivation, reentrancy } = options
  const applies = reentrancy?.messages === "all" ? () => true : undefined
  const named = new Set<string>(reentrancy === undefined || reentrancy.messages === "all" ? [] : reentrancy.messages)
  return {
    startTimeout: Duration.toMillis(options.start?.timeout ?? "5 seconds"),
    startRetries: options.start?.retries ?? 3,
    startDelay: (attempt) => Math.min(10_000, 100 * 2 ** (attempt - 1)),
    stopGrace: Duration.toMillis(options.stopGrace ?? "5 seconds"),
    supervision: Supervision.make(options.supervision),
    mailbox: mailboxOf(options.mailbox, streams),
    stashCapacity: options.stash ?? 1000,
    reentrancy: reentrancy === undefined ? undefined : {
      applies: applies ?? ((tag) => named.has(tag)),
      maxInFlight: reentrancy.maxInFlight ?? 64,
      timeout: reentrancy.timeout === undefined ? Infinity : Duration.toMillis(reentrancy.timeout)
    },
    passivation: passivation === undefined ? undefined : {
      idle: passivation.idle === undefined ? Infinity : Duration.toMillis(passivation.idle),
      messages: passivation.messages ?? Infinity,
      cap: passivation.cap ?? Infinity,
      recent: new RecentlyUsed()
    },
    streams: streams.length === 0 ? undefined : streams,
    annotateLogs: options.annotateLogs ?? true,
    trace: options.trace ?? false,
    measure: options.measure ?? false,
    validate: options.validate ?? false
  }
}

/** A protocol that cannot work is a mistake in the program, found where it is written down. */
const checked = (kind: string, messages: ReadonlyArray<MessageDefinition>): ReadonlyArray<MessageDefinition> => {
  const seen = new Set<string>()
  for (const { tag } of messages) {
    const wrong = tag === ""
      ? "a message with an empty name"
      : isSystemTag(tag)
      ? `a message ${tag}: such names are the runtime's own`
      : seen.has(tag)
      ? `the message ${tag} (or the runtime's part of a stream of that name) twice`
      : undefined
    if (wrong !== undefined) throw new Error(`the kind ${kind} has ${wrong}`)
    seen.add(tag)
  }
  return messages
}

/**
 * Defines a kind. `protocol` is a list of `effect/rpc` messages; `props` are the fields an actor is spawned with, serialisable
 * because they travel and survive relocation. The name is the kind's identity on all nodes. Throws where two messages have one name,
 * or one has none or begins with `$`.
 */
export const make = <const Rpcs extends ReadonlyArray<Rpc.Any>, Props extends Schema.Struct.Fields = {}>(
  name: string,
  options: { readonly protocol: Rpcs; readonly props?: Props | undefined }
): Kind<Rpcs[number], Props> => {
  const own = options.protocol.map((rpc) => messageOf(rpc as unknown as Rpc.AnyWithProps))
  const streams = own.filter((message) => message.stream).map((message) => message.tag)
  const all = checked(name, own.flatMap((message) => message.stream ? streamDefinitions(message) : [message]))
  const messages = new Map([...all, ...systemDefinitions].map((message) => [message.tag, message] as const))
  const props = Schema.Struct(options.props ?? {}) as unknown as Schema.Top
  const definition: KindDefinition = { name, messages, props, fingerprint: fingerprint(name, messages, props) }
  return {
    definition,
    props: ActorContext.use((context) => context.propsOf(name)) as never,
    self: ActorContext.useSync((context) => context.self) as never,
    of: (handlers) => handlers,
    become: (handlers, options) =>
      ActorContext.use((context) => context.becomeTable(handlers as unknown as HandlerTable, options)) as never,
    toLayer: (build, options = {}) =>
      Layer.effectDiscard(Effect.gen(function*() {
        const system = yield* ActorSystem
        yield* system.register({
          definition,
          build,
          context: yield* Effect.context<never>(),
          options: cellOptions(options, streams)
        })
      })) as never
  }
}

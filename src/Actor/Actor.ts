/**
 * Kinds of actors: a protocol and props in one value (`make`), and behaviours for them as Layers (`toLayer`).
 *
 * Not for: starting actors (`ActorSystem`), nor what a behaviour can do while it runs (`ActorContext`).
 */
import { Duration, Effect, Layer, Schema } from "effect"
import type { Scope, Stream } from "effect"
import type { Rpc } from "effect/rpc"
import { ActorContext } from "./ActorContext.ts"
import type { ActorRef } from "./ActorRef.ts"
import { ActorSystem } from "./ActorSystem.ts"
import { fingerprint } from "./internal/fingerprint.ts"
import type { CellOptions } from "./internal/Host.ts"
import { type KindDefinition, messageOf } from "./Kind.ts"

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

/** How a kind's actors live on this node. */
export interface BehaviorOptions {
  /** how a behaviour is built: by default within 5 seconds, tried 3 times again after 100 ms, 200 ms, 400 ms */
  readonly start?: {
    readonly timeout?: Duration.Input | undefined
    readonly retries?: number | undefined
  } | undefined
  /** how long a handler may go on when its actor is stopped, before it is interrupted; default 5 seconds */
  readonly stopGrace?: Duration.Input | undefined
  /** restarts after a defect: at most `limit` (default 10) within `window` (default 1 minute), then it stops as `Failed` */
  readonly restart?: {
    readonly limit?: number | undefined
    readonly window?: Duration.Input | undefined
  } | undefined
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
   * Registers the behaviour on this node for as long as the Layer lives. `build` runs at each start and restart of an actor, in
   * a scope of its own: its finalizers run when that incarnation ends. Building may fail with any error; the spawn then fails
   * `StartFailed`. When the Layer closes, the kind's actors here stop as `Withdrawn`.
   */
  readonly toLayer: <H extends Handlers<Rpcs>, E, R>(
    build: Effect.Effect<H, E, R>,
    options?: BehaviorOptions
  ) => Layer.Layer<never, never, ActorSystem | Exclude<R | HandlerServices<H>, ActorContext | Scope.Scope>>
}

const cellOptions = (options: BehaviorOptions): CellOptions => ({
  startTimeout: Duration.toMillis(options.start?.timeout ?? "5 seconds"),
  startRetries: options.start?.retries ?? 3,
  startDelay: (attempt) => 100 * 2 ** (attempt - 1),
  stopGrace: Duration.toMillis(options.stopGrace ?? "5 seconds"),
  restartLimit: options.restart?.limit ?? 10,
  restartWindow: Duration.toMillis(options.restart?.window ?? "1 minute")
})

/**
 * Defines a kind. `protocol` is a list of `effect/rpc` messages; `props` are the fields an actor is spawned with, serialisable
 * because they travel and survive relocation. The name is the kind's identity on all nodes.
 */
export const make = <const Rpcs extends ReadonlyArray<Rpc.Any>, Props extends Schema.Struct.Fields = {}>(
  name: string,
  options: { readonly protocol: Rpcs; readonly props?: Props | undefined }
): Kind<Rpcs[number], Props> => {
  const messages = new Map(
    options.protocol.map((rpc) => [rpc._tag, messageOf(rpc as unknown as Rpc.AnyWithProps)] as const)
  )
  const props = Schema.Struct(options.props ?? {}) as unknown as Schema.Top
  const definition: KindDefinition = { name, messages, props, fingerprint: fingerprint(name, messages, props) }
  return {
    definition,
    props: ActorContext.use((context) => context.propsOf(name)) as never,
    self: ActorContext.useSync((context) => context.self) as never,
    of: (handlers) => handlers,
    toLayer: (build, options = {}) =>
      Layer.effectDiscard(Effect.gen(function*() {
        const system = yield* ActorSystem
        yield* system.register({
          definition,
          build,
          context: yield* Effect.context<never>(),
          options: cellOptions(options)
        })
      })) as never
  }
}

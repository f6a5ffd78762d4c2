/**
 * A reference to an actor by kind and name, wherever it runs: `ref.tell.Deposit({ cents: 5 })`, `ref.ask.Balance()`.
 *
 * A reference caches where the actor was last found. On this node a message goes straight into the actor's mailbox; elsewhere
 * it goes through `Delivery`. If a message certainly did not arrive because the actor has moved, the reference looks the name
 * up again and repeats it; a message whose outcome is unknown is never repeated. So one reference outlives relocations.
 */
import type { Duration, Effect, Stream } from "effect"
import type { Rpc } from "effect/rpc"
import type { ActorAddress } from "./Address.ts"
import type { AskError, TellError } from "./errors.ts"
import type { KindDefinition } from "./Kind.ts"

export interface AskOptions {
  /** how long to wait for the reply, default 5 seconds; after that the outcome is unknown */
  readonly timeout?: Duration.Input | undefined
}

/** milliseconds an ask waits by default */
export const defaultAskTimeout = 5000

/** Messages that want no answer. Succeeds when the message is in the actor's mailbox, or on its way to another node. */
export type Tell<Rpcs extends Rpc.Any> = {
  readonly [R in Rpcs as R["_tag"]]: [Rpc.Payload<R>] extends [void] ? () => Effect.Effect<void, TellError>
    : (payload: Rpc.Payload<R>) => Effect.Effect<void, TellError>
}

/** What an ask gives: the reply, or a stream of replies where the message is declared with `stream: true`. */
export type Asked<R extends Rpc.Any> = Rpc.Success<R> extends Stream.Stream<infer A, infer E, infer _>
  ? Stream.Stream<A, E | Rpc.Error<R> | AskError>
  : Effect.Effect<Rpc.Success<R>, Rpc.Error<R> | AskError>

/** Messages that want an answer: the handler's success, or its typed error, or why there is none. */
export type Ask<Rpcs extends Rpc.Any> = {
  readonly [R in Rpcs as R["_tag"]]: [Rpc.Payload<R>] extends [void] ? (options?: AskOptions) => Asked<R>
    : (payload: Rpc.Payload<R>, options?: AskOptions) => Asked<R>
}

export interface ActorRef<in Rpcs extends Rpc.Any = never> {
  readonly kind: KindDefinition
  readonly name: string
  /** where it was last found */
  readonly address: ActorAddress
  readonly tell: Tell<Rpcs>
  readonly ask: Ask<Rpcs>
}

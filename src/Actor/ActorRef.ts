/**
 * A reference to an actor by kind and name, wherever it runs: `ref.tell.Deposit({ cents: 5 })`, `ref.ask.Balance()`.
 *
 * A reference caches where the actor was last found. On this node a message goes straight into the actor's mailbox; elsewhere
 * it goes through `Delivery`. If a message certainly did not arrive because the actor has moved, the reference looks the name
 * up again and repeats it; a message whose outcome is unknown is never repeated, nor one for which there was no room. So one reference
 * outlives relocations.
 *
 * A reference belongs to the node that it was got on. To introduce one actor to another, send its name, and let `actorOf` find it.
 * Two references are equal (`Equal.equals`) when they are to one name of one kind in one datacenter, wherever it was last found.
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

/**
 * Messages that want no answer. Succeeds when the message is in the actor's mailbox, or on its way to another node; what becomes of
 * it after that, `system.events` tells as a dead letter at most. At most once, in the order in which one sender sent them. Fails
 * `MailboxFull` (retryable), `ActorStopped`, `NodeUnreachable` (retryable; with `NotSent` it certainly was not delivered),
 * `InvalidData`, `FrameTooLarge`, `ProtocolMismatch`. Not idempotent: the effect run twice is two messages.
 */
export type Tell<Rpcs extends Rpc.Any> = {
  readonly [R in Rpcs as R["_tag"]]: [Rpc.Payload<R>] extends [void] ? () => Effect.Effect<void, TellError>
    : (payload: Rpc.Payload<R>) => Effect.Effect<void, TellError>
}

/**
 * What an ask gives: the reply, or a stream of replies where the message is declared with `stream: true`. A stream's listener may be
 * slow, and holds the stream back, but one that takes longer than a minute over a chunk is taken for gone: its stream is ended, and
 * fails `HandlerFailed` when it asks for more.
 */
export type Asked<R extends Rpc.Any> = Rpc.Success<R> extends Stream.Stream<infer A, infer E, infer _>
  ? Stream.Stream<A, E | Rpc.Error<R> | AskError>
  : Effect.Effect<Rpc.Success<R>, Rpc.Error<R> | AskError>

/**
 * Messages that want an answer: the handler's success, or its typed error, or why there is none. `AskTimeout`, `HandlerFailed` and
 * `NodeUnreachable` with `Unknown` leave open whether the message was handled; `InvalidData` and `FrameTooLarge` with `reply` mean
 * that it was, and that its answer could not be brought; the other failures mean that it certainly was not. (Where an actor forwards
 * the ask they speak of the one it was forwarded to.) Where there is no room for it, among the asks that one peer may have in
 * flight or unanswered, or on the way there for longer than `outboxTimeout`, it fails at once: `NodeUnreachable`, `NotSent`, `overloaded`.
 * Asking and telling share one order per sender. Interrupting an ask takes the question back:
 * it is dropped where it waits, its handler interrupted where it runs. One whose time is up leaves its handler alone.
 */
export type Ask<Rpcs extends Rpc.Any> = {
  readonly [R in Rpcs as R["_tag"]]: [Rpc.Payload<R>] extends [void] ? (options?: AskOptions) => Asked<R>
    : (payload: Rpc.Payload<R>, options?: AskOptions) => Asked<R>
}

export interface ActorRef<in Rpcs extends Rpc.Any = never> {
  readonly kind: KindDefinition
  /** unique in its datacenter's cluster; a child's is its parent's, a slash, and its own */
  readonly name: string
  /** where it was last found */
  readonly address: ActorAddress
  readonly tell: Tell<Rpcs>
  readonly ask: Ask<Rpcs>
}

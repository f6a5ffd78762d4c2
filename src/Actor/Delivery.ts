/**
 * Port: carry a message to an actor's address. Responsible for at most once, order per sender and receiver incarnation, and a
 * typed failure wherever the message certainly did not arrive. Not for finding the actor (`Placement`).
 *
 * Alone it reaches actors of this node (`layerLocal`); remoting decorates it: addresses of this node go to the inner one, all
 * others over the wire, and what comes in over the wire goes to the inner one too.
 */
import { Context, Effect, Exit, Layer, Tracer } from "effect"
import { ActorHost } from "./ActorHost.ts"
import type { ActorAddress } from "./Address.ts"
import { ActorStopped, type AskError, type TellError } from "./errors.ts"
import { Asked, Told } from "./internal/Envelope.ts"
import { handleNow, offer, offerAsk } from "./internal/offer.ts"
import { hostOf } from "./internal/Host.ts"
import { isSystemTag, urgentMessage } from "./internal/systemMessages.ts"
import type { KindDefinition } from "./Kind.ts"

/** What of a span travels. */
export interface Trace {
  readonly traceId: string
  readonly spanId: string
  readonly sampled: boolean
}

/** A message on its way: the definition (for its codec), the tag, and the payload as its schema's `Type`. */
export interface Message {
  readonly kind: KindDefinition
  readonly tag: string
  readonly payload: unknown
  /** the sender's span, where it has one: the handler's spans become its children */
  readonly trace?: Trace | undefined
}

export class Delivery extends Context.Service<Delivery, {
  /**
   * Accepts the message for delivery. Succeeds when it is in the actor's mailbox (this node) or in the outbox of the
   * connection (another node); what is lost after that is a dead letter. Not idempotent.
   */
  readonly tell: (to: ActorAddress, message: Message) => Effect.Effect<void, TellError>
  /**
   * Delivers, and waits for the reply for at most `timeout` milliseconds. The inner exit is the handler's own: its success or
   * its typed error, both as `Type`. Interrupting it forgets the reply.
   */
  readonly ask: (
    to: ActorAddress,
    message: Message,
    timeout: number
  ) => Effect.Effect<Exit.Exit<unknown, unknown>, AskError>
  /**
   * The same for hot paths, without an Effect around it. `undefined` where it can't be done at once (no connection yet, no
   * room): then nothing has happened, and `tell` or `ask` is the way.
   */
  readonly tryTell?: ((to: ActorAddress, message: Message) => Exit.Exit<void, TellError> | undefined) | undefined
  /** `resume` is called at most once, perhaps before this returns; what is returned forgets the reply. */
  readonly tryAsk?:
    | ((
      to: ActorAddress,
      message: Message,
      timeout: number,
      resume: (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => void
    ) => (() => void) | undefined)
    | undefined
}>()("effect-troupe/Actor/Delivery") {}

const spanOf = (trace: Trace | undefined) => trace === undefined ? undefined : Tracer.externalSpan(trace)

const forget = () => {}

export const makeLocal = Effect.map(ActorHost, (service) => {
  const host = hostOf(service)
  const gone = (to: ActorAddress) => Exit.fail(new ActorStopped({ name: to.name }))
  const tell = (to: ActorAddress, message: Message): Effect.Effect<void, TellError> => {
    const cell = host.cellAt(to)
    if (cell === undefined) return gone(to)
    const told = new Told(message.tag, message.payload, spanOf(message.trace))
    return isSystemTag(message.tag) && urgentMessage(cell, told) ? Exit.void : offer(cell, told, () => gone(to))
  }
  const ask = (
    to: ActorAddress,
    message: Message,
    timeout: number,
    resume: (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => void
  ): void => {
    const cell = host.cellAt(to)
    if (cell === undefined) return resume(gone(to))
    const asked = new Asked(
      to.name,
      message.tag,
      message.payload,
      timeout,
      host.timeouts,
      (exit) => Exit.succeed(exit)
    )
    if (isSystemTag(message.tag) && urgentMessage(cell, asked)) return asked.wait(resume)
    if (!cell.accepts) return resume(gone(to))
    asked.span = spanOf(message.trace)
    if (handleNow(cell, asked)) return asked.wait(resume)
    asked.wait(resume)
    offerAsk(cell, asked)
  }
  return Delivery.of({
    tell: (to, message) => Effect.suspend(() => tell(to, message)),
    ask: (to, message, timeout) => Effect.callback((resume) => ask(to, message, timeout, resume)),
    tryTell: (to, message) => {
      const sent = tell(to, message)
      // what is no exit waits for room, once it is run
      return Exit.isExit(sent) ? sent as Exit.Exit<void, TellError> : undefined
    },
    tryAsk: (to, message, timeout, resume) => {
      ask(to, message, timeout, resume)
      return forget
    }
  })
})

export const layerLocal: Layer.Layer<Delivery, never, ActorHost> = Layer.effect(Delivery, makeLocal)

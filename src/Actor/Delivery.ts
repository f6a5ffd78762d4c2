/**
 * Port: carry a message to an actor's address. Responsible for at most once, order per sender and receiver incarnation, and a
 * typed failure wherever the message certainly did not arrive. Not for finding the actor (`Placement`).
 *
 * Alone it reaches actors of this node (`layerLocal`); remoting decorates it: addresses of this node go to the inner one, all
 * others over the wire, and what comes in over the wire goes to the inner one too.
 */
import { Context, Effect, Exit, Layer } from "effect"
import { ActorHost } from "./ActorHost.ts"
import type { ActorAddress } from "./Address.ts"
import { ActorStopped, type AskError, type TellError } from "./errors.ts"
import { Asked, Told } from "./internal/Envelope.ts"
import { offer, offerAsk } from "./internal/offer.ts"
import { hostOf } from "./internal/Host.ts"
import type { KindDefinition } from "./Kind.ts"

/** A message on its way: the definition (for its codec), the tag, and the payload as its schema's `Type`. */
export interface Message {
  readonly kind: KindDefinition
  readonly tag: string
  readonly payload: unknown
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
}>()("effect-troupe/Actor/Delivery") {}

export const makeLocal = Effect.map(ActorHost, (service) => {
  const host = hostOf(service)
  const gone = (to: ActorAddress) => Exit.fail(new ActorStopped({ name: to.name }))
  return Delivery.of({
    tell: (to, message) =>
      Effect.suspend(() => {
        const cell = host.cellAt(to)
        return cell === undefined
          ? gone(to)
          : offer(cell, new Told(message.tag, message.payload), () => gone(to))
      }),
    ask: (to, message, timeout) =>
      Effect.callback((resume) => {
        const cell = host.cellAt(to)
        if (cell === undefined || !cell.accepts) return resume(gone(to))
        offerAsk(
          cell,
          new Asked(to.name, message.tag, message.payload, timeout, host.timeouts, (exit) => Exit.succeed(exit), resume)
        )
      })
  })
})

export const layerLocal: Layer.Layer<Delivery, never, ActorHost> = Layer.effect(Delivery, makeLocal)

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
import { Cell } from "./internal/Cell.ts"
import { type Asker, Brought, Resumed, spanOf, Told } from "./internal/Envelope.ts"
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

/** Where one sender's messages to one actor go. */
export interface Route {
  readonly address: ActorAddress
  /** what a `Delivery` remembers of the way there, for none but itself to read; undefined at first, and with a new address */
  found: unknown
}

export class Delivery extends Context.Service<Delivery, {
  /**
   * Accepts the message for delivery. Succeeds when it is in the actor's mailbox (this node) or in the outbox of the
   * connection (another node); what is lost after that is a dead letter. Not idempotent.
   */
  readonly tell: (to: ActorAddress, message: Message) => Effect.Effect<void, TellError>
  /**
   * Delivers, and waits for the reply for at most `timeout` milliseconds. The inner exit is the handler's own: its success or
   * its typed error, both as `Type`. Interrupting it takes the question back: it is dropped where it still waits in the mailbox,
   * and its handler is interrupted where it runs.
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
  readonly tryTell?: ((route: Route, message: Message) => Exit.Exit<void, TellError> | undefined) | undefined
  /** The answer goes to the asker, perhaps before this returns. False: nothing has happened. */
  readonly tryAsk?: ((route: Route, asker: Asker) => boolean) | undefined
}>()("effect-troupe/Actor/Delivery") {}

export const makeLocal = Effect.map(ActorHost, (service) => {
  const host = hostOf(service)
  const gone = (to: ActorAddress) => Exit.fail(new ActorStopped({ name: to.name }))
  const tellCell = (
    cell: Cell | undefined,
    to: ActorAddress,
    message: Message
  ): Effect.Effect<void, TellError> => {
    if (cell === undefined) return gone(to)
    // Whoever brings messages from afar has one after the other, and no turn to lose: what can be handled at once need not be put
    // into a queue, to be taken out of it when its actor has left the processor's cache.
    if (message instanceof Brought && !isSystemTag(message.tag) && handleNow(cell, message)) return Exit.void
    const told = message instanceof Brought ? message : new Told(message.tag, message.payload, spanOf(message.trace))
    return isSystemTag(told.tag) && urgentMessage(cell, told) ? Exit.void : offer(cell, told, () => gone(to))
  }
  const askCell = (cell: Cell | undefined, to: ActorAddress, asker: Asker): void => {
    const { tag, timeout } = asker
    if (cell !== undefined && isSystemTag(tag) && urgentMessage(cell, asker)) {
      if (!asker.over) host.timeouts.add(timeout, asker)
      return
    }
    if (cell === undefined || !cell.accepts) return asker.refuse(new ActorStopped({ name: to.name }))
    const here = handleNow(cell, asker)
    if (asker.over) return
    asker.carrier = cell
    host.timeouts.add(timeout, asker)
    if (!here) offerAsk(cell, asker)
  }
  /** A cell that takes messages is the only one of its name, so a look at the table is needed only once. */
  const cellOf = (route: Route): Cell | undefined => {
    const { found } = route
    if (found instanceof Cell && found.accepts) return found
    const cell = host.cellAt(route.address)
    route.found = cell
    return cell
  }
  return Delivery.of({
    tell: (to, message) => Effect.suspend(() => tellCell(host.cellAt(to), to, message)),
    ask: (to, message, timeout) =>
      Effect.callback((resume) => {
        const asker = new Resumed(message, to.name, timeout, resume)
        askCell(host.cellAt(to), to, asker)
        return asker.over ? undefined : Effect.sync(() => asker.abandon())
      }),
    tryTell: (route, message) => {
      const sent = tellCell(cellOf(route), route.address, message)
      // what is no exit waits for room, once it is run
      return Exit.isExit(sent) ? sent as Exit.Exit<void, TellError> : undefined
    },
    tryAsk: (route, asker) => {
      askCell(cellOf(route), route.address, asker)
      return true
    }
  })
})

export const layerLocal: Layer.Layer<Delivery, never, ActorHost> = Layer.effect(Delivery, makeLocal)

/**
 * Messages as effects. The fast path binds to a cell of this node and makes nothing but the message; the others are those of
 * `RefRuntime`.
 */
import { Cause, Duration, Effect, Effectable, Exit, Fiber, Stream } from "effect"
import { type AskOptions, defaultAskTimeout } from "../ActorRef.ts"
import type { ActorAddress } from "../Address.ts"
import type { Message, Trace } from "../Delivery.ts"
import type { AskError, TellError } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import { Accepted, type Cell } from "./Cell.ts"
import { Asked, Asker, type Envelope, Told } from "./Envelope.ts"
import { goOn } from "./goOn.ts"
import { handleNow, offer, offerAsk } from "./offer.ts"
import type { Ref } from "./Ref.ts"
import { Status } from "./Status.ts"
import { closeTag, longestPull, type Page, pullTag } from "./streams.ts"

interface TellEffect extends Envelope, Message {
  readonly tag: string
  readonly payload: unknown
  readonly ref: Ref
}

/**
 * A tell: the effect, the envelope in the mailbox, and the message for another node, in one object. It is immutable, so it may run
 * more than once. A plain constructor, because a class that extends the prototype of an effect costs twice as much to make.
 */
export const TellEffect = function(
  this: { ref: Ref; tag: string; payload: unknown },
  ref: Ref,
  tag: string,
  payload: unknown
) {
  this.ref = ref
  this.tag = tag
  this.payload = payload
} as unknown as new(ref: Ref, tag: string, payload: unknown) => Effect.Effect<void, TellError>

TellEffect.prototype = Object.assign(
  Effectable.Prototype<Effect.Effect<void, TellError>>({
    label: "Tell",
    evaluate(fiber) {
      const self = this as unknown as TellEffect
      const cell = self.ref.cell
      // No closure is made where the message simply goes in.
      return cell !== undefined && !cell.registration.options.trace && cell.accept(self) === Accepted.Yes
        ? goOn(fiber)
        : tellSlowly(self, fiber)
    }
  }),
  { reply: () => {}, succeed: () => {}, refuse: () => {}, span: undefined, trace: undefined }
)
Object.defineProperty(TellEffect.prototype, "kind", {
  get(this: TellEffect): KindDefinition {
    return this.ref.kind
  }
})

/** A tell that did not go straight in. Offering again is no second message: what is not accepted leaves no trace. */
const tellSlowly = (
  self: TellEffect,
  fiber: Fiber.Fiber<unknown, unknown>
): Effect.Effect<void, TellError> => {
  const { payload, ref, tag } = self
  const cell = ref.cell
  const elsewhere = () => ref.runtime.tell(ref, messageOf(ref, tag, payload, fiber))
  if (cell === undefined) {
    // without a span to tell of, it is the message itself
    const message = fiber.cache.span === undefined ? self : messageOf(ref, tag, payload, fiber)
    return ref.runtime.tryTell(ref, message) ?? elsewhere()
  }
  return offer(cell, new Told(tag, payload, cell.registration.options.trace ? fiber.cache.span : undefined), elsewhere)
}

/** Texts like `5 seconds`, read once. A program uses a handful of them; beyond that they are read each time. */
const durations = new Map<string, number>()

const millisOf = (input: Duration.Input): number => {
  if (typeof input === "number") return input
  if (typeof input !== "string") return Duration.toMillis(input)
  let millis = durations.get(input)
  if (millis === undefined) {
    millis = Duration.toMillis(input)
    if (durations.size < 256) durations.set(input, millis)
  }
  return millis
}

interface AskEffect {
  readonly ref: Ref
  readonly tag: string
  readonly payload: unknown
  readonly timeout: number
}

/** An ask; made like a tell, and for the same reason. */
const AskEffect = function(
  this: { ref: Ref; tag: string; payload: unknown; timeout: number },
  ref: Ref,
  tag: string,
  payload: unknown,
  timeout: number
) {
  this.ref = ref
  this.tag = tag
  this.payload = payload
  this.timeout = timeout
} as unknown as new(ref: Ref, tag: string, payload: unknown, timeout: number) => Effect.Effect<unknown, unknown>

AskEffect.prototype = Effectable.Prototype<Effect.Effect<unknown, unknown>>({
  label: "Ask",
  evaluate(fiber) {
    const self = this as unknown as AskEffect
    const { payload, ref, tag, timeout } = self
    const cell = ref.cell
    if (cell === undefined || cell.status >= Status.Stopping) return askElsewhere(self, fiber)
    const { host, options } = cell.registration
    const asked = new Asked(ref.name, tag, payload, timeout, host.timeouts)
    if (options.trace) asked.span = fiber.cache.span
    const here = handleNow(cell, asked)
    return here && asked.answered !== undefined && !asked.stopped
      ? asked.answered
      : Effect.callback((resume) => {
        asked.wait((exit) => {
          // Refused while it waited in the mailbox: certainly not handled, so its name may be looked up anew.
          resume(asked.stopped ? elsewhere(self, fiber) : exit)
        })
        if (!here) offerAsk(cell, asked)
        return asked.answered === undefined ? new TakeBack(cell, asked) : undefined
      })
  }
})

/** What an interrupted asker does: one object, made for each ask that must wait. */
const TakeBack = function(this: { cell: Cell; asked: Asked }, cell: Cell, asked: Asked) {
  this.cell = cell
  this.asked = asked
} as unknown as new(cell: Cell, asked: Asked) => Effect.Effect<void>

TakeBack.prototype = Effectable.Prototype<Effect.Effect<void>>({
  label: "TakeBack",
  evaluate() {
    const { asked, cell } = this as unknown as { readonly cell: Cell; readonly asked: Asked }
    if (asked.abandon()) cell.forget(asked, true)
    return Exit.void
  }
})

const elsewhere = ({ payload, ref, tag, timeout }: AskEffect, fiber: Fiber.Fiber<unknown, unknown>) =>
  ref.runtime.ask(ref, messageOf(ref, tag, payload, fiber), timeout)

/** An ask of an actor that is on another node, or nowhere. */
const askElsewhere = (self: AskEffect, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<unknown, unknown> => {
  const { ref } = self
  if (ref.cell !== undefined) return elsewhere(self, fiber)
  if (!canWait(fiber)) {
    return Effect.callback((resume) => {
      const asker = new RefAsker(self, fiber, { evaluate: resume })
      if (!ref.runtime.tryAsk(asker)) return resume(elsewhere(self, fiber))
      if (asker.answered !== undefined) return resume(asker.answered)
      asker.waiting = true
      return Effect.sync(() => asker.abandon())
    })
  }
  const asker = new RefAsker(self, fiber, fiber)
  if (!ref.runtime.tryAsk(asker)) return elsewhere(self, fiber)
  if (asker.answered !== undefined) return asker.answered
  asker.waiting = true
  return fiber.yieldWith(() => asker.abandon())
}

/**
 * How a fiber waits and goes on, as the library's own `callback` has it, but without the half a dozen closures and frames around
 * it. `yieldWith` takes what is called when the fiber goes on, be it that it was interrupted. Not told in the library's types:
 * should it not be there, `callback` serves.
 */
interface WaitingFiber extends Waiter {
  readonly yieldWith: (resumed: () => void) => Effect.Effect<unknown, unknown>
}

interface Waiter {
  evaluate(effect: Effect.Effect<unknown, unknown>): void
}

const canWait = (fiber: object): fiber is WaitingFiber =>
  "yieldWith" in fiber && typeof fiber.yieldWith === "function" && "evaluate" in fiber &&
  typeof fiber.evaluate === "function"

/** A fiber that waits for an answer from another node. */
export class RefAsker extends Asker {
  readonly ref: Ref
  /** what came before anybody waited */
  answered: Effect.Effect<unknown, unknown> | undefined = undefined
  waiting = false
  private readonly address: ActorAddress
  private readonly waiter: Waiter

  constructor({ payload, ref, tag, timeout }: AskEffect, fiber: Fiber.Fiber<unknown, unknown>, waiter: Waiter) {
    super(ref.kind, tag, payload, traceOf(fiber), ref.name, timeout)
    this.ref = ref
    this.address = ref.address
    this.waiter = waiter
  }

  private resume(effect: Effect.Effect<unknown, unknown>): void {
    if (this.waiting) this.waiter.evaluate(effect)
    else this.answered = effect
  }

  protected onSuccess(value: unknown): void {
    this.resume(Exit.succeed(value))
  }

  protected onExit(exit: Exit.Exit<unknown, unknown>): void {
    this.resume(exit)
  }

  protected onRefused(error: AskError): void {
    this.resume(this.ref.runtime.refused(this, this.address, error))
  }
}

export const ask = (ref: Ref, tag: string, payload: unknown, options: AskOptions | undefined) =>
  new AskEffect(ref, tag, payload, options?.timeout === undefined ? defaultAskTimeout : millisOf(options.timeout))

/** What of its sender's span travels with a message. */
const traceOf = (fiber: Fiber.Fiber<unknown, unknown>): Trace | undefined => {
  const { span } = fiber.cache
  return span === undefined ? undefined : { traceId: span.traceId, spanId: span.spanId, sampled: span.sampled }
}

/** The message for `Delivery`. */
const messageOf = (ref: Ref, tag: string, payload: unknown, fiber: Fiber.Fiber<unknown, unknown>): Message => {
  const trace = traceOf(fiber)
  return trace === undefined ? { kind: ref.kind, tag, payload } : { kind: ref.kind, tag, payload, trace }
}

/**
 * Milliseconds of an ask for a chunk that the other side may take to wait for one: so that its answer still comes in time, and so
 * often that nobody takes the stream for abandoned.
 */
const chunkWait = (timeout: number): number => Math.max(1, Math.min(longestPull, Math.floor(timeout / 2)))

export const streamOf = (ref: Ref, tag: string, payload: unknown, options: AskOptions | undefined) => {
  const timeout = options?.timeout === undefined ? defaultAskTimeout : millisOf(options.timeout)
  const opened = Effect.acquireRelease(
    ask(ref, tag, payload, options),
    (id) => Effect.ignore(new TellEffect(ref, closeTag(tag), { id }))
  )
  return Stream.unwrap(Effect.map(opened, (id) => {
    const next = ask(ref, pullTag(tag), { id, wait: chunkWait(timeout) }, options) as Effect.Effect<Page, unknown>
    const pull: Effect.Effect<readonly [unknown, ...Array<unknown>], unknown> = Effect.flatMap(
      next,
      ({ done, items }) =>
        done ? Cause.done() : items.length > 0 ? Effect.succeed(items as [unknown, ...Array<unknown>]) : pull
    )
    return Stream.fromPull(Effect.succeed(pull))
  }))
}

/**
 * References at work. The fast path binds to a cell of this node; the other path is ordinary Effect code over the ports.
 */
import { Cause, Duration, Effect, Effectable, Equal, Exit, Fiber, Hash, Schedule, Stream } from "effect"
import { type ActorRef, type AskOptions, defaultAskTimeout } from "../ActorRef.ts"
import type { ActorAddress } from "../Address.ts"
import type { Delivery, Message, Route, Trace } from "../Delivery.ts"
import { type AskError, AskTimeout, type LookupError, type TellError } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import type { Placement } from "../Placement.ts"
import { Accepted, type Cell } from "./Cell.ts"
import { Asked, Asker, type Envelope, Told } from "./Envelope.ts"
import { goOn } from "./goOn.ts"
import type { Host } from "./Host.ts"
import { handleNow, offer, offerAsk } from "./offer.ts"
import { Status } from "./Status.ts"
import { closeTag, longestPull, type Page, pullTag } from "./streams.ts"

/** A handler's typed error and the ways an ask fails are one channel to the asker. */
const flat = (exit: Exit.Exit<unknown, unknown>) => exit as Exit.Exit<unknown, AskError>

/** times that a tell looks for its actor anew */
const tellAttempts = 3

/** between attempts of an ask that certainly did not arrive: 50 ms doubling to 1 s */
const askBackoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.jittered
)

/** Did a message to that name certainly not reach it because of where it was sent? Another's end is what an actor forwarded to. */
const strayed = (error: TellError | AskError, name: string): boolean =>
  (error._tag === "ActorStopped" && error.name === name) ||
  (error._tag === "NodeUnreachable" && error.outcome === "NotSent")

/** `Delivery` fails with typed errors only. */
const failureOf = <E>(exit: Exit.Failure<unknown, E>): E => Cause.squash(exit.cause) as E

export class RefRuntime {
  readonly host: Host
  private readonly placement: Placement["Service"]
  private readonly delivery: Delivery["Service"]
  private readonly surfaces = new WeakMap<KindDefinition, SurfaceClasses>()
  private latest: SurfaceClasses | undefined = undefined

  constructor(host: Host, placement: Placement["Service"], delivery: Delivery["Service"]) {
    this.host = host
    this.placement = placement
    this.delivery = delivery
  }

  ref(kind: KindDefinition, name: string, address: ActorAddress, dataCenter?: string): Ref {
    return new Ref(this.surfacesOf(kind), name, this.host.cellAt(address), address, dataCenter)
  }

  /** To an actor of this node. */
  refTo(cell: Cell): Ref {
    return new Ref(this.surfacesOf(cell.registration.definition), cell.name, cell, undefined, undefined)
  }

  private surfacesOf(kind: KindDefinition): SurfaceClasses {
    if (this.latest?.kind === kind) return this.latest
    let classes = this.surfaces.get(kind)
    if (classes === undefined) this.surfaces.set(kind, classes = surfaceClasses(this, kind))
    return this.latest = classes
  }

  /**
   * The name's present address, after this one has failed. Compared by what they say: a directory that is behind gives the failed
   * one again, as another object, and must be asked again.
   */
  private again(ref: Ref, failed: ActorAddress): Effect.Effect<ActorAddress, LookupError> {
    const known = ref.address
    return samePlacement(known, failed)
      ? Effect.tap(
        this.placement.lookup(ref.kind.name, ref.name, { dataCenter: ref.dataCenter, not: failed }),
        (address) =>
          Effect.sync(() => {
            if (!samePlacement(address, failed)) ref.moveTo(address)
          })
      )
      : Effect.succeed(known)
  }

  /** A tell whose cached cell, if any, no longer takes messages. */
  tell(ref: Ref, message: Message): Effect.Effect<void, TellError> {
    const attempt = (left: number): Effect.Effect<void, TellError> => {
      const address = ref.address
      return Effect.catch(
        this.delivery.tell(address, message),
        (error) =>
          left === 0 || !strayed(error, ref.name) ? Effect.fail(error) : Effect.matchEffect(this.again(ref, address), {
            onFailure: () => Effect.fail(error),
            onSuccess: (next) => samePlacement(next, address) ? Effect.fail(error) : attempt(left - 1)
          })
      )
    }
    return attempt(tellAttempts)
  }

  /** A tell to another node in its simplest case; undefined where it is not that simple, and nothing has happened. */
  tryTell(ref: Ref, message: Message): Exit.Exit<void, TellError> | undefined {
    const exit = this.delivery.tryTell?.(ref, message)
    return exit === undefined || (Exit.isFailure(exit) && strayed(failureOf(exit), ref.name)) ? undefined : exit
  }

  /** An ask to another node in its simplest case; false where it is not that simple, and nothing has happened. */
  tryAsk(asker: RefAsker): boolean {
    return this.delivery.tryAsk?.(asker.ref, asker) ?? false
  }

  /** What to do with an ask that was refused: to look for its actor anew, where that may help. */
  refused(asker: RefAsker, address: ActorAddress, error: AskError): Effect.Effect<unknown, unknown> {
    if (!strayed(error, asker.ref.name)) return Exit.fail(error)
    // where it was refused at once, its time has not begun to run
    const deadline = asker.due === 0 ? this.host.timeouts.now() + asker.timeout : asker.due
    return Effect.flatten(this.askAgain(asker.ref, asker, asker.timeout, deadline, address, error))
  }

  /** An ask that could not go straight to a cell. The first attempt costs nothing on top of `Delivery`. */
  ask(ref: Ref, message: Message, timeout: number): Effect.Effect<unknown, unknown> {
    const deadline = this.host.timeouts.now() + timeout
    const address = ref.address
    return this.delivery.ask(address, message, timeout).pipe(
      Effect.catch((error) =>
        strayed(error, ref.name) ? this.askAgain(ref, message, timeout, deadline, address, error) : Effect.fail(error)
      ),
      Effect.flatMap((exit) => exit)
    )
  }

  /** A message of the runtime's own, without payload. */
  signal(ref: Ref, tag: string, timeout: number): Effect.Effect<unknown, unknown> {
    return ask(ref, tag, undefined, { timeout })
  }

  /** Is the name known to be nowhere? False also where nobody can tell. */
  isNowhere(ref: Ref): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const address = ref.address
      return Effect.matchEffect(
        this.placement.lookup(ref.kind.name, ref.name, { dataCenter: ref.dataCenter, not: address }),
        {
          onFailure: (error) => Effect.succeed(error._tag === "ActorNotFound" || error._tag === "KindMismatch"),
          onSuccess: (next) =>
            Effect.sync(() => {
              if (!samePlacement(next, address)) ref.moveTo(next)
              return false
            })
        }
      )
    })
  }

  /** Looks the actor up anew and repeats what certainly did not arrive, for as long as the asker waits. */
  private askAgain(
    ref: Ref,
    message: Message,
    timeout: number,
    deadline: number,
    address: ActorAddress,
    error: AskError
  ): Effect.Effect<Exit.Exit<unknown, unknown>, AskError> {
    const left = () => deadline - this.host.timeouts.now()
    let failed = address
    let last = error
    let inFlight = false
    const attempt: Effect.Effect<Exit.Exit<unknown, unknown>, AskError | typeof pause> = Effect.suspend(() =>
      Effect.matchEffect(this.again(ref, failed), {
        onFailure: (why) => Effect.fail(why.retryable ? pause : last),
        onSuccess: (next) => {
          // At a new address at once, at the same one only after a pause.
          if (samePlacement(next, failed)) return Effect.fail(pause)
          failed = next
          inFlight = true
          return Effect.catch(this.delivery.ask(next, message, left()), (error) => {
            last = error
            inFlight = false
            return strayed(error, ref.name) ? attempt : Effect.fail(error)
          })
        }
      })
    )
    return Effect.retry(attempt, { schedule: askBackoff, while: (error) => error === pause }).pipe(
      Effect.catch((error) => Effect.fail(error === pause ? last : error)),
      // What certainly was not handled says so, rather than that it took too long.
      Effect.timeoutOrElse({
        duration: Math.max(0, left()),
        orElse: () =>
          Effect.fail(
            inFlight
              ? new AskTimeout({ name: ref.name, request: message.tag, timeout: Duration.millis(timeout) })
              : last
          )
      })
    )
  }
}

/** Certainly not delivered, and worth another try after a pause. */
const pause: unique symbol = Symbol("pause")

const samePlacement = (a: ActorAddress, b: ActorAddress): boolean =>
  a.placement === b.placement && a.epoch === b.epoch && a.node.id === b.node.id &&
  a.node.incarnation === b.node.incarnation

/** A reference. `tell` and `ask` are made on first use, from classes shared by all references of the kind. */
export class Ref implements ActorRef, Route {
  readonly name: string
  readonly dataCenter: string | undefined
  /** where messages go straight to; undefined: the actor is elsewhere, or was not found here */
  cell: Cell | undefined
  private readonly classes: SurfaceClasses
  /** undefined: that of the cell, which is made when somebody wants it */
  private known: ActorAddress | undefined
  /** what `Delivery` remembers of the way to the address */
  found: unknown = undefined

  /** `address` is needed where there is no cell. */
  constructor(
    classes: SurfaceClasses,
    name: string,
    cell: Cell | undefined,
    address: ActorAddress | undefined,
    dataCenter: string | undefined
  ) {
    this.classes = classes
    this.name = name
    this.dataCenter = dataCenter
    this.cell = cell
    this.known = cell === undefined ? address : undefined
  }

  get kind(): KindDefinition {
    return this.classes.kind
  }

  get runtime(): RefRuntime {
    return this.classes.runtime
  }

  get address(): ActorAddress {
    return this.known ??= this.cell!.address
  }

  moveTo(address: ActorAddress): void {
    this.known = address
    this.found = undefined
    this.cell = this.runtime.host.cellAt(address)
  }

  get tell() {
    const surface = new this.classes.tell(this)
    Object.defineProperty(this, "tell", { value: surface })
    return surface as {}
  }

  get ask() {
    const surface = new this.classes.ask(this)
    Object.defineProperty(this, "ask", { value: surface })
    return surface as {}
  }

  /** By what it refers to. What it has found out about the way there is no part of that. */
  [Equal.symbol](that: unknown): boolean {
    return that instanceof Ref && that.name === this.name && that.kind.name === this.kind.name &&
      that.address.node.dataCenter === this.address.node.dataCenter
  }

  [Hash.symbol](): number {
    return Hash.string(`${this.kind.name}/${this.name}`)
  }

  toJSON(): unknown {
    return { _id: "ActorRef", kind: this.kind.name, name: this.name, address: this.address }
  }
}

// ---- messages as effects ------------------------------------------------------------------------------------------------

interface TellEffect extends Envelope, Message {
  readonly tag: string
  readonly payload: unknown
  readonly ref: Ref
}

/**
 * A tell: the effect, the envelope in the mailbox, and the message for another node, in one object. It is immutable, so it may run more than once. A plain
 * constructor, because a class that extends the prototype of an effect costs twice as much to make.
 */
const TellEffect = function(
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
  { reply: () => {}, succeed: () => {}, refuse: () => {}, abandoned: false, span: undefined, trace: undefined }
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
    const asked = new Asked(ref.name, tag, payload, timeout, host.timeouts, flat)
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
const TakeBack = function(this: { cell: Cell; asked: Asked<unknown> }, cell: Cell, asked: Asked<unknown>) {
  this.cell = cell
  this.asked = asked
} as unknown as new(cell: Cell, asked: Asked<unknown>) => Effect.Effect<void>

TakeBack.prototype = Effectable.Prototype<Effect.Effect<void>>({
  label: "TakeBack",
  evaluate() {
    const { asked, cell } = this as unknown as { readonly cell: Cell; readonly asked: Asked<unknown> }
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
class RefAsker extends Asker {
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

const ask = (ref: Ref, tag: string, payload: unknown, options: AskOptions | undefined) =>
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

const streamOf = (ref: Ref, tag: string, payload: unknown, options: AskOptions | undefined) => {
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

/** a symbol: a message may have any name */
const to: unique symbol = Symbol("to")

interface SurfaceClasses {
  readonly runtime: RefRuntime
  readonly kind: KindDefinition
  readonly tell: new(ref: Ref) => object
  readonly ask: new(ref: Ref) => object
}

/** For each message of the kind one method, on prototypes that all references of the kind share. */
const surfaceClasses = (runtime: RefRuntime, kind: KindDefinition): SurfaceClasses => {
  class TellSurface {
    readonly [to]: Ref
    constructor(ref: Ref) {
      this[to] = ref
    }
  }
  class AskSurface {
    readonly [to]: Ref
    constructor(ref: Ref) {
      this[to] = ref
    }
  }
  for (const [tag, message] of kind.messages) {
    const empty = message.payload.ast._tag === "Void"
    const send = message.stream ? streamOf : ask
    Object.defineProperty(TellSurface.prototype, tag, {
      value(this: TellSurface, payload: unknown) {
        return new TellEffect(this[to], tag, payload)
      }
    })
    Object.defineProperty(AskSurface.prototype, tag, {
      value: empty
        ? function(this: AskSurface, options?: AskOptions) {
          return send(this[to], tag, undefined, options)
        }
        : function(this: AskSurface, payload: unknown, options?: AskOptions) {
          return send(this[to], tag, payload, options)
        }
    })
  }
  return { runtime, kind, tell: TellSurface, ask: AskSurface }
}

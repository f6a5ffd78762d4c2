/** A message in a mailbox, and what becomes of it. */
import { Duration, Exit, Tracer } from "effect"
import type { Message, Trace } from "../Delivery.ts"
import { type AskError, AskTimeout } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import type { Waiter } from "./Extras.ts"
import { Deadline, disarm, type Timeouts } from "./Timeouts.ts"

export interface Envelope {
  readonly tag: string
  readonly payload: unknown
  /** the handler's own exit: its success or its typed error */
  reply(exit: Exit.Exit<unknown, unknown>): void
  /** the handler's success; as `reply`, for those who want no exit */
  succeed(value: unknown): void
  /** it will not be answered, and why */
  refuse(error: AskError): void
  /** its sender's span, where the kind wants to know */
  readonly span: Tracer.AnySpan | undefined
}

/** Carries the way in which a forwarded ask failed to the original asker; never seen outside of a cell. */
export class Forwarded {
  readonly error: AskError
  constructor(error: AskError) {
    this.error = error
  }
}

/** The sender's span, as far as it travels. */
export const spanOf = (trace: Trace | undefined): Tracer.AnySpan | undefined =>
  trace === undefined ? undefined : Tracer.externalSpan(trace)

/** A message without an answer. */
export class Told implements Envelope {
  readonly tag: string
  readonly payload: unknown
  readonly span: Tracer.AnySpan | undefined
  constructor(tag: string, payload: unknown, span?: Tracer.AnySpan) {
    this.tag = tag
    this.payload = payload
    this.span = span
  }
  reply(): void {}
  succeed(): void {}
  refuse(): void {}
}

/** One that came from afar: what a `Delivery` is given, and what it puts into the mailbox, in one object. */
export class Brought extends Told implements Message {
  readonly kind: KindDefinition
  readonly trace: Trace | undefined
  constructor(kind: KindDefinition, tag: string, payload: unknown, trace: Trace | undefined) {
    super(tag, payload, spanOf(trace))
    this.kind = kind
    this.trace = trace
  }
}

/** A question whose asker may go away. */
export interface Question extends Envelope {
  tag: string
}

/** The tag of a question that was taken back: no kind has a handler for it. */
export const takenBack = "$takenBack"

/** Whoever has taken an asker's question along, and keeps it in mind. */
export interface Carrier {
  /** Nobody wants the answer any more. `interrupted`: because the asker was; else because its time is up. */
  forget(asker: Asker, interrupted: boolean): void
}

/**
 * An ask on its way, and whoever waits for its answer: the message, its envelope, its deadline, and where its carrier writes down
 * what it knows about it, in one object. Only the first answer counts.
 */
export abstract class Asker extends Deadline implements Question, Message {
  readonly kind: KindDefinition
  tag: string
  readonly payload: unknown
  readonly trace: Trace | undefined
  /** the actor's */
  readonly name: string
  /** milliseconds */
  readonly timeout: number
  /** it was answered, or given up */
  over = false
  carrier: Carrier | undefined = undefined
  /** the carrier's own: its number among those in flight, in two parts */
  slot = 0
  use = 0
  /** the carrier's own: what it left with */
  batch = 0
  cargo: unknown = undefined
  /** the carrier's own: how its answer is read */
  reading: unknown = undefined

  constructor(
    kind: KindDefinition,
    tag: string,
    payload: unknown,
    trace: Trace | undefined,
    name: string,
    timeout: number
  ) {
    super()
    this.kind = kind
    this.tag = tag
    this.payload = payload
    this.trace = trace
    this.name = name
    this.timeout = timeout
  }

  protected abstract onSuccess(value: unknown): void
  /** a handler's typed error, or its success */
  protected abstract onExit(exit: Exit.Exit<unknown, unknown>): void
  protected abstract onRefused(error: AskError): void

  get span(): Tracer.AnySpan | undefined {
    return spanOf(this.trace)
  }

  private end(): boolean {
    if (this.over) return false
    this.over = true
    disarm(this)
    return true
  }

  succeed(value: unknown): void {
    if (this.end()) this.onSuccess(value)
  }

  reply(exit: Exit.Exit<unknown, unknown>): void {
    if (this.end()) this.onExit(exit)
  }

  refuse(error: AskError): void {
    if (this.end()) this.onRefused(error)
  }

  expire(): void {
    if (!this.end()) return
    this.carrier?.forget(this, false)
    this.onRefused(
      new AskTimeout({ name: this.name, request: this.tag, timeout: Duration.millis(this.timeout) })
    )
  }

  /** Nobody waits any more: whoever carries it need not bring an answer, and the handler need not go on. */
  abandon(): void {
    if (this.end()) this.carrier?.forget(this, true)
  }
}

const interrupted: Exit.Exit<never> = Exit.interrupt()

/** An asker that wants the handler's exit inside of that of the delivery. */
export class Resumed extends Asker {
  private readonly resume: (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => void
  constructor(
    { kind, payload, tag, trace }: Message,
    name: string,
    timeout: number,
    resume: (exit: Exit.Exit<Exit.Exit<unknown, unknown>, AskError>) => void
  ) {
    super(kind, tag, payload, trace, name, timeout)
    this.resume = resume
  }
  protected onSuccess(value: unknown): void {
    this.resume(Exit.succeed(Exit.succeed(value)))
  }
  protected onExit(exit: Exit.Exit<unknown, unknown>): void {
    this.resume(Exit.succeed(exit))
  }
  protected onRefused(error: AskError): void {
    this.resume(Exit.fail(error))
  }
}

/** A message whose asker waits. It is its own deadline; only the first answer counts. */
export class Asked extends Deadline implements Question {
  tag: string
  readonly payload: unknown
  readonly name: string
  span: Tracer.AnySpan | undefined = undefined
  /** the answer, once there is one */
  answered: Exit.Exit<unknown, AskError> | undefined = undefined
  /** its place among those who wait for room, where it had to */
  waiter: Waiter | undefined = undefined
  private refused: AskError | undefined = undefined
  private readonly timeouts: Timeouts
  private readonly timeout: number
  private resume: ((exit: Exit.Exit<unknown, AskError>) => void) | undefined = undefined

  constructor(
    name: string,
    tag: string,
    payload: unknown,
    timeout: number,
    timeouts: Timeouts
  ) {
    super()
    this.name = name
    this.tag = tag
    this.payload = payload
    this.timeout = timeout
    this.timeouts = timeouts
  }

  /** From here on the time counts. Where the answer was there first, it is told at once. */
  wait(resume: (exit: Exit.Exit<unknown, AskError>) => void): void {
    if (this.answered !== undefined) return resume(this.answered)
    this.resume = resume
    this.timeouts.add(this.timeout, this)
  }

  /** A handler's typed error and the ways an ask fails are one channel to the asker. */
  reply(exit: Exit.Exit<unknown, unknown>): void {
    if (this.answered === undefined) this.finish(exit as Exit.Exit<unknown, AskError>)
  }

  succeed(value: unknown): void {
    if (this.answered === undefined) this.finish(Exit.succeed(value))
  }

  refuse(error: AskError): void {
    if (this.answered === undefined) this.finish(Exit.fail(error), error)
  }

  /** its actor takes no messages any more, so it was certainly not handled */
  get stopped(): boolean {
    return this.refused?._tag === "ActorStopped" && this.refused.name === this.name
  }

  expire(): void {
    if (this.answered !== undefined) return
    this.waiter?.leave()
    this.finish(
      Exit.fail(new AskTimeout({ name: this.name, request: this.tag, timeout: Duration.millis(this.timeout) }))
    )
  }

  /** Nobody waits any more. False: it has been answered. */
  abandon(): boolean {
    if (this.answered !== undefined) return false
    this.answered = interrupted
    this.resume = undefined
    this.waiter?.leave()
    this.timeouts.cancel(this)
    return true
  }

  private finish(exit: Exit.Exit<unknown, AskError>, refused?: AskError): void {
    this.answered = exit
    this.refused = refused
    const resume = this.resume
    if (resume === undefined) return
    this.resume = undefined
    this.timeouts.cancel(this)
    resume(exit)
  }
}

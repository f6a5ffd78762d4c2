/** A message in a mailbox, and what becomes of it. */
import { type AskError, AskTimeout } from "../errors.ts"
import { Duration, Exit, type Tracer } from "effect"
import { Deadline, type Timeouts } from "./Timeouts.ts"

export interface Envelope {
  readonly tag: string
  readonly payload: unknown
  /** the handler's own exit: its success or its typed error */
  reply(exit: Exit.Exit<unknown, unknown>): void
  /** the handler's success; as `reply`, for those who want no exit */
  succeed(value: unknown): void
  /** it will not be answered, and why */
  refuse(error: AskError): void
  /** nobody waits for the answer any more, and nobody ever wanted the effect alone */
  readonly abandoned: boolean
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

/** A message without an answer. */
export class Told implements Envelope {
  readonly tag: string
  readonly payload: unknown
  readonly abandoned = false
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

/**
 * A message whose asker waits. It is its own deadline. `resume` gets the handler's exit wrapped or flat, as the asker wants it;
 * only the first answer counts. An interrupted asker is told of by nobody: its fiber ignores a late `resume`, and the deadline
 * goes with the reply or when it falls due.
 */
export class Asked<A> extends Deadline implements Envelope {
  readonly tag: string
  readonly payload: unknown
  readonly name: string
  span: Tracer.AnySpan | undefined = undefined
  /** the answer, once there is one */
  answered: Exit.Exit<A, AskError> | undefined = undefined
  private refused: AskError | undefined = undefined
  private readonly timeouts: Timeouts
  private readonly timeout: number
  private resume: ((exit: Exit.Exit<A, AskError>, refused: AskError | undefined) => void) | undefined = undefined
  private readonly answer: (exit: Exit.Exit<unknown, unknown>) => Exit.Exit<A, AskError>

  constructor(
    name: string,
    tag: string,
    payload: unknown,
    timeout: number,
    timeouts: Timeouts,
    answer: (exit: Exit.Exit<unknown, unknown>) => Exit.Exit<A, AskError>
  ) {
    super()
    this.name = name
    this.tag = tag
    this.payload = payload
    this.timeout = timeout
    this.timeouts = timeouts
    this.answer = answer
  }

  /** From here on the time counts. Where the answer was there first, it is told at once. */
  wait(resume: (exit: Exit.Exit<A, AskError>, refused: AskError | undefined) => void): void {
    if (this.answered !== undefined) return resume(this.answered, this.refused)
    this.resume = resume
    this.timeouts.add(this.timeout, this)
  }

  reply(exit: Exit.Exit<unknown, unknown>): void {
    if (this.answered === undefined) this.finish(this.answer(exit))
  }

  succeed(value: unknown): void {
    if (this.answered === undefined) this.finish(this.answer(Exit.succeed(value)))
  }

  refuse(error: AskError): void {
    if (this.answered === undefined) this.finish(Exit.fail(error), error)
  }

  get abandoned(): boolean {
    return this.answered !== undefined
  }

  /** its actor takes no messages any more, so it was certainly not handled */
  get stopped(): boolean {
    return this.refused?._tag === "ActorStopped"
  }

  expire(): void {
    if (this.answered !== undefined) return
    this.finish(
      Exit.fail(new AskTimeout({ name: this.name, request: this.tag, timeout: Duration.millis(this.timeout) }))
    )
  }

  private finish(exit: Exit.Exit<A, AskError>, refused?: AskError): void {
    this.answered = exit
    this.refused = refused
    const resume = this.resume
    if (resume === undefined) return
    this.resume = undefined
    this.timeouts.cancel(this)
    resume(exit, refused)
  }
}

/**
 * What becomes of an actor whose behaviour failed: a defect in a handler, or in building the behaviour again. A handler's typed
 * error is no failure; it goes to the asker.
 *
 * Pure data and functions; the cell performs what is decided here.
 */
import type { Cause, Duration, Schedule } from "effect"
import { Duration as Durations } from "effect"

/**
 * - `resume`: go on with the next message, the state as it is
 * - `restart`: close the behaviour's scope and build it afresh; same props, name and mailbox
 * - `stop`: end the actor as `Failed`
 * - `suspend`: keep the mailbox and handle nothing until `ActorSystem.reinstate`
 * - `escalate`: end the actor as `Failed`, and let its parent fail for the same cause; without a parent it is `stop`
 */
export type Directive = "resume" | "restart" | "stop" | "suspend" | "escalate"

export interface Supervision {
  /** whom a directive is for: the failed actor, or it and all its siblings */
  readonly strategy: "oneForOne" | "allForOne"
  /** chosen by the error: what was thrown, or what a failing Effect died of */
  readonly decide: (error: unknown, cause: Cause.Cause<unknown>) => Directive
  /** restarts within the window; the next failure is `exhausted` */
  readonly limit: number
  /** milliseconds */
  readonly window: number
  /** the pause before a restart; none: at once. It starts over when the window has passed without a failure. */
  readonly backoff: Schedule.Schedule<unknown, Cause.Cause<unknown>> | undefined
  /** what a spent budget (or a backoff that ends) means */
  readonly exhausted: "stop" | "suspend" | "escalate"
}

export interface SupervisionOptions {
  /** default `oneForOne` */
  readonly strategy?: "oneForOne" | "allForOne" | undefined
  /** default: always `restart` */
  readonly decide?: Directive | ((error: unknown, cause: Cause.Cause<unknown>) => Directive) | undefined
  /** default 10 */
  readonly limit?: number | undefined
  /** default 1 minute */
  readonly window?: Duration.Input | undefined
  /** default none; e.g. an exponential one, capped and jittered */
  readonly backoff?: Schedule.Schedule<unknown, Cause.Cause<unknown>> | undefined
  /** default `stop` */
  readonly exhausted?: "stop" | "suspend" | "escalate" | undefined
}

export const make = (options: SupervisionOptions = {}): Supervision => {
  const { decide = "restart" } = options
  return {
    strategy: options.strategy ?? "oneForOne",
    decide: typeof decide === "string" ? () => decide : decide,
    limit: options.limit ?? 10,
    window: Durations.toMillis(options.window ?? "1 minute"),
    backoff: options.backoff,
    exhausted: options.exhausted ?? "stop"
  }
}

/** Restart, at most 10 times in a minute, then stop. */
export const defaultSupervision: Supervision = make()

/** Failures so far, as times in milliseconds; kept by the cell. */
export type History = ReadonlyArray<number>

/** The decision for one failure, and the history after it. Only restarts use the budget. */
export const decide = (
  supervision: Supervision,
  history: History,
  now: number,
  error: unknown,
  cause: Cause.Cause<unknown>
): readonly [directive: Directive, history: History] => {
  const directive = supervision.decide(error, cause)
  const recent = history.filter((at) => at > now - supervision.window)
  if (directive !== "restart") return [directive, recent]
  return recent.length >= supervision.limit ? [supervision.exhausted, recent] : ["restart", [...recent, now]]
}

/**
 * What becomes of an actor whose behaviour failed: a defect in a handler, in an effect handed to its context (a timer's, a watch's), or
 * in building the behaviour again. A handler's typed error is no failure; it goes to the asker. Failing to start in the first place
 * is none either: `BehaviorOptions.start` says how often that is tried.
 *
 * It is chosen with the kind, not by the parent: an actor is supervised alike whoever spawned it, and wherever it is started again.
 * Pure data and functions; the cell performs what is decided here.
 */
import type { Cause, Duration, Schedule } from "effect"
import { Duration as Durations } from "effect"

/**
 * - `resume`: go on with the next message, the state as it is
 * - `restart`: close the behaviour's scope and build it afresh; same props, name, mailbox and stash; children stop
 * - `stop`: end the actor as `Failed`; watchers are told, what waits becomes dead letters, its name is free
 * - `suspend`: keep the mailbox and the state, and handle nothing until `ActorSystem.reinstate` (or `restart`)
 * - `escalate`: end the actor as `Failed`, and let its parent fail for the same cause; without a parent it is `stop`
 *
 * Whichever it is, the message in hand is lost, and its asker gets `HandlerFailed`.
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
  /**
   * `allForOne`: what is decided about one child happens to its siblings, whatever their kinds say (with `escalate` they stop). The
   * parent and actors without a parent are not concerned. Default `oneForOne`.
   */
  readonly strategy?: "oneForOne" | "allForOne" | undefined
  /** one directive for all errors, or one chosen by the error; where it throws, it is `stop`. Default: always `restart` */
  readonly decide?: Directive | ((error: unknown, cause: Cause.Cause<unknown>) => Directive) | undefined
  /** restarts that an actor has within the window, by failures of its own; 0 for none. Default 10 */
  readonly limit?: number | undefined
  /** it slides: a restart counts until exactly that long has passed. Default 1 minute */
  readonly window?: Duration.Input | undefined
  /**
   * The pause before each restart: messages wait meanwhile. E.g. `Schedule.exponential("100 millis")` with a cap and
   * `Schedule.jittered`. It starts over after a window without a failure, and where it ends the budget is spent. Default none.
   */
  readonly backoff?: Schedule.Schedule<unknown, Cause.Cause<unknown>> | undefined
  /** what a spent budget means: the failure after the last restart that was allowed. Default `stop` */
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

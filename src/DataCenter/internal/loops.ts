/** How the controller keeps time: each loop is one fiber on a Schedule, with jitter, and with a capped backoff while it fails. */
import { Duration, Effect, Random, Schedule } from "effect"

export interface Pace {
  /** 0..0.5 of each wait, up or down */
  readonly jitterRatio: number
  readonly maxBackoff: Duration.Duration
}

const jitter = (ratio: number) => <Output, Input, Error, Env>(schedule: Schedule.Schedule<Output, Input, Error, Env>) =>
  Schedule.modifyDelay(
    schedule,
    ({ duration }) => Effect.map(Random.next, (u) => Duration.times(duration, 1 + ratio * (2 * u - 1)))
  )

/** Waits between rounds that succeed. */
export const period = (interval: Duration.Duration, { jitterRatio }: Pace) =>
  Schedule.spaced(interval).pipe(jitter(jitterRatio))

/** Waits between tries that fail: from a tenth of a second, doubling up to the cap. */
export const backoff = ({ jitterRatio, maxBackoff }: Pace) =>
  Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced(maxBackoff)]).pipe(jitter(jitterRatio))

/** Works at once and then each interval, for ever. A round that fails is repeated with backoff before the next wait. */
export const every = <E, R>(work: Effect.Effect<unknown, E, R>, interval: Duration.Duration, pace: Pace) =>
  Effect.retry(work, backoff(pace)).pipe(
    Effect.ignore,
    Effect.repeat(period(interval, pace))
  )

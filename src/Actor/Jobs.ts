/**
 * Work at a time: once, at an interval, by a cron expression; listed, paused and cancelled by name. A job is any Effect, typically
 * a tell, of an actor on any node: `jobs.cron("close", "0 18 * * *", ledger.tell.Close())`.
 *
 * One node's jobs fire on that node; nothing of them survives it. A program that sets the same job on each of its nodes has it fire on
 * each of them. What is to fire once in a whole cluster, and to go on when a node dies, is an actor with timers: its name is unique
 * there, and it starts again elsewhere.
 *
 * Not for: an actor's own timers (`ActorContext.timers`), which end with its behaviour.
 */
import { Clock, Context, Cron, Duration, Effect, FiberMap, Layer, Result } from "effect"
import { SettingInvalid } from "./errors.ts"

/** A job as it stands. */
export interface Job {
  /** chosen by whoever set it; unique on the node */
  readonly id: string
  readonly kind: "once" | "interval" | "cron"
  readonly paused: boolean
  /** milliseconds until it fires; while paused, what was left when it was paused */
  readonly firesIn: number
  /** times that it fired */
  readonly fired: number
}

type Work<R> = Effect.Effect<unknown, unknown, R>

export class Jobs extends Context.Service<Jobs, {
  /**
   * Fires once after the delay, and is forgotten when it does. Here and below: a job of the same id is replaced, even while its work
   * is under way, which is interrupted; work that fails or dies is logged as a warning, and the job goes on.
   */
  readonly once: <R>(id: string, delay: Duration.Input, work: Work<R>) => Effect.Effect<void, never, R>
  /**
   * Fires each interval (at least 1 ms), the first time after one. One firing at a time: work that takes longer than the interval
   * delays the next, which then comes at once.
   */
  readonly every: <R>(id: string, interval: Duration.Input, work: Work<R>) => Effect.Effect<void, never, R>
  /**
   * Fires by a cron expression of 5 or 6 fields (with seconds first), on the wall clock in UTC unless an IANA time zone is named. What
   * was missed, because the work took longer or the job was paused, is not made up for. `SettingInvalid`, not retryable, where the
   * expression or the time zone is not one, or the day never comes; then a job of that id stays as it is.
   */
  readonly cron: <R>(
    id: string,
    expression: string,
    work: Work<R>,
    options?: { readonly timeZone?: string | undefined }
  ) => Effect.Effect<void, SettingInvalid, R>
  /** all jobs, paused ones too, in the order in which they were set */
  readonly list: Effect.Effect<ReadonlyArray<Job>>
  /** Stops the job's clock, and interrupts its work where that is under way; false: there is no such job. Idempotent. */
  readonly pause: (id: string) => Effect.Effect<boolean>
  /** Goes on with what was left (a cron job with its next time); false: no such job. Idempotent. */
  readonly resume: (id: string) => Effect.Effect<boolean>
  /** Forgets the job, and interrupts its work where that is under way; false: there is no such job. */
  readonly cancel: (id: string) => Effect.Effect<boolean>
}>()("effect-troupe/Actor/Jobs") {}

interface Entry {
  readonly kind: Job["kind"]
  readonly work: Effect.Effect<void>
  /** from one firing to the next, in milliseconds */
  readonly next: (wallMillis: number) => number
  /** on the monotonic clock, in milliseconds */
  due: number
  /** the same on the wall clock as it was when that was said; what a cron job goes by */
  at: number
  /** what was left when it was paused */
  left: number | undefined
  fired: number
}

/** milliseconds that the two clocks and a sleep may be apart; a wall clock that was put back by more counts anew */
const earliest = 1_000

export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const fibers = yield* FiberMap.make<string>()
  const entries = new Map<string, Entry>()
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const firesIn = (entry: Entry, millis: number): void => {
    entry.due = now() + millis
    entry.at = clock.currentTimeMillisUnsafe() + millis
  }

  /** Until the time after the one that has come: a sleep that ended a moment early must not end at the same time again. */
  const afterThis = ({ at, next }: Entry, wall: number): number => {
    const early = at - wall
    return early > 0 && early < earliest ? early + next(at) : next(wall)
  }

  const run = (id: string, entry: Entry, first: number) => {
    firesIn(entry, first)
    const loop: Effect.Effect<void> = Effect.suspend(() =>
      Effect.andThen(
        Effect.sleep(Duration.millis(Math.max(0, entry.due - now()))),
        Effect.suspend(() => {
          entry.fired++
          if (entry.kind === "once") {
            entries.delete(id)
            return entry.work
          }
          if (entry.kind === "interval") entry.due += entry.next(0)
          else firesIn(entry, afterThis(entry, clock.currentTimeMillisUnsafe()))
          return Effect.andThen(entry.work, loop)
        })
      )
    )
    return FiberMap.run(fibers, id, loop, { startImmediately: true })
  }

  const add = <R>(id: string, kind: Job["kind"], next: Entry["next"], work: Work<R>) =>
    Effect.contextWith((context: Context.Context<R>) =>
      Effect.suspend(() => {
        const entry: Entry = {
          kind,
          work: Effect.catchCause(Effect.asVoid(Effect.provideContext(work, context)), (cause) =>
            Effect.logWarning(`the job ${id} failed`, cause)),
          next,
          due: 0,
          at: 0,
          left: undefined,
          fired: 0
        }
        entries.set(id, entry)
        return Effect.asVoid(run(id, entry, next(clock.currentTimeMillisUnsafe())))
      })
    )

  const known = (id: string, use: (entry: Entry) => Effect.Effect<unknown>) =>
    Effect.suspend(() => {
      const entry = entries.get(id)
      return entry === undefined ? Effect.succeed(false) : Effect.as(use(entry), true)
    })

  return Jobs.of({
    once: (id, delay, work) => add(id, "once", () => Duration.toMillis(delay), work),
    every: (id, interval, work) => add(id, "interval", () => Math.max(1, Duration.toMillis(interval)), work),
    cron: (id, expression, work, options) =>
      Effect.suspend(() => {
        const invalid = (reason: string) => Effect.fail(new SettingInvalid({ setting: `cron of job ${id}`, reason }))
        const cron = Cron.parse(expression, options?.timeZone ?? "UTC")
        if (Result.isFailure(cron)) return invalid(cron.failure.message)
        const next = (wall: number) => Cron.next(cron.success, wall).getTime() - wall
        // A day that no month has: the library looks for it in vain and throws.
        return Result.isFailure(Result.try(() => next(clock.currentTimeMillisUnsafe())))
          ? invalid("never comes")
          : add(id, "cron", next, work)
      }),
    list: Effect.sync(() =>
      [...entries].map(([id, entry]) => ({
        id,
        kind: entry.kind,
        paused: entry.left !== undefined,
        firesIn: entry.left ?? Math.max(0, entry.due - now()),
        fired: entry.fired
      }))
    ),
    pause: (id) =>
      known(id, (entry) => {
        entry.left ??= Math.max(0, entry.due - now())
        return FiberMap.remove(fibers, id)
      }),
    resume: (id) =>
      known(id, (entry) => {
        const { left } = entry
        if (left === undefined) return Effect.void
        entry.left = undefined
        return run(id, entry, entry.kind === "cron" ? entry.next(clock.currentTimeMillisUnsafe()) : left)
      }),
    cancel: (id) =>
      known(id, () => {
        entries.delete(id)
        return FiberMap.remove(fibers, id)
      })
  })
})

/** Closing it cancels all jobs. */
export const layer: Layer.Layer<Jobs> = Layer.effect(Jobs, make)

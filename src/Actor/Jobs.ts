/**
 * Work at a time: once, at an interval, by a cron expression; listed, paused and cancelled by name. A job is any Effect, typically
 * a tell. One node's jobs fire on that node; nothing of them survives it.
 *
 * Not for: an actor's own timers (`ActorContext.timers`), which end with its behaviour.
 */
import { Clock, Context, Cron, Duration, Effect, FiberMap, Layer, Result } from "effect"
import { SettingInvalid } from "./errors.ts"

export interface Job {
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
  /** Fires once after the delay, and is forgotten. A job of the same id is replaced, here and below. */
  readonly once: <R>(id: string, delay: Duration.Input, work: Work<R>) => Effect.Effect<void, never, R>
  /** Fires each interval, the first time after one. A firing that takes longer than the interval delays the next. */
  readonly every: <R>(id: string, interval: Duration.Input, work: Work<R>) => Effect.Effect<void, never, R>
  /** Fires by a cron expression of 5 or 6 fields, in UTC unless a time zone is named. What was missed is not made up for. */
  readonly cron: <R>(
    id: string,
    expression: string,
    work: Work<R>,
    options?: { readonly timeZone?: string | undefined }
  ) => Effect.Effect<void, SettingInvalid, R>
  readonly list: Effect.Effect<ReadonlyArray<Job>>
  /** Stops the job's clock; false: there is no such job. */
  readonly pause: (id: string) => Effect.Effect<boolean>
  /** Goes on with what was left (a cron job with its next time); false: no such job. */
  readonly resume: (id: string) => Effect.Effect<boolean>
  readonly cancel: (id: string) => Effect.Effect<boolean>
}>()("effect-troupe/Actor/Jobs") {}

interface Entry {
  readonly kind: Job["kind"]
  readonly work: Effect.Effect<void>
  /** from one firing to the next, in milliseconds */
  readonly next: (wallMillis: number) => number
  /** on the monotonic clock, in milliseconds */
  due: number
  /** what was left when it was paused */
  left: number | undefined
  fired: number
}

export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const fibers = yield* FiberMap.make<string>()
  const entries = new Map<string, Entry>()
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

  const run = (id: string, entry: Entry, first: number) => {
    entry.due = now() + first
    const loop: Effect.Effect<void> = Effect.suspend(() =>
      Effect.andThen(
        Effect.sleep(Duration.millis(Math.max(0, entry.due - now()))),
        Effect.suspend(() => {
          entry.fired++
          if (entry.kind === "once") {
            entries.delete(id)
            return entry.work
          }
          entry.due += entry.next(clock.currentTimeMillisUnsafe())
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
        const cron = Cron.parse(expression, options?.timeZone ?? "UTC")
        return Result.isFailure(cron)
          ? Effect.fail(new SettingInvalid({ setting: `cron of job ${id}`, reason: cron.failure.message }))
          : add(id, "cron", (wall) => Cron.next(cron.success, wall).getTime() - wall, work)
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

/**
 * Questions to the store's thread that end by a deadline, whatever the thread does. The thread itself refuses what it could not begin
 * in time, so this deadline only passes when it hangs: one fiber watches over all open questions, and a lone one costs no timer of
 * its own.
 */
import { Clock, Duration, Effect, Queue } from "effect"
import type { Scope } from "effect"
import type { Answer, Request } from "./sqliteProtocol.ts"
import type { SqliteThread } from "./sqliteThread.edge.ts"
import { late } from "./storeDeadline.ts"

/** Asks; `take` makes the result of the answer, `undefined` when the thread has ended; `onLate` that of a deadline that passed. */
export type AskWithin = <A, E>(
  request: Request,
  take: (answer: Answer | undefined) => Effect.Effect<A, E>,
  onLate: (reason: string) => Effect.Effect<A, E>
) => Effect.Effect<A, E>

interface Question {
  /** monotonic milliseconds */
  readonly due: number
  readonly expire: () => void
}

/** `deadline` is kept from below: a question ends up to a twentieth of it early, never late. */
export const makeAskWithin = Effect.fnUntraced(function*(
  thread: () => SqliteThread,
  deadline: Duration.Duration
): Effect.fn.Return<AskWithin, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const patience = Duration.toMillis(deadline)
  const pause = Math.min(50, patience / 20)

  const open = new Set<Question>()
  const wanted = yield* Queue.unbounded<void>()
  let watching = false

  const expire = Effect.sync(() => {
    const next = now() + pause
    for (const question of open) if (question.due < next) question.expire()
    watching = open.size > 0
    return watching
  })
  yield* Queue.take(wanted).pipe(
    Effect.andThen(Effect.repeat(Effect.delay(expire, pause), { while: (more) => more })),
    Effect.forever,
    Effect.forkScoped
  )

  return (request, take, onLate) =>
    Effect.callback((resume) => {
      const question: Question = {
        due: now() + patience,
        expire: () => {
          open.delete(question)
          withdraw()
          resume(onLate(late(deadline)))
        }
      }
      open.add(question)
      if (!watching) {
        watching = true
        Queue.offerUnsafe(wanted, undefined)
      }
      const withdraw = thread().ask(request, (answer) => {
        open.delete(question)
        resume(take(answer))
      })
      return Effect.sync(() => {
        open.delete(question)
        withdraw()
      })
    })
})

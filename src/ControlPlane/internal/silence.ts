/** Notices that a connection has gone mute, without a timer for each thing that it says. */
import { Clock, Effect } from "effect"

/** how often it is looked at; milliseconds */
const lookMillis = 400
/** After a stall of this process what has arrived meanwhile is heard before anybody is blamed; milliseconds. */
const graceMillis = 100

export interface Silence {
  /** Something was heard. */
  readonly heard: () => void
  /** Completes once nothing was heard for that long, and a moment more. */
  readonly lasted: Effect.Effect<void>
}

/** The count begins now. */
export const makeSilence = (limitMillis: number): Effect.Effect<Silence> =>
  Effect.map(Clock.Clock, (clock) => {
    const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
    let heardAt = now()
    const isLong = Effect.sync(() => now() - heardAt >= limitMillis)
    return {
      heard: () => void (heardAt = now()),
      lasted: Effect.gen(function*() {
        while (true) {
          yield* Effect.sleep(lookMillis)
          if (!(yield* isLong)) continue
          yield* Effect.sleep(graceMillis)
          if (yield* isLong) return
        }
      })
    }
  })

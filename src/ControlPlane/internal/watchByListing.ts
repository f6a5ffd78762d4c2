/** A watch made of listings, for backends that cannot tell changes by themselves. */
import { Clock, Effect, Schedule, Stream } from "effect"
import type { Duration } from "effect"
import type { Entry, WatchEvent } from "../ControlStore.ts"
import { makeWatchSink } from "./watchSink.ts"
import type { Listed } from "./watchSink.ts"

/** a listing that took longer to come proves too little about now; milliseconds */
const proofAge = 1_000

/** `list` answers all entries of the watch's prefix as they are after the call began. */
export const watchByListing = <E>(
  list: Effect.Effect<ReadonlyArray<Entry>, E>,
  options: { readonly interval?: Duration.Input | undefined } = {}
): Stream.Stream<WatchEvent> =>
  Stream.callback<WatchEvent>(Effect.fnUntraced(function*(queue) {
    const sink = makeWatchSink(queue)
    const tell = (entries: ReadonlyArray<Entry>): void => {
      const listing = new Map<string, Listed>(entries.map((entry) => [entry.key, { entry }]))
      // When it was removed is not known, only that it was later than what is held; the next life is later still.
      for (const key of sink.keys()) {
        if (!listing.has(key)) listing.set(key, { removedAt: String(BigInt(sink.revisionOf(key) ?? "0") + 1n) })
      }
      sink.relist(listing)
    }
    const timed = Effect.gen(function*() {
      const asked = yield* Clock.monotonicTimeNanos
      const entries = yield* list
      return { entries, took: Number((yield* Clock.monotonicTimeNanos) - asked) / 1e6 }
    })
    const look = timed.pipe(
      Effect.timeoutOrElse({ duration: "3 seconds", orElse: () => Effect.fail("a listing took longer than 3 s") }),
      Effect.match({
        onSuccess: ({ entries, took }) => {
          tell(entries)
          // it is only sure to hold what was there when it was asked for
          if (took <= proofAge) sink.current()
        },
        onFailure: (error) => sink.lost(error instanceof Error ? error.message : String(error))
      })
    )
    return yield* Effect.repeat(look, Schedule.spaced(options.interval ?? "250 millis"))
  }))

/** A watch made of listings, for backends that cannot tell changes by themselves. */
import { Effect, Schedule, Stream } from "effect"
import type { Duration } from "effect"
import type { Entry, WatchEvent } from "../ControlStore.ts"
import { makeWatchSink } from "./watchSink.ts"
import type { Listed } from "./watchSink.ts"

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
      sink.current()
    }
    const look = list.pipe(
      Effect.timeoutOrElse({ duration: "3 seconds", orElse: () => Effect.fail("a listing took longer than 3 s") }),
      Effect.match({
        onSuccess: tell,
        onFailure: (error) => sink.lost(error instanceof Error ? error.message : String(error))
      })
    )
    return yield* Effect.repeat(look, Schedule.spaced(options.interval ?? "250 millis"))
  }))

/**
 * Sweeps the markers that removals leave in a bucket, which would otherwise be listed for ever. Every watch does it for what it
 * lists anyway: a marker that it has seen unchanged for the retention time, by its own monotonic clock, is purged up to exactly its
 * sequence, so that a later life of the key is never touched. A watch that was away for longer than the retention finds the key
 * gone without a word and starts over, which costs it a snapshot and nothing else.
 */
import { Clock, Effect, Random } from "effect"
import { api, subjectOf } from "./natsBucket.ts"
import type { Bucket } from "./natsBucket.ts"
import type { NatsLink } from "./natsConnection.edge.ts"

/** purges of one watch at a time, so that a sweep never competes with work */
const perSweep = 20
/** markers that one watch keeps an eye on */
const rememberedLimit = 10_000

/** What a watch remembers of the markers that it has listed: their sequence, and since when in monotonic milliseconds. */
export type SeenMarkers = Map<string, { readonly sequence: string; readonly since: number }>

/** Which of the markers present now have been there for the whole retention; brings `seen` up to date. */
export const dueMarkers = (
  seen: SeenMarkers,
  present: ReadonlyMap<string, string>,
  now: number,
  retentionMillis: number
): ReadonlyArray<readonly [key: string, sequence: string]> => {
  for (const [key, { sequence }] of seen) if (present.get(key) !== sequence) seen.delete(key)
  const due: Array<readonly [string, string]> = []
  for (const [key, sequence] of present) {
    const known = seen.get(key)
    if (known === undefined) {
      if (seen.size < rememberedLimit) seen.set(key, { sequence, since: now })
    } else if (now - known.since >= retentionMillis && due.length < perSweep) due.push([key, sequence])
  }
  return due
}

export const sweepMarkers = Effect.fnUntraced(function*(
  link: NatsLink,
  bucket: Bucket,
  seen: SeenMarkers,
  present: ReadonlyMap<string, string>,
  retentionMillis: number
) {
  const now = Number((yield* Clock.monotonicTimeNanos) / 1_000_000n)
  for (const [key, sequence] of dueMarkers(seen, present, now, retentionMillis)) {
    // other watches see the same ones
    if ((yield* Random.next) < 0.5) continue
    const purge = { filter: subjectOf(bucket, key), seq: Number(sequence) + 1 }
    // rubbish that stays is tried again; a user who may not purge leaves it to others
    yield* Effect.ignore(api(link, `STREAM.PURGE.${bucket.stream}`, purge, 2_000))
  }
})

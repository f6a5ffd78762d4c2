/**
 * Watches on etcd: list at a revision, then watch from the next one. A *session* is one stream; only delivered events move the
 * watch forward, never the header of another reply. The stream is asked for a sign of life each second. It ends at the first doubt
 * (silence, cancellation, compaction, no leader), and the next session begins with a listing. Every ten seconds what is held is
 * compared with the keys and revisions that etcd lists, so that even a watch that errs silently finds out.
 */
import { Clock, Effect, Queue, Random, Schedule, Stream } from "effect"
import type { Scope } from "effect"
import type { WatchEvent } from "../ControlStore.ts"
import type { EtcdLink } from "./etcdClient.edge.ts"
import { keyOf, rangeOf, readRange, valueOf } from "./etcdOperations.ts"
import type { Listing, Namespace } from "./etcdOperations.ts"
import { EtcdFailure } from "./etcdProtocol.edge.ts"
import type { KeyValue, WatchResponse } from "./etcdProtocol.edge.ts"
import { makeSilence } from "./silence.ts"
import { makeWatchSink } from "./watchSink.ts"
import type { Listed, WatchSink } from "./watchSink.ts"

const silenceMillis = 3_000
const verifyMillis = 10_000
const requestMillis = 1_500

type Arrival = { readonly _tag: "Response"; readonly response: WatchResponse } | {
  readonly _tag: "Ended"
  readonly reason: string
}

type Report = (what: string, reason: string) => Effect.Effect<void>

const failure = (reason: string) => new EtcdFailure({ kind: "NoAnswer", reason })

/** What a key and value of etcd's say; a value that cannot be read counts as removed by whoever wrote it. */
const listedOf = Effect.fnUntraced(function*(namespace: Namespace, kv: KeyValue, removed: boolean, report: Report) {
  const key = keyOf(namespace, kv.key)
  if (key === undefined) {
    yield* report(kv.key.toString("utf8"), "is no key of this store")
    return undefined
  }
  if (removed) return { key, listed: { removedAt: kv.mod_revision } as Listed }
  const held = valueOf(kv.value)
  if (held !== undefined) {
    return { key, listed: { entry: { key, value: held.value, revision: kv.mod_revision } } as Listed }
  }
  yield* report(key, "holds bytes that are no UTF-8")
  return { key, listed: { removedAt: kv.mod_revision } as Listed }
})

/** What the sink holds and the listing lacks was removed: the listing is complete at its revision. */
const withRemovals = (sink: WatchSink, listing: Map<string, Listed>, revision: string): void => {
  for (const key of sink.keys()) if (!listing.has(key)) listing.set(key, { removedAt: revision })
}

/** Does what is held lag behind a listing that was taken before? Only settled keys count: none that changed since. */
const laggard = (
  namespace: Namespace,
  sink: WatchSink,
  listing: Listing,
  settled: (key: string) => boolean
): string | undefined => {
  const listed = new Set<string>()
  for (const kv of listing.kvs) {
    const key = keyOf(namespace, kv.key)
    if (key === undefined) continue
    listed.add(key)
    const held = sink.revisionOf(key)
    if (settled(key) && (held === undefined || BigInt(held) < BigInt(kv.mod_revision))) return key
  }
  for (const key of sink.keys()) if (settled(key) && !listed.has(key)) return key
  return undefined
}

const watchSession = Effect.fnUntraced(function*(
  link: EtcdLink,
  namespace: Namespace,
  prefix: string,
  sink: WatchSink,
  report: Report
): Effect.fn.Return<never, EtcdFailure, Scope.Scope> {
  const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))
  const range = rangeOf(namespace, prefix)
  const first = yield* readRange(link, range, { keysOnly: false, timeoutMillis: requestMillis })
  const listing = new Map<string, Listed>()
  const unreadable = new Set<string>()
  for (const kv of first.kvs) {
    const told = yield* listedOf(namespace, kv, false, report)
    if (told === undefined) continue
    listing.set(told.key, told.listed)
    if (!("entry" in told.listed)) unreadable.add(told.key)
  }
  withRemovals(sink, listing, first.revision)
  const loss = sink.relist(listing)
  if (loss !== undefined) yield* Effect.logWarning(`etcd: ${namespace.root}${prefix}: ${loss}`)

  const arrivals = yield* Effect.acquireRelease(Queue.unbounded<Arrival>(), Queue.shutdown)
  const silence = yield* makeSilence(silenceMillis)
  const stream = yield* link.watch(
    { ...range, start_revision: String(BigInt(first.revision) + 1n), fragment: true },
    {
      data: (response) => {
        silence.heard()
        Queue.offerUnsafe(arrivals, { _tag: "Response", response })
      },
      end: (reason) => Queue.offerUnsafe(arrivals, { _tag: "Ended", reason })
    },
    requestMillis
  )
  yield* Effect.sync(() => stream.send({ progress_request: {} })).pipe(
    Effect.repeat(Schedule.spaced("1 second")),
    Effect.forkScoped
  )
  yield* silence.lasted.pipe(
    Effect.andThen(stream.abandon),
    Effect.andThen(
      Effect.sync(() =>
        Queue.offerUnsafe(arrivals, { _tag: "Ended", reason: `etcd was silent for ${silenceMillis} ms` })
      )
    ),
    Effect.forkScoped
  )

  const touched = new Set<string>()
  const apply = Effect.fnUntraced(function*(events: WatchResponse["events"]) {
    for (const { kv, type } of events) {
      const told = yield* listedOf(namespace, kv, type === "Delete", report)
      if (told === undefined) continue
      touched.add(told.key)
      if ("entry" in told.listed) {
        unreadable.delete(told.key)
        sink.put(told.listed.entry)
      } else {
        if (type === "Put") unreadable.add(told.key)
        sink.removed(told.key, told.listed.removedAt)
      }
    }
  })

  // Fragments of one revision belong together: they are applied once the last one is there.
  let fragments: Array<WatchResponse["events"][number]> = []
  let check: { readonly listing: Listing; readonly repliesLeft: number } | undefined
  let verifyAt = (yield* now) + verifyMillis * (0.8 + 0.4 * (yield* Random.next))
  while (true) {
    for (const arrival of yield* Queue.takeAll(arrivals)) {
      if (arrival._tag === "Ended") return yield* failure(arrival.reason)
      const { response } = arrival
      if (response.canceled) {
        return yield* failure(
          BigInt(response.compact_revision) > 0n
            ? `the revision to watch from was compacted (up to ${response.compact_revision})`
            : response.cancel_reason || "etcd cancelled the watch"
        )
      }
      fragments.push(...response.events)
      if (response.fragment) continue
      yield* apply(fragments)
      const isProgress = fragments.length === 0 && !response.created
      fragments = []
      if (!isProgress) continue
      // Replies may run ahead of events that are under way, so what was listed is compared two replies later.
      if (check !== undefined) check = { ...check, repliesLeft: check.repliesLeft - 1 }
      if (check?.repliesLeft === 0) {
        const behind = laggard(namespace, sink, check.listing, (key) => !touched.has(key) && !unreadable.has(key))
        if (behind !== undefined) return yield* failure(`the watch missed a change of ${behind}`)
        check = undefined
        verifyAt = (yield* now) + verifyMillis * (0.8 + 0.4 * (yield* Random.next))
      } else if (check === undefined && (yield* now) >= verifyAt) {
        touched.clear()
        check = {
          listing: yield* readRange(link, range, { keysOnly: true, timeoutMillis: requestMillis }),
          repliesLeft: 2
        }
      }
      sink.current()
    }
  }
})

/** Watches a prefix for as long as the stream is read. */
export const watchRange = (
  link: EtcdLink,
  namespace: Namespace,
  prefix: string,
  report: Report
): Stream.Stream<WatchEvent> =>
  Stream.callback<WatchEvent>(Effect.fnUntraced(function*(queue) {
    const sink = makeWatchSink(queue)
    const attempt = Effect.gen(function*() {
      const startedAt = yield* Clock.monotonicTimeNanos
      return yield* Effect.scoped(watchSession(link, namespace, prefix, sink, report)).pipe(
        Effect.catch((error) =>
          Effect.gen(function*() {
            sink.lost(error.reason)
            yield* Effect.logDebug(`etcd: watch of ${namespace.root}${prefix}: ${error.reason}`)
            // one that had gone well starts the next without the delays of those that never did
            const lasted = (yield* Clock.monotonicTimeNanos) - startedAt
            return yield* lasted > 5_000_000_000n ? Effect.void : Effect.fail(error)
          })
        )
      )
    })
    return yield* attempt.pipe(
      Effect.retry(
        Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)
      ),
      Effect.ignore,
      Effect.forever
    )
  }))

/**
 * Reading a bucket as a whole: listings, and watches that start with one. A watch is a session (`natsSession`) after the other. One ends
 * at the first doubt (also when the stream's leader does not answer), and the next one begins with everything anew. Also without doubt it is renewed every ten seconds, because replicas of a pausing cluster may
 * diverge without a word; what such a renewal finds to be newer is told as changes, what it finds to be older as a loss. The next
 * session is opened beside the last one, which goes on for as long as none can be had: only the servers' meta leader makes them.
 */
import { Clock, Effect, Exit, Random, Schedule, Scope, Stream } from "effect"
import type { Entry, WatchEvent } from "../ControlStore.ts"
import type { ReportForeign } from "./foreign.ts"
import { filterOf, leaderLast, streamInfo } from "./natsBucket.ts"
import type { Bucket } from "./natsBucket.ts"
import { LinkFailure } from "./natsConnection.edge.ts"
import type { NatsLink } from "./natsConnection.edge.ts"
import { sweepMarkers } from "./natsMarkers.ts"
import type { SeenMarkers } from "./natsMarkers.ts"
import { fallen, noteLoss, see } from "./natsSeen.ts"
import type { Seen } from "./natsSeen.ts"
import {
  astray,
  behind,
  fitsLeader,
  gap,
  listedOf,
  makeContinuity,
  openSession,
  readListing,
  requestMillis
} from "./natsSession.ts"
import type { Session } from "./natsSession.ts"
import { makeWatchSink } from "./watchSink.ts"
import type { WatchSink } from "./watchSink.ts"

const renewMillis = 10_000
/**
 * How often the stream's leader is asked whether the watch has everything, how long it may take to say so, and how long a sound replica may
 * take to tell the same. With the heartbeat of the next second, and a new session's listing, that stays well below the five
 * seconds that a watch may be blind.
 */
const verifyMillis = 1_200
const verifyPatienceMillis = 1_000
const lagMillis = 300
/** A watch whose leader has not answered for this long knows nothing of what others write: it asks again at shorter intervals until then. */
const leaderlessMillis = 3_000
const askAgainMillis = 400

/**
 * All entries with the prefix, sorted by key. Ends with the caller's patience, or with the first doubt; a replica that has not yet
 * applied what its leader had acknowledged before the call is one.
 */
export const listBucket = (
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  report: ReportForeign
): Effect.Effect<ReadonlyArray<Entry>, LinkFailure> =>
  Effect.scoped(Effect.gen(function*() {
    const first = yield* leaderLast(link, bucket, prefix, requestMillis)
    const session = yield* openSession(link, bucket, prefix)
    const continuity = makeContinuity()
    const { listing } = yield* readListing(bucket, session, continuity, report, first)
    yield* fitsLeader(link, bucket, continuity.newest(), first)
    return Array.from(listing.values())
      .flatMap((listed) => "entry" in listed && listed.entry.key.startsWith(prefix) ? [listed.entry] : [])
      .sort((a, b) => a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
  }))

/** What a watch remembers from one session to the next. */
interface Memory {
  /** when the bucket was made: another time means another bucket */
  created: string | undefined
  /** losses that this watch has told of, of those that its client has noticed */
  losses: number
  readonly markers: SeenMarkers
  readonly markerRetentionMillis: number
}

/** Is it still the bucket that it was, and has it forgotten nothing? A loss is noted, for every watch of this client to tell. */
const checkIdentity = Effect.fnUntraced(function*(link: NatsLink, bucket: Bucket, memory: Memory, seen: Seen) {
  // what is seen while the answer is on its way may be newer
  const { highest, losses } = seen
  const info = yield* streamInfo(link, bucket, requestMillis)
  if (info.error !== undefined) {
    return yield* new LinkFailure({ kind: "NoResponders", reason: info.error.description })
  }
  const created = String(info.created)
  const last = info.state.last_seq
  const loss = memory.created !== undefined && memory.created !== created
    ? `bucket ${bucket.name} was made anew`
    : last < highest && losses === seen.losses
    ? fallen(bucket.name, last, highest)
    : undefined
  if (loss !== undefined) {
    yield* Effect.logWarning(`nats: ${loss}`)
    noteLoss(seen, loss, last)
  }
  memory.created = created
})

/** A session that is open, in a scope of its own. */
interface Opened {
  readonly session: Session
  /** sequence that the stream's leader had before: it must be in the session's listing */
  readonly first: number
  readonly scope: Scope.Closeable
}

/** One session from its listing to its renewal, which is its result, or to a doubt, which is its failure. */
const watchSession = Effect.fnUntraced(function*(
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  memory: Memory,
  seen: Seen,
  sink: WatchSink,
  report: ReportForeign,
  { first, session }: Opened,
  open: Effect.Effect<Opened, LinkFailure>
): Effect.fn.Return<Opened, LinkFailure, Scope.Scope> {
  const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))
  if (memory.losses !== seen.losses) sink.lost(seen.reason)
  memory.losses = seen.losses
  const continuity = makeContinuity()
  const { listing, markers } = yield* readListing(bucket, session, continuity, report, first)
  yield* fitsLeader(link, bucket, continuity.newest(), first)
  yield* Effect.forkScoped(sweepMarkers(link, bucket, memory.markers, markers, memory.markerRetentionMillis))
  let required = 0
  let leaderAt = yield* now
  const verify = Effect.gen(function*() {
    const told = continuity.newest()
    const last = yield* leaderLast(link, bucket, prefix, verifyPatienceMillis)
    if (last < told) yield* fitsLeader(link, bucket, told, last)
    leaderAt = yield* now
    yield* Effect.sleep(lagMillis)
    required = last
    yield* Effect.sleep(verifyMillis)
  })
  yield* Effect.sleep(verifyMillis).pipe(
    Effect.andThen(
      verify.pipe(
        Effect.catch((failure) =>
          Effect.gen(function*() {
            if (failure === astray) session.end(failure.reason)
            else if ((yield* now) - leaderAt >= leaderlessMillis) {
              session.end(`the leader of bucket ${bucket.name} does not answer`)
            }
            yield* Effect.sleep(askAgainMillis)
          })
        ),
        Effect.forever
      )
    ),
    Effect.forkScoped
  )
  for (const [key, listed] of listing) {
    see(seen, Number("entry" in listed ? listed.entry.revision : listed.removedAt))
    if (!key.startsWith(prefix)) listing.delete(key)
  }
  const loss = sink.relist(listing)
  if (loss !== undefined) yield* Effect.logWarning(`nats: bucket ${bucket.name}: ${loss}`)
  let provedAt = yield* now
  let next: Opened | undefined
  yield* open.pipe(
    Effect.retry(Schedule.spaced("1 second").pipe(Schedule.jittered)),
    Effect.map((opened) => {
      next = opened
      session.renewed()
    }),
    Effect.delay(renewMillis * (0.9 + 0.2 * (yield* Random.next))),
    Effect.forkScoped
  )
  sink.current()
  while (next === undefined) {
    for (const arrival of yield* session.take) {
      if (arrival._tag === "Renewed") continue
      if (arrival._tag === "Ended") return yield* new LinkFailure({ kind: "NoAnswer", reason: arrival.reason })
      if (!continuity.follows(arrival)) return yield* gap
      if (arrival._tag === "Heartbeat") {
        if (continuity.newest() < required) return yield* behind
        // a write has noticed it
        if (memory.losses !== seen.losses) return yield* new LinkFailure({ kind: "NoAnswer", reason: seen.reason })
        if (arrival.stalled) continue
        provedAt = yield* now
        sink.current()
        continue
      }
      see(seen, arrival.position.stream)
      const told = yield* listedOf(bucket, arrival, report)
      if (told !== undefined && told.key.startsWith(prefix)) {
        if ("entry" in told.listed) sink.put(told.listed.entry)
        else sink.removed(told.key, told.listed.removedAt)
      }
      // a busy bucket sends no heartbeats: its last message proves as much
      if (arrival.position.pending === 0 && (yield* now) - provedAt >= 1_000) {
        provedAt = yield* now
        sink.current()
      }
    }
  }
  return next
})

/** One session after the other, until a doubt. */
const watchSessions = Effect.fnUntraced(function*(
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  memory: Memory,
  seen: Seen,
  sink: WatchSink,
  report: ReportForeign
): Effect.fn.Return<never, LinkFailure, Scope.Scope> {
  const parent = yield* Effect.scope
  // A consumer lives on one replica, and after a fault that one may lag or have gone astray while its heartbeats go on. What the
  // stream's leader had before the listing must be in the listing; what it has later must soon arrive, before the replica calls itself idle.
  const open: Effect.Effect<Opened, LinkFailure> = Effect.gen(function*() {
    yield* checkIdentity(link, bucket, memory, seen)
    const first = yield* leaderLast(link, bucket, prefix, requestMillis)
    const scope = yield* Scope.fork(parent)
    const session = yield* Scope.provide(openSession(link, bucket, prefix), scope).pipe(
      Effect.onError(() => Scope.close(scope, Exit.void))
    )
    return { session, first, scope }
  })
  let opened = yield* open
  while (true) {
    const last = opened
    const next = yield* Scope.provide(
      watchSession(link, bucket, prefix, memory, seen, sink, report, last, open),
      last.scope
    )
    yield* Scope.close(last.scope, Exit.void)
    // What the last session has told meanwhile must be in the next one's listing. Of that, what was swept since is gone at the leader, too.
    const first = yield* leaderLast(link, bucket, prefix, requestMillis)
    opened = { ...next, first: Math.max(first, next.first) }
  }
})

/** Watches a prefix for as long as the stream is read. */
export const watchBucket = (
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  markerRetentionMillis: number,
  seen: Seen,
  report: ReportForeign
): Stream.Stream<WatchEvent> =>
  Stream.callback<WatchEvent>(Effect.fnUntraced(function*(queue) {
    const sink = makeWatchSink(queue)
    const memory: Memory = { created: undefined, losses: seen.losses, markers: new Map(), markerRetentionMillis }
    const filter = filterOf(bucket, prefix)
    const sessions: Effect.Effect<never, LinkFailure, Scope.Scope> = link.connected.pipe(
      Effect.timeoutOrElse({
        duration: requestMillis,
        orElse: () => Effect.sync(() => sink.lost("not connected to nats"))
      }),
      Effect.andThen(link.connected),
      Effect.andThen(watchSessions(link, bucket, prefix, memory, seen, sink, report))
    )
    const attempt = Effect.gen(function*() {
      const startedAt = yield* Clock.monotonicTimeNanos
      return yield* Effect.scoped(sessions).pipe(
        Effect.catch((failure) =>
          Effect.gen(function*() {
            sink.lost(failure.reason)
            yield* Effect.logDebug(`nats: watch of ${filter}: ${failure.reason}`)
            // one that had gone well starts the next without the delays of those that never did
            const lasted = (yield* Clock.monotonicTimeNanos) - startedAt
            return yield* lasted > 5_000_000_000n ? Effect.void : Effect.fail(failure)
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

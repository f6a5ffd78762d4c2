/**
 * Reading a bucket as a whole: listings, and watches that start with one. A *session* is one short-lived consumer; it ends at the
 * first doubt (a gap in its sequence, silence, a lost connection), and the next one begins with everything anew. Also without
 * doubt it is renewed every ten seconds, because replicas of a pausing cluster may diverge without a word; what such a
 * renewal finds to be newer is told as changes, what it finds to be older as a loss.
 */
import { Clock, Effect, Exit, Queue, Random, Schedule, Scope, Stream } from "effect"
import type { Entry, WatchEvent } from "../ControlStore.ts"
import type { ReportForeign } from "./foreign.ts"
import { filterOf, isMarker, keyOf, leaderLast, positionOf, readConsumer, streamInfo, textOf } from "./natsBucket.ts"
import type { Bucket, Position } from "./natsBucket.ts"
import { LinkFailure } from "./natsConnection.edge.ts"
import type { Message, NatsLink } from "./natsConnection.edge.ts"
import { sweepMarkers } from "./natsMarkers.ts"
import type { SeenMarkers } from "./natsMarkers.ts"
import { fallen, noteLoss, see } from "./natsSeen.ts"
import type { Seen } from "./natsSeen.ts"
import { makeSilence } from "./silence.ts"
import { makeWatchSink } from "./watchSink.ts"
import type { Listed, WatchSink } from "./watchSink.ts"

const silenceMillis = 3_000
const renewMillis = 10_000
const requestMillis = 2_000
/**
 * How often the stream's leader is asked whether the watch has everything, how long it may take to say so, and how long a sound replica may
 * take to tell the same. With the heartbeat of the next second, and a new session's listing, that stays well below the five
 * seconds that a watch may be blind.
 */
const verifyMillis = 1_200
const verifyPatienceMillis = 1_000
const lagMillis = 300
const sessionAttempts = 4
const sessionStaggerMillis = 400

type Arrival =
  | { readonly _tag: "Data"; readonly position: Position; readonly subject: string; readonly message: Message }
  /** `stalled`: there is more, which waits until we say that we keep up */
  | { readonly _tag: "Heartbeat"; readonly lastConsumer: number; readonly stalled: boolean }
  | { readonly _tag: "Ended"; readonly reason: string }

const readArrival = (message: Message): Arrival => {
  if (message.status === 0) {
    const position = positionOf(message.reply)
    return position === undefined
      ? { _tag: "Ended", reason: "a message without position" }
      : { _tag: "Data", position, subject: message.subject, message }
  }
  return message.status === 100
    ? {
      _tag: "Heartbeat",
      lastConsumer: Number(message.header("Nats-Last-Consumer") || NaN),
      stalled: message.header("Nats-Consumer-Stalled") !== ""
    }
    : { _tag: "Ended", reason: message.description || `status ${message.status}` }
}

interface Session {
  /** messages that were waiting at its start */
  readonly pending: number
  /** Everything that has arrived, at least one. Silence that lasts too long and a lost connection arrive, too, as its end. */
  readonly take: Effect.Effect<ReadonlyArray<Arrival>>
  /** Lets its end arrive, with that reason. */
  readonly end: (reason: string) => void
}

/** One consumer with an inbox of its own; whatever became of it goes with the scope. */
const openOne = Effect.fnUntraced(function*(link: NatsLink, bucket: Bucket, prefix: string) {
  const arrivals = yield* Effect.acquireRelease(Queue.unbounded<Arrival>(), Queue.shutdown)
  const silence = yield* makeSilence(silenceMillis)
  const inbox = yield* link.inbox((message) => {
    silence.heard()
    // The server asks whether we keep up; the answer is an empty message to the address that it names.
    const stalled = message.header("Nats-Consumer-Stalled")
    if (message.status === 100 && message.reply) return link.send(message.reply, "")
    if (stalled !== "") link.send(stalled, "")
    Queue.offerUnsafe(arrivals, readArrival(message))
  })
  const consumer = yield* readConsumer(link, bucket, prefix, inbox, requestMillis)
  const end = (reason: string) => void Queue.offerUnsafe(arrivals, { _tag: "Ended", reason })
  yield* Effect.forkScoped(Effect.map(link.lost, end))
  yield* Effect.forkScoped(Effect.map(silence.lasted, () => end(`nats was silent for ${silenceMillis} ms`)))
  const session: Session = { pending: consumer.pending, take: Queue.takeAll(arrivals), end }
  return session
})

/**
 * Opens a session. A cluster may place a consumer on a member that is dead without knowing it, and then never answers: so
 * another is asked for when there is no answer after a moment, and the first that comes is taken.
 */
const openSession = (
  link: NatsLink,
  bucket: Bucket,
  prefix: string
): Effect.Effect<Session, LinkFailure, Scope.Scope> =>
  Effect.flatMap(
    Effect.scope,
    (parent) =>
      Effect.raceAll(Array.from({ length: sessionAttempts }, (_, i) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function*() {
            yield* restore(Effect.sleep(i * sessionStaggerMillis))
            const own = yield* Scope.fork(parent)
            return yield* restore(Scope.provide(openOne(link, bucket, prefix), own)).pipe(
              Effect.onError(() => Scope.close(own, Exit.void))
            )
          })
        )))
  )

/**
 * The revision of a removal. Its sequence is that of the marker, at which the server would take an update; with a zero in front it
 * orders as it should and is no revision that any write accepts.
 */
const removalAt = (sequence: string): string => `0${sequence}`

/** What a data message says of a key; undefined where it is none of ours. */
const listedOf = Effect.fnUntraced(function*(
  bucket: Bucket,
  arrival: Extract<Arrival, { readonly _tag: "Data" }>,
  report: ReportForeign
) {
  const key = keyOf(bucket, arrival.subject)
  if (key === undefined) {
    yield* report(arrival.subject, "is no key of this store")
    return undefined
  }
  const revision = String(arrival.position.stream)
  if (isMarker(arrival.message.header("KV-Operation"))) {
    return { key, listed: { removedAt: removalAt(revision) } as Listed, marker: true }
  }
  const value = textOf(arrival.message.data)
  if (value !== undefined) return { key, listed: { entry: { key, value, revision } } as Listed, marker: false }
  yield* report(key, "holds bytes that are no UTF-8")
  return { key, listed: { removedAt: removalAt(revision) } as Listed, marker: false }
})

/** Checks that nothing is missing between one message and the next. */
const makeContinuity = () => {
  let seen = 0
  let newest = 0
  return {
    follows: (arrival: Arrival): boolean => {
      if (arrival._tag === "Data") {
        seen += 1
        newest = Math.max(newest, arrival.position.stream)
        return arrival.position.consumer === seen
      }
      return arrival._tag === "Ended" || arrival.lastConsumer === seen
    },
    count: () => seen,
    /** sequence in the stream of the newest message */
    newest: () => newest
  }
}

const gap = new LinkFailure({ kind: "NoAnswer", reason: "a message is missing" })
const behind = new LinkFailure({ kind: "NoAnswer", reason: "the replica that tells is behind the leader" })
const astray = new LinkFailure({ kind: "NoAnswer", reason: "the replica that tells has what the leader has not" })

/**
 * Does what was told up to `newest` fit the word of the stream's leader, whose newest message under the prefix was `last`? A replica
 * that lags is behind; one that went its own way under faults may have more than the leader. `last` may also be lower because
 * a marker was swept, which the sequence of the whole stream tells.
 */
const fitsLeader = (link: NatsLink, bucket: Bucket, newest: number, last: number): Effect.Effect<void, LinkFailure> =>
  newest === last
    ? Effect.void
    : newest < last
    ? Effect.fail(behind)
    : Effect.flatMap(
      streamInfo(link, bucket, requestMillis),
      (info) => info.error === undefined && info.state.last_seq < newest ? Effect.fail(astray) : Effect.void
    )

/**
 * Collects the listing with which a session begins. What arrives behind it in the same batch belongs to it too: it is newer.
 */
const readListing = Effect.fnUntraced(function*(
  bucket: Bucket,
  session: Session,
  continuity: ReturnType<typeof makeContinuity>,
  report: ReportForeign
) {
  const listing = new Map<string, Listed>()
  /** keys whose last word is a removal, with its sequence */
  const markers = new Map<string, string>()
  let complete = session.pending === 0
  while (!complete) {
    for (const arrival of yield* session.take) {
      if (arrival._tag === "Ended") return yield* new LinkFailure({ kind: "NoAnswer", reason: arrival.reason })
      if (!continuity.follows(arrival)) return yield* gap
      // a heartbeat is only sent when there is nothing to deliver, or we do not keep up
      if (arrival._tag === "Heartbeat") complete ||= !arrival.stalled
      else {
        const told = yield* listedOf(bucket, arrival, report)
        if (told !== undefined) {
          listing.set(told.key, told.listed)
          if (told.marker) markers.set(told.key, String(arrival.position.stream))
          else markers.delete(told.key)
        }
        if (arrival.position.pending === 0 || continuity.count() >= session.pending) complete = true
      }
    }
  }
  return { listing, markers }
})

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
    const { listing } = yield* readListing(bucket, session, continuity, report)
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

const checkIdentity = Effect.fnUntraced(
  function*(link: NatsLink, bucket: Bucket, memory: Memory, seen: Seen, sink: WatchSink) {
    const info = yield* streamInfo(link, bucket, requestMillis)
    if (info.error !== undefined) {
      return yield* new LinkFailure({ kind: "NoResponders", reason: info.error.description })
    }
    const created = String(info.created)
    const last = info.state.last_seq
    const loss = memory.created !== undefined && memory.created !== created
      ? `bucket ${bucket.name} was made anew`
      : last < seen.highest
      ? fallen(bucket.name, last, seen)
      : undefined
    if (loss !== undefined) {
      yield* Effect.logWarning(`nats: ${loss}`)
      noteLoss(seen, loss, last)
    }
    if (memory.losses !== seen.losses) sink.lost(seen.reason)
    memory.losses = seen.losses
    memory.created = created
  }
)

/** One session from its listing to its renewal or to a doubt, which is its failure. */
const watchSession = Effect.fnUntraced(function*(
  link: NatsLink,
  bucket: Bucket,
  prefix: string,
  memory: Memory,
  seen: Seen,
  sink: WatchSink,
  report: ReportForeign
) {
  const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos / 1_000_000n))
  yield* checkIdentity(link, bucket, memory, seen, sink)
  // A consumer lives on one replica, and after a fault that one may lag or have gone astray while its heartbeats go on. What the
  // stream's leader had before the listing must be in the listing; what it has later must soon arrive, before the replica calls itself idle.
  const first = yield* leaderLast(link, bucket, prefix, requestMillis)
  const session = yield* openSession(link, bucket, prefix)
  const continuity = makeContinuity()
  const { listing, markers } = yield* readListing(bucket, session, continuity, report)
  yield* fitsLeader(link, bucket, continuity.newest(), first)
  yield* Effect.forkScoped(sweepMarkers(link, bucket, memory.markers, markers, memory.markerRetentionMillis))
  let required = 0
  const verify = Effect.gen(function*() {
    const told = continuity.newest()
    const last = yield* leaderLast(link, bucket, prefix, verifyPatienceMillis)
    if (last < told) yield* fitsLeader(link, bucket, told, last)
    yield* Effect.sleep(lagMillis)
    required = last
  })
  yield* verify.pipe(
    // a leader that is missing proves nothing either way, and is missed by writers soon enough
    Effect.catch((failure) => Effect.sync(() => failure === astray ? session.end(failure.reason) : undefined)),
    Effect.delay(verifyMillis),
    Effect.forever,
    Effect.forkScoped
  )
  for (const [key, listed] of listing) {
    see(seen, Number("entry" in listed ? listed.entry.revision : listed.removedAt))
    if (!key.startsWith(prefix)) listing.delete(key)
  }
  const loss = sink.relist(listing)
  if (loss !== undefined) yield* Effect.logWarning(`nats: bucket ${bucket.name}: ${loss}`)
  let provedAt = yield* now
  const until = provedAt + renewMillis * (0.9 + 0.2 * (yield* Random.next))
  sink.current()
  while (provedAt < until) {
    for (const arrival of yield* session.take) {
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
    const session: Effect.Effect<void, LinkFailure, Scope.Scope> = link.connected.pipe(
      Effect.timeoutOrElse({
        duration: requestMillis,
        orElse: () => Effect.sync(() => sink.lost("not connected to nats"))
      }),
      Effect.andThen(link.connected),
      Effect.andThen(watchSession(link, bucket, prefix, memory, seen, sink, report))
    )
    return yield* Effect.scoped(session).pipe(
      Effect.tapError((failure) =>
        Effect.andThen(
          Effect.sync(() => sink.lost(failure.reason)),
          Effect.logDebug(`nats: watch of ${filter}: ${failure.reason}`)
        )
      ),
      Effect.retry(
        Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)
      ),
      Effect.ignore,
      Effect.forever
    )
  }))

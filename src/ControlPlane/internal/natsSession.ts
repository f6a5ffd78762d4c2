/**
 * One session of reading a bucket: a short-lived consumer, what arrives from it, whether anything is missing, and the listing with
 * which it begins. It ends at the first doubt: a gap in its sequence, silence, a lost connection.
 */
import { Effect, Exit, Queue, Scope } from "effect"
import type { ReportForeign } from "./foreign.ts"
import { isMarker, keyOf, positionOf, readConsumer, streamInfo, textOf } from "./natsBucket.ts"
import type { Bucket, Position } from "./natsBucket.ts"
import { LinkFailure } from "./natsConnection.edge.ts"
import type { Message, NatsLink } from "./natsConnection.edge.ts"
import { makeSilence } from "./silence.ts"
import type { Listed } from "./watchSink.ts"

const silenceMillis = 3_000
/** patience with one request of a session */
export const requestMillis = 2_000
const sessionAttempts = 4
const sessionStaggerMillis = 400

type Arrival =
  | { readonly _tag: "Data"; readonly position: Position; readonly subject: string; readonly message: Message }
  /** `stalled`: there is more, which waits until we say that we keep up */
  | { readonly _tag: "Heartbeat"; readonly lastConsumer: number; readonly stalled: boolean }
  | { readonly _tag: "Ended"; readonly reason: string }
  /** the next session is open */
  | { readonly _tag: "Renewed" }

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

export interface Session {
  /** messages that were waiting at its start */
  readonly pending: number
  /** Everything that has arrived, at least one. Silence that lasts too long and a lost connection arrive, too, as its end. */
  readonly take: Effect.Effect<ReadonlyArray<Arrival>>
  /** Lets its end arrive, with that reason. */
  readonly end: (reason: string) => void
  /** Lets the news arrive that another one is open. */
  readonly renewed: () => void
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
  const session: Session = {
    pending: consumer.pending,
    take: Queue.takeAll(arrivals),
    end,
    renewed: () => void Queue.offerUnsafe(arrivals, { _tag: "Renewed" })
  }
  return session
})

/**
 * Opens a session. A cluster may place a consumer on a member that is dead without knowing it, and then never answers: so
 * another is asked for when there is no answer after a moment, and the first that comes is taken.
 */
export const openSession = (
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
export const listedOf = Effect.fnUntraced(function*(
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
export const makeContinuity = () => {
  let seen = 0
  let newest = 0
  return {
    follows: (arrival: Arrival): boolean => {
      if (arrival._tag === "Data") {
        seen += 1
        newest = Math.max(newest, arrival.position.stream)
        return arrival.position.consumer === seen
      }
      return arrival._tag !== "Heartbeat" || arrival.lastConsumer === seen
    },
    count: () => seen,
    /** sequence in the stream of the newest message */
    newest: () => newest
  }
}

export const gap = new LinkFailure({ kind: "NoAnswer", reason: "a message is missing" })
export const behind = new LinkFailure({ kind: "NoAnswer", reason: "the replica that tells is behind the leader" })
export const astray = new LinkFailure({
  kind: "NoAnswer",
  reason: "the replica that tells has what the leader has not"
})

/**
 * Does what was told up to `newest` fit the word of the stream's leader, whose newest message under the prefix was `last`? A replica
 * that lags is behind; one that went its own way under faults may have more than the leader. `last` may also be lower because
 * a marker was swept, which the sequence of the whole stream tells.
 */
export const fitsLeader = (
  link: NatsLink,
  bucket: Bucket,
  newest: number,
  last: number
): Effect.Effect<void, LinkFailure> =>
  newest === last
    ? Effect.void
    : newest < last
    ? Effect.fail(behind)
    : Effect.flatMap(
      streamInfo(link, bucket, requestMillis),
      (info) => info.error === undefined && info.state.last_seq < newest ? Effect.fail(astray) : Effect.void
    )

/**
 * Collects the listing with which a session begins, up to sequence `atLeast` if it is newer. What arrives behind it in the same
 * batch belongs to it too: it is newer.
 */
export const readListing = Effect.fnUntraced(function*(
  bucket: Bucket,
  session: Session,
  continuity: ReturnType<typeof makeContinuity>,
  report: ReportForeign,
  atLeast: number
) {
  const listing = new Map<string, Listed>()
  /** keys whose last word is a removal, with its sequence */
  const markers = new Map<string, string>()
  let complete = session.pending === 0
  while (!complete || continuity.newest() < atLeast) {
    for (const arrival of yield* session.take) {
      if (arrival._tag === "Ended") return yield* new LinkFailure({ kind: "NoAnswer", reason: arrival.reason })
      if (!continuity.follows(arrival)) return yield* gap
      // a heartbeat is only sent when there is nothing to deliver, or we do not keep up
      if (arrival._tag === "Heartbeat") {
        if (arrival.stalled) continue
        complete = true
        if (continuity.newest() < atLeast) return yield* behind
      } else if (arrival._tag === "Data") {
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

/**
 * The single-key operations on a bucket, with true outcomes. An operation is a series of attempts within one deadline:
 * - `NotSent` and `NoResponders` certainly did nothing: wait a moment and try again.
 * - `NoAnswer` to a write leaves it uncertain. It is tried again with the *same* id and the same expected sequence, so
 *   that it can be applied once at most. From then on a conflict may be with our own first attempt, and a duplicate's sequence
 *   may be another message's (replicas under faults have said so), so both are settled by reading the key back: our message
 *   id there proves that it was applied. Otherwise the outcome stays unknown.
 */
import type { PubAck, StoredMsg } from "@nats-io/jetstream"
import { Duration, Effect, Option, Random, Result, Semaphore } from "effect"
import { InvalidData, OutcomeUnknown, RevisionConflict, StoreUnavailable } from "../../Actor/errors.ts"
import type { ControlStoreService, Entry, Revision, WriteError } from "../ControlStore.ts"
import { api, codes, isMarker, parseReply, subjectOf, textOf } from "./natsBucket.ts"
import type { Bucket, Reply } from "./natsBucket.ts"
import { LinkFailure } from "./natsConnection.edge.ts"
import type { NatsLink } from "./natsConnection.edge.ts"
import { fallen, noteLoss, see } from "./natsSeen.ts"
import type { Seen } from "./natsSeen.ts"
import { isRevision } from "./storeData.ts"
import { late } from "./storeDeadline.ts"

/** one attempt within an operation's deadline */
const attemptMillis = 1_000

interface Stored {
  readonly revision: Revision
  /** undefined: bytes that are no UTF-8 */
  readonly value: string | undefined
  readonly removed: boolean
  readonly messageId: string
}

/** What is left of an operation's deadline, in milliseconds, for all that it does one after the other. */
interface Until {
  readonly left: () => number
  /** timeout of the next request */
  readonly attempt: () => number
}

const headerIn = (headers: string, name: string): string =>
  headers.split("\r\n").find((line) => line.startsWith(`${name}:`))?.slice(name.length + 1).trim() ?? ""

const conflicts = (code: number | undefined): boolean =>
  code === codes.wrongLastSequence || code === codes.wrongLastSequenceConstant

export type Operations = Pick<ControlStoreService, "get" | "create" | "update" | "remove"> & {
  /** Runs a read as a series of attempts until the deadline. */
  readonly persistRead: <A, E>(
    operation: string,
    attempt: (timeoutMillis: number) => Effect.Effect<A, E>
  ) => Effect.Effect<A, Exclude<E, LinkFailure> | StoreUnavailable>
}

/**
 * `replicated`: a bucket with replicas compares a key's expected sequence only before it proposes a write to them, so of two
 * writes that are proposed at once both pass (seen on 2.9.10; only "expected absent" is compared again when it is applied). The
 * expected last sequence of the whole stream is compared when a write is applied, on every replica alike. So there each write
 * that expects a version names the stream's last sequence, too; where only that has moved, it is tried again with the new one.
 */
export const makeOperations = (
  link: NatsLink,
  bucket: Bucket,
  deadline: Duration.Duration,
  replicated: boolean,
  nextId: () => string,
  seen: Seen
): Operations => {
  // One server compares and stores under one lock: a write that is sent again conflicts with itself, and the id is only for reading it
  // back. Replicas are told of the id, too, so that they drop what is sent twice; keeping count of it costs a server a fifth of its time.
  const idHeader = replicated ? "Nats-Msg-Id" : "Troupe-Write"
  /** the stream's last sequence as far as this client knows; a wrong guess costs one more attempt */
  let streamLast = 0
  /** Writes that name the stream's sequence exclude each other anyway: within one client they wait instead of colliding. */
  const turn = Semaphore.makeUnsafe(1)
  // the last moments are kept for saying what happened
  const patience = Duration.toMillis(deadline) * 0.98
  const withUntil = <A, E>(use: (until: Until) => Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.clockWith((clock) => {
      const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      const end = now() + patience
      return use({ left: () => end - now(), attempt: () => Math.max(1, Math.min(attemptMillis, end - now())) })
    })

  /** Repeats after `failure` (undefined: nothing was tried yet) until an attempt succeeds or time is up. */
  const insist = Effect.fnUntraced(function*<A, E, F>(
    until: Until,
    attempt: (uncertain: boolean) => Effect.Effect<A, E>,
    failed: (reason: string, uncertain: boolean) => F,
    first: LinkFailure | undefined
  ): Effect.fn.Return<A, Exclude<E, LinkFailure> | F> {
    let uncertain = false
    let failure = first
    while (true) {
      if (failure?.kind === "Denied") return yield* Effect.fail(failed(failure.reason, uncertain))
      if (failure?.kind === "NoAnswer") {
        uncertain = true
        // most come after a timeout or a lost connection, but a server may also say so at once, again and again
        yield* Effect.sleep(Math.max(0, Math.min(until.left(), 10 + 20 * (yield* Random.next))))
      } else if (failure?.kind === "Overtaken") yield* Effect.sleep(5 * (yield* Random.next))
      else if (failure !== undefined) {
        yield* Effect.sleep(Math.max(0, Math.min(until.left(), 100 + 150 * (yield* Random.next))))
      }
      if (!link.isConnected()) yield* Effect.timeoutOption(link.connected, Math.max(0, until.left()))
      if (until.left() <= 0 || !link.isConnected()) {
        return yield* Effect.fail(failed(failure?.reason ?? "not connected", uncertain))
      }
      const result = yield* Effect.result(attempt(uncertain))
      if (Result.isSuccess(result)) return result.success
      if (!(result.failure instanceof LinkFailure)) return yield* Effect.fail(result.failure as Exclude<E, LinkFailure>)
      failure = result.failure
    }
  })

  /** `attempt` learns whether an earlier one may have been applied. Ends in time with its result or with `failed`. */
  const persist = <A, E, F>(
    until: Until,
    attempt: (uncertain: boolean) => Effect.Effect<A, E>,
    failed: (reason: string, uncertain: boolean) => F
  ): Effect.Effect<A, Exclude<E, LinkFailure> | F> =>
    link.isConnected()
      ? Effect.catch(attempt(false), (error): Effect.Effect<A, Exclude<E, LinkFailure> | F> =>
        error instanceof LinkFailure
          ? insist(until, attempt, failed, error)
          : Effect.fail(error as Exclude<E, LinkFailure>))
      : insist(until, attempt, failed, undefined)

  const read = <A, E>(until: Until, operation: string, attempt: (timeoutMillis: number) => Effect.Effect<A, E>) =>
    persist(until, () => attempt(until.attempt()), (reason) => new StoreUnavailable({ operation, reason }))

  const write = <A, E>(until: Until, operation: string, attempt: (uncertain: boolean) => Effect.Effect<A, E>) =>
    persist(
      until,
      attempt,
      (reason, uncertain): StoreUnavailable | OutcomeUnknown =>
        uncertain ? new OutcomeUnknown({ operation, reason }) : new StoreUnavailable({ operation, reason })
    )

  /** The last message of a key, from the stream's leader. */
  const load = Effect.fnUntraced(function*(key: string, timeoutMillis: number) {
    const reply = yield* api<{ readonly message: StoredMsg & { readonly hdrs?: string; readonly data?: string } }>(
      link,
      `STREAM.MSG.GET.${bucket.stream}`,
      { last_by_subj: subjectOf(bucket, key) },
      timeoutMillis
    )
    if (reply.error?.err_code === codes.messageNotFound) return Option.none<Stored>()
    if (reply.error !== undefined) {
      return yield* new LinkFailure({ kind: "NoResponders", reason: reply.error.description })
    }
    const { data, hdrs, seq } = reply.message
    const headers = hdrs === undefined ? "" : Buffer.from(hdrs, "base64").toString("utf8")
    return Option.some<Stored>({
      revision: String(seq),
      value: textOf(Buffer.from(data ?? "", "base64")),
      removed: isMarker(headerIn(headers, "KV-Operation")),
      messageId: headerIn(headers, idHeader)
    })
  })

  type Published =
    | { readonly _tag: "Applied"; readonly revision: Revision }
    | { readonly _tag: "Duplicate" }
    | { readonly _tag: "Conflict" }

  const guarded = (expected: Revision) => replicated && expected !== "0"

  /** What the server's answer to a write says; `before` and `losses` are what was known when it was sent. */
  const published = (
    key: string,
    reply: PubAck & Reply,
    before: number,
    losses: number
  ): Effect.Effect<Published, LinkFailure | InvalidData> => {
    if (reply.error === undefined) {
      if (reply.duplicate) return Effect.succeed({ _tag: "Duplicate" })
      const applied: Published = { _tag: "Applied", revision: String(reply.seq) }
      streamLast = Math.max(streamLast, reply.seq)
      // what was acknowledged before this write began must lie below it
      if (reply.seq > before || losses !== seen.losses) {
        see(seen, reply.seq)
        return Effect.succeed(applied)
      }
      const loss = fallen(bucket.name, reply.seq - 1, seen.highest)
      noteLoss(seen, loss, reply.seq)
      return Effect.as(Effect.logWarning(`nats: ${loss}`), applied)
    }
    const { code, description, err_code } = reply.error
    if (conflicts(err_code)) {
      const told = /(\d+)\s*$/.exec(description)?.[1]
      // the number is the stream's last or the key's; one that is too low is corrected by the next refusal
      if (told !== undefined) streamLast = Number(told)
      return Effect.succeed({ _tag: "Conflict" })
    }
    if (err_code === codes.messageTooLarge) {
      return Effect.fail(new InvalidData({ what: `value of ${key}`, reason: description }))
    }
    // It broke off while it was stored: other replicas may have it, and a disk may hold what this server then leaves out.
    if (err_code === codes.storeFailed) return Effect.fail(new LinkFailure({ kind: "NoAnswer", reason: description }))
    // Refused before it was stored, for now (no leader, no space to work) or for good (limits).
    return Effect.fail(new LinkFailure({ kind: code >= 500 ? "NoResponders" : "Denied", reason: description }))
  }

  const publish = (
    key: string,
    value: string,
    expected: Revision,
    messageId: string,
    marker: boolean,
    timeoutMillis: number
  ): Effect.Effect<Published, LinkFailure | InvalidData> => {
    const before = seen.highest
    const losses = seen.losses
    const headers: Array<readonly [string, string]> = [
      [idHeader, messageId],
      ["Nats-Expected-Last-Subject-Sequence", expected]
    ]
    if (guarded(expected)) headers.push(["Nats-Expected-Last-Sequence", String(streamLast)])
    if (marker) headers.push(["KV-Operation", "DEL"])
    return Effect.flatMap(
      link.request(subjectOf(bucket, key), value, timeoutMillis, headers),
      (message) => Effect.flatMap(parseReply<PubAck>(message), (reply) => published(key, reply, before, losses))
    )
  }

  /** Was the message with this id applied? Only its presence proves anything. */
  const readBack = (operation: string, key: string, messageId: string, timeoutMillis: number) =>
    Effect.flatMap(
      load(key, timeoutMillis),
      (stored) =>
        Option.isSome(stored) && stored.value.messageId === messageId
          ? Effect.succeed(stored.value.revision)
          : Effect.fail(new OutcomeUnknown({ operation, reason: "an answer was lost, and the key has moved on since" }))
    )

  /** A refusal of a write that named the stream's sequence: has the key moved, or only the stream? */
  const whatMoved = (key: string, expected: Revision, messageId: string, uncertain: boolean, timeoutMillis: number) =>
    Effect.flatMap(
      load(key, timeoutMillis),
      (found): Effect.Effect<Revision, RevisionConflict | OutcomeUnknown | LinkFailure> =>
        Option.isSome(found) && found.value.messageId === messageId
          ? Effect.succeed(found.value.revision)
          : Option.isSome(found) && found.value.revision === expected
          ? Effect.fail(new LinkFailure({ kind: "Overtaken", reason: "other writes kept the bucket busy" }))
          : Effect.fail(
            uncertain
              ? new OutcomeUnknown({
                operation: `write ${key}`,
                reason: "an answer was lost, and the key has moved on since"
              })
              : new RevisionConflict({ key })
          )
    )

  const writeAt = (
    until: Until,
    operation: string,
    key: string,
    value: string,
    expected: Revision,
    marker: boolean
  ): Effect.Effect<Revision, WriteError> => {
    const messageId = nextId()
    const settled = (published: Published, uncertain: boolean) =>
      published._tag === "Applied"
        ? Effect.succeed(published.revision)
        : published._tag === "Duplicate"
        ? readBack(operation, key, messageId, until.attempt())
        : guarded(expected)
        ? whatMoved(key, expected, messageId, uncertain, until.attempt())
        : uncertain
        ? readBack(operation, key, messageId, until.attempt())
        : Effect.fail(new RevisionConflict({ key }))
    const once = (uncertain: boolean) =>
      Effect.flatMap(
        Effect.suspend(() => publish(key, value, expected, messageId, marker, until.attempt())),
        (published): Effect.Effect<Revision, RevisionConflict | OutcomeUnknown | LinkFailure> =>
          settled(published, uncertain)
      )
    if (!guarded(expected)) return write(until, operation, once)
    // The wait for one's turn belongs to the deadline, too; who never had it has sent nothing.
    let sent = false
    const inTurn = (uncertain: boolean) =>
      turn.withPermit(Effect.suspend((): ReturnType<typeof once> => {
        if (until.left() <= 0) {
          return Effect.fail(new LinkFailure({ kind: "NotSent", reason: "other writes had their turn for too long" }))
        }
        sent = true
        return once(uncertain)
      }))
    return Effect.timeoutOrElse(write(until, operation, inTurn), {
      duration: deadline,
      orElse: () => {
        const reason = late(deadline)
        return Effect.fail(
          sent ? new OutcomeUnknown({ operation, reason }) : new StoreUnavailable({ operation, reason })
        )
      }
    })
  }

  const ifRevision = <A>(key: string, revision: Revision, change: Effect.Effect<A, WriteError>) =>
    isRevision(revision) ? change : Effect.fail(new RevisionConflict({ key }))

  const entryOf = (key: string, found: Option.Option<Stored>): Effect.Effect<Option.Option<Entry>, InvalidData> =>
    Option.isNone(found) || found.value.removed
      ? Effect.succeedNone
      : found.value.value === undefined
      ? Effect.fail(new InvalidData({ what: `value of ${key}`, reason: "is no UTF-8" }))
      : Effect.succeedSome({ key, value: found.value.value, revision: found.value.revision })

  /**
   * Absent is sequence 0, or the sequence of the marker that a removal left; which one is known only after a conflict. The marker
   * may be swept between the look and the write, hence more than one try.
   */
  const createAt = (
    until: Until,
    key: string,
    value: string,
    expected: Revision,
    tries: number
  ): Effect.Effect<Revision, WriteError> => {
    const operation = `create ${key}`
    return Effect.catchTag(
      writeAt(until, operation, key, value, expected, false),
      "RevisionConflict",
      (conflict) =>
        Effect.flatMap(
          read(until, operation, (timeoutMillis) => load(key, timeoutMillis)),
          (found) =>
            Option.isSome(found) && !found.value.removed
              ? Effect.fail(new RevisionConflict({ key, current: found.value.revision }))
              : tries === 0
              ? Effect.fail(conflict)
              : createAt(until, key, value, Option.isNone(found) ? "0" : found.value.revision, tries - 1)
        )
    )
  }

  return {
    persistRead: (operation, attempt) => withUntil((until) => read(until, operation, attempt)),
    get: (key) =>
      withUntil((until) =>
        read(
          until,
          `get ${key}`,
          (timeoutMillis) => Effect.flatMap(load(key, timeoutMillis), (found) => entryOf(key, found))
        )
      ),
    update: (key, value, revision) =>
      ifRevision(key, revision, withUntil((until) => writeAt(until, `update ${key}`, key, value, revision, false))),
    remove: (key, revision) =>
      Effect.asVoid(
        ifRevision(key, revision, withUntil((until) => writeAt(until, `remove ${key}`, key, "", revision, true)))
      ),
    create: (key, value) => withUntil((until) => createAt(until, key, value, "0", 3))
  }
}

/**
 * The single-key operations on a bucket, with true outcomes. An operation is a series of attempts within one deadline:
 * - `NotSent` and `NoResponders` certainly did nothing: wait a moment and try again.
 * - `NoAnswer` to a write leaves it uncertain. It is tried again with the *same* message id and the same expected sequence, so
 *   that it can be applied once at most. From then on a conflict may be with our own first attempt, and a duplicate's sequence
 *   may be another message's (replicas under faults have said so), so both are settled by reading the key back: our message
 *   id there proves that it was applied. Otherwise the outcome stays unknown.
 */
import type { PubAck, StoredMsg } from "@nats-io/jetstream"
import { Clock, Duration, Effect, Option, Random, Result, Semaphore } from "effect"
import { InvalidData, OutcomeUnknown, RevisionConflict, StoreUnavailable } from "../../Actor/errors.ts"
import type { ControlStoreService, Revision, WriteError } from "../ControlStore.ts"
import { api, codes, isMarker, parseReply, subjectOf, textOf } from "./natsBucket.ts"
import type { Bucket, Reply } from "./natsBucket.ts"
import { LinkFailure } from "./natsConnection.edge.ts"
import type { NatsLink } from "./natsConnection.edge.ts"
import { isRevision } from "./storeData.ts"

/** one attempt within an operation's deadline */
const attemptMillis = 1_000

interface Stored {
  readonly revision: Revision
  /** undefined: bytes that are no UTF-8 */
  readonly value: string | undefined
  readonly removed: boolean
  readonly messageId: string
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
  nextId: () => string
): Operations => {
  /** the stream's last sequence as far as this client knows; a wrong guess costs one more attempt */
  let streamLast = 0
  /** Writes that name the stream's sequence exclude each other anyway: within one client they wait instead of colliding. */
  const turn = Semaphore.makeUnsafe(1)
  // the last moments are kept for saying what happened
  const patience = Duration.toMillis(deadline) * 0.98
  const now = Effect.map(Clock.monotonicTimeNanos, (nanos) => Number(nanos) / 1e6)

  /** `attempt` learns whether an earlier one may have been applied. Ends in time with its result or with `failed`. */
  const persist = Effect.fnUntraced(function*<A, E, F>(
    attempt: (timeoutMillis: number, uncertain: boolean) => Effect.Effect<A, E>,
    failed: (reason: string, uncertain: boolean) => F
  ): Effect.fn.Return<A, Exclude<E, LinkFailure> | F> {
    const end = (yield* now) + patience
    let uncertain = false
    let reason = "not connected"
    while (true) {
      if (!link.isConnected()) yield* Effect.timeoutOption(link.connected, Math.max(0, end - (yield* now)))
      const left = end - (yield* now)
      if (left <= 0 || !link.isConnected()) return yield* Effect.fail(failed(reason, uncertain))
      const result = yield* Effect.result(attempt(Math.min(attemptMillis, left), uncertain))
      if (Result.isSuccess(result)) return result.success
      const failure = result.failure
      if (!(failure instanceof LinkFailure)) return yield* Effect.fail(failure as Exclude<E, LinkFailure>)
      reason = failure.reason
      if (failure.kind === "Denied") return yield* Effect.fail(failed(reason, uncertain))
      if (failure.kind === "NoAnswer") uncertain = true
      else if (failure.kind === "Overtaken") yield* Effect.sleep(5 * (yield* Random.next))
      else yield* Effect.sleep(Math.min(Math.max(0, end - (yield* now)), 100 + 150 * (yield* Random.next)))
    }
  })

  const persistRead: Operations["persistRead"] = (operation, attempt) =>
    persist((timeoutMillis) => attempt(timeoutMillis), (reason) => new StoreUnavailable({ operation, reason }))

  const persistWrite = <A, E>(
    operation: string,
    attempt: (timeoutMillis: number, uncertain: boolean) => Effect.Effect<A, E>
  ) =>
    persist(
      attempt,
      (reason, uncertain) =>
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
      messageId: headerIn(headers, "Nats-Msg-Id")
    })
  })

  type Published =
    | { readonly _tag: "Applied"; readonly revision: Revision }
    | { readonly _tag: "Duplicate" }
    | { readonly _tag: "Conflict" }

  const guarded = (expected: Revision) => replicated && expected !== "0"

  const publish = Effect.fnUntraced(function*(
    key: string,
    value: string,
    expected: Revision,
    messageId: string,
    marker: boolean,
    timeoutMillis: number
  ): Effect.fn.Return<Published, LinkFailure | InvalidData | StoreUnavailable> {
    const message = yield* link.request(subjectOf(bucket, key), value, timeoutMillis, [
      ["Nats-Msg-Id", messageId],
      ["Nats-Expected-Last-Subject-Sequence", expected],
      ...(guarded(expected) ? [["Nats-Expected-Last-Sequence", String(streamLast)] as const] : []),
      ...(marker ? [["KV-Operation", "DEL"] as const] : [])
    ])
    const reply: PubAck & Reply = yield* parseReply<PubAck>(message)
    if (reply.error === undefined) {
      if (!reply.duplicate) streamLast = Math.max(streamLast, reply.seq)
      return reply.duplicate ? { _tag: "Duplicate" } : { _tag: "Applied", revision: String(reply.seq) }
    }
    const { code, description, err_code } = reply.error
    if (conflicts(err_code)) {
      const told = /(\d+)\s*$/.exec(description)?.[1]
      // the number is the stream's last or the key's; one that is too low is corrected by the next refusal
      if (told !== undefined) streamLast = Number(told)
      return { _tag: "Conflict" }
    }
    if (err_code === codes.messageTooLarge) {
      return yield* new InvalidData({ what: `value of ${key}`, reason: description })
    }
    // Refused before it was stored, for now (no leader, no space to work) or for good (limits).
    return yield* code >= 500
      ? new LinkFailure({ kind: "NoResponders", reason: description })
      : new LinkFailure({ kind: "Denied", reason: description })
  })

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
    operation: string,
    key: string,
    value: string,
    expected: Revision,
    marker: boolean
  ): Effect.Effect<Revision, WriteError> =>
    Effect.suspend(() => {
      const messageId = nextId()
      return persistWrite(operation, (timeoutMillis, uncertain) => {
        const once = Effect.flatMap(
          publish(key, value, expected, messageId, marker, timeoutMillis),
          (published): Effect.Effect<Revision, RevisionConflict | OutcomeUnknown | LinkFailure> =>
            published._tag === "Applied"
              ? Effect.succeed(published.revision)
              : published._tag === "Duplicate"
              ? readBack(operation, key, messageId, timeoutMillis)
              : guarded(expected)
              ? whatMoved(key, expected, messageId, uncertain, timeoutMillis)
              : uncertain
              ? readBack(operation, key, messageId, timeoutMillis)
              : Effect.fail(new RevisionConflict({ key }))
        )
        return guarded(expected) ? turn.withPermit(once) : once
      })
    })

  const ifRevision = <A>(key: string, revision: Revision, write: Effect.Effect<A, WriteError>) =>
    isRevision(revision) ? write : Effect.fail(new RevisionConflict({ key }))

  return {
    persistRead,
    get: (key) =>
      persistRead(
        `get ${key}`,
        (timeoutMillis) =>
          Effect.flatMap(load(key, timeoutMillis), (found) =>
            Option.isNone(found) || found.value.removed
              ? Effect.succeedNone
              : found.value.value === undefined
              ? Effect.fail(new InvalidData({ what: `value of ${key}`, reason: "is no UTF-8" }))
              : Effect.succeedSome({ key, value: found.value.value, revision: found.value.revision }))
      ),
    update: (key, value, revision) => ifRevision(key, revision, writeAt(`update ${key}`, key, value, revision, false)),
    remove: (key, revision) =>
      Effect.asVoid(ifRevision(key, revision, writeAt(`remove ${key}`, key, "", revision, true))),
    // Absent is sequence 0, or the sequence of the marker that a removal left; which one is known only after a conflict.
    create: (key, value) =>
      writeAt(`create ${key}`, key, value, "0", false).pipe(
        Effect.catchTag("RevisionConflict", () =>
          persistRead(`create ${key}`, (timeoutMillis) =>
            load(key, timeoutMillis)).pipe(
              Effect.flatMap((found) =>
                Option.isSome(found) && !found.value.removed
                  ? Effect.fail(new RevisionConflict({ key, current: found.value.revision }))
                  : writeAt(`create ${key}`, key, value, Option.isNone(found) ? "0" : found.value.revision, false)
              )
            ))
      )
  }
}

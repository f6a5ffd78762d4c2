/**
 * The single-key operations on etcd, with true outcomes. Each write is one transaction that compares the key's revision, and
 * carries an id of its own behind the value. An update or removal without an answer is tried again as the very same transaction: it can
 * succeed only if it had not been applied, and if it finds the key changed, its own id there proves that it had been. What neither
 * shows stays unknown: so does a removal that finds the key gone, since etcd keeps no word of who removed it.
 *
 * A create is never sent twice. A member that was frozen brings the first one when it thaws, and a key that was created by the second,
 * and removed since, would rise again: absence has no revision that passes. So a create without an answer is looked for, by its id.
 */
import { Duration, Effect, Random, Result } from "effect"
import { InvalidData, OutcomeUnknown, RevisionConflict, StoreUnavailable } from "../../Actor/errors.ts"
import type { ControlStoreService, Entry, Revision, WriteError } from "../ControlStore.ts"
import type { EtcdLink } from "./etcdClient.edge.ts"
import { EtcdFailure } from "./etcdProtocol.edge.ts"
import type { Header, KeyValue, RangeResponse } from "./etcdProtocol.edge.ts"
import { isRevision, keyProblem } from "./storeData.ts"

/** one attempt within an operation's deadline */
const attemptMillis = 1_000
/** entries that one page of a listing holds */
const pageSize = 500

// ---- keys and values as etcd keeps them ----------------------------------------------------------------------------------------

export interface Namespace {
  /** ends with `/` */
  readonly root: string
}

export const makeNamespace = (text: string): Namespace => ({ root: `${text.replace(/\/+$/, "")}/` })

/** All keys with the prefix, as etcd names ranges: from `key` up to but without `range_end`. */
export const rangeOf = (namespace: Namespace, prefix: string): { readonly key: Buffer; readonly range_end: Buffer } => {
  const key = Buffer.from(namespace.root + prefix, "utf8")
  const range_end = Buffer.from(key)
  // keys are ASCII, so the last byte can always be raised
  range_end[range_end.length - 1]! += 1
  return { key, range_end }
}

export const keyOf = (namespace: Namespace, key: Buffer): string | undefined => {
  const text = key.toString("utf8").slice(namespace.root.length)
  return keyProblem(text) === undefined ? text : undefined
}

/** The writer's id follows the value behind a control character; an entry that others wrote has none. */
const writerPattern = /\u001e([0-9a-f]{32})$/

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** undefined: bytes that are no UTF-8 */
export const valueOf = (bytes: Buffer): { readonly value: string; readonly writer: string | undefined } | undefined => {
  try {
    const text = strict.decode(bytes)
    const writer = writerPattern.exec(text)
    return writer === null
      ? { value: text, writer: undefined }
      : { value: text.slice(0, writer.index), writer: writer[1] }
  } catch {
    return undefined
  }
}

interface TxnResponse {
  readonly header: Header
  readonly succeeded: boolean
  readonly responses: ReadonlyArray<{ readonly response_range?: RangeResponse | null }>
}

export interface Listing {
  /** the revision at which it was taken */
  readonly revision: string
  readonly kvs: ReadonlyArray<KeyValue>
}

/** All of a range at one revision, page by page. Linearizable: it holds everything acknowledged before it was asked for. */
export const readRange = Effect.fnUntraced(function*(
  link: EtcdLink,
  range: { readonly key: Buffer; readonly range_end: Buffer },
  options: { readonly keysOnly: boolean; readonly timeoutMillis: number }
): Effect.fn.Return<Listing, EtcdFailure> {
  const kvs: Array<KeyValue> = []
  let revision = "0"
  let key = range.key
  while (true) {
    const page: RangeResponse = yield* link.call<RangeResponse>(
      "KV",
      "range",
      { key, range_end: range.range_end, limit: pageSize, revision, keys_only: options.keysOnly },
      options.timeoutMillis
    )
    if (revision === "0") revision = page.header.revision
    for (const kv of page.kvs) kvs.push(kv)
    const last = page.kvs.at(-1)
    if (!page.more || last === undefined) return { revision, kvs }
    key = Buffer.concat([last.key, Buffer.from([0])])
  }
})

/** the revision that etcd gives to a key which is not there */
const absent: Revision = "0"

// ---- operations ----------------------------------------------------------------------------------------------------------------

export type Operations = Pick<ControlStoreService, "get" | "create" | "update" | "remove" | "list">

export const makeOperations = (
  link: EtcdLink,
  namespace: Namespace,
  deadline: Duration.Duration,
  nextId: () => string,
  report: (what: string, reason: string) => Effect.Effect<void>
): Operations => {
  // the last moments are kept for saying what happened
  const patience = Duration.toMillis(deadline) * 0.98
  const bytesOf = (key: string) => Buffer.from(namespace.root + key, "utf8")

  /** Repeats after `failure` until an attempt succeeds or time is up. */
  const insist = Effect.fnUntraced(function*<A, E, F>(
    left: () => number,
    attempt: (timeoutMillis: number, uncertain: boolean) => Effect.Effect<A, E>,
    failed: (failure: EtcdFailure, uncertain: boolean) => F,
    first: EtcdFailure
  ): Effect.fn.Return<A, Exclude<E, EtcdFailure> | F> {
    let failure = first
    let uncertain = false
    while (true) {
      if (failure.kind === "NoAnswer") uncertain = true
      else if (failure.kind !== "NotSent" && failure.kind !== "Refused" && failure.kind !== "Compacted") {
        return yield* Effect.fail(failed(failure, uncertain))
      }
      yield* Effect.sleep(Math.min(Math.max(0, left()), 20 + 80 * (yield* Random.next)))
      const rest = left()
      if (rest <= 0) return yield* Effect.fail(failed(failure, uncertain))
      const result = yield* Effect.result(attempt(Math.min(attemptMillis, rest), uncertain))
      if (Result.isSuccess(result)) return result.success
      if (!(result.failure instanceof EtcdFailure)) return yield* Effect.fail(result.failure as Exclude<E, EtcdFailure>)
      failure = result.failure
    }
  })

  /** `attempt` learns whether an earlier one may have been applied. Ends in time with its result or with `failed`. */
  const persist = <A, E, F>(
    attempt: (timeoutMillis: number, uncertain: boolean) => Effect.Effect<A, E>,
    failed: (failure: EtcdFailure, uncertain: boolean) => F
  ): Effect.Effect<A, Exclude<E, EtcdFailure> | F> =>
    Effect.clockWith((clock) => {
      const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
      const end = now() + patience
      return Effect.catch(
        attempt(Math.min(attemptMillis, patience), false),
        (error): Effect.Effect<A, Exclude<E, EtcdFailure> | F> =>
          error instanceof EtcdFailure
            ? insist(() => end - now(), attempt, failed, error)
            : Effect.fail(error as Exclude<E, EtcdFailure>)
      )
    })

  const persistRead = <A, E>(operation: string, attempt: (timeoutMillis: number) => Effect.Effect<A, E>) =>
    persist(
      (timeoutMillis) => attempt(timeoutMillis),
      (failure) => new StoreUnavailable({ operation, reason: failure.reason })
    )

  const transact = (
    key: string,
    expected: Revision,
    change: object,
    timeoutMillis: number
  ): Effect.Effect<TxnResponse, EtcdFailure> => {
    const at = bytesOf(key)
    return link.call("KV", "txn", {
      compare: [{ result: "Equal", target: "Mod", key: at, mod_revision: expected }],
      success: [change],
      failure: [{ request_range: { key: at } }]
    }, timeoutMillis)
  }

  const movedOn = (operation: string) =>
    new OutcomeUnknown({ operation, reason: "an answer was lost, and the key has moved on since" })

  /** What has become of a create without an answer; no answer still, where it is not there so far. */
  const lookFor = (operation: string, key: string, writer: string | undefined, timeoutMillis: number) =>
    Effect.flatMap(
      link.call<RangeResponse>("KV", "range", { key: bytesOf(key) }, timeoutMillis),
      ({ kvs }): Effect.Effect<Revision, EtcdFailure | OutcomeUnknown> => {
        const found = kvs[0]
        if (found === undefined) return Effect.fail(new EtcdFailure({ kind: "NoAnswer", reason: "an answer was lost" }))
        return valueOf(found.value)?.writer === writer
          ? Effect.succeed(found.mod_revision)
          : Effect.fail(movedOn(operation))
      }
    )

  /** `writer` is the id that the change leaves behind; a removal leaves none. */
  const writeAt = (operation: string, key: string, expected: Revision, change: object, writer: string | undefined) =>
    persist(
      (timeoutMillis, uncertain): Effect.Effect<Revision, EtcdFailure | RevisionConflict | OutcomeUnknown> =>
        uncertain && expected === absent ? lookFor(operation, key, writer, timeoutMillis) : Effect.flatMap(
          transact(key, expected, change, timeoutMillis),
          (answer): Effect.Effect<Revision, RevisionConflict | OutcomeUnknown> => {
            if (answer.succeeded) return Effect.succeed(answer.header.revision)
            const found = answer.responses[0]?.response_range?.kvs[0]
            if (!uncertain) {
              return Effect.fail(
                new RevisionConflict(found === undefined ? { key } : { key, current: found.mod_revision })
              )
            }
            if (found !== undefined && writer !== undefined && valueOf(found.value)?.writer === writer) {
              return Effect.succeed(found.mod_revision)
            }
            // A removal leaves no id behind. But a life that began before it, and that others have gone on with, was never ended.
            return found !== undefined && writer === undefined && BigInt(found.create_revision) <= BigInt(expected)
              ? Effect.fail(new RevisionConflict({ key, current: found.mod_revision }))
              : Effect.fail(movedOn(operation))
          }
        ),
      (failure, uncertain): WriteError =>
        uncertain
          ? new OutcomeUnknown({ operation, reason: failure.reason })
          : failure.kind === "TooLarge"
          ? new InvalidData({ what: `value of ${key}`, reason: failure.reason })
          : new StoreUnavailable({ operation, reason: failure.reason })
    )

  const put = (
    operation: string,
    key: string,
    value: string,
    expected: Revision
  ): Effect.Effect<Revision, WriteError> =>
    Effect.suspend(() => {
      const writer = nextId()
      const change = { request_put: { key: bytesOf(key), value: Buffer.from(`${value}\u001e${writer}`, "utf8") } }
      return writeAt(operation, key, expected, change, writer)
    })

  const entryOf = (key: string, kv: KeyValue): Entry | undefined => {
    const held = valueOf(kv.value)
    return held === undefined ? undefined : { key, value: held.value, revision: kv.mod_revision }
  }

  const ifRevision = <A>(key: string, revision: Revision, write: Effect.Effect<A, WriteError>) =>
    isRevision(revision) ? write : Effect.fail(new RevisionConflict({ key }))

  return {
    get: (key) =>
      persistRead(
        `get ${key}`,
        (timeoutMillis) =>
          Effect.flatMap(link.call<RangeResponse>("KV", "range", { key: bytesOf(key) }, timeoutMillis), ({ kvs }) => {
            const kv = kvs[0]
            if (kv === undefined) return Effect.succeedNone
            const entry = entryOf(key, kv)
            return entry === undefined
              ? Effect.fail(new InvalidData({ what: `value of ${key}`, reason: "is no UTF-8" }))
              : Effect.succeedSome(entry)
          })
      ),
    create: (key, value) => put(`create ${key}`, key, value, absent),
    update: (key, value, revision) => ifRevision(key, revision, put(`update ${key}`, key, value, revision)),
    remove: (key, revision) =>
      ifRevision(
        key,
        revision,
        Effect.asVoid(
          writeAt(`remove ${key}`, key, revision, { request_delete_range: { key: bytesOf(key) } }, undefined)
        )
      ),
    list: (prefix) =>
      Effect.flatMap(
        persistRead(`list ${prefix}`, (timeoutMillis) =>
          readRange(link, rangeOf(namespace, prefix), { keysOnly: false, timeoutMillis })),
        ({ kvs }) =>
          Effect.gen(function*() {
            const entries: Array<Entry> = []
            for (const kv of kvs) {
              const key = keyOf(namespace, kv.key)
              const entry = key === undefined ? undefined : entryOf(key, kv)
              if (entry !== undefined) {
                entries.push(entry)
              } else {yield* report(
                  kv.key.toString("utf8"),
                  key === undefined ? "is no key of this store" : "is no UTF-8"
                )}
            }
            return entries
          })
      )
  }
}

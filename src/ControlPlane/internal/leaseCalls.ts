/** The calls of leases to their store: each ends by the deadline that it is given, and a write's outcome is a value. */
import { Effect } from "effect"
import type { Option } from "effect"
import { OutcomeUnknown, StoreUnavailable } from "../../Actor/errors.ts"
import type { InvalidData, RevisionConflict } from "../../Actor/errors.ts"
import type { ControlStoreService, Entry, Revision } from "../ControlStore.ts"

/** What an operation on a lease can fail with besides being fenced. */
export type LeaseError = StoreUnavailable | OutcomeUnknown | InvalidData

export type Outcome =
  | { readonly _tag: "Written"; readonly revision: Revision }
  | { readonly _tag: "NotWritten"; readonly error: StoreUnavailable | InvalidData }
  | { readonly _tag: "Unknown"; readonly error: OutcomeUnknown }
  | { readonly _tag: "Conflict" }

/** A write with its outcome as a value, and never later than the deadline: what is late is unknown. */
export const attemptWrite = (
  store: ControlStoreService,
  key: string,
  value: string,
  expected: Revision | undefined,
  deadline: number
): Effect.Effect<Outcome> =>
  (expected === undefined ? store.create(key, value) : store.update(key, value, expected)).pipe(
    Effect.map((revision): Outcome => ({ _tag: "Written", revision })),
    Effect.timeoutOrElse({
      duration: deadline,
      orElse: () =>
        Effect.fail(new OutcomeUnknown({ operation: `write of ${key}`, reason: `no answer within ${deadline} ms` }))
    }),
    Effect.catch((error: RevisionConflict | LeaseError): Effect.Effect<Outcome> =>
      Effect.succeed(
        error._tag === "RevisionConflict"
          ? { _tag: "Conflict" }
          : error._tag === "OutcomeUnknown"
          ? { _tag: "Unknown", error }
          : { _tag: "NotWritten", error }
      )
    )
  )

export const attemptRead = (
  store: ControlStoreService,
  key: string,
  deadline: number
): Effect.Effect<Option.Option<Entry>, StoreUnavailable | InvalidData> =>
  store.get(key).pipe(
    Effect.timeoutOrElse({
      duration: deadline,
      orElse: () =>
        Effect.fail(new StoreUnavailable({ operation: `read of ${key}`, reason: `no answer within ${deadline} ms` }))
    })
  )

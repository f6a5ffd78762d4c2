/**
 * What operators want of a datacenter: a key of its own in the global store, without TTL, written by operators alone and by
 * compare-and-set. The leader of that datacenter carries it into the record; every router heeds it at once.
 */
import { Effect, Option, Schema } from "effect"
import { InvalidData, OutcomeUnknown, type RevisionConflict, type StoreUnavailable } from "../../Actor/errors.ts"
import { randomHex } from "../../Actor/Node.ts"
import { desiredPrefix } from "../../ControlPlane/ControlPlaneStore.ts"
import { type ControlStoreService, type Entry, keyPart } from "../../ControlPlane/ControlStore.ts"

export const Wish = Schema.Struct({
  id: Schema.String,
  state: Schema.Literals(["DRAINED", "ACTIVE"]),
  /** who wants it, and why: for people */
  by: Schema.String,
  reason: Schema.String,
  /** rises with each wish: a store that forgot the last one is told again, never believed */
  counter: Schema.Int,
  operation: Schema.String
})
export type Wish = typeof Wish.Type

const codec = Schema.fromJsonString(Wish)
const decodeOption = Schema.decodeUnknownOption(codec)
const encode = Schema.encodeSync(codec)

export const wishKey = (id: string) => `${desiredPrefix}${keyPart(id)}`

/** undefined: not one of ours */
export const decodeWish = (entry: Entry): Wish | undefined => {
  const wish = Option.getOrUndefined(decodeOption(entry.value))
  return wish === undefined || wishKey(wish.id) !== entry.key ? undefined : wish
}

const maxAttempts = 5

/** Writes the wish over whatever was wished before; its counter is above that one's and above `atLeast`. */
export const write = (
  store: ControlStoreService,
  wish: Omit<Wish, "operation" | "counter">,
  atLeast: number
): Effect.Effect<void, StoreUnavailable | OutcomeUnknown | InvalidData> =>
  Effect.gen(function*() {
    const key = wishKey(wish.id)
    for (let attempt = 0; attempt < maxAttempts; attempt++) {
      const operation = yield* randomHex(16)
      const before = yield* store.get(key)
      const last = Option.isNone(before) ? 0 : decodeWish(before.value)?.counter ?? 0
      const value = encode({ ...wish, operation, counter: Math.max(last, atLeast) + 1 })
      const written = yield* Effect.result(
        Option.isNone(before) ? store.create(key, value) : store.update(key, value, before.value.revision)
      )
      if (written._tag === "Success") return
      const failure: RevisionConflict | StoreUnavailable | OutcomeUnknown | InvalidData = written.failure
      if (failure._tag === "StoreUnavailable" || failure._tag === "InvalidData") return yield* failure
      // Another operator was faster, or the answer was lost: what stands there now says which.
      const after = yield* store.get(key)
      if (Option.isSome(after) && decodeWish(after.value)?.operation === operation) return
      if (failure._tag === "OutcomeUnknown") return yield* failure
    }
    return yield* new OutcomeUnknown({ operation: `wish for ${wish.id}`, reason: "the key changed at each attempt" })
  })

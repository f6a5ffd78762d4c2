/**
 * Deadlines as a decorator: whatever a backend does, each operation ends in time and with a true outcome. A read that ran out
 * of time is `StoreUnavailable`; a write that did is `OutcomeUnknown`, because its request may have arrived.
 */
import { Duration, Effect } from "effect"
import { OutcomeUnknown, StoreUnavailable } from "../../Actor/errors.ts"
import type { ControlStoreService } from "../ControlStore.ts"

/** why an operation ended without its answer */
export const late = (deadline: Duration.Duration) => `no answer within ${Duration.format(deadline)}`

/** Ends a read after `deadline`. */
export const readWithin =
  (operation: string, deadline: Duration.Duration) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | StoreUnavailable, R> =>
    Effect.timeoutOrElse(effect, {
      duration: deadline,
      orElse: () => Effect.fail(new StoreUnavailable({ operation, reason: late(deadline) }))
    })

/** Ends a write after `deadline`, and then nobody knows whether it was applied. */
export const writeWithin =
  (operation: string, deadline: Duration.Duration) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | OutcomeUnknown, R> =>
    Effect.timeoutOrElse(effect, {
      duration: deadline,
      orElse: () => Effect.fail(new OutcomeUnknown({ operation, reason: late(deadline) }))
    })

/** The same store with a shorter patience. Watches have no deadline and stay as they are. */
export const withDeadline = (store: ControlStoreService, input: Duration.Input): ControlStoreService => {
  const deadline = Duration.fromInputUnsafe(input)
  return {
    ...store,
    get: (key) => readWithin(`get ${key}`, deadline)(store.get(key)),
    list: (prefix) => readWithin(`list ${prefix}`, deadline)(store.list(prefix)),
    create: (key, value) => writeWithin(`create ${key}`, deadline)(store.create(key, value)),
    update: (key, value, revision) => writeWithin(`update ${key}`, deadline)(store.update(key, value, revision)),
    remove: (key, revision) => writeWithin(`remove ${key}`, deadline)(store.remove(key, revision))
  }
}

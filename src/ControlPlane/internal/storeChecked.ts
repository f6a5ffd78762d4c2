/** The port's checks as a decorator, for backends that bring only the operations themselves. */
import { Effect } from "effect"
import { RevisionConflict } from "../../Actor/errors.ts"
import type { ControlStoreService } from "../ControlStore.ts"
import { checkEntry, checkKey, checkPrefix, isRevision } from "./storeData.ts"

export const checked = (store: ControlStoreService): ControlStoreService => {
  const ofRevision = <A, E>(key: string, revision: string, change: Effect.Effect<A, E>) =>
    isRevision(revision) ? change : Effect.fail(new RevisionConflict({ key }))
  const ofEntry = <A, E>(key: string, value: string, change: Effect.Effect<A, E>) =>
    Effect.andThen(checkEntry(key, value, store.capabilities.maxValueBytes), change)
  return {
    ...store,
    get: (key) => Effect.andThen(checkKey(key), store.get(key)),
    list: (prefix) => Effect.andThen(checkPrefix(prefix), store.list(prefix)),
    create: (key, value) => ofEntry(key, value, store.create(key, value)),
    update: (key, value, revision) =>
      ofEntry(key, value, ofRevision(key, revision, store.update(key, value, revision))),
    remove: (key, revision) => Effect.andThen(checkKey(key), ofRevision(key, revision, store.remove(key, revision)))
  }
}

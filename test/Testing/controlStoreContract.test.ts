// The contract can fail: stores with one planted bug each, and the cases that must see it.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Stream } from "effect"
import { TestClock } from "effect/testing"
import { OutcomeUnknown, RevisionConflict, StoreUnavailable } from "../../src/Actor/errors.ts"
import type { ControlStoreService, Entry, WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import * as MemoryBackend from "../../src/ControlPlane/ControlStoreMemory.ts"
import * as ControlStoreContract from "../../src/Testing/ControlStoreContract.ts"
import { checkRegister } from "../../src/Testing/internal/linearizability.ts"

type Spoil = (store: ControlStoreService, backend: MemoryBackend.MemoryBackend) => ControlStoreService

/** the cases that fail on a store with this bug */
const failures = (spoil: Spoil) =>
  Effect.gen(function*() {
    const backend = yield* MemoryBackend.make({ requestTimeout: "2 seconds" })
    const cases = ControlStoreContract.cases({
      client: Effect.sync(() => spoil(backend.client(), backend)),
      cuttable: Effect.sync(() => {
        let cut = false
        return {
          client: spoil(backend.client({ reachable: () => !cut }), backend),
          cut: Effect.sync(() => void (cut = true)),
          restore: Effect.sync(() => void (cut = false))
        }
      }),
      elapse: TestClock.adjust,
      requestTimeout: "2 seconds"
    })
    const failed: Array<string> = []
    for (const { name, run } of cases) {
      const exit = yield* Effect.exit(Effect.scoped(run))
      if (Exit.isFailure(exit)) failed.push(name)
    }
    return failed
  })

const mapWatch = (
  store: ControlStoreService,
  f: (event: WatchEvent) => ReadonlyArray<WatchEvent>
): ControlStoreService => ({
  ...store,
  watch: (prefix) => Stream.flatMap(store.watch(prefix), (event) => Stream.fromIterable(f(event)))
})

const bugs: Readonly<Record<string, { readonly spoil: Spoil; readonly seenBy: string }>> = {
  "create overwrites": {
    spoil: (store) => ({
      ...store,
      create: (key, value) =>
        Effect.catchTag(
          store.create(key, value),
          "RevisionConflict",
          () =>
            Effect.flatMap(store.get(key), (found) =>
              Option.isNone(found)
                ? Effect.fail(new RevisionConflict({ key }))
                : store.update(key, value, found.value.revision))
        )
    }),
    seenBy: "creating a key that exists is a conflict and changes nothing"
  },
  "update ignores the revision": {
    spoil: (store) => ({
      ...store,
      update: (key, value, _) =>
        Effect.flatMap(
          store.get(key),
          (found) =>
            Option.isNone(found)
              ? Effect.fail(new RevisionConflict({ key }))
              : store.update(key, value, found.value.revision)
        )
    }),
    seenBy: "of clients that race to update at one revision, one wins"
  },
  "update checks before it writes, and not when it writes": {
    spoil: (store) => ({
      ...store,
      update: (key, value, revision) =>
        Effect.gen(function*() {
          const seen = yield* store.get(key)
          if (Option.isNone(seen) || seen.value.revision !== revision) return yield* new RevisionConflict({ key })
          yield* Effect.yieldNow
          const now = yield* store.get(key)
          return yield* store.update(key, value, Option.isSome(now) ? now.value.revision : revision)
        })
    }),
    seenBy: "of clients that race to update at one revision, one wins"
  },
  "remove ignores the revision": {
    spoil: (store) => ({
      ...store,
      remove: (key, revision) =>
        Effect.flatMap(
          store.get(key),
          (found) => store.remove(key, Option.isSome(found) ? found.value.revision : revision)
        )
    }),
    seenBy: "a removal at an older revision is a conflict and removes nothing"
  },
  "removing what is absent succeeds": {
    spoil: (store) => ({
      ...store,
      remove: (key, revision) =>
        Effect.catchTag(
          store.remove(key, revision),
          "RevisionConflict",
          (error) => Effect.flatMap(store.get(key), (found) => Option.isNone(found) ? Effect.void : Effect.fail(error))
        )
    }),
    seenBy: "removing twice, or removing what never was, is a conflict"
  },
  "update creates": {
    spoil: (store) => ({
      ...store,
      update: (key, value, revision) =>
        Effect.catchTag(
          store.update(key, value, revision),
          "RevisionConflict",
          (error) =>
            Effect.flatMap(
              store.get(key),
              (found) => Option.isNone(found) ? store.create(key, value) : Effect.fail(error)
            )
        )
    }),
    seenBy: "an update of an absent key is a conflict and creates nothing"
  },
  "a listing takes a prefix for a folder": {
    spoil: (store) => ({
      ...store,
      list: (prefix) =>
        Effect.map(
          store.list(prefix),
          (entries) =>
            entries.filter((entry) =>
              prefix === "" || prefix.endsWith("/") || entry.key === prefix || entry.key.startsWith(`${prefix}/`)
            )
        )
    }),
    seenBy: "a listing holds exactly the keys with the prefix, also one that ends within a part"
  },
  "a listing stops at 500": {
    spoil: (store) => ({
      ...store,
      list: (prefix) => Effect.map(store.list(prefix), (entries) => entries.slice(0, 500))
    }),
    seenBy: "a listing of a thousand entries is complete"
  },
  "a listing is unsorted": {
    spoil: (store) => ({
      ...store,
      list: (prefix) => Effect.map(store.list(prefix), (entries) => entries.toReversed())
    }),
    seenBy: "a listing is sorted by key and holds values and revisions"
  },
  "reads are stale": {
    spoil: (_, backend) => backend.client({ staleBy: () => 1 }),
    seenBy: "what one client wrote, another reads at once"
  },
  "a byte order mark is swallowed": {
    spoil: (store) => ({
      ...store,
      list: (prefix) =>
        Effect.map(
          store.list(prefix),
          (entries) => entries.map((entry) => ({ ...entry, value: entry.value.replace(/^\uFEFF/, "") }))
        )
    }),
    seenBy: "values keep every character, and may be empty"
  },
  "a watch begins without a snapshot": {
    spoil: (store) => mapWatch(store, (event) => event._tag === "Snapshot" ? [] : [event]),
    seenBy: "a watch of nothing begins with an empty snapshot"
  },
  "a watch skips every tenth change": {
    spoil: (store) => {
      let seen = 0
      return mapWatch(store, (event) => event._tag === "Put" && ++seen % 10 === 0 ? [] : [event])
    },
    seenBy: "changes of different keys are told in the order that the store claims: as they happened, or any"
  },
  "a watch claims an order and tells removals late": {
    spoil: (store) => ({
      ...store,
      watch: (prefix) =>
        Stream.unwrap(Effect.sync(() => {
          let kept: ReadonlyArray<WatchEvent> = []
          return Stream.flatMap(store.watch(prefix), (event) => {
            const late = event._tag === "Removed" ? [] : kept
            kept = event._tag === "Removed" ? [...kept, event] : event._tag === "Put" ? [] : kept
            return Stream.fromIterable(
              event._tag === "Put" && !late.some((one) => one._tag === "Removed" && one.key === event.entry.key)
                ? [event, ...late]
                : event._tag === "Removed"
                ? []
                : event._tag === "Put"
                ? [...late, event]
                : [event]
            )
          })
        }))
    }),
    seenBy:
      "creations, updates and removals by two clients come in the order of their revisions, where the store claims it"
  },
  "an update at the revision of a removal revives the key": {
    spoil: (store, backend) => ({
      ...store,
      update: (key, value, revision) =>
        Effect.catchTag(
          store.update(key, value, revision),
          "RevisionConflict",
          (error) =>
            revision === String(backend.revision()) && !backend.entries().some((entry) => entry.key === key)
              ? store.create(key, value)
              : Effect.fail(error)
        )
    }),
    seenBy: "the revision of a removal is told, and no write succeeds at it"
  },
  "a watch forgets removals": {
    spoil: (store) => mapWatch(store, (event) => event._tag === "Removed" ? [] : [event]),
    seenBy: "a removal is told, with a revision above the removed one"
  },
  "a watch tells an old version again": {
    spoil: (store) => {
      const first = new Map<string, Entry>()
      return mapWatch(store, (event) => {
        if (event._tag !== "Put") return [event]
        const old = first.get(event.entry.key)
        if (old === undefined) first.set(event.entry.key, event.entry)
        return old === undefined ? [event] : [event, { _tag: "Put", entry: old }]
      })
    },
    seenBy: "hundreds of quick versions of a key end with the last, and versions only rise"
  },
  "a watch never proves that it is current": {
    spoil: (store) => mapWatch(store, (event) => event._tag === "Current" ? [] : [event]),
    seenBy: "a healthy watch proves again and again that it is current"
  },
  "a watch tells of other prefixes": {
    spoil: (store) => ({ ...store, watch: (prefix) => store.watch(prefix.slice(0, -1)) }),
    seenBy: "nothing outside the prefix is told, also where prefixes touch"
  },
  "a watch is silent about its loss": {
    spoil: (store) => mapWatch(store, (event) => event._tag === "Lost" ? [] : [event]),
    seenBy: "cut off, a watch says within seconds that it is lost, and then nothing until it is back"
  },
  "a watch proves currency while it is cut off": {
    spoil: (store) => mapWatch(store, (event) => event._tag === "Lost" ? [event, { _tag: "Current" }] : [event]),
    seenBy: "cut off, a watch says within seconds that it is lost, and then nothing until it is back"
  },
  "after a loss a watch goes on without a snapshot": {
    spoil: (store) => ({
      ...store,
      watch: (prefix) =>
        Stream.unwrap(Effect.sync(() => {
          let begun = false
          return Stream.filter(store.watch(prefix), (event) => {
            const first = !begun
            begun = true
            return first || event._tag !== "Snapshot"
          })
        }))
    }),
    seenBy: "back again, a watch begins with a snapshot that holds what was missed"
  },
  "an operation hangs for longer than its deadline": {
    spoil: (store) => ({
      ...store,
      get: (key) =>
        Effect.catchTag(store.get(key), "StoreUnavailable", (e) => Effect.delay(Effect.fail(e), "10 seconds"))
    }),
    seenBy: "cut off, reads end in time as unavailable"
  },
  "an unknown outcome is called certain": {
    spoil: (_, backend) => {
      const store = backend.client({ write: () => "UnknownApplied" })
      return {
        ...store,
        create: (key, value) =>
          key.endsWith("cut") || value === "cut"
            ? Effect.mapError(store.create(key, value), (error) =>
              error instanceof OutcomeUnknown ? new StoreUnavailable({ operation: "create", reason: "lost" }) : error)
            : backend.client().create(key, value),
        update: (key, value, revision) => backend.client().update(key, value, revision),
        remove: (key, revision) => backend.client().remove(key, revision)
      }
    },
    seenBy: "what is certainly not applied is not there later"
  },
  "too large a value is cut": {
    spoil: (store) => ({
      ...store,
      create: (key, value) => store.create(key, value.slice(0, store.capabilities.maxValueBytes / 4))
    }),
    seenBy: "a value at the cap is stored whole, one byte more is refused by name"
  }
}

describe("the contract sees", () => {
  for (const [bug, { seenBy, spoil }] of Object.entries(bugs)) {
    it.effect(bug, () =>
      Effect.gen(function*() {
        const failed = yield* failures(spoil)
        assert.include(failed, seenBy)
      }), 60_000)
  }

  it.effect("nothing on a store without a bug", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* failures((store) => store), [])
    }))
})

describe("the checker of one register", () => {
  const written = (expected: string | null, value: string, start: number, end: number) =>
    ({ kind: "written", expected, value, start, end }) as const
  const read = (value: string | null, start: number, end: number) =>
    ({ kind: "read", value, expected: null, start, end }) as const

  it("takes overlapping operations in either order", () => {
    assert.strictEqual(checkRegister([written(null, "1", 0, 9), read(null, 1, 2), read("1", 3, 4)]), "Linearizable")
  })
  it("refuses a read that goes back", () => {
    assert.strictEqual(checkRegister([written(null, "1", 0, 9), read("1", 1, 2), read(null, 3, 4)]), "NotLinearizable")
  })
  it("refuses two writes from one version", () => {
    assert.strictEqual(
      checkRegister([written(null, "1", 0, 1), written("1", "2", 2, 5), written("1", "3", 3, 6)]),
      "NotLinearizable"
    )
  })
  it("refuses a refusal that no other write explains", () => {
    assert.strictEqual(
      checkRegister([written(null, "1", 0, 1), { kind: "refused", expected: "1", value: null, start: 2, end: 3 }]),
      "NotLinearizable"
    )
  })
  it("gives up where the search grows too large, and says so", () => {
    const history = Array.from({ length: 30 }, (_, i) => read(String(i % 2), 0, 100))
    assert.strictEqual(checkRegister(history, "0"), "NotLinearizable")
    assert.strictEqual(checkRegister(history, "0", 10), "Unknown")
  })
})

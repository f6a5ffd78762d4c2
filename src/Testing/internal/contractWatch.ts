/** The contract's cases about watches. `follow` checks at every event what always holds; the cases say what must come. */
import { Effect, Exit, Fiber, Queue, Stream } from "effect"
import { compareRevision } from "../../ControlPlane/ControlStore.ts"
import type { ControlStoreService, Entry, WatchEvent } from "../../ControlPlane/ControlStore.ts"
import type { CaseDefinition } from "../ControlStoreContract.ts"
import { expect, expectEqual, expectFailure, expectValue, follow, valuesOf } from "./contractHarness.ts"

const made = (name: string, run: CaseDefinition["run"]): CaseDefinition => ({ name, run })

const isSnapshot = (event: WatchEvent) => event._tag === "Snapshot"
const isCurrent = (event: WatchEvent) => event._tag === "Current"

const listed = (held: ReadonlyMap<string, Entry>) =>
  valuesOf(Array.from(held.values()).sort((x, y) => x.key < y.key ? -1 : 1))

/** Held is what the store lists. */
const matches = (store: ControlStoreService, prefix: string, held: ReadonlyMap<string, Entry>) =>
  Effect.flatMap(store.list(prefix), (entries) => expectEqual("what the watch holds", listed(held), valuesOf(entries)))

/** Writes, rewrites and removes keys for a while; the same in every run. */
const churn = (store: ControlStoreService, prefix: string, rounds: number): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const revisions = new Map<string, string>()
    for (let i = 0; i < rounds; i++) {
      const key = `${prefix}${(i * 7) % 5}`
      const at = revisions.get(key)
      if (at === undefined) revisions.set(key, yield* store.create(key, `${i}`))
      else if (i % 3 === 0) {
        yield* store.remove(key, at)
        revisions.delete(key)
      } else revisions.set(key, yield* store.update(key, `${i}`, at))
    }
  })

export const watchCases: ReadonlyArray<CaseDefinition> = [
  made("a watch of nothing begins with an empty snapshot", ({ a, elapse, prefix }) =>
    Effect.gen(function*() {
      const watch = yield* follow(a, prefix, elapse)
      yield* watch.until("a snapshot", isSnapshot)
      yield* expectEqual("what is held", listed(watch.held), [])
      yield* expectEqual("the first event", watch.told[0]?._tag, "Snapshot")
    })),

  made("a watch begins with a snapshot of what is there", ({ a, b, elapse, prefix }) =>
    Effect.gen(function*() {
      for (let i = 0; i < 5; i++) yield* b.create(`${prefix}${i}`, `v${i}`)
      const gone = yield* b.create(`${prefix}gone`, "")
      yield* b.remove(`${prefix}gone`, gone)
      const watch = yield* follow(a, prefix, elapse)
      const first = yield* watch.until("a snapshot", isSnapshot)
      yield* expectEqual("the snapshot's size", first._tag === "Snapshot" && first.entries.length, 5)
      yield* expectEqual("the first event", watch.told[0]?._tag, "Snapshot")
      yield* matches(b, prefix, watch.held)
    })),

  made(
    "a snapshot is sorted by key and holds the revisions that compare-and-set takes",
    ({ a, elapse, prefix }) =>
      Effect.gen(function*() {
        for (const key of ["b", "a/2", "a", "B"]) yield* a.create(prefix + key, "1")
        const watch = yield* follow(a, prefix, elapse)
        const first = yield* watch.until("a snapshot", isSnapshot)
        const entries = first._tag === "Snapshot" ? first.entries : []
        yield* expectEqual("the order", entries.map((e) => e.key), entries.map((e) => e.key).toSorted())
        for (const entry of entries) yield* a.update(entry.key, "2", entry.revision)
      })
  ),

  made(
    "a change is told after the snapshot, with the revision that compare-and-set takes",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watch = yield* follow(a, prefix, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        const revision = yield* b.create(`${prefix}k`, "1")
        const put = yield* watch.until("the change", (event) => event._tag === "Put")
        yield* expectEqual("the entry", put._tag === "Put" && { ...put.entry }, {
          key: `${prefix}k`,
          value: "1",
          revision
        })
        yield* a.update(`${prefix}k`, "2", put._tag === "Put" ? put.entry.revision : "")
        yield* watch.untilHeld("the update", (held) => held.get(`${prefix}k`)?.value === "2")
      })
  ),

  made(
    "changes of different keys are told in the order that the store claims: as they happened, or any",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watch = yield* follow(a, prefix, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        const keys = Array.from({ length: 30 }, (_, i) => `${prefix}${(i * 11) % 30}`)
        for (const [i, key] of keys.entries()) yield* (i % 2 === 0 ? a : b).create(key, "")
        yield* watch.untilHeld("all keys", (held) => held.size === 30)
        const order = watch.told.flatMap((event) => event._tag === "Put" ? [event.entry.key] : [])
        if (a.capabilities.watchOrder === "revision") yield* expectEqual("the order", order, keys)
        else yield* expectEqual("the keys", order.toSorted(), keys.toSorted())
      })
  ),

  made(
    "creations, updates and removals by two clients come in the order of their revisions, where the store claims it",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watch = yield* follow(a, prefix, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        yield* Effect.forEach([a, b], (writer, i) => churn(writer, `${prefix}${i}/`, 60), {
          concurrency: "unbounded",
          discard: true
        })
        yield* b.create(`${prefix}last`, "")
        yield* watch.untilHeld("the last key", (held) => held.has(`${prefix}last`))
        if (a.capabilities.watchOrder === "key") return
        let last = 0n
        for (const event of watch.told) {
          if (event._tag === "Snapshot") last = 0n
          if (event._tag !== "Put" && event._tag !== "Removed") continue
          const revision = BigInt(event._tag === "Put" ? event.entry.revision : event.revision)
          yield* expect(revision > last, `a revision above ${last}`, event)
          last = revision
        }
      })
  ),

  made(
    "the revision of a removal is told, and no write succeeds at it",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const key = `${prefix}k`
        const watch = yield* follow(a, prefix, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        const born = yield* b.create(key, "1")
        yield* watch.untilHeld("the key", (held) => held.has(key))
        yield* b.remove(key, born)
        const removed = yield* watch.until("the removal", (event) => event._tag === "Removed")
        const at = removed._tag === "Removed" ? removed.revision : ""
        for (const client of [a, b]) {
          yield* expectFailure("an update at the removal", client.update(key, "2", at), "RevisionConflict")
          yield* expectFailure("a removal at the removal", client.remove(key, at), "RevisionConflict")
        }
        yield* expectValue(b, key, undefined)
        yield* b.create(key, "2")
        yield* expectFailure("an update of the next life", a.update(key, "3", at), "RevisionConflict")
        yield* expectValue(b, key, "2")
      })
  ),

  made(
    "a removal is told, with a revision above the removed one",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const revision = yield* b.create(`${prefix}k`, "1")
        const watch = yield* follow(a, prefix, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        yield* b.remove(`${prefix}k`, revision)
        const removed = yield* watch.until("the removal", (event) => event._tag === "Removed")
        yield* expect(
          removed._tag === "Removed" && removed.key === `${prefix}k` && compareRevision(removed.revision, revision) > 0,
          `the removal of k above ${revision}`,
          removed
        )
      })
  ),

  made("a re-created key comes back, and stays", ({ a, b, elapse, prefix }) =>
    Effect.gen(function*() {
      const watch = yield* follow(a, prefix, elapse)
      yield* watch.until("a snapshot", isSnapshot)
      yield* b.remove(`${prefix}k`, yield* b.create(`${prefix}k`, "1"))
      yield* b.create(`${prefix}k`, "2")
      yield* watch.untilHeld("the second life", (held) => held.get(`${prefix}k`)?.value === "2")
      yield* watch.until("proof that nothing is missing", isCurrent)
      yield* watch.until("a second proof", isCurrent)
      yield* expectEqual("what is held", listed(watch.held), [`${prefix}k=2`])
    })),

  made(
    "nothing outside the prefix is told, also where prefixes touch",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watch = yield* follow(a, `${prefix}ab`, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        for (const key of ["a", "ac", "b", "ab", "abc", "ab/c", "a/b", "zz"]) yield* b.create(prefix + key, "")
        yield* watch.untilHeld("the last of them", (held) => held.has(`${prefix}ab/c`))
        yield* watch.until("proof that nothing is missing", isCurrent)
        yield* expectEqual(
          "what is held",
          Array.from(watch.held.keys()).sort(),
          ["ab", "ab/c", "abc"].map((k) => prefix + k)
        )
      })
  ),

  made("a healthy watch proves again and again that it is current", ({ a, elapse, prefix }) =>
    Effect.gen(function*() {
      const watch = yield* follow(a, prefix, elapse)
      yield* watch.until("a snapshot", isSnapshot)
      for (let i = 0; i < 2; i++) {
        const before = watch.told.length
        yield* elapse("2500 millis")
        yield* watch.until(`proof number ${i}`, isCurrent)
        yield* expect(watch.told.slice(before).every(isCurrent), "nothing but proofs", watch.told.slice(before))
      }
    })),

  made("a busy watch proves that it is current, too", ({ a, b, elapse, prefix }) =>
    Effect.gen(function*() {
      const watch = yield* follow(a, prefix, elapse)
      yield* watch.until("a snapshot", isSnapshot)
      let revision = yield* b.create(`${prefix}k`, "")
      const busy = yield* Effect.forkChild(
        Effect.forever(Effect.gen(function*() {
          revision = yield* b.update(`${prefix}k`, "", revision)
          yield* Effect.sleep("20 millis")
        }))
      )
      for (let i = 0; i < 2; i++) {
        yield* watch.until("a change", (event) => event._tag === "Put")
        yield* watch.until("a proof", isCurrent)
      }
      yield* Fiber.interrupt(busy)
    })),

  made("what a proof of currency follows was told before it", ({ a, b, elapse, prefix }) =>
    Effect.gen(function*() {
      const watch = yield* follow(a, prefix, elapse)
      yield* watch.until("a snapshot", isSnapshot)
      for (let i = 0; i < 3; i++) {
        yield* b.create(`${prefix}${i}`, "")
        // what is told now may have been proven before the write, what comes two seconds later was not
        yield* elapse("2 seconds")
        yield* watch.drain
        yield* watch.until("a later proof", isCurrent)
        yield* expect(watch.held.has(`${prefix}${i}`), `write ${i} before the proof`, watch.told)
      }
    })),

  made(
    "hundreds of quick versions of a key end with the last, and versions only rise",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watch = yield* follow(a, prefix, elapse)
        yield* watch.until("a snapshot", isSnapshot)
        let revision = yield* b.create(`${prefix}k`, "0")
        for (let i = 1; i <= 300; i++) revision = yield* b.update(`${prefix}k`, String(i), revision)
        yield* watch.untilHeld("the last version", (held) => held.get(`${prefix}k`)?.value === "300")
        const versions = watch.told.flatMap((event) => event._tag === "Put" ? [Number(event.entry.value)] : [])
        yield* expectEqual("the versions", versions, versions.toSorted((x, y) => x - y))
      })
  ),

  made(
    "two watches of one client and one of another hold the same",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watches = [
          yield* follow(a, prefix, elapse),
          yield* follow(a, prefix, elapse),
          yield* follow(b, prefix, elapse)
        ]
        yield* churn(b, prefix, 60)
        const last = yield* a.create(`${prefix}last`, "")
        for (const watch of watches) {
          yield* watch.untilHeld("the last key", (held) => held.get(`${prefix}last`)?.revision === last)
          yield* matches(a, prefix, watch.held)
        }
      })
  ),

  made("a watch that starts amid writes has no hole", ({ a, b, elapse, prefix }) =>
    Effect.gen(function*() {
      const writing = yield* Effect.forkChild(churn(b, prefix, 150), { startImmediately: true })
      const watches = []
      for (let i = 0; i < 4; i++) {
        watches.push(yield* follow(a, prefix, elapse))
        yield* elapse("10 millis")
      }
      yield* Fiber.join(writing)
      yield* b.create(`${prefix}last`, "")
      for (const watch of watches) {
        yield* watch.untilHeld("the last key", (held) => held.has(`${prefix}last`))
        yield* matches(a, prefix, watch.held)
      }
    })),

  made(
    "what a watch holds under many writers is what the store lists",
    ({ a, another, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const watch = yield* follow(a, prefix, elapse)
        const writers = [a, b, yield* another]
        yield* Effect.forEach(writers, (writer, i) => churn(writer, `${prefix}${i}/`, 60), {
          concurrency: "unbounded",
          discard: true
        })
        yield* b.create(`${prefix}last`, "")
        yield* watch.untilHeld("the last key", (held) => held.has(`${prefix}last`))
        yield* matches(a, prefix, watch.held)
      })
  ),

  made("a snapshot of a thousand entries is whole", ({ a, elapse, prefix }) =>
    Effect.gen(function*() {
      const keys = Array.from({ length: 1_000 }, (_, i) => `${prefix}${i}`)
      yield* Effect.forEach(keys, (key) => a.create(key, "x".repeat(50)), { concurrency: 50, discard: true })
      const watch = yield* follow(a, prefix, elapse)
      const first = yield* watch.until("a snapshot", isSnapshot)
      yield* expectEqual("its size", first._tag === "Snapshot" && first.entries.length, 1_000)
    })),

  made("a snapshot of more than five megabytes is whole", ({ a, elapse, prefix }) =>
    Effect.gen(function*() {
      const size = Math.min(400_000, a.capabilities.maxValueBytes)
      const count = Math.ceil(5_500_000 / size)
      yield* Effect.forEach(
        Array.from({ length: count }, (_, i) => i),
        (i) => a.create(`${prefix}${i}`, "y".repeat(size)),
        { concurrency: 4, discard: true }
      )
      const watch = yield* follow(a, prefix, elapse)
      const first = yield* watch.until("a snapshot", isSnapshot)
      yield* expectEqual("its size", first._tag === "Snapshot" && first.entries.length, count)
    })),

  made(
    "a consumer that reads late misses nothing that still matters",
    ({ a, b, elapse, prefix }) =>
      Effect.gen(function*() {
        const pull = yield* Stream.toPull(a.watch(prefix))
        const held = new Map<string, Entry>()
        const read = Effect.flatMap(pull, (events) =>
          Effect.sync(() => {
            for (const event of events) {
              if (event._tag === "Snapshot") {
                held.clear()
                for (const entry of event.entries) held.set(entry.key, entry)
              } else if (event._tag === "Put") held.set(event.entry.key, event.entry)
              else if (event._tag === "Removed") held.delete(event.key)
            }
          }))
        const readUntil = Effect.fnUntraced(function*(what: string, done: () => boolean) {
          const reading = yield* Effect.forkChild(
            Effect.whileLoop({ while: () => !done(), body: () => read, step: () => {} }),
            { startImmediately: true }
          )
          for (let i = 0; i < 400 && reading.pollUnsafe() === undefined; i++) yield* elapse("20 millis")
          yield* expect(reading.pollUnsafe() !== undefined, `${what} within eight seconds`, listed(held))
        })
        yield* b.create(`${prefix}first`, "")
        yield* readUntil("the first key", () => held.has(`${prefix}first`))
        yield* churn(b, prefix, 200)
        yield* b.create(`${prefix}last`, "")
        yield* readUntil("the last key", () => held.has(`${prefix}last`))
        yield* matches(a, prefix, held)
      })
  ),

  made("a watch that is left stops at once, and the store goes on", ({ a, elapse, prefix }) =>
    Effect.gen(function*() {
      for (let i = 0; i < 20; i++) {
        const watching = yield* Effect.forkChild(Stream.runDrain(a.watch(prefix)), { startImmediately: true })
        if (i % 2 === 0) yield* elapse("30 millis")
        yield* Effect.sync(() => watching.interruptUnsafe())
        yield* elapse("50 millis")
        if (watching.pollUnsafe() === undefined) yield* elapse("1 second")
        yield* expect(watching.pollUnsafe() !== undefined, "the watch to end within a second", "it runs")
      }
      yield* a.create(`${prefix}k`, "1")
    })),

  made("each reader of a watch gets a beginning of its own", ({ a, elapse, prefix }) =>
    Effect.gen(function*() {
      yield* a.create(`${prefix}k`, "1")
      const watch = a.watch(prefix)
      const first = yield* Effect.forkChild(Stream.runCollect(Stream.take(watch, 1)))
      const second = yield* Effect.forkChild(Stream.runCollect(Stream.take(watch, 1)))
      for (const reader of [first, second]) {
        for (let i = 0; i < 400 && reader.pollUnsafe() === undefined; i++) yield* elapse("20 millis")
        const exit = reader.pollUnsafe()
        yield* expect(
          exit !== undefined && Exit.isSuccess(exit) && exit.value[0]?._tag === "Snapshot" &&
            exit.value[0].entries.length === 1,
          "a snapshot with the key",
          exit
        )
      }
    })),

  made(
    "a watch that ends with its client's scope leaves nothing running",
    ({ another, elapse, prefix }) =>
      Effect.gen(function*() {
        const events = yield* Queue.unbounded<WatchEvent>()
        yield* Effect.scoped(Effect.gen(function*() {
          const brief = yield* another
          yield* brief.watch(prefix).pipe(Stream.runForEach((event) => Queue.offer(events, event)), Effect.forkScoped)
          for (let i = 0; i < 400 && Queue.sizeUnsafe(events) === 0; i++) yield* elapse("20 millis")
        }))
        yield* Queue.clear(events)
        yield* elapse("3 seconds")
        yield* expectEqual("events after the end", Queue.sizeUnsafe(events), 0)
      })
  )
]

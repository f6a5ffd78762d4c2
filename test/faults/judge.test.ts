/** The judge of this suite, judged: stores that lie on purpose are caught, an honest one passes. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Stream } from "effect"
import { StoreUnavailable } from "../../src/Actor/errors.ts"
import type { ControlStoreService } from "../../src/ControlPlane/ControlStore.ts"
import * as MemoryBackend from "../../src/ControlPlane/ControlStoreMemory.ts"
import { trial } from "./support/trial.ts"

const requestTimeout = 1_000

/** A trial on a store in memory that is cut for a second, and that misbehaves as `lie` says once it was cut. */
const judged = (
  lie: (
    honest: ControlStoreService,
    backend: MemoryBackend.MemoryBackend,
    broken: () => boolean
  ) => ControlStoreService,
  after: (backend: MemoryBackend.MemoryBackend) => void = () => undefined
) =>
  Effect.gen(function*() {
    const backend = yield* MemoryBackend.make({ requestTimeout })
    let broken = false
    let reachable = true
    const exit = yield* Effect.exit(trial({
      client: Effect.sync(() => lie(backend.client({ reachable: () => reachable }), backend, () => broken)),
      judge: Effect.sync(() => backend.client()),
      requestTimeout,
      fault: Effect.gen(function*() {
        broken = true
        reachable = false
        yield* Effect.sleep("1500 millis")
        after(backend)
        reachable = true
      })
    }))
    return Exit.isSuccess(exit) ? "passed" : String(Cause.squash(exit.cause))
  })

describe.concurrent("the judge of the failure suite", () => {
  it.live("lets an honest store pass", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* judged((honest) => honest), "passed")
    }).pipe(Effect.scoped))

  it.live("catches a store that forgets what it acknowledged", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest) => honest, (backend) => backend.forget(5))
      assert.include(verdict, "acknowledged, and not there")
    }).pipe(Effect.scoped))

  it.live("catches one that applies what it says is certainly not applied", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest, backend, broken) => ({
        ...honest,
        create: (key, value) =>
          honest.create(key, value).pipe(
            Effect.tapError(() => broken() ? backend.client().create(key, value) : Effect.void)
          )
      }))
      assert.include(verdict, "certainly not applied, and there")
    }).pipe(Effect.scoped))

  it.live("catches one that removes what it says is certainly not removed", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest, _, broken) => ({
        ...honest,
        remove: (key, revision) =>
          Effect.andThen(
            honest.remove(key, revision),
            () => broken() ? Effect.fail(new StoreUnavailable({ operation: "remove", reason: "planted" })) : Effect.void
          )
      }))
      assert.include(verdict, "certainly not applied, and done")
    }).pipe(Effect.scoped))

  it.live("catches one that brings back what was removed, however much was written since", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest, backend, broken) => ({
        ...honest,
        remove: (key, revision) =>
          Effect.andThen(
            honest.remove(key, revision),
            broken() ? Effect.ignore(backend.client().create(key, "updated")) : Effect.void
          )
      }))
      assert.include(verdict, "acknowledged, and not there")
    }).pipe(Effect.scoped))

  it.live("catches one that reports a write as a conflict with itself", () =>
    Effect.gen(function*() {
      let repeated = false
      const verdict = yield* judged((honest, _, broken) => ({
        ...honest,
        create: (key, value) =>
          Effect.tap(honest.create(key, value), () => {
            if (!broken() || repeated) return Effect.void
            repeated = true
            return honest.create(key, value)
          })
      }))
      assert.include(verdict, "conflicts with nothing")
    }).pipe(Effect.scoped))

  it.live("catches an operation that outlives its deadline", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest, _, broken) => ({
        ...honest,
        create: (key, value) =>
          Effect.tapError(honest.create(key, value), () => broken() ? Effect.sleep("2500 millis") : Effect.void)
      }))
      assert.include(verdict, "an operation outlived its deadline")
    }).pipe(Effect.scoped))

  it.live("catches a watch that goes deaf", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest, _, broken) => ({
        ...honest,
        watch: (prefix) => Stream.filter(honest.watch(prefix), (event) => !broken() || event._tag === "Current")
      }))
      assert.include(verdict, "the watch to know a later write")
    }).pipe(Effect.scoped))

  it.live("catches a watch that misses one change for good", () =>
    Effect.gen(function*() {
      const verdict = yield* judged((honest) => ({
        ...honest,
        watch: (prefix) =>
          Stream.map(honest.watch(prefix), (event) =>
            event._tag === "Snapshot"
              ? { ...event, entries: event.entries.filter(({ key }) => !key.endsWith("/one/7")) }
              : event)
      }))
      assert.include(verdict, "the watch holds what the store holds")
    }).pipe(Effect.scoped))

  it.live("catches a watch that says nothing for too long", () =>
    Effect.gen(function*() {
      // Mute from its loss on, which it swallows. What it had to tell before is told, and nothing is written until it speaks
      // again, so that its silence is all that can be held against it.
      let until = Infinity
      const verdict = yield* judged((honest, _, broken) => ({
        ...honest,
        create: (key, value) =>
          broken() && performance.now() < until
            ? Effect.fail(new StoreUnavailable({ operation: "create", reason: "planted" }))
            : honest.create(key, value),
        watch: (prefix) =>
          Stream.filter(honest.watch(prefix), (event) => {
            if (event._tag === "Lost" && until === Infinity) until = performance.now() + 6_500
            return until === Infinity || performance.now() > until
          })
      }))
      assert.include(verdict, "the watch was silent")
    }).pipe(Effect.scoped))
})

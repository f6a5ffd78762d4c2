/**
 * What the cases of the store's contract are written with: expectations that fail with a sentence, a watch that is read step by
 * step, and waiting in whichever time the store lives in.
 */
import { Clock, Data, Duration, Effect, Exit, Option, Queue, Stream } from "effect"
import type { Scope } from "effect"
import type { ControlStoreService, Entry, WatchEvent } from "../../ControlPlane/ControlStore.ts"

/** The store does not keep the contract: what was expected, and what it did. */
export class ContractViolation extends Data.TaggedError("ContractViolation")<{
  readonly expected: string
  readonly actual: string
}> {
  override get message() {
    return `expected ${this.expected}, got ${this.actual}`
  }
}

const show = (value: unknown): string => {
  const text = value instanceof Error
    ? `${value.name}: ${value.message}`
    : JSON.stringify(value, (_, part: unknown) => typeof part === "bigint" ? `${part}n` : part) ?? String(value)
  return text.length > 600 ? `${text.slice(0, 600)}... (${text.length} characters)` : text
}

export const violation = (expected: string, actual: unknown) =>
  Effect.fail(new ContractViolation({ expected, actual: show(actual) }))

export const expect = (condition: boolean, expected: string, actual: unknown): Effect.Effect<void, ContractViolation> =>
  condition ? Effect.void : violation(expected, actual)

export const expectEqual = (what: string, actual: unknown, expected: unknown): Effect.Effect<void, ContractViolation> =>
  JSON.stringify(actual) === JSON.stringify(expected)
    ? Effect.void
    : violation(`${what} to be ${show(expected)}`, actual)

/** The effect fails with one of these tags. Returns the error. */
export const expectFailure = <A, E extends { readonly _tag: string }, R>(
  what: string,
  effect: Effect.Effect<A, E, R>,
  ...tags: ReadonlyArray<E["_tag"]>
): Effect.Effect<E, ContractViolation, R> =>
  Effect.flatMap(Effect.exit(effect), (exit) => {
    if (Exit.isSuccess(exit)) return violation(`${what} to fail with ${tags.join(" or ")}`, exit.value)
    const error = Exit.findErrorOption(exit)
    return Option.isSome(error) && tags.includes(error.value._tag)
      ? Effect.succeed(error.value)
      : violation(`${what} to fail with ${tags.join(" or ")}`, Option.isSome(error) ? error.value : exit.cause)
  })

export const expectValue = (store: ControlStoreService, key: string, value: string | undefined) =>
  Effect.flatMap(
    store.get(key),
    (found) => expectEqual(`the value of ${key}`, Option.isSome(found) ? found.value.value : undefined, value)
  )

export const valuesOf = (entries: ReadonlyArray<Entry>): ReadonlyArray<string> =>
  entries.map((entry) => `${entry.key}=${entry.value}`)

/** A watch as its consumer holds it: the entries so far, and every event in order. */
export interface Follower {
  /** Takes events until one satisfies the test; returns it. Fails after ten seconds of the store's time. */
  readonly until: (what: string, test: (event: WatchEvent) => boolean) => Effect.Effect<WatchEvent, ContractViolation>
  /** Takes events until what is held satisfies the test. */
  readonly untilHeld: (
    what: string,
    test: (held: ReadonlyMap<string, Entry>) => boolean
  ) => Effect.Effect<void, ContractViolation>
  /** Takes all that has been told by now. */
  readonly drain: Effect.Effect<void, ContractViolation>
  /** everything told so far and taken by `until*` */
  readonly told: ReadonlyArray<WatchEvent>
  readonly held: ReadonlyMap<string, Entry>
}

/** Lets time pass, for the store and for whoever waits. */
export type Elapse = (duration: Duration.Input) => Effect.Effect<void>

const patienceMillis = 10_000

/** Follows a watch and checks what holds at every event: a snapshot first and after each loss, revisions of a key only rise. */
export const follow = (
  store: ControlStoreService,
  prefix: string,
  elapse: Elapse
): Effect.Effect<Follower, never, Scope.Scope> =>
  Effect.gen(function*() {
    const events = yield* Queue.unbounded<WatchEvent>()
    yield* store.watch(prefix).pipe(
      Stream.runForEach((event) => Queue.offer(events, event)),
      Effect.forkScoped({ startImmediately: true })
    )
    const told: Array<WatchEvent> = []
    const held = new Map<string, Entry>()
    const newest = new Map<string, bigint>()
    let sighted = false

    const take = (event: WatchEvent): Effect.Effect<void, ContractViolation> => {
      told.push(event)
      if (event._tag === "Lost") {
        sighted = false
        return Effect.void
      }
      if (event._tag === "Snapshot") {
        sighted = true
        held.clear()
        newest.clear()
        for (const entry of event.entries) {
          held.set(entry.key, entry)
          newest.set(entry.key, BigInt(entry.revision))
        }
        return expect(
          event.entries.every((entry) => entry.key.startsWith(prefix)),
          `a snapshot of ${prefix} alone`,
          event.entries.map((entry) => entry.key)
        )
      }
      if (!sighted) return violation("a snapshot before anything else", told)
      if (event._tag === "Current") return Effect.void
      const [key, revision] = event._tag === "Put"
        ? [event.entry.key, event.entry.revision]
        : [event.key, event.revision]
      const before = newest.get(key) ?? -1n
      if (!key.startsWith(prefix)) return violation(`changes under ${prefix} alone`, event)
      if (BigInt(revision) < before) return violation(`revisions of ${key} to rise above ${before}`, event)
      newest.set(key, BigInt(revision))
      if (event._tag === "Put") held.set(key, event.entry)
      else held.delete(key)
      return Effect.void
    }

    const takeUntil = (what: string, done: (event: WatchEvent) => boolean) =>
      Effect.gen(function*() {
        let waited = 0
        while (waited <= patienceMillis) {
          const next = yield* Queue.poll(events)
          if (Option.isSome(next)) {
            yield* take(next.value)
            if (done(next.value)) return next.value
          } else {
            yield* elapse("20 millis")
            waited += 20
          }
        }
        return yield* violation(`${what} within ${patienceMillis} ms`, told.slice(-8))
      })

    return {
      drain: Effect.flatMap(Queue.clear(events), (all) => Effect.forEach(all, take, { discard: true })),
      until: takeUntil,
      untilHeld: (what, test) =>
        Effect.suspend(() => sighted && test(held) ? Effect.void : takeUntil(what, () => sighted && test(held))),
      told,
      held
    }
  })

/** Runs an effect while time passes, until it is done; for what ends by a deadline. Returns how long it took. */
export const timed = <A, E, R>(elapse: Elapse, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const start = yield* Clock.currentTimeMillis
    const fiber = yield* Effect.forkChild(Effect.exit(effect), { startImmediately: true })
    let exit = fiber.pollUnsafe()
    while (exit === undefined) {
      yield* elapse("20 millis")
      exit = fiber.pollUnsafe()
    }
    const took = (yield* Clock.currentTimeMillis) - start
    return { exit: yield* exit, took }
  })

/**
 * One trial of a control store: writers and a watch are at work, something breaks and is mended, and then it is judged what
 * each of them was told against what the store holds. Two writers create keys; a third leads each of its keys through a whole life:
 * created, updated, removed.
 *
 * Judged is: every operation ends by its deadline; what was acknowledged is there, or gone if it was a removal; what was said to be
 * certainly not applied is not; the watch held what the store holds, was never silent for long without saying that it is lost, and was back soon.
 */
import { assert } from "@effect/vitest"
import { Effect, Exit, Fiber, Logger, Schedule, type Scope, Stream } from "effect"
import type { ControlStoreService, WatchEvent } from "../../../src/ControlPlane/ControlStore.ts"

export interface Subject {
  /** a client of the store, as the writers and the watch use it */
  readonly client: Effect.Effect<ControlStoreService, unknown, Scope.Scope>
  /** a client on a path that nothing breaks, for the last word; default as `client` */
  readonly judge?: Effect.Effect<ControlStoreService, unknown, Scope.Scope> | undefined
  /** milliseconds of each operation's deadline */
  readonly requestTimeout: number
  /** Breaks something and mends it again. Ends when the store should work as before. */
  readonly fault: Effect.Effect<void, unknown, Scope.Scope>
  /** milliseconds from the end of the fault within which writes must go through again; default 8 s */
  readonly recovery?: number | undefined
  /** may the store forget what it acknowledged, if that is told? default no */
  readonly mayForget?: boolean | undefined
  /** must the fault be seen at all, as an error or a lost watch? default yes */
  readonly unseen?: boolean | undefined
}

export interface Outcome {
  readonly acknowledged: number
  readonly refused: number
  readonly unknown: number
  /** acknowledged and not there, or not as it was acknowledged */
  readonly lost: ReadonlyArray<string>
  /** milliseconds: longest operation, longest time without a successful write, longest silence of the watch */
  readonly slowest: number
  readonly outage: number
  readonly silence: number
  readonly reports: ReadonlyArray<string>
}

/** no watch may be blind for longer without saying so, or after the store is back; milliseconds */
const blindLimit = 5_000
/** what a loaded machine may add to a deadline; milliseconds */
const slack = 1_000
/** words with which a backend tells that the store has forgotten something */
export const forgetful = /lost acknowledged|no longer knows|fell from|made anew|replaced by|another value at|is back at/

const now = () => Number(process.hrtime.bigint()) / 1_000_000

interface Said {
  readonly at: number
  readonly event: WatchEvent
}

/** What a consumer holds after those events, if it does as the watch says. */
const heldAfter = (said: ReadonlyArray<Said>): ReadonlyMap<string, string> => {
  const held = new Map<string, string>()
  for (const { event } of said) {
    if (event._tag === "Snapshot") {
      held.clear()
      for (const { key, revision } of event.entries) held.set(key, revision)
    } else if (event._tag === "Put") held.set(event.entry.key, event.entry.revision)
    else if (event._tag === "Removed") held.delete(event.key)
  }
  return held
}

/** The longest time in which a watch that did not say that it is lost proved nothing. */
const longestSilence = (said: ReadonlyArray<Said>, end: number): number => {
  let longest = 0
  let since: number | undefined
  for (const { at, event } of said) {
    if (since !== undefined) longest = Math.max(longest, at - since)
    if (event._tag === "Lost") since = undefined
    else if (event._tag === "Current" || event._tag === "Snapshot") since = at
  }
  return since === undefined ? longest : Math.max(longest, end - since)
}

/** How long after that moment the watch still was lost. */
const blindAfter = (said: ReadonlyArray<Said>, moment: number): number => {
  let lost = false
  for (const { at, event } of said) {
    if (at > moment && !lost) return 0
    if (event._tag === "Lost") lost = true
    if (event._tag === "Snapshot") {
      lost = false
      if (at > moment) return at - moment
    }
  }
  return lost ? Infinity : 0
}

const until = (what: string, limit: number, condition: () => boolean): Effect.Effect<void> =>
  Effect.gen(function*() {
    const begun = now()
    while (!condition()) {
      assert.isBelow(now() - begun, limit, what)
      yield* Effect.sleep("20 millis")
    }
  })

/** Waits until it is so, at most ten seconds. */
export const eventually = (what: string, condition: () => boolean): Effect.Effect<void> =>
  until(what, 10_000, condition)

/** Tries again until it succeeds, at most fifteen seconds. */
export const persist = <A, E, R>(effect: Effect.Effect<A, E, R>) => patiently(effect)

/** Follows all of a store: what a consumer of the watch holds now, and what was said of losses, by it or in the log. */
export const observe = (store: ControlStoreService) =>
  Effect.gen(function*() {
    const said: Array<Said> = []
    const reasons: Array<string> = []
    yield* store.watch("").pipe(
      Stream.runForEach((event) =>
        Effect.sync(() => {
          if (event._tag === "Lost") reasons.push(event.reason)
          said.push({ at: now(), event })
        })
      ),
      Effect.provide(Logger.layer([Logger.make(({ message }) => void reasons.push(String(message)))])),
      Effect.forkScoped({ startImmediately: true })
    )
    return { reasons: () => reasons, held: () => heldAfter(said) }
  })

/** The last word may take its time: replicas go on finding their places for seconds. */
const patiently = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: "15 seconds" })))

let trials = 0

/** Runs the trial and judges it; returns what it has seen. */
export const trial = (subject: Subject): Effect.Effect<Outcome, unknown, Scope.Scope> =>
  Effect.gen(function*() {
    const prefix = `trial-${trials += 1}/`
    const reports: Array<string> = []
    const collect = Logger.layer([Logger.make(({ message }) => void reports.push(String(message)))])
    const writer = yield* subject.client.pipe(Effect.provide(collect))
    const watcher = yield* subject.client.pipe(Effect.provide(collect))

    const said: Array<Said> = []
    yield* watcher.watch(prefix).pipe(
      Stream.runForEach((event) =>
        Effect.sync(() => {
          if (event._tag === "Lost") reports.push(event.reason)
          said.push({ at: now(), event })
        })
      ),
      Effect.provide(collect),
      Effect.forkScoped({ startImmediately: true })
    )
    yield* until("the first snapshot", blindLimit, () => said[0]?.event._tag === "Snapshot")

    // ---- work: each writer creates keys of its own, one after the other
    const acknowledged = new Map<string, number>()
    const refused = new Set<string>()
    const unknown = new Set<string>()
    const wrong: Array<string> = []
    let slowest = 0
    let outage = 0
    let lastSuccess = now()
    let working = true
    const work = (name: string) =>
      Effect.gen(function*() {
        for (let i = 0; working; i++) {
          const key = `${prefix}${name}/${i}`
          const begun = now()
          const exit = yield* Effect.exit(writer.create(key, key))
          const ended = now()
          slowest = Math.max(slowest, ended - begun)
          if (Exit.isSuccess(exit)) {
            outage = Math.max(outage, ended - lastSuccess)
            lastSuccess = ended
            acknowledged.set(key, ended)
          } else {
            const error = yield* Effect.flip(exit)
            if (error._tag === "StoreUnavailable") refused.add(key)
            else if (error._tag === "OutcomeUnknown") unknown.add(key)
            else wrong.push(`${key}: ${error._tag}`)
          }
          yield* Effect.sleep(Exit.isSuccess(exit) ? "4 millis" : "50 millis")
        }
      })
    /** What may become of a key of the third writer: `undefined` is its absence. `refused`: what certainly may not. */
    const lives = new Map<
      string,
      { readonly may: ReadonlyArray<string | undefined>; readonly refused?: string | undefined }
    >()
    /** what a store that may forget answered to who relied on what it had acknowledged */
    const forgotten: Array<string> = []
    const live = Effect.gen(function*() {
      for (let i = 0; working; i++) {
        const key = `${prefix}life/${i}`
        let revision = ""
        let value: string | undefined
        const steps = [
          ["created", Effect.suspend(() => writer.create(key, "created"))],
          ["updated", Effect.suspend(() => writer.update(key, "updated", revision))],
          [undefined, Effect.suspend(() => Effect.as(writer.remove(key, revision), revision))]
        ] as const
        for (const [next, step] of steps) {
          const begun = now()
          const exit = yield* Effect.exit(step)
          slowest = Math.max(slowest, now() - begun)
          if (Exit.isSuccess(exit)) {
            revision = exit.value
            value = next
            lives.set(key, { may: [value] })
            yield* Effect.sleep("4 millis")
            continue
          }
          const error = yield* Effect.flip(exit)
          if (error._tag === "OutcomeUnknown") lives.set(key, { may: [value, next] })
          else lives.set(key, { may: [value], refused: next ?? "removed" })
          if (subject.mayForget === true && error._tag === "RevisionConflict" && next !== "created") {
            forgotten.push(`${key} was not ${value}`)
          } else if (error._tag !== "OutcomeUnknown" && error._tag !== "StoreUnavailable") {
            wrong.push(`${key} to be ${next ?? "removed"}: ${error._tag}`)
          }
          yield* Effect.sleep("50 millis")
          break
        }
      }
    })
    const workers = yield* Effect.forEach(
      [work("one"), work("two"), live],
      (one) => Effect.forkChild(Effect.provide(one, collect))
    )
    yield* until("fifty writes before the fault", 15_000, () => acknowledged.size >= 50)

    const broken = now()
    yield* subject.fault
    const mended = now()
    const before = acknowledged.size
    yield* until(
      `writes within ${subject.recovery ?? 8_000} ms after the fault`,
      subject.recovery ?? 8_000,
      () => acknowledged.size > before
    )
    const back = now()
    yield* until("fifty more writes", 15_000, () => acknowledged.size >= before + 50)
    working = false
    yield* Effect.forEach(workers, Fiber.join, { discard: true })

    // ---- judgement
    const judge = yield* (subject.judge ?? subject.client).pipe(Effect.provide(collect))
    const mark = (name: string) =>
      Effect.gen(function*() {
        const key = `${prefix}${name}`
        yield* patiently(judge.create(key, "").pipe(Effect.catchTag("RevisionConflict", () => Effect.void)))
        const known = () => heldAfter(said).has(key) && said.at(-1)!.event._tag !== "Lost"
        const begun = now()
        while (!known() && now() - begun < blindLimit) yield* Effect.sleep("20 millis")
        if (known()) return true
        if (subject.mayForget !== true) assert.fail(`the watch to know a later write within five seconds: ${key}`)
        // a write that its store has forgotten tells nothing of the watch; it counts as lost, below
        const kept = yield* patiently(judge.list(key))
        assert.deepStrictEqual(
          kept.map(({ key }) => key),
          [],
          "there, and the watch does not know it within five seconds"
        )
        acknowledged.set(key, begun)
        return false
      })
    if (!(yield* mark("marker"))) {
      assert.isTrue(yield* mark("second"), "the watch to know a later write within five seconds")
    }
    const blind = blindAfter(said, back)
    let values = new Map<string, string>()
    const look = Effect.map(
      patiently(judge.list(prefix)),
      (entries) => {
        values = new Map(entries.map(({ key, value }) => [key, value]))
        return new Map(entries.map(({ key, revision }) => [key, revision]))
      }
    )
    let there = yield* look
    // a watch on a replica that went astray has as long to find out as one that is blind
    const judgedAt = now()
    const isTrue = () => {
      const held = heldAfter(said)
      return held.size === there.size && Array.from(there).every(([key, revision]) => held.get(key) === revision)
    }
    while (!isTrue() && now() - judgedAt < blindLimit) {
      yield* Effect.sleep("250 millis")
      there = yield* look
    }
    const astray = Array.from(lives).filter(([key, { may }]) => !may.includes(values.get(key)))
    const applied = astray.filter(([key, { refused }]) => refused === (values.get(key) ?? "removed"))
    const lost = [
      ...forgotten,
      ...Array.from(acknowledged.keys()).filter((key) => !there.has(key)),
      ...astray.filter((one) => !applied.includes(one)).map(([key]) => `${key} is ${values.get(key) ?? "removed"}`)
    ]
    const silence = longestSilence(said, now())
    const outcome: Outcome = {
      acknowledged: acknowledged.size,
      refused: refused.size,
      unknown: unknown.size,
      lost,
      slowest: Math.round(slowest),
      outage: Math.round(outage),
      silence: Math.round(silence),
      reports
    }
    yield* Effect.logInfo(
      `${outcome.acknowledged} acknowledged, ${outcome.refused} refused, ${outcome.unknown} unknown, ${lost.length} lost; `
        + `slowest ${outcome.slowest} ms, outage ${outcome.outage} ms, silence ${outcome.silence} ms; fault took ${
          Math.round(mended - broken)
        } ms`
    )

    assert.deepStrictEqual(wrong, [], "a key that nobody else writes conflicts with nothing")
    assert.isAtMost(slowest, subject.requestTimeout + slack, "an operation outlived its deadline")
    assert.deepStrictEqual(Array.from(refused).filter((key) => there.has(key)), [], "certainly not applied, and there")
    assert.deepStrictEqual(
      applied.map(([key, { refused }]) => `${key} ${refused}`),
      [],
      "certainly not applied, and done"
    )
    if (subject.mayForget === true) {
      if (lost.length > 0) {
        assert.isTrue(reports.some((text) => forgetful.test(text)), `${lost.length} lost, not a word`)
      }
    } else assert.deepStrictEqual(lost, [], "acknowledged, and not there")
    assert.deepStrictEqual(
      Array.from(heldAfter(said)).sort(),
      Array.from(there).sort(),
      "the watch holds what the store holds"
    )
    assert.isAtMost(silence, blindLimit, "the watch was silent and did not say that it is lost")
    assert.isAtMost(blind, blindLimit, "the watch was blind after the store was back")
    if (subject.unseen !== true) {
      assert.isTrue(
        refused.size + unknown.size > 0 || outage > 500 || said.some(({ event }) => event._tag === "Lost"),
        "the fault had an effect"
      )
    }
    return outcome
  })

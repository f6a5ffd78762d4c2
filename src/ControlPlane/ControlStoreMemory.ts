/**
 * The control store in this process: the embedded default, and the store of simulations. One *backend* is the truth; each
 * *client* of it is a view with a path of its own, which can be cut, slow, silent, stale or deaf. Nothing survives the process.
 *
 * Responsible for: compare-and-set, watches in order, and lying exactly as real stores do when a client's faults say so.
 * Not for: choosing faults at random (`effect-troupe/testing`).
 * Invariant: without faults all is linearisable, each watch sees every change once and in order, and time is the `Clock`'s.
 */
import { Clock, Deferred, Duration, Effect, Exit, Option, Queue, Schedule, Stream } from "effect"
import { OutcomeUnknown, RevisionConflict, StoreUnavailable } from "../Actor/errors.ts"
import type { Capabilities, ControlStoreService, Entry, WatchEvent } from "./ControlStore.ts"
import { checkEntry, checkKey, checkPrefix, defaultMaxValueBytes } from "./internal/storeData.ts"
import { readWithin, writeWithin } from "./internal/storeDeadline.ts"

/** What happens to one write besides its being applied. `Unknown*`: the answer is lost at once. */
export type WriteFate = "Normal" | "UnknownApplied" | "UnknownNotApplied"

/** What happens to one change on its way to one watch. A missed one is repaired by the next relist, at most 10 s later. */
export type WatchFate = "Deliver" | "Miss" | "Twice"

/**
 * The faults of one client, asked anew at each use, so that a test owns them as plain variables. All optional; without any the
 * client is perfect.
 */
export interface Faults {
  /** false: the client knows that it has no connection; everything fails at once, watches are `Lost` */
  readonly reachable?: (() => boolean) | undefined
  /** true: packets vanish; reads and writes run into their deadline, watches notice after three seconds */
  readonly silent?: (() => boolean) | undefined
  /** milliseconds until a request takes effect, and until its answer is back */
  readonly delay?: (() => { readonly request: number; readonly reply: number }) | undefined
  readonly write?: ((operation: "create" | "update" | "remove", key: string) => WriteFate) | undefined
  /** how many writes of the whole backend `get` and `list` lag behind */
  readonly staleBy?: (() => number) | undefined
  readonly watch?: ((key: string) => WatchFate) | undefined
  /** milliseconds that changes take to a watch; `Current` is told only when none is under way */
  readonly watchDelay?: (() => number) | undefined
}

export interface Options {
  /** bytes of UTF-8; default 512 KiB */
  readonly maxValueBytes?: number | undefined
  /** deadline of each operation of each client; default 5 s */
  readonly requestTimeout?: Duration.Input | undefined
  /** what the store says of itself; default: memory, not durable, no failover time */
  readonly capabilities?: Partial<Capabilities> | undefined
}

export interface MemoryBackend {
  /** A view with faults of its own. Views share the data and nothing else. */
  readonly client: (faults?: Faults) => ControlStoreService
  /** All entries as they truly are, sorted by key. */
  readonly entries: () => ReadonlyArray<Entry>
  /** revision of the last write, 0 before the first */
  readonly revision: () => number
  /**
   * Takes back the last `count` writes that it acknowledged, and their revisions are given again: what a replicated store that
   * acknowledges before it syncs does at a bad moment. Watches start over with a snapshot. Returns how many it took back.
   */
  readonly forget: (count: number) => number
  /** Empties the store as if it had been replaced by a new one: revisions start at 1 again. */
  readonly wipe: () => void
}

interface Commit {
  readonly key: string
  readonly before: Entry | undefined
  readonly after: Entry | undefined
  readonly revision: number
}

interface Subscriber {
  readonly committed: (commit: Commit) => void
  readonly rewritten: (reason: string) => void
}

/** writes that can be taken back or lagged behind */
const historyLimit = 1_000
/** events that wait for one slow consumer before it is told to start over */
const watchLimit = 10_000
/** watches prove that they are current each second, and notice silence after three */
const heartbeat = Duration.seconds(1)
const silenceLimit = 3
/** seconds after which a watch that missed something finds out */
const relistAfter = 10

const byKey = (a: Entry, b: Entry): number => a.key < b.key ? -1 : a.key > b.key ? 1 : 0

/** A new, empty store. */
export const make = (options: Options = {}): Effect.Effect<MemoryBackend> =>
  Effect.sync(() => {
    const capabilities: Capabilities = {
      backend: "memory",
      durable: false,
      maxValueBytes: options.maxValueBytes ?? defaultMaxValueBytes,
      failoverMillis: 0,
      watchOrder: "revision",
      ...options.capabilities
    }
    const deadline = Duration.fromInputUnsafe(options.requestTimeout ?? "5 seconds")
    const entries = new Map<string, Entry>()
    const history: Array<Commit> = []
    const subscribers = new Set<Subscriber>()
    let revision = 0

    const commit = (key: string, value: string | undefined): string => {
      revision += 1
      const before = entries.get(key)
      const after = value === undefined ? undefined : { key, value, revision: String(revision) }
      if (after === undefined) entries.delete(key)
      else entries.set(key, after)
      const done: Commit = { key, before, after, revision }
      history.push(done)
      if (history.length > historyLimit) history.shift()
      for (const subscriber of subscribers) subscriber.committed(done)
      return String(revision)
    }

    const undo = (target: Map<string, Entry>, taken: Commit): void => {
      if (taken.before === undefined) target.delete(taken.key)
      else target.set(taken.key, taken.before)
    }

    /** the entries as they were `lag` writes ago */
    const stateBehind = (lag: number): ReadonlyMap<string, Entry> => {
      if (lag <= 0) return entries
      const past = new Map(entries)
      for (let i = history.length - 1; i >= Math.max(0, history.length - lag); i--) undo(past, history[i]!)
      return past
    }

    const under = (state: ReadonlyMap<string, Entry>, prefix: string): ReadonlyArray<Entry> =>
      Array.from(state.values()).filter((entry) => entry.key.startsWith(prefix)).sort(byKey)

    const client = (faults: Faults = {}): ControlStoreService => {
      const reachable = () => faults.reachable?.() ?? true
      const silent = () => faults.silent?.() ?? false
      const unavailable = (operation: string) =>
        new StoreUnavailable({ operation, reason: "the store is not reachable" })

      const read = <A>(operation: string, answer: () => A): Effect.Effect<A, StoreUnavailable> =>
        Effect.suspend(() => {
          if (!reachable()) return Effect.fail(unavailable(operation))
          const { request, reply } = faults.delay?.() ?? { request: 0, reply: 0 }
          if (!silent() && request === 0 && reply === 0) return Effect.sync(answer)
          return Effect.sleep(request).pipe(
            Effect.andThen(Effect.suspend(() => silent() ? Effect.never : Effect.sync(answer))),
            Effect.tap(() => Effect.sleep(reply)),
            Effect.tap(() => silent() || !reachable() ? Effect.never : Effect.void),
            readWithin(operation, deadline)
          )
        })

      const write = <A>(
        name: "create" | "update" | "remove",
        key: string,
        apply: () => Exit.Exit<A, RevisionConflict>
      ): Effect.Effect<A, RevisionConflict | StoreUnavailable | OutcomeUnknown> =>
        Effect.suspend((): Effect.Effect<A, RevisionConflict | StoreUnavailable | OutcomeUnknown> => {
          const operation = `${name} ${key}`
          if (!reachable()) return Effect.fail(unavailable(operation))
          const lost = () => Effect.fail(new OutcomeUnknown({ operation, reason: "the answer was lost" }))
          const { request, reply } = faults.delay?.() ?? { request: 0, reply: 0 }
          const fate = faults.write?.(name, key) ?? "Normal"
          if (!silent() && request === 0 && reply === 0) {
            if (fate === "UnknownNotApplied") return lost()
            const exit = apply()
            return fate === "UnknownApplied" ? lost() : exit
          }
          // The request is on its way by itself: it takes effect even if its caller has given up waiting by then.
          const arrived = Deferred.makeUnsafe<A, RevisionConflict>()
          const travel = Effect.sleep(request).pipe(
            Effect.andThen(Effect.sync(() => {
              if (fate !== "UnknownNotApplied" && reachable() && !silent()) Deferred.doneUnsafe(arrived, apply())
            }))
          )
          return Effect.forkDetach(travel, { startImmediately: true }).pipe(
            Effect.andThen(Effect.exit(Deferred.await(arrived))),
            Effect.tap(() => Effect.sleep(reply)),
            Effect.flatMap((exit) => fate !== "Normal" || silent() || !reachable() ? Effect.never : exit),
            writeWithin(operation, deadline)
          )
        })

      const conflict = (key: string) => {
        const current = entries.get(key)?.revision
        return Exit.fail(new RevisionConflict(current === undefined ? { key } : { key, current }))
      }
      const ifAt = <A>(key: string, at: string, apply: () => A) => () =>
        entries.get(key)?.revision === at ? Exit.succeed(apply()) : conflict(key)

      return {
        capabilities,
        get: (key) =>
          Effect.andThen(
            checkKey(key),
            read(`get ${key}`, () => Option.fromUndefinedOr(stateBehind(faults.staleBy?.() ?? 0).get(key)))
          ),
        list: (prefix) =>
          Effect.andThen(
            checkPrefix(prefix),
            read(`list ${prefix}`, () => under(stateBehind(faults.staleBy?.() ?? 0), prefix))
          ),
        create: (key, value) =>
          Effect.andThen(
            checkEntry(key, value, capabilities.maxValueBytes),
            write("create", key, () => entries.has(key) ? conflict(key) : Exit.succeed(commit(key, value)))
          ),
        update: (key, value, at) =>
          Effect.andThen(
            checkEntry(key, value, capabilities.maxValueBytes),
            write("update", key, ifAt(key, at, () => commit(key, value)))
          ),
        remove: (key, at) =>
          Effect.andThen(
            checkKey(key),
            write("remove", key, ifAt(key, at, () => void commit(key, undefined)))
          ),
        watch: (prefix) => watch(prefix, faults)
      }
    }

    const watch = (prefix: string, faults: Faults): Stream.Stream<WatchEvent> =>
      Stream.callback<WatchEvent>(
        Effect.fnUntraced(function*(queue) {
          const clock = yield* Clock.Clock
          const late = yield* Queue.unbounded<{ readonly due: number; readonly era: number; readonly commit: Commit }>()
          let era = 0 // events of an earlier era are superseded by a snapshot
          let underway = 0
          let blind = true // between a gap and the snapshot that repairs it
          let toldLost = false
          let silence = 0
          let missedFor = 0

          const lose = (reason: string): void => {
            blind = true
            era += 1
            underway = 0
            if (!toldLost) Queue.offerUnsafe(queue, { _tag: "Lost", reason })
            toldLost = true
          }
          const startOver = (): void => {
            era += 1
            underway = 0
            missedFor = 0
            blind = false
            toldLost = false
            Queue.offerUnsafe(queue, { _tag: "Snapshot", entries: under(entries, prefix) })
          }
          const tell = (commit: Commit): void => {
            if (Queue.sizeUnsafe(queue) >= watchLimit) return lose("the consumer is too far behind")
            const fate = faults.watch?.(commit.key) ?? "Deliver"
            if (fate === "Miss") missedFor = Math.max(missedFor, 1)
            const event: WatchEvent = commit.after === undefined
              ? { _tag: "Removed", key: commit.key, revision: String(commit.revision) }
              : { _tag: "Put", entry: commit.after }
            for (let i = fate === "Miss" ? 0 : fate === "Twice" ? 2 : 1; i > 0; i--) Queue.offerUnsafe(queue, event)
          }
          const beat = (): void => {
            if (faults.reachable?.() === false) return lose("the store is not reachable")
            silence = faults.silent?.() === true ? silence + 1 : 0
            if (silence >= silenceLimit) return lose("the store is silent")
            if (silence > 0) return
            if (missedFor > 0) missedFor += 1
            if (blind || missedFor > relistAfter) {
              // a consumer that is behind gets its snapshot once it has read what it has
              if (Queue.sizeUnsafe(queue) < watchLimit / 2) startOver()
            } else if (underway === 0 && Queue.sizeUnsafe(queue) < watchLimit) {
              Queue.offerUnsafe(queue, { _tag: "Current" })
            }
          }

          yield* Effect.acquireRelease(
            Effect.sync(() => {
              const subscriber: Subscriber = {
                committed: (commit) => {
                  if (blind || !commit.key.startsWith(prefix)) return
                  if (faults.reachable?.() === false) return lose("the store is not reachable")
                  if (faults.silent?.() === true) return lose("the store is silent")
                  const delay = faults.watchDelay?.() ?? 0
                  if (delay === 0 && underway === 0) return tell(commit)
                  underway += 1
                  Queue.offerUnsafe(late, { due: clock.currentTimeMillisUnsafe() + delay, era, commit })
                },
                rewritten: lose
              }
              subscribers.add(subscriber)
              if (faults.reachable?.() === false || faults.silent?.() === true) lose("the store is not reachable")
              else startOver()
              return subscriber
            }),
            (subscriber) => Effect.sync(() => subscribers.delete(subscriber))
          )
          yield* Queue.take(late).pipe(
            Effect.tap(({ due }) => Effect.sleep(Math.max(0, due - clock.currentTimeMillisUnsafe()))),
            Effect.tap((event) =>
              Effect.sync(() => {
                if (event.era !== era) return
                underway -= 1
                tell(event.commit)
              })
            ),
            Effect.forever,
            Effect.forkScoped
          )
          yield* Effect.sync(beat).pipe(
            Effect.delay(heartbeat),
            Effect.repeat(Schedule.forever)
          )
        })
      )

    const rewrite = (reason: string): void => {
      for (const subscriber of subscribers) subscriber.rewritten(reason)
    }

    return {
      client,
      entries: () => under(entries, ""),
      revision: () => revision,
      forget: (count) => {
        const taken = history.splice(Math.max(0, history.length - count))
        for (const commit of taken.toReversed()) undo(entries, commit)
        revision -= taken.length
        if (taken.length > 0) rewrite("the store lost its last writes")
        return taken.length
      },
      wipe: () => {
        entries.clear()
        history.length = 0
        revision = 0
        rewrite("the store was replaced")
      }
    }
  })

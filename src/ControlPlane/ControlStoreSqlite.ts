/**
 * The control store in one SQLite file, for several processes on one machine without any server. It uses Node's own
 * `node:sqlite` (Node 22.19 or newer); nothing is installed.
 *
 * Responsible for: the port's promises on a file that processes share, lose the lock of, are killed over, or find replaced.
 * Not for: network file systems (SQLite's locks do not hold there), or more than one machine.
 * Invariant: an acknowledged write was synced to disk (with `synchronous: "full"`) in the file that is at the path.
 *
 * The file is only touched in a thread of its own, so no lock and no slow disk ever holds up heartbeats or timers here.
 */
import { Clock, Duration, Effect, Layer, Option, Queue, Schedule, Stream } from "effect"
import type { Scope } from "effect"
import * as Path from "node:path"
import { OutcomeUnknown, RevisionConflict, SettingInvalid, StoreUnavailable } from "../Actor/errors.ts"
import * as Settings from "../Actor/Settings.ts"
import { SystemEvents } from "../Actor/SystemEvents.ts"
import {
  type Capabilities,
  ControlStore,
  type ControlStoreService,
  type Entry,
  type WatchEvent
} from "./ControlStore.ts"
import type { Answer, News, Request, Row, Write } from "./internal/sqliteProtocol.ts"
import { makeAskWithin } from "./internal/sqliteQuestions.ts"
import { type SqliteThread, startThread } from "./internal/sqliteThread.edge.ts"
import { checkEntry, checkKey, checkPrefix, defaultMaxValueBytes } from "./internal/storeData.ts"
import { type Listed, makeWatchSink, type WatchSink } from "./internal/watchSink.ts"

/** Every setting with its default, range and environment variable; spread it to make a group with another namespace. */
export const settings = {
  /** the database file; created where there is none, in a folder that exists, on a local disk. SQLite keeps two more beside it */
  file: Settings.text({ env: "SQLITE_FILE" }),
  /**
   * One file holds several stores, told apart by this name: give each cluster that shares a file one of its own. Letters,
   * digits and `-_.`.
   */
  namespace: Settings.text({ env: "SQLITE_NAMESPACE", default: "cluster", pattern: /^[A-Za-z0-9\-_.]{1,100}$/ }),
  /**
   * `full` syncs each commit to disk before it is acknowledged. `normal` is about four times as fast; what was acknowledged
   * survives the death of processes but not that of the machine, so the store then calls itself not durable.
   */
  synchronous: Settings.text({ env: "SQLITE_SYNCHRONOUS", default: "full", pattern: /^(full|normal)$/ }),
  /** deadline of each operation */
  requestTimeout: Settings.duration({
    env: "SQLITE_REQUEST_TIMEOUT",
    default: "5 seconds",
    minimum: 50,
    maximum: 60_000
  }),
  /** how long opening may take at start, while other processes hold the file */
  connectTimeout: Settings.duration({
    env: "SQLITE_CONNECT_TIMEOUT",
    default: "10 seconds",
    minimum: 100,
    maximum: 600_000
  }),
  /**
   * how often watches look for changes of other processes. Where the system tells that the file is written to, as Linux does of
   * local disks, they see a change within a few milliseconds anyhow, and soon look five times less often; elsewhere half of it is their
   * mean delay, and shorter costs processor time
   */
  pollInterval: Settings.duration({
    env: "SQLITE_POLL_INTERVAL",
    default: "20 millis",
    minimum: 1,
    maximum: 1_000
  }),
  /** bytes of UTF-8 */
  maxValueBytes: Settings.int({
    env: "SQLITE_MAX_VALUE_BYTES",
    default: defaultMaxValueBytes,
    minimum: 1_024,
    maximum: 16 * 1024 * 1024
  })
}

const group = Settings.group("sqlite", settings)

export type PartialSettings = Settings.Partial_<typeof settings>
export type SettingValues = Settings.Values<typeof settings>

/** Why a store could not be opened: a bad setting, a file that is no store of ours, or one that was busy all the time. */
export type OpenError = SettingInvalid | StoreUnavailable

/** watches prove that they are current this often */
const proofInterval = Duration.millis(500)
/** a proof that took longer to come says too little about now */
const proofAge = 1_000
/** silence of the thread after which watches are lost */
const proofPatience = Duration.millis(2_500)
/** pauses between two starts of the thread, should it ever die */
const restarts = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.jittered
)
/** how long other processes may hold the file at worst, seen with eight of them writing without a pause; milliseconds */
const stallMillis = 1_000

const threadEnded = "the store's thread has ended"

interface Watch {
  /** in the file, so with the namespace */
  readonly prefix: string
  readonly sink: WatchSink
  /** a snapshot is on its way */
  asked: boolean
}

/** the part of a request's time that the thread may use, so that its certain answer is here before the deadline */
const budgetOf = (deadline: Duration.Duration): number => {
  const millis = Duration.toMillis(deadline)
  return millis - Math.min(250, millis / 4)
}

const checkFile = (file: string): Effect.Effect<string, SettingInvalid> =>
  file === ":memory:" || file.startsWith("file:")
    ? Effect.fail(
      new SettingInvalid({ setting: "sqlite.file", reason: "is no path; within one process use the memory store" })
    )
    : Effect.succeed(Path.resolve(file))

/**
 * Opens the store with settings that are already decoded; the scope closes it. `SettingInvalid` for a file that waiting cannot
 * mend (no such folder, no permission, no database of ours); one that is merely busy is waited for.
 */
export const open = Effect.fnUntraced(function*(
  values: SettingValues
): Effect.fn.Return<ControlStoreService, OpenError, Scope.Scope> {
  const clock = yield* Clock.Clock
  const events = yield* Effect.serviceOption(SystemEvents)
  const path = yield* checkFile(values.file)
  const space = `${values.namespace}/`
  const budget = budgetOf(values.requestTimeout)
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000

  const watches = new Map<number, Watch>()
  let lastWatch = 0
  const ended = yield* Queue.unbounded<string>()
  const forgotten = yield* Queue.unbounded<string>()

  const entryOf = ({ key, revision, value }: Row): Entry => ({
    key: key.slice(space.length),
    value,
    revision: String(revision)
  })
  const askSnapshot = (id: number, watch: Watch): void => {
    if (watch.asked) return
    watch.asked = true
    thread.tell({ op: "watch", watch: id, prefix: watch.prefix })
  }
  const loseAll = (reason: string): void => {
    for (const watch of watches.values()) {
      watch.asked = false
      watch.sink.lost(reason)
    }
  }
  const onNews = (news: News): void => {
    if (news._tag === "Lost") {
      if (news.forgot) Queue.offerUnsafe(forgotten, news.reason)
      return loseAll(news.reason)
    }
    if (news._tag === "Snapshot") {
      const watch = watches.get(news.watch)
      if (watch === undefined) return
      watch.asked = false
      const listing = new Map<string, Listed>()
      for (const row of news.rows) listing.set(row.key.slice(space.length), { entry: entryOf(row) })
      return watch.sink.snapshot(listing)
    }
    for (const { key, revision, value } of news.changes) {
      for (const { prefix, sink } of watches.values()) {
        // a watch without its snapshot takes no part: the snapshot will hold this
        if (!sink.sighted() || !key.startsWith(prefix)) continue
        if (value === null) sink.removed(key.slice(space.length), String(revision))
        else sink.put(entryOf({ key, value, revision }))
      }
    }
  }
  const start = (): SqliteThread =>
    startThread({
      path,
      synchronous: values.synchronous === "normal" ? "normal" : "full",
      pollInterval: Duration.toMillis(values.pollInterval)
    }, {
      onNews,
      onEnd: (reason) => {
        loseAll(reason)
        Queue.offerUnsafe(ended, reason)
      }
    })

  let thread = start()
  yield* Effect.addFinalizer(() => Effect.promise(() => thread.close()))

  // Data that was acknowledged and is gone: no one else can know it, so it is told wherever somebody may listen.
  yield* Queue.take(forgotten).pipe(
    Effect.flatMap((reason) => {
      if (Option.isSome(events)) events.value.publish({ _tag: "StoreTrouble", store: "sqlite", reason })
      return Effect.logError(`the control store in ${path} has lost data: ${reason}`)
    }),
    Effect.forever,
    Effect.forkScoped
  )
  yield* Queue.take(ended).pipe(
    Effect.tap((reason) => Effect.logError(`the control store's thread has ended and is started again: ${reason}`)),
    Effect.tap(() =>
      Effect.sync(() => {
        thread = start()
      })
    ),
    Effect.repeat(restarts),
    Effect.forkScoped
  )

  const ask = (request: Request): Effect.Effect<Answer | undefined> =>
    Effect.callback((resume) => {
      const withdraw = thread.ask(request, (answer) => resume(Effect.succeed(answer)))
      return Effect.sync(withdraw)
    })

  // ---- start: what no waiting can mend is said at once, anything else is waited for

  const unopened = (reason: string) => new StoreUnavailable({ operation: `open ${path}`, reason })
  let lastReason = "nothing was heard of it"
  const opening = Effect.flatMap(ask({ op: "open" }), (answer): Effect.Effect<void, OpenError> => {
    if (answer?._tag === "Done") return Effect.void
    lastReason = answer?._tag === "Refused" ? answer.reason : threadEnded
    return answer?._tag === "Refused" && answer.lasting
      ? Effect.fail(new SettingInvalid({ setting: "sqlite.file", reason: lastReason }))
      : Effect.fail(unopened(lastReason))
  })
  yield* opening.pipe(
    Effect.retry({
      schedule: Schedule.jittered(Schedule.spaced("100 millis")),
      while: (error) => error._tag === "StoreUnavailable"
    }),
    Effect.timeoutOrElse({
      duration: values.connectTimeout,
      orElse: () => Effect.fail(unopened(lastReason))
    })
  )

  // ---- watches

  const prove = Effect.gen(function*() {
    if (watches.size === 0) return
    const asked = now()
    const answer = yield* Effect.timeoutOption(ask({ op: "probe" }), proofPatience)
    if (Option.isNone(answer)) return loseAll("the store's thread does not answer")
    if (answer.value?._tag !== "Done") {
      return loseAll(answer.value?._tag === "Refused" ? answer.value.reason : threadEnded)
    }
    const fresh = now() - asked <= proofAge
    for (const [id, watch] of watches) {
      if (!watch.sink.sighted()) askSnapshot(id, watch)
      else if (fresh) watch.sink.current()
    }
  })
  yield* prove.pipe(Effect.andThen(Effect.sleep(proofInterval)), Effect.forever, Effect.forkScoped)

  const watch = (prefix: string): Stream.Stream<WatchEvent> =>
    Stream.callback<WatchEvent>((queue) =>
      Effect.gen(function*() {
        const id = lastWatch += 1
        const mine: Watch = { prefix: `${space}${prefix}`, sink: makeWatchSink(queue), asked: false }
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            watches.set(id, mine)
            askSnapshot(id, mine)
          }),
          () =>
            Effect.sync(() => {
              watches.delete(id)
              thread.tell({ op: "unwatch", watch: id })
            })
        )
        return yield* Effect.never
      })
    )

  // ---- operations

  const askWithin = yield* makeAskWithin(() => thread, values.requestTimeout)

  const rows = (operation: string, request: Request): Effect.Effect<ReadonlyArray<Row>, StoreUnavailable> => {
    const unavailable = (reason: string) => Effect.fail(new StoreUnavailable({ operation, reason }))
    return askWithin(request, (answer) =>
      answer?._tag === "Rows"
        ? Effect.succeed(answer.rows)
        : unavailable(answer?._tag === "Refused" ? answer.reason : threadEnded), unavailable)
  }

  const write = (key: string, request: Write) => {
    const operation = `${request.op} ${key}`
    const unknown = (reason: string) => Effect.fail(new OutcomeUnknown({ operation, reason }))
    const outcome = (
      answer: Answer | undefined
    ): Effect.Effect<string, RevisionConflict | StoreUnavailable | OutcomeUnknown> => {
      switch (answer?._tag) {
        case "Written":
          return Effect.succeed(String(answer.revision))
        case "Conflict":
          return Effect.fail(
            new RevisionConflict(answer.current === undefined ? { key } : { key, current: String(answer.current) })
          )
        case "Refused":
          return Effect.fail(new StoreUnavailable({ operation, reason: answer.reason }))
        default:
          return unknown(answer?._tag === "Unknown" ? answer.reason : threadEnded)
      }
    }
    return askWithin({ ...request, budget }, outcome, unknown)
  }
  /** a revision that no store gave names no version of the key, whatever is there */
  const atRevision = <A, E>(key: string, revision: string, then: Effect.Effect<A, E>) =>
    String(Number(revision)) === revision ? then : Effect.fail(new RevisionConflict({ key }))

  const capabilities: Capabilities = {
    backend: "sqlite",
    durable: values.synchronous === "full",
    maxValueBytes: values.maxValueBytes,
    failoverMillis: stallMillis,
    watchOrder: "revision"
  }
  const service: ControlStoreService = {
    capabilities,
    get: (key) =>
      Effect.andThen(
        checkKey(key),
        Effect.map(rows(`get ${key}`, { op: "get", key: `${space}${key}` }), ([row]) =>
          row === undefined ? Option.none() : Option.some(entryOf(row)))
      ),
    list: (prefix) =>
      Effect.andThen(
        checkPrefix(prefix),
        Effect.map(rows(`list ${prefix}`, { op: "list", prefix: `${space}${prefix}` }), (all) => all.map(entryOf))
      ),
    create: (key, value) =>
      Effect.andThen(
        checkEntry(key, value, values.maxValueBytes),
        write(key, { op: "create", key: `${space}${key}`, value })
      ),
    update: (key, value, revision) =>
      Effect.andThen(
        checkEntry(key, value, values.maxValueBytes),
        atRevision(key, revision, write(key, { op: "update", key: `${space}${key}`, value, revision }))
      ),
    remove: (key, revision) =>
      Effect.andThen(
        checkKey(key),
        atRevision(key, revision, Effect.asVoid(write(key, { op: "remove", key: `${space}${key}`, revision })))
      ),
    watch
  }
  return service
})

/** Opens a store; what is not given takes its default. */
export const make = (partial: PartialSettings): Effect.Effect<ControlStoreService, OpenError, Scope.Scope> =>
  Effect.flatMap(group.decode(partial), open)

/** The cluster's store in that file. */
export const layer = (partial: PartialSettings): Layer.Layer<ControlStore, OpenError> =>
  Layer.effect(ControlStore, make(partial))

/** The same, from the environment: `SQLITE_FILE`, `SQLITE_NAMESPACE`, and so on as `settings` names them. */
export const layerConfig: Layer.Layer<ControlStore, OpenError> = Layer.effect(
  ControlStore,
  Effect.flatMap(group.config, open)
)

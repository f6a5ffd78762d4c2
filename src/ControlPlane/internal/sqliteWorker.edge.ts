/**
 * The store's thread: owns the open file, answers in order, and looks for changes of other processes.
 *
 * Writes that wait are committed together (one sync to disk for all of them). A file that another process holds is tried
 * again after a short, random pause, because SQLite's own waiting is unfair and would keep reads and proofs waiting too.
 */
import { receiveMessageOnPort, workerData } from "node:worker_threads"
import { FileTrouble, openFile, type SqliteFile, type State, troubleOf } from "./sqliteFile.edge.ts"
import type { Answer, Inbound, News, Outbound, ThreadData, Write } from "./sqliteProtocol.ts"
import { Shared } from "./sqliteShared.edge.ts"

const { options, port, shared: memory } = workerData as ThreadData
const shared = new Shared(memory)

/** milliseconds for which the thread stays awake after an answer to an owner that is awake, and may ask the next thing at once */
const awake = 0.15

/** milliseconds between two tries to open a file that cannot be opened */
const reopenPause = 200
/** one transaction: writes, and bytes of their values */
const batchWrites = 512
const batchBytes = 4 * 1024 * 1024
/** milliseconds of the first and of the longest pause for a file that is held by another process */
const firstPause = 1
const longestPause = 12
/**
 * Milliseconds from a hint that somebody writes to the first look, which doubles until the change is found or the hint is stale. A
 * hint comes when a commit begins: until it is synced there is nothing to see.
 */
const firstLook = 0.25
const lastLook = 8
/** milliseconds that a check of the file at the path holds for a write, which checks once more when it has committed, and for a look */
const checkForWrite = 5
const checkForLook = 100
/** looks are that many times rarer while hints find the changes */
const relaxation = 5

interface Waiting {
  readonly id: number
  readonly write: Write
  readonly expires: number
}

let file: SqliteFile | undefined
let identity: string | undefined
let closedBecause = new FileTrouble("Broken", "the file is not open yet")
let triedAt = -Infinity
let checkedAt = -Infinity
let writes: Array<Waiting> = []
/** when a file that another process held is tried again, in milliseconds of `performance.now` as below */
let retryAt = -Infinity
let pause = firstPause
let cancelled = new Set<number>()
const watches = new Map<number, string>()
/** revision up to which every change has been told */
let told = 0
let seenVersion = -1
let lookEvery = options.pollInterval
/** hints taken so far, and the pause until the next look that they ask for; `Infinity` when they ask for none */
let hints = 0
let hinted = Infinity
/** when to look next; `Infinity` while nobody watches */
let pollAt = Infinity

let outbox: Array<Outbound> = []
const say = (message: Outbound): void => {
  outbox.push(message)
}
/** the owner was awake and has been answered */
let answered = false
const answersAtOnce = (message: Outbound): boolean => {
  if (!("answer" in message) || message.answer._tag !== "Written") return false
  answered = shared.answer({ id: message.id, revision: message.answer.revision })
  return answered
}
const send = (): void => {
  if (outbox.length === 0) return
  const messages = outbox
  outbox = []
  if (messages.length > 1 || !answersAtOnce(messages[0]!)) port.postMessage(messages)
}
const answer = (id: number, given: Answer): void => say({ id, answer: given })
const tell = (news: News): void => say(news)

const lose = (reason: string, forgot: boolean): void => {
  watches.clear()
  seenVersion = -1
  tell({ _tag: "Lost", reason, forgot })
}

const drop = (trouble: FileTrouble): void => {
  if (file === undefined) return
  try {
    file.close()
  } catch {
    // it is given up either way, and why is told below
  }
  file = undefined
  closedBecause = trouble
  lose(trouble.message, false)
}

/** The open file, checked to be the one at the path at most `age` milliseconds ago. Throws `FileTrouble` where there is none. */
const opened = (age = 0): SqliteFile => {
  const now = performance.now()
  if (now - checkedAt >= age) {
    checkedAt = now
    const gone = file?.replaced()
    if (gone !== undefined) drop(new FileTrouble("Broken", gone))
  }
  if (file !== undefined) return file
  if (performance.now() - triedAt < reopenPause) throw closedBecause
  triedAt = performance.now()
  try {
    const next = openFile(options.path, options.synchronous)
    const state = next.consistently((now) => now)
    file = next
    triedAt = -Infinity
    if (identity !== undefined) {
      const was = told
      if (state.identity !== identity) lose("the store was replaced by another one", true)
      else if (state.revision < was) lose(`the store fell from revision ${was} to ${state.revision}`, true)
    }
    identity = state.identity
    told = state.revision
    return next
  } catch (error) {
    closedBecause = troubleOf(error)
    throw closedBecause
  }
}

/** A file that is held by somebody, or has no room, is well. Any other trouble asks for opening it anew. */
const isWell = ({ kind }: FileTrouble): boolean => kind === "Busy" || kind === "Full"

/** What to answer to a call that failed. */
const refusal = (error: unknown): Answer => {
  const trouble = troubleOf(error)
  if (!isWell(trouble)) drop(trouble)
  return trouble.kind === "Unknown"
    ? { _tag: "Unknown", reason: trouble.message }
    : { _tag: "Refused", reason: trouble.message, lasting: trouble.kind === "Refused" }
}

/** Tells every change up to `state`. Runs inside one consistent read. */
const tellChanges = (from: SqliteFile, state: State): void => {
  if (state.revision === told) return
  if (state.revision < told) {
    const was = told
    told = state.revision
    return lose(`the store fell from revision ${was} to ${state.revision}`, true)
  }
  if (watches.size > 0) {
    const changes = from.changesSince(told, state)
    if (changes === undefined) lose("the watch is too far behind the store", false)
    else {
      const prefixes = Array.from(watches.values())
      const wanted = changes.filter(({ key }) => prefixes.some((prefix) => key.startsWith(prefix)))
      if (wanted.length > 0) tell({ _tag: "Changes", changes: wanted })
    }
  }
  told = state.revision
}

/** Tells what has changed since the last look. */
const look = (): void => {
  const from = opened()
  const version = from.dataVersion()
  from.consistently((state) => tellChanges(from, state))
  seenVersion = version
}

const beginWatch = (watch: number, prefix: string): void => {
  try {
    const from = opened()
    const version = from.dataVersion()
    from.consistently((state) => {
      // the others are brought to this very state first, so that one position serves all
      tellChanges(from, state)
      watches.set(watch, prefix)
      tell({ _tag: "Snapshot", watch, rows: from.list(prefix) })
    })
    seenVersion = version
  } catch (error) {
    const trouble = troubleOf(error)
    if (!isWell(trouble)) drop(trouble)
    lose(trouble.message, false)
  }
}

/** Looks for changes of other processes, for as long as somebody watches. */
const poll = (): void => {
  try {
    // a look at a file that was replaced would tell of the old one for ever
    if (opened(checkForLook).dataVersion() === seenVersion) return
    look()
    lookEvery = hinted < Infinity ? options.pollInterval * relaxation : options.pollInterval
    hinted = Infinity
  } catch (error) {
    const trouble = troubleOf(error)
    if (!isWell(trouble)) drop(trouble)
  }
}

const expire = (): void => {
  const now = performance.now()
  writes = writes.filter(({ expires, id }) => {
    if (cancelled.has(id)) return false
    if (now < expires) return true
    answer(id, { _tag: "Refused", reason: "another process holds the file", lasting: false })
    return false
  })
  cancelled = new Set()
}

/** The writes that go into one transaction. */
const nextBatch = (): ReadonlyArray<Waiting> => {
  let bytes = 0
  const end = writes.findIndex(({ write }, i) => {
    bytes += write.op === "remove" ? 0 : write.value.length
    return i === batchWrites || (i > 0 && bytes > batchBytes)
  })
  return end < 0 ? writes : writes.slice(0, end)
}

const commit = (): void => {
  for (;;) {
    expire()
    const batch = nextBatch()
    if (batch.length === 0) break
    try {
      const results = opened(checkForWrite).write(batch.map(({ write }) => write))
      results.forEach((result, i) =>
        answer(
          batch[i]!.id,
          "revision" in result
            ? { _tag: "Written", revision: result.revision }
            : { _tag: "Conflict", current: result.conflict }
        )
      )
      pause = firstPause
    } catch (error) {
      if (troubleOf(error).kind === "Busy") return waitForFile()
      const refused = refusal(error)
      for (const { id } of batch) answer(id, refused)
    }
    writes = writes.slice(batch.length)
    send()
    if (watches.size > 0) {
      try {
        look()
      } catch (error) {
        const trouble = troubleOf(error)
        if (!isWell(trouble)) drop(trouble)
      }
    }
  }
}

const waitForFile = (): void => {
  retryAt = performance.now() + pause * (0.5 + Math.random())
  pause = Math.min(longestPause, pause * 1.5)
}

const handle = (message: Inbound): void => {
  try {
    switch (message.op) {
      case "open":
        opened()
        return answer(message.id, { _tag: "Done" })
      case "get": {
        const row = opened().get(message.key)
        return answer(message.id, { _tag: "Rows", rows: row === undefined ? [] : [row] })
      }
      case "list":
        return answer(message.id, { _tag: "Rows", rows: opened().list(message.prefix) })
      case "probe":
        look()
        return answer(message.id, { _tag: "Done" })
      case "watch":
        return beginWatch(message.watch, message.prefix)
      case "unwatch":
        return void watches.delete(message.watch)
      case "cancel":
        return void cancelled.add(message.id)
      case "close":
        file?.close()
        return process.exit(0)
      default:
        writes.push({ id: message.id, write: message, expires: performance.now() + message.budget })
    }
  } catch (error) {
    const refused = refusal(error)
    if ("id" in message) answer(message.id, refused)
  }
}

/** Serves everything that has been said by now: this is where writes meet for one commit. */
const serve = (): void => {
  for (let more = receiveMessageOnPort(port); more !== undefined; more = receiveMessageOnPort(port)) {
    for (const message of more.message as ReadonlyArray<Inbound>) handle(message)
  }
  send()
  if (writes.length > 0 && performance.now() >= retryAt) commit()
  send()
}

/** When to look next, after a look or a hint. */
const scheduleLook = (looked: boolean): void => {
  const now = performance.now()
  const heard = shared.hints
  if (heard !== hints) {
    hints = heard
    hinted = firstLook
  } else if (looked) hinted = hinted < lastLook ? hinted * 2 : Infinity
  const pause = Math.min(hinted, lookEvery)
  pollAt = watches.size === 0 ? Infinity : looked ? now + pause : Math.min(pollAt, now + pause)
}

/** Sleeps until the bell rings, or so many milliseconds. */
const sleep = (rung: number, milliseconds: number): void => {
  const lingers = answered
  answered = false
  if (!lingers || !shared.watchBell(rung, Math.min(milliseconds, awake))) shared.waitFor(rung, milliseconds)
}

/** This thread's only loop. It sleeps on the bell, not in an event loop: no timer and no event of Node's ever fires here. */
for (;;) {
  const { rung } = shared
  serve()
  const due = performance.now() >= pollAt
  if (due) poll()
  send()
  scheduleLook(due)
  const next = Math.min(pollAt, writes.length > 0 ? retryAt : Infinity) - performance.now()
  if (next > 0) sleep(rung, next)
}

/**
 * The owner's side of the store's thread: starts it, carries messages, and says when it has ended. Keeps no process alive. For a lone
 * question the event loop does not go to sleep at once, but goes on turning for a moment (`Vigil`).
 */
import * as Fs from "node:fs"
import { MessageChannel, receiveMessageOnPort, Worker } from "node:worker_threads"
import type { Answer, Inbound, News, Order, Outbound, Request, ThreadData, ThreadOptions } from "./sqliteProtocol.ts"
import { Shared, Vigil } from "./sqliteShared.edge.ts"

/** milliseconds for which the event loop does not sleep while one question is open */
const awake = 0.4
/** milliseconds of it without a turn; a turn that takes longer than the second says that the loop has other work, and would not sleep */
const glance = 0.02
const busy = 0.1

export interface Listener {
  readonly onNews: (news: News) => void
  /** The thread has ended by itself; every open question is answered `undefined` before. */
  readonly onEnd: (reason: string) => void
}

export interface SqliteThread {
  /** Asks; the returned function withdraws the question. `undefined` as answer: the thread has ended meanwhile, nobody knows. */
  readonly ask: (request: Request, onAnswer: (answer: Answer | undefined) => void) => () => void
  readonly tell: (order: Order) => void
  /**
   * Closes the file and ends the thread, by force where it does not follow within a second. One that hangs in the system even so is left
   * to itself after two.
   */
  readonly close: () => Promise<void>
}

// the same module as source and as built, each beside a worker of its own kind
const program = import.meta.url.endsWith(".ts")
  ? new URL("./sqliteWorker.edge.ts", import.meta.url)
  : new URL("./sqliteWorker.edge.js", import.meta.url)

export const startThread = (options: ThreadOptions, listener: Listener): SqliteThread => {
  const { port1: port, port2 } = new MessageChannel()
  const shared = new Shared()
  const worker = new Worker(program, {
    name: "effect-troupe control store",
    workerData: { options, port: port2, shared: shared.memory } satisfies ThreadData,
    transferList: [port2],
    // Node 22 calls its SQLite experimental on each start
    execArgv: ["--disable-warning=ExperimentalWarning"]
  })
  worker.unref()
  const questions = new Map<number, (answer: Answer | undefined) => void>()
  let lastId = 0
  let outbox: Array<Inbound> = []
  const vigil = new Vigil()
  /** a question that is to be sent is the only one */
  let lone = false
  /** when the only open question was sent, and whether this side stays awake for it */
  let asked: number | undefined
  let vigilant = false
  let turning = false
  let turned = 0
  let closing = false
  let ended = false

  const flush = (): void => {
    const messages = outbox
    outbox = []
    if (messages.length === 0) return
    if (lone) stayAwake()
    port.postMessage(messages)
    shared.ring()
  }
  const post = (message: Inbound): void => {
    if (ended) return
    // what one turn of the event loop says goes over together
    if (outbox.length === 0) queueMicrotask(flush)
    outbox.push(message)
  }

  // Tells at once of what other processes write; where the system has no such service, regular looks find it a little later.
  let hints: Fs.FSWatcher | undefined
  const takeHints = (): void => {
    hints?.close()
    try {
      hints = Fs.watch(`${options.path}-wal`, { persistent: false }, () => {
        shared.hint()
      })
      hints.on("error", () => hints?.close())
    } catch {
      hints = undefined
    }
  }
  const hear = (messages: ReadonlyArray<Outbound>): void => {
    for (const message of messages) {
      if ("_tag" in message) {
        // a watch has begun, or begun again, perhaps with another file
        if (message._tag === "Snapshot") takeHints()
        listener.onNews(message)
      } else {
        const onAnswer = questions.get(message.id)
        questions.delete(message.id)
        if (asked !== undefined && questions.size === 0) {
          if (vigilant) vigil.kept(performance.now() - asked < awake)
          asked = undefined
        }
        onAnswer?.(message.answer)
      }
    }
  }
  const hearAll = (): void => {
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      hear(next.message)
    }
  }
  port.on("message", hear)
  port.unref()

  // Burns a processor, so it ends where somebody else may want it: others' work in this event loop, a second question, a slow sync.
  const goToSleep = (): void => {
    turning = false
    const written = shared.sleep()
    if (written === undefined) return
    // what was told before it comes first
    hearAll()
    const { id, revision } = written
    hear([{ id, answer: { _tag: "Written", revision } }])
  }
  const turn = (): void => {
    const now = performance.now()
    const over = !vigilant || asked === undefined || now - asked > awake || now - turned > busy
    if (over || shared.watchFor(glance)) return goToSleep()
    turned = now
    setImmediate(turn)
  }
  const stayAwake = (): void => {
    lone = false
    turned = asked = performance.now()
    vigilant = vigil.worthwhile()
    if (!vigilant || turning) return
    turning = true
    shared.wake()
    setImmediate(turn)
  }

  let failure: string | undefined
  worker.on("error", (error) => failure = error.message)
  worker.on("exit", (code) => {
    goToSleep()
    hearAll()
    port.close()
    hints?.close()
    ended = true
    for (const onAnswer of questions.values()) onAnswer(undefined)
    questions.clear()
    if (!closing) listener.onEnd(failure ?? `the store's thread ended with ${code}`)
  })

  return {
    ask: (request, onAnswer) => {
      if (ended) {
        // it was not even sent
        onAnswer({ _tag: "Refused", reason: "the store's thread has ended", lasting: false })
        return () => undefined
      }
      const id = lastId += 1
      questions.set(id, onAnswer)
      lone = questions.size === 1
      if (!lone) asked = undefined
      post({ ...request, id })
      return () => {
        if (!questions.delete(id)) return
        post({ op: "cancel", id })
        // at once: whatever the caller does next must find the thread told
        flush()
      }
    },
    tell: post,
    close: async () => {
      if (ended) return
      closing = true
      const gone = new Promise<void>((done) => worker.once("exit", () => done()))
      post({ op: "close" })
      const force = setTimeout(() => void worker.terminate(), 1_000)
      let giveUp: NodeJS.Timeout | undefined
      await Promise.race([gone, new Promise<void>((done) => giveUp = setTimeout(done, 2_000))])
      clearTimeout(force)
      clearTimeout(giveUp)
    }
  }
}

/** The store in one SQLite file: what is its own beside the contract. Real files, real threads, real processes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Queue, Scope, Stream } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Worker } from "node:worker_threads"
import type { Answer } from "../../src/ControlPlane/internal/sqliteProtocol.ts"
import { startThread } from "../../src/ControlPlane/internal/sqliteThread.edge.ts"
import { vi } from "vitest"
import { temporaryFolder } from "../../scripts/servers/index.ts"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as ControlStore from "../../src/ControlPlane/ControlStore.ts"
import type { WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import * as ControlStoreSqlite from "../../src/ControlPlane/ControlStoreSqlite.ts"
import { logHoldsMore, openFile } from "../../src/ControlPlane/internal/sqliteFile.edge.ts"
import { storeContract } from "./support/storeContract.ts"

const newFile = Effect.map(temporaryFolder("sqlite"), (folder) => join(folder, "store.db"))
const elapsed = (since: bigint) => Number(process.hrtime.bigint() - since) / 1_000_000

const follow = Effect.fnUntraced(function*(store: ControlStore.ControlStoreService, prefix: string) {
  const events = yield* Queue.unbounded<WatchEvent>()
  yield* store.watch(prefix).pipe(
    Stream.runForEach((event) => Queue.offer(events, event)),
    Effect.forkScoped({ startImmediately: true })
  )
  return events
})
/** The next event that is no proof; a test that waits for none fails by its runner's timeout. */
const next = (events: Queue.Dequeue<WatchEvent>): Effect.Effect<WatchEvent> =>
  Effect.flatMap(Queue.take(events), (event) => event._tag === "Current" ? next(events) : Effect.succeed(event))
const nextTag = (events: Queue.Dequeue<WatchEvent>) => Effect.map(next(events), (event) => event._tag)
const keysOf = (event: WatchEvent) => event._tag === "Snapshot" ? event.entries.map(({ key }) => key) : event._tag

/** The file's write lock in foreign hands. */
const lock = (file: string, mode: "IMMEDIATE" | "EXCLUSIVE" = "IMMEDIATE") =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const db = new DatabaseSync(file, { timeout: 2_000 })
      db.exec(`BEGIN ${mode}`)
      return { release: Effect.sync(() => db.isOpen && db.close()) }
    }),
    ({ release }) => release
  )

/** A process that writes to the file, ended with the scope. */
const writer = (file: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const program = join(import.meta.dirname, "sqlite/writer.ts")
      const child: ChildProcess = spawn(process.execPath, [program, file, ...args], {
        stdio: ["ignore", "pipe", "inherit"],
        // whom no file mode stops would see none of them
        ...(args[0] === "open" && process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {})
      })
      let text = ""
      child.stdout!.on("data", (chunk: Buffer) => text += chunk.toString())
      let closed = false
      child.once("close", () => closed = true)
      const gone = Effect.callback<void>((resume) => {
        if (closed) return resume(Effect.void)
        // not "exit": what it said last may still be in the pipe then
        child.once("close", () => resume(Effect.void))
      })
      const lines = () => text.split("\n").slice(0, -1)
      const signal = (name: NodeJS.Signals) => Effect.sync(() => void child.kill(name))
      return {
        lines,
        gone,
        signal,
        kill: Effect.andThen(signal("SIGKILL"), gone),
        until: (enough: (lines: ReadonlyArray<string>) => boolean) =>
          Effect.callback<void>((resume) => {
            const check = () => enough(lines()) && resume(Effect.void)
            child.stdout!.on("data", check)
            check()
          })
      }
    }),
    ({ kill, signal }) => Effect.andThen(signal("SIGCONT"), kill)
  )

const writtenBy = (lines: ReadonlyArray<string>) =>
  lines.filter((line) => line.startsWith("written ")).map((line) => line.slice("written ".length))

describe("the store in one SQLite file", () => {
  it.live("a key that is removed and created again has a higher revision than any before", () =>
    Effect.gen(function*() {
      const store = yield* ControlStoreSqlite.make({ file: yield* newFile })
      const first = yield* store.create("k", "1")
      yield* store.remove("k", first)
      const events = yield* follow(store, "")
      assert.deepStrictEqual(keysOf(yield* next(events)), [])
      const second = yield* store.create("k", "1")
      assert.isAbove(Number(second), Number(first) + 1, "the removal had a revision of its own")
      assert.strictEqual((yield* Effect.flip(store.update("k", "2", first)))._tag, "RevisionConflict")
    }).pipe(Effect.scoped))

  it.live("revisions and values outlive the last process", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const value = "zero \u0000, umlaut ä, emoji \u{1F600}"
      const revision = yield* Effect.scoped(
        Effect.flatMap(ControlStoreSqlite.make({ file }), (store) => store.create("k", value))
      )
      assert.isFalse(Fs.existsSync(`${file}-wal`), "the last to leave tidies up")
      const store = yield* ControlStoreSqlite.make({ file })
      assert.deepStrictEqual(yield* store.list(""), [{ key: "k", value, revision }])
      assert.isTrue(store.capabilities.durable)
    }).pipe(Effect.scoped))

  it.live("a watch sees each version that another process wrote, in order", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const [one, other] = [yield* ControlStoreSqlite.make({ file }), yield* ControlStoreSqlite.make({ file })]
      const events = yield* follow(other, "")
      assert.deepStrictEqual(keysOf(yield* next(events)), [])
      let revision = yield* one.create("k", "0")
      for (let i = 1; i < 200; i++) revision = yield* one.update("k", String(i), revision)
      for (let i = 0; i < 200; i++) {
        const event = yield* next(events)
        assert.strictEqual(event._tag === "Put" ? event.entry.value : event._tag, String(i))
      }
    }).pipe(Effect.scoped))

  it.live("a watch is told of a write long before it would look again by itself", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const one = yield* ControlStoreSqlite.make({ file })
      const other = yield* ControlStoreSqlite.make({ file, pollInterval: "1 second" })
      const events = yield* follow(other, "")
      yield* next(events)
      const begun = process.hrtime.bigint()
      for (let i = 0; i < 20; i++) {
        yield* one.create(`k/${i}`, "")
        assert.strictEqual(yield* nextTag(events), "Put")
      }
      assert.isBelow(elapsed(begun), 10_000, "twenty looks a second apart take twenty seconds")
    }).pipe(Effect.scoped))

  it.live("a watch that other processes left far behind starts over", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file, namespace: "us", pollInterval: "1 second" })
      const events = yield* follow(store, "")
      yield* next(events)
      // more than the log of changes keeps, between two looks: this thread writes and does nothing else meanwhile
      const other = openFile(file, "normal")
      for (let batch = 0; batch < 30; batch++) {
        other.write(Array.from({ length: 1_000 }, (_, i) => ({ op: "create", key: `us/k/${batch}/${i}`, value: "" })))
      }
      assert.isUndefined(other.consistently((state) => other.changesSince(0, state)), "the log has been cut")
      assert.lengthOf(other.consistently((state) => other.changesSince(state.revision - 5_000, state)) ?? [], 5_000)
      other.close()
      assert.strictEqual(yield* nextTag(events), "Lost")
      assert.lengthOf(keysOf(yield* next(events)), 30_000)
    }).pipe(Effect.scoped))

  it.live("namespaces of one file know nothing of each other", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const [us, eu] = [
        yield* ControlStoreSqlite.make({ file, namespace: "us" }),
        yield* ControlStoreSqlite.make({ file, namespace: "eu" })
      ]
      const events = yield* follow(eu, "")
      yield* next(events)
      yield* us.create("k", "us")
      yield* eu.create("k", "eu")
      assert.deepStrictEqual((yield* eu.list("")).map(({ key, value }) => `${key}=${value}`), ["k=eu"])
      const event = yield* next(events)
      assert.strictEqual(event._tag === "Put" ? event.entry.value : "", "eu")
    }).pipe(Effect.scoped))

  it.live("a lock in foreign hands delays a write and no timer", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file })
      const held = yield* lock(file)
      let worst = 0
      let last = process.hrtime.bigint()
      const timer = setInterval(() => {
        worst = Math.max(worst, elapsed(last))
        last = process.hrtime.bigint()
      }, 5)
      const write = yield* Effect.forkChild(store.create("k", "1"), { startImmediately: true })
      yield* Effect.sleep("600 millis")
      assert.isUndefined(write.pollUnsafe())
      assert.deepStrictEqual(yield* store.list(""), [], "reads go on meanwhile")
      yield* held.release
      yield* Fiber.join(write)
      clearInterval(timer)
      assert.isBelow(worst, 300, "the event loop was held up")
    }).pipe(Effect.scoped))

  it.live("a lock that is never given back ends writes in time, and they are certainly not applied", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file, requestTimeout: "500 millis" })
      const held = yield* lock(file)
      const begun = process.hrtime.bigint()
      const errors = yield* Effect.forEach([0, 1, 2], (i) => Effect.flip(store.create(`k/${i}`, "1")), {
        concurrency: "unbounded"
      })
      assert.isBelow(elapsed(begun), 800)
      assert.deepStrictEqual(errors.map(({ _tag }) => _tag), Array(3).fill("StoreUnavailable"))
      yield* held.release
      yield* store.create("after", "1")
      assert.deepStrictEqual((yield* store.list("")).map(({ key }) => key), ["after"])
    }).pipe(Effect.scoped))

  it.live("a write whose caller has gone is dropped if it has not begun", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file })
      const held = yield* lock(file)
      const impatient = ControlStore.withDeadline(store, "100 millis")
      assert.strictEqual((yield* Effect.flip(impatient.create("k", "1")))._tag, "OutcomeUnknown")
      yield* held.release
      yield* store.create("after", "1")
      assert.deepStrictEqual((yield* store.list("")).map(({ key }) => key), ["after"])
    }).pipe(Effect.scoped))

  it.live("a file that is removed loses the watch, is reported, and begins anew", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const scope = yield* Effect.scope
      const services = yield* Layer.buildWithScope(SystemEvents.layer, scope)
      const trouble = yield* Queue.unbounded<SystemEvents.SystemEvent>()
      yield* Effect.provideContext(
        SystemEvents.SystemEvents.use(({ stream }) =>
          Effect.forkIn(Stream.runForEach(stream, (event) => Queue.offer(trouble, event)), scope, {
            startImmediately: true
          })
        ),
        services
      )
      const store = yield* Effect.provideContext(ControlStoreSqlite.make({ file }), services)
      const stale = yield* store.create("old", "1")
      const events = yield* follow(store, "")
      assert.deepStrictEqual(keysOf(yield* next(events)), ["old"])
      for (const end of ["", "-wal", "-shm"]) Fs.rmSync(`${file}${end}`)
      assert.strictEqual(yield* nextTag(events), "Lost")
      assert.deepStrictEqual(keysOf(yield* next(events)), [])
      assert.strictEqual((yield* Effect.flip(store.update("old", "2", stale)))._tag, "RevisionConflict")
      yield* store.create("new", "1")
      assert.strictEqual(yield* nextTag(events), "Put")
      const told = yield* Queue.take(trouble)
      assert.strictEqual(told._tag === "StoreTrouble" ? told.store : "", "sqlite")
    }).pipe(Effect.scoped))

  it.live("a file that is replaced by an older copy is noticed, and the watch starts over with what is there", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      yield* Effect.scoped(Effect.flatMap(ControlStoreSqlite.make({ file }), (store) => store.create("old", "1")))
      Fs.copyFileSync(file, `${file}.copy`)
      const store = yield* ControlStoreSqlite.make({ file })
      yield* store.create("new", "1")
      const events = yield* follow(store, "")
      assert.deepStrictEqual(keysOf(yield* next(events)), ["new", "old"])
      for (const end of ["-wal", "-shm"]) Fs.rmSync(`${file}${end}`)
      Fs.renameSync(`${file}.copy`, file)
      assert.strictEqual(yield* nextTag(events), "Lost")
      assert.deepStrictEqual(keysOf(yield* next(events)), ["old"])
    }).pipe(Effect.scoped))

  it.live("a thread that dies is started again: its questions end, its watches begin anew", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const started = vi.spyOn(Worker.prototype, "unref")
      yield* Effect.addFinalizer(() => Effect.sync(() => started.mockRestore()))
      const store = yield* ControlStoreSqlite.make({ file })
      const thread = started.mock.contexts.at(-1) as Worker
      yield* store.create("k", "1")
      const events = yield* follow(store, "")
      yield* next(events)
      const held = yield* lock(file)
      const write = yield* Effect.forkChild(Effect.flip(store.create("l", "1")), { startImmediately: true })
      yield* Effect.sleep("100 millis")
      yield* Effect.promise(() => thread.terminate())
      assert.strictEqual((yield* Fiber.join(write))._tag, "OutcomeUnknown")
      yield* held.release
      assert.strictEqual(yield* nextTag(events), "Lost")
      assert.deepStrictEqual(keysOf(yield* next(events)), ["k"])
      yield* store.create("m", "1")
      assert.strictEqual(yield* nextTag(events), "Put")
    }).pipe(Effect.scoped))

  it.live("what is asked of a thread that has ended was certainly not done", () =>
    Effect.gen(function*() {
      const options = { path: yield* newFile, synchronous: "full", pollInterval: 20 } as const
      const thread = startThread(options, { onNews: () => {}, onEnd: () => {} })
      const write = { op: "create", key: "k", value: "1", budget: 1000 } as const
      const ask = Effect.callback<Answer | undefined>((resume) => {
        thread.ask(write, (answer) => resume(Effect.succeed(answer)))
      })
      assert.strictEqual((yield* ask)?._tag, "Written")
      yield* Effect.promise(() => thread.close())
      assert.strictEqual((yield* ask)?._tag, "Refused")
    }).pipe(Effect.scoped))

  it.live("what no waiting can mend is refused at start, by the setting's name", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const inFolder = (name: string) => join(file, "..", name)
      Fs.writeFileSync(inFolder("text.db"), "this is no database, but long enough to be one\n".repeat(50))
      const foreign = new DatabaseSync(inFolder("foreign.db"))
      foreign.exec("CREATE TABLE theirs (id INTEGER)")
      foreign.close()
      yield* Effect.scoped(ControlStoreSqlite.make({ file: inFolder("newer.db") }))
      const newer = new DatabaseSync(inFolder("newer.db"))
      newer.exec("PRAGMA user_version = 999")
      newer.close()
      yield* Effect.scoped(
        Effect.flatMap(ControlStoreSqlite.make({ file: inFolder("damaged.db") }), (store) => store.create("k", "1"))
      )
      const damaged = Fs.readFileSync(inFolder("damaged.db"))
      Fs.writeFileSync(inFolder("damaged.db"), damaged.fill(0x5a, 4096, 8192))
      Fs.writeFileSync(inFolder("cut.db"), damaged.subarray(0, 5_000))
      for (
        const bad of [
          ":memory:",
          "file:x?mode=memory",
          inFolder("missing/store.db"),
          inFolder("."),
          inFolder("text.db"),
          inFolder("foreign.db"),
          inFolder("newer.db"),
          inFolder("damaged.db"),
          inFolder("cut.db")
        ]
      ) {
        const error = yield* Effect.flip(ControlStoreSqlite.make({ file: bad }))
        assert.strictEqual(error._tag === "SettingInvalid" ? error.setting : `${bad}: ${error._tag}`, "sqlite.file")
        if (bad.startsWith("/")) assert.include(error.message, bad.replace(/\/missing.*|\/\.$/, ""))
      }
      const tables = new DatabaseSync(inFolder("foreign.db")).prepare("SELECT name FROM sqlite_schema").all()
      assert.deepStrictEqual(tables.map((row) => row["name"]), ["theirs"], "a foreign database is left as it was")
    }).pipe(Effect.scoped))

  it.live("a folder and a file that may only be read are refused at start, by the setting's name", () =>
    Effect.gen(function*() {
      const folder = yield* temporaryFolder("sqlite")
      const file = join(folder, "store.db")
      yield* Effect.scoped(ControlStoreSqlite.make({ file }))
      const opened = (path: string) =>
        Effect.scoped(Effect.flatMap(writer(path, "open"), ({ gone, lines }) => Effect.map(gone, () => lines())))
      Fs.chmodSync(folder, 0o555)
      assert.deepStrictEqual(yield* opened(join(folder, "new.db")), [
        `SettingInvalid sqlite.file files cannot be made in ${folder}`
      ])
      Fs.chmodSync(folder, 0o777)
      Fs.chmodSync(file, 0o444)
      assert.deepStrictEqual(yield* opened(file), [`SettingInvalid sqlite.file ${file} cannot be written to`])
      Fs.chmodSync(file, 0o666)
      assert.deepStrictEqual(yield* opened(file), ["ready"])
    }).pipe(Effect.scoped))

  it.live("a log that broke off is searched for a commit that a recovery would find", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const log = `${file}-wal`
      openFile(file, "full").write([{ op: "create", key: "k", value: "1" }])
      const db = yield* Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(file)),
        (db) => Effect.sync(() => db.close())
      )
      assert.isFalse(logHoldsMore(db, log), "what readers know")
      const whole = Fs.readFileSync(log)
      const salts = whole.subarray(16, 24)
      const page = (mark: number, salts: Uint8Array) => {
        const frame = Buffer.alloc(24 + whole.readUInt32BE(8))
        frame.writeUInt32BE(mark, 4)
        frame.set(salts, 8)
        return frame
      }
      const beyond = (...frames: ReadonlyArray<Buffer>) => {
        Fs.truncateSync(log, whole.length)
        for (const frame of frames) Fs.appendFileSync(log, frame)
        return logHoldsMore(db, log)
      }
      assert.isFalse(beyond(page(0, salts), page(0, salts)), "pages without a commit")
      assert.isFalse(beyond(page(0, salts), page(9, salts).subarray(0, 4_000)), "a commit that is not all there")
      assert.isFalse(beyond(page(9, new Uint8Array(8))), "what an older log has left")
      assert.isTrue(beyond(page(0, salts), page(9, salts)), "a commit")
      Fs.truncateSync(log, whole.length)
    }).pipe(Effect.scoped))

  it.live("a setting out of its range is refused by its name", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const refused = (partial: ControlStoreSqlite.PartialSettings) =>
        Effect.map(Effect.flip(ControlStoreSqlite.make(partial)), (error) =>
          error._tag === "SettingInvalid" ? error.setting : error._tag)
      assert.strictEqual(yield* refused({} as ControlStoreSqlite.PartialSettings), "sqlite.file")
      assert.strictEqual(yield* refused({ file, synchronous: "off" }), "sqlite.synchronous")
      assert.strictEqual(yield* refused({ file, namespace: "a/b" }), "sqlite.namespace")
      assert.strictEqual(yield* refused({ file, pollInterval: 0 }), "sqlite.pollInterval")
      assert.strictEqual(yield* refused({ file, requestTimeout: "10 minutes" }), "sqlite.requestTimeout")
    }).pipe(Effect.scoped))

  it.live("a file that is busy at start is waited for, within the patience given", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const held = yield* lock(file, "EXCLUSIVE")
      const error = yield* Effect.flip(ControlStoreSqlite.make({ file, connectTimeout: "500 millis" }))
      assert.strictEqual(error._tag, "StoreUnavailable")
      const opening = yield* Effect.forkChild(ControlStoreSqlite.make({ file }), { startImmediately: true })
      yield* Effect.sleep("700 millis")
      assert.isUndefined(opening.pollUnsafe())
      yield* held.release
      yield* (yield* Fiber.join(opening)).create("k", "1")
    }).pipe(Effect.scoped))

  it.live("closing gives the file back, also with a write under way", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const scope = yield* Scope.make()
      const store = yield* Scope.provide(ControlStoreSqlite.make({ file }), scope)
      const held = yield* lock(file)
      const write = yield* Effect.forkChild(Effect.flip(store.create("k", "1")), { startImmediately: true })
      yield* Effect.sleep("50 millis")
      const begun = process.hrtime.bigint()
      yield* Scope.close(scope, Exit.void)
      assert.isBelow(elapsed(begun), 1_500)
      assert.strictEqual((yield* Fiber.join(write))._tag, "OutcomeUnknown")
      assert.strictEqual((yield* Effect.flip(store.get("k")))._tag, "StoreUnavailable")
      yield* held.release
    }).pipe(Effect.scoped))
})

describe("processes that share one SQLite file", () => {
  it.live("of six that create the same keys, each key has exactly one winner", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file })
      const names = ["a", "b", "c", "d", "e", "f"]
      const keys = 150
      const racers = yield* Effect.forEach(names, (name) => writer(file, "race", name, String(keys)))
      yield* Effect.forEach(racers, ({ gone }) => gone, { discard: true })
      const won = racers.map(({ lines }) => lines().filter((line) => line.startsWith("won ")).map((l) => l.slice(4)))
      assert.deepStrictEqual(
        won.flat().sort(),
        Array.from({ length: keys }, (_, i) => `race/${i}`).sort(),
        "each key once"
      )
      for (const { lines } of racers) {
        assert.deepStrictEqual(lines().filter((line) => !/^(won|RevisionConflict) |^ready$|^done$/.test(line)), [])
      }
      for (const { key, value } of yield* store.list("race/")) {
        assert.include(won[names.indexOf(value)]!, key)
      }
    }).pipe(Effect.scoped))

  it.live("killed in mid-write, a process loses nothing that was acknowledged and locks out nobody", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file })
      const events = yield* follow(store, "")
      for (let round = 0; round < 5; round++) {
        const child = yield* writer(file, "write", `r${round}`)
        yield* child.until((lines) => lines.length > 40 + 17 * round)
        yield* child.kill
        yield* store.create(`after/${round}`, "")
        const acknowledged = writtenBy(child.lines())
        const there = new Set((yield* store.list(`r${round}/`)).map(({ key }) => key))
        assert.isAtLeast(acknowledged.length, 40)
        assert.deepStrictEqual(acknowledged.filter((key) => !there.has(key)), [])
        assert.isAtMost(there.size - acknowledged.length, 1, "at most the one that was under way")
      }
      const all = (yield* store.list("")).length
      const held = new Set<string>()
      while (held.size < all) {
        const event = yield* next(events)
        if (event._tag === "Put") held.add(event.entry.key)
        else assert.strictEqual(event._tag, "Snapshot", "a killed neighbour costs no watch")
      }
    }).pipe(Effect.scoped))

  it.live("one that is stopped for seconds makes others fail in time at worst, and none of its late writes is a surprise", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const store = yield* ControlStoreSqlite.make({ file, requestTimeout: "500 millis" })
      const child = yield* writer(file, "write", "child")
      yield* child.until((lines) => lines.length > 30)
      yield* child.signal("SIGSTOP")
      for (let i = 0; i < 4; i++) {
        const begun = process.hrtime.bigint()
        const outcome = yield* Effect.match(store.create(`mine/${i}`, ""), {
          onSuccess: () => "written",
          onFailure: (error) => error._tag
        })
        assert.include(["written", "StoreUnavailable"], outcome)
        assert.isBelow(elapsed(begun), 900)
      }
      const before = child.lines().length
      yield* child.signal("SIGCONT")
      yield* child.until((lines) => lines.length > before + 10)
      yield* child.kill
      yield* store.create("mine/after", "")
      const acknowledged = writtenBy(child.lines())
      const there = new Set((yield* store.list("child/")).map(({ key }) => key))
      assert.deepStrictEqual(acknowledged.filter((key) => !there.has(key)), [])
    }).pipe(Effect.scoped))
})

/** A client reaches the file through a link of its own, which can be taken away. */
const cuttable = (file: string) =>
  Effect.gen(function*() {
    const link = join(yield* temporaryFolder("sqlite-link"), "here")
    const restore = Effect.sync(() => Fs.existsSync(link) || Fs.symlinkSync(join(file, ".."), link))
    yield* restore
    const client = yield* ControlStoreSqlite.make({ file: join(link, "store.db"), requestTimeout: "2 seconds" })
    return { client, cut: Effect.sync(() => Fs.rmSync(link, { force: true })), restore: Effect.asVoid(restore) }
  })

storeContract("SQLite keeps the contract", {
  start: newFile,
  options: (file) => ({
    client: ControlStoreSqlite.make({ file, requestTimeout: "2 seconds" }),
    cuttable: cuttable(file),
    requestTimeout: "2 seconds"
  })
})

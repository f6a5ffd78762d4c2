/** The control store in one SQLite file whose lock is held, whose place goes away, and whose neighbours die. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Stream } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { temporaryFolder } from "../../scripts/servers/index.ts"
import type { WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import * as ControlStoreSqlite from "../../src/ControlPlane/ControlStoreSqlite.ts"
import { trial } from "./support/trial.ts"

const requestTimeout = 2_000

/** Takes a bit of the disk; false when none is left. */
const room = (file: number): boolean => {
  try {
    return Fs.writeSync(file, Buffer.alloc(4_096)) > 0
  } catch {
    return false
  }
}
const newFile = Effect.map(temporaryFolder("sqlite"), (folder) => join(folder, "store.db"))

/** A file system with a megabyte of room, where this process may mount one. */
const small = Effect.gen(function*() {
  const folder = yield* temporaryFolder("sqlite-small")
  const mount = (...args: ReadonlyArray<string>) => spawnSync(args[0]!, args.slice(1)).status === 0
  yield* Effect.addFinalizer(() => Effect.sync(() => mount("umount", "--lazy", folder)))
  return mount("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder) ? folder : undefined
})

describe.concurrent("one SQLite file", () => {
  it.live("its disk full for a while, it refuses writes for certain, goes on reading and watching, and then writes again", (context) =>
    Effect.gen(function*() {
      const folder = yield* small
      if (folder === undefined) return context.skip("mounting a file system is not allowed here")
      const store = yield* ControlStoreSqlite.make({ file: join(folder, "store.db"), requestTimeout })
      yield* store.create("before", "1")
      const told = yield* Queue.unbounded<WatchEvent>()
      yield* store.watch("").pipe(
        Stream.filter((event) => event._tag !== "Current"),
        Stream.runForEach((event) => Queue.offer(told, event)),
        Effect.forkScoped
      )
      assert.strictEqual((yield* Queue.take(told))._tag, "Snapshot")
      const filler = join(folder, "filler")
      const file = Fs.openSync(filler, "w")
      yield* Effect.repeat(Effect.sync(() => room(file)), { while: (wrote) => wrote })
      for (let i = 0; i < 3; i++) {
        const error = yield* Effect.flip(store.create(`full/${i}`, "x".repeat(10_000)))
        assert.strictEqual(error._tag, "StoreUnavailable")
        assert.include(error.message, "full")
      }
      assert.deepStrictEqual((yield* store.list("")).map(({ key }) => key), ["before"])
      Fs.closeSync(file)
      Fs.rmSync(filler)
      yield* store.create("after", "x".repeat(10_000))
      assert.deepStrictEqual((yield* store.list("")).map(({ key }) => key), ["after", "before"])
      const event = yield* Queue.take(told)
      assert.strictEqual(event._tag === "Put" ? event.entry.key : event._tag, "after", "a full disk costs no watch")
    }).pipe(Effect.scoped))

  it.live("its log broken off at any place for want of quota, it refuses writes for certain, and none of them comes back", (context) =>
    Effect.gen(function*() {
      if (spawnSync("prlimit", ["--version"]).status !== 0) return context.skip("there is no prlimit here")
      const folder = yield* temporaryFolder("sqlite-quota")
      const program = join(import.meta.dirname, "programs/quota.ts")
      const { stderr, stdout } = spawnSync(process.execPath, [program, folder], { encoding: "utf8", timeout: 60_000 })
      assert.strictEqual(stderr, "")
      const { ends, kept, resurrected } = JSON.parse(stdout) as {
        readonly ends: Readonly<Record<string, number>>
        readonly kept: number
        readonly resurrected: ReadonlyArray<string>
      }
      assert.deepStrictEqual(Object.keys(ends).toSorted(), ["Full", "written"])
      assert.isAbove(ends["Full"]!, 20)
      assert.deepStrictEqual(resurrected, [])
      assert.strictEqual(kept, 1, "what was acknowledged is there, and one more that was written without a limit")
    }).pipe(Effect.scoped))

  it.live("locked by somebody else for longer than the deadline, it refuses writes for certain and goes on watching", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const { refused, reports, unknown } = yield* trial({
        client: ControlStoreSqlite.make({ file, requestTimeout }),
        requestTimeout,
        fault: Effect.gen(function*() {
          const db = new DatabaseSync(file, { timeout: 5_000 })
          db.exec("BEGIN IMMEDIATE")
          yield* Effect.sleep("5 seconds")
          db.close()
        })
      })
      assert.isAbove(refused, 0)
      assert.strictEqual(unknown, 0)
      assert.deepStrictEqual(reports, [])
    }).pipe(Effect.scoped))

  it.live("its folder away for a while, it is found again with all that it held", () =>
    Effect.gen(function*() {
      const file = yield* newFile
      const link = join(yield* temporaryFolder("sqlite-link"), "here")
      Fs.symlinkSync(join(file, ".."), link)
      yield* trial({
        client: ControlStoreSqlite.make({ file: join(link, "store.db"), requestTimeout }),
        judge: ControlStoreSqlite.make({ file, requestTimeout }),
        requestTimeout,
        fault: Effect.gen(function*() {
          Fs.rmSync(link)
          yield* Effect.sleep("3 seconds")
          Fs.symlinkSync(join(file, ".."), link)
        })
      })
    }).pipe(Effect.scoped))
})

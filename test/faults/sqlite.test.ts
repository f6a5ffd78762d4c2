/** The control store in one SQLite file whose lock is held, whose place goes away, and whose neighbours die. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { temporaryFolder } from "../../scripts/servers/index.ts"
import * as ControlStoreSqlite from "../../src/ControlPlane/ControlStoreSqlite.ts"
import { trial } from "./support/trial.ts"

const requestTimeout = 2_000
const newFile = Effect.map(temporaryFolder("sqlite"), (folder) => join(folder, "store.db"))

describe.concurrent("one SQLite file", () => {
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

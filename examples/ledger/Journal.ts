/**
 * What an account must not lose with its process: its movements, in order. An actor that is started elsewhere begins from its props; one
 * with a journal then repeats what it had decided. By default nothing is kept, which is enough while no process dies.
 */
import { Context, Effect, Layer } from "effect"
import { DatabaseSync } from "node:sqlite"

/** What was decided of one transfer: `refused` with what was missing, else what was moved. */
export interface Movement {
  readonly transfer: string
  readonly kind: "withdrawn" | "refused" | "deposited"
  readonly cents: number
}

export interface JournalService {
  /** all movements of that account, in order */
  readonly load: (account: string) => Effect.Effect<ReadonlyArray<Movement>>
  /** Kept when it returns. A movement is answered to nobody before that. */
  readonly append: (account: string, movement: Movement) => Effect.Effect<void>
}

export const Journal = Context.Reference<JournalService>("examples/ledger/Journal", {
  defaultValue: () => ({ load: () => Effect.succeed([]), append: () => Effect.void })
})

/**
 * In an SQLite file that the processes of one datacenter share. An append is a few microseconds, so it is done in this thread; it outlives
 * the process, and with `synchronous = FULL` it would outlive the machine. The application's own file, none of the runtime's.
 */
export const layerSqlite = (file: string): Layer.Layer<never> =>
  Layer.effect(
    Journal,
    Effect.gen(function*() {
      const db = yield* Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(file, { timeout: 5_000 })),
        (db) => Effect.sync(() => db.close())
      )
      db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
      db.exec(`CREATE TABLE IF NOT EXISTS movements (
        number INTEGER PRIMARY KEY, account TEXT, transfer TEXT, kind TEXT, cents INTEGER);
        CREATE UNIQUE INDEX IF NOT EXISTS once ON movements (account, transfer, kind = 'deposited')`)
      const insert = db.prepare("INSERT INTO movements (account, transfer, kind, cents) VALUES (?, ?, ?, ?)")
      const select = db.prepare("SELECT transfer, kind, cents FROM movements WHERE account = ? ORDER BY number")
      return {
        load: (account) => Effect.sync(() => select.all(account) as unknown as ReadonlyArray<Movement>),
        append: (account, { cents, kind, transfer }) =>
          Effect.sync(() => {
            insert.run(account, transfer, kind, cents)
          })
      }
    })
  )

// A control store of one's own on a table of SQL: any database will do that changes a row at exactly one version and rolls back what
// fails. `docs/custom-control-store.md` explains it; the public contract suite proves it.
import { ControlStore, RevisionConflict, StoreUnavailable } from "effect-troupe"
import { Effect, Layer, Option } from "effect"
import { DatabaseSync } from "node:sqlite"

/** What the backend must offer: statements, and a transaction around them. It throws when it certainly did nothing. */
export interface Table {
  readonly rows: (sql: string, ...parameters: ReadonlyArray<string | number>) => ReadonlyArray<Record<string, unknown>>
  readonly transaction: <A>(work: () => A) => A
}

const schema = [
  "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL)",
  "CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL)",
  "INSERT INTO counter VALUES (1, 0) ON CONFLICT DO NOTHING"
]

/** One number for each change, removals included, so that a key's next life has a greater revision. */
const next = "UPDATE counter SET last = last + 1 RETURNING last"

const entryOf = (row: Record<string, unknown>): ControlStore.Entry => ({
  key: String(row["key"]),
  value: String(row["value"]),
  revision: String(row["revision"])
})

/** One statement or transaction. The three outcomes: success is committed, and what throws here was rolled back. */
const ask = <A>(operation: string, work: () => A): Effect.Effect<A, StoreUnavailable> =>
  Effect.try({ try: work, catch: (error) => new StoreUnavailable({ operation, reason: String(error) }) })

export const make = (table: Table): ControlStore.ControlStoreService => {
  table.transaction(() => schema.forEach((statement) => table.rows(statement)))

  /** Runs `change` with a fresh revision if the row is at `expected` ("0": absent), all in one transaction. */
  const changeAt = (operation: string, key: string, expected: string, change: (revision: number) => void) =>
    ask(operation, () =>
      table.transaction(() => {
        const [row] = table.rows("SELECT revision FROM entries WHERE key = ?", key)
        const current = row === undefined ? undefined : String(row["revision"])
        if ((current ?? "0") !== expected) return { applied: false, current } as const
        const revision = Number(table.rows(next)[0]!["last"])
        change(revision)
        return { applied: true, revision: String(revision) } as const
      })).pipe(
        Effect.flatMap((done) =>
          done.applied
            ? Effect.succeed(done.revision)
            : Effect.fail(
              new RevisionConflict({ key, ...(done.current === undefined ? {} : { current: done.current }) })
            )
        )
      )
  const put = (operation: string, key: string, value: string, expected: string) =>
    changeAt(operation, key, expected, (revision) =>
      table.rows(
        "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
        key,
        value,
        revision
      ))

  const list = (prefix: string) =>
    ask(
      `list ${prefix}`,
      () =>
        table.rows("SELECT * FROM entries WHERE substr(key, 1, ?) = ? ORDER BY key", prefix.length, prefix).map(entryOf)
    )

  return ControlStore.checked({
    capabilities: {
      backend: "table",
      durable: true,
      maxValueBytes: 512 * 1024,
      failoverMillis: 0,
      // a listing tells what changed, not what changed first
      watchOrder: "key"
    },
    get: (key) =>
      Effect.map(
        ask(`get ${key}`, () => table.rows("SELECT * FROM entries WHERE key = ?", key)),
        ([row]) => row === undefined ? Option.none() : Option.some(entryOf(row))
      ),
    create: (key, value) => put(`create ${key}`, key, value, "0"),
    update: (key, value, revision) => put(`update ${key}`, key, value, revision),
    remove: (key, revision) =>
      Effect.asVoid(
        changeAt(`remove ${key}`, key, revision, () => table.rows("DELETE FROM entries WHERE key = ?", key))
      ),
    list,
    watch: (prefix) => ControlStore.watchByListing(list(prefix))
  })
}

/** A table in SQLite, for the sake of having one here. */
export const sqliteTable = (path: string): Table => {
  const database = new DatabaseSync(path)
  return {
    rows: (sql, ...parameters) => database.prepare(sql).all(...parameters),
    transaction: (work) => {
      database.exec("BEGIN IMMEDIATE")
      try {
        const done = work()
        database.exec("COMMIT")
        return done
      } catch (error) {
        database.exec("ROLLBACK")
        throw error
      }
    }
  }
}

/** As a Layer it takes the place of `ControlStoreNats.layer` and the others. */
export const layer = (path: string): Layer.Layer<ControlStore.ControlStore> =>
  Layer.effect(ControlStore.ControlStore, Effect.sync(() => make(sqliteTable(path))))

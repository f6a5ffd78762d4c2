/**
 * The store in one SQLite file, synchronously: for the store's own thread, never for a thread that has other things to do.
 *
 * `entries` is the truth, `changes` a log of it by revision for watches, `store` one row with the counter. The counter never
 * falls, so a key that is removed and created again has a higher revision. Several processes may have the file open.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { Change, Row, Write } from "./sqliteProtocol.ts"

/** "TRUP": says in the file's header whose it is */
const applicationId = 0x54525550
const layoutVersion = 1
/** milliseconds that SQLite itself may wait while a file is opened; afterwards all waiting is ours */
const openPatience = 200
/** what the log keeps for watches that are behind; it is cut to half when it has grown beyond */
const logEntries = 16_384
const logBytes = 64 * 1024 * 1024

const layout = `
  CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT, bytes INTEGER NOT NULL);
  CREATE TABLE IF NOT EXISTS store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL,
    revision INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    bytes INTEGER NOT NULL
  );
  INSERT OR IGNORE INTO store VALUES (1, lower(hex(randomblob(16))), 0, 1, 0);
`

/**
 * Why the file did not do it. `Busy`: another process holds it, and nothing was done. `Refused`: it is not ours or not
 * accessible, which waiting does not change. `Broken`: something failed, and nothing was done. `Unknown`: perhaps done.
 */
export class FileTrouble extends Error {
  readonly kind: "Busy" | "Refused" | "Broken" | "Unknown"
  constructor(kind: FileTrouble["kind"], reason: string) {
    super(reason)
    this.kind = kind
  }
}

/** SQLite's own primary result codes */
const busy = new Set([5, 6])
const lasting = new Set([3, 8, 14, 23, 26])

/** any failure of a call of SQLite, in our terms */
export const troubleOf = (error: unknown): FileTrouble => {
  if (error instanceof FileTrouble) return error
  const { errcode, message } = error as { readonly errcode?: number; readonly message?: string }
  const code = (errcode ?? 1) & 0xff
  return new FileTrouble(busy.has(code) ? "Busy" : lasting.has(code) ? "Refused" : "Broken", message ?? String(error))
}

export type WriteResult = { readonly revision: number } | { readonly conflict: number | undefined }

export interface State {
  readonly identity: string
  readonly revision: number
}

export interface SqliteFile {
  readonly get: (key: string) => Row | undefined
  readonly list: (prefix: string) => ReadonlyArray<Row>
  /** All of them in one transaction, in order, each by its own condition. Durable when it returns. */
  readonly write: (writes: ReadonlyArray<Write>) => ReadonlyArray<WriteResult>
  /** Runs reads on one unchanging state of the file. */
  readonly consistently: <A>(read: (state: State) => A) => A
  /** Changes after that revision in order; undefined when the log no longer holds them all. */
  readonly changesSince: (revision: number, state: State) => ReadonlyArray<Change> | undefined
  /** A number that changes when another connection has committed; costs microseconds. */
  readonly dataVersion: () => number
  /** undefined while the opened file is the one at the path, else what happened to it */
  readonly replaced: () => string | undefined
  readonly close: () => void
}

const inodeOf = (path: string): string | undefined => {
  const stat = Fs.statSync(path, { throwIfNoEntry: false, bigint: true })
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`
}

const rollback = (db: DatabaseSync): void => {
  if (db.isTransaction) db.exec("ROLLBACK")
}

/** Refuses what is no store of ours before anything is written to it. */
const checkOwner = (db: DatabaseSync, path: string): void => {
  const owner = db.prepare("PRAGMA application_id").get()?.["application_id"]
  const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"])
  if (owner === applicationId) {
    if (version > layoutVersion) throw new FileTrouble("Refused", `${path} was written by a newer version`)
    return
  }
  const tables = Number(db.prepare("SELECT count(*) AS tables FROM sqlite_schema").get()?.["tables"])
  if (owner !== 0 || tables > 0) throw new FileTrouble("Refused", `${path} is the database of another application`)
}

const open = (path: string, synchronous: "full" | "normal"): DatabaseSync => {
  const folder = Path.dirname(path)
  if (!Fs.existsSync(folder)) throw new FileTrouble("Refused", `the folder ${folder} does not exist`)
  const db = new DatabaseSync(path, { timeout: openPatience })
  try {
    checkOwner(db, path)
    const mode = db.prepare("PRAGMA journal_mode = WAL").get()?.["journal_mode"]
    if (mode !== "wal") throw new FileTrouble("Refused", `${path} cannot be shared between processes (${mode})`)
    db.exec(`PRAGMA synchronous = ${synchronous === "full" ? "FULL" : "NORMAL"}`)
    db.exec("BEGIN IMMEDIATE")
    checkOwner(db, path)
    db.exec(layout)
    db.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${layoutVersion}`)
    db.exec("COMMIT")
    // from here on nobody waits inside SQLite: reads and proofs must not stand behind a lock
    db.exec("PRAGMA busy_timeout = 0")
    return db
  } catch (error) {
    db.close()
    throw error
  }
}

/** Opens the store, and creates it where there is none. Throws `FileTrouble`. */
export const openFile = (path: string, synchronous: "full" | "normal"): SqliteFile => {
  let db: DatabaseSync
  try {
    db = open(path, synchronous)
  } catch (error) {
    throw troubleOf(error)
  }
  // SQLite locks through the two files beside the database: where one of the three is another file now, locks mean nothing
  const files = [path, `${path}-wal`, `${path}-shm`]
  const inodes = files.map(inodeOf)

  const readStore = db.prepare("SELECT identity, revision, oldest, bytes FROM store")
  const writeStore = db.prepare("UPDATE store SET revision = ?, oldest = ?, bytes = ?")
  const readEntry = db.prepare("SELECT key, value, revision FROM entries WHERE key = ?")
  const readRevision = db.prepare("SELECT revision FROM entries WHERE key = ?")
  const readEntries = db.prepare("SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key")
  const put = db.prepare(
    "INSERT INTO entries (key, value, revision) VALUES (?, ?, ?) "
      + "ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision"
  )
  const drop = db.prepare("DELETE FROM entries WHERE key = ?")
  const log = db.prepare("INSERT INTO changes (revision, key, value, bytes) VALUES (?, ?, ?, ?)")
  const readLog = db.prepare("SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision")
  const readLogSizes = db.prepare("SELECT revision, bytes FROM changes ORDER BY revision")
  const cutLog = db.prepare("DELETE FROM changes WHERE revision < ?")
  const readDataVersion = db.prepare("PRAGMA data_version")

  const guarded = <A>(read: () => A): A => {
    try {
      return read()
    } catch (error) {
      throw troubleOf(error)
    }
  }

  const replaced = (): string | undefined => {
    const at = files.findIndex((file, i) => inodeOf(file) !== inodes[i])
    return at < 0 ? undefined : `${files[at]} was removed or replaced`
  }

  const write = (writes: ReadonlyArray<Write>): ReadonlyArray<WriteResult> => {
    const gone = replaced()
    if (gone !== undefined) throw new FileTrouble("Broken", gone)
    let committing = false
    try {
      db.exec("BEGIN IMMEDIATE")
      const store = readStore.get() as { revision: number; oldest: number; bytes: number } | undefined
      if (store === undefined) throw new FileTrouble("Broken", "the counter of revisions is missing")
      const before = store.revision
      const results = writes.map((one): WriteResult => {
        const current = readRevision.get(one.key)?.["revision"] as number | undefined
        const expected = one.op === "create" ? undefined : one.revision
        if ((current === undefined ? undefined : String(current)) !== expected) return { conflict: current }
        const revision = store.revision += 1
        const value = one.op === "remove" ? null : one.value
        const bytes = Buffer.byteLength(one.key) + (value === null ? 0 : Buffer.byteLength(value))
        if (value === null) drop.run(one.key)
        else put.run(one.key, value, revision)
        log.run(revision, one.key, value, bytes)
        store.bytes += bytes
        return { revision }
      })
      if (store.revision === before) {
        db.exec("ROLLBACK")
        return results
      }
      if (store.revision - store.oldest >= logEntries || store.bytes > logBytes) {
        for (const row of readLogSizes.iterate()) {
          const { bytes, revision } = row as unknown as { readonly revision: number; readonly bytes: number }
          if (store.revision - revision < logEntries / 2 && store.bytes <= logBytes / 2) break
          store.bytes -= bytes
          store.oldest = revision + 1
        }
        cutLog.run(store.oldest)
      }
      writeStore.run(store.revision, store.oldest, store.bytes)
      committing = true
      db.exec("COMMIT")
      const late = replaced()
      if (late !== undefined) throw new FileTrouble("Unknown", late)
      return results
    } catch (error) {
      const trouble = troubleOf(error)
      try {
        rollback(db)
      } catch (second) {
        throw new FileTrouble(committing ? "Unknown" : "Broken", `${trouble.message}; ${troubleOf(second).message}`)
      }
      // a commit that broke off may lie in the log all the same, where the next reader would find it
      if (committing && trouble.kind !== "Busy") throw new FileTrouble("Unknown", trouble.message)
      throw trouble
    }
  }

  return {
    get: (key) => guarded(() => readEntry.get(key) as unknown as Row | undefined),
    list: (prefix) => guarded(() => readEntries.all(prefix, `${prefix}\u{10FFFF}`) as unknown as ReadonlyArray<Row>),
    write,
    consistently: (read) =>
      guarded(() => {
        db.exec("BEGIN")
        try {
          const state = readStore.get() as unknown as State | undefined
          if (state === undefined) throw new FileTrouble("Broken", "the counter of revisions is missing")
          return read(state)
        } finally {
          rollback(db)
        }
      }),
    changesSince: (revision, state) =>
      guarded(() => {
        const changes = readLog.all(revision) as unknown as ReadonlyArray<Change>
        return changes.length === state.revision - revision ? changes : undefined
      }),
    dataVersion: () => guarded(() => Number(readDataVersion.get()?.["data_version"])),
    replaced,
    close: () => {
      if (db.isOpen) db.close()
    }
  }
}

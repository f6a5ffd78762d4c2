/**
 * The store in one SQLite file, synchronously: for the store's own thread, never for a thread that has other things to do.
 *
 * `entries` is the truth, `changes` a log of it by revision for watches. The newest row of the log is the counter of revisions
 * and is never cut, so the counter never falls, and a key that is removed and created again has a higher revision. A write
 * touches one page of each table: what it costs is the sync to disk. Several processes may have the file open.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { DatabaseSync } from "node:sqlite"
import type { Change, Row, Write } from "./sqliteProtocol.ts"

/**
 * Milliseconds between two looks at the two files beside the database. Whoever asks for a file's times makes Linux note the next
 * change of it exactly, which then has to be synced as well: looking at the log for each commit made it half as dear again.
 */
const lookBesideEvery = 100
/** "TRUP": says in the file's header whose it is */
const applicationId = 0x54525550
const layoutVersion = 1
/** milliseconds that SQLite itself may wait while a file is opened; afterwards all waiting is ours */
const openPatience = 200
/** what the log keeps for watches that are behind, at least; what is beyond goes whenever a process has added as much as below */
const logEntries = 8_192
const logBytes = 32 * 1024 * 1024
const cutAfterEntries = 1_024
const cutAfterBytes = 8 * 1024 * 1024

const layout = `
  CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, revision INTEGER NOT NULL, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, bytes INTEGER NOT NULL, value TEXT);
  CREATE TABLE IF NOT EXISTS store (id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL);
  INSERT OR IGNORE INTO store VALUES (1, lower(hex(randomblob(16))));
`
/** The log follows by itself what is created and updated, so that a lone write is one statement. Lives with the connection. */
const logging = (event: "INSERT" | "UPDATE"): string =>
  `CREATE TEMP TRIGGER log_${event} AFTER ${event} ON main.entries BEGIN
    INSERT INTO changes (revision, key, bytes, value)
    VALUES (NEW.revision, NEW.key, octet_length(NEW.key) + octet_length(NEW.value), NEW.value);
  END`

/**
 * Why the file did not do it. `Busy`: another process holds it, and nothing was done. `Full`: there is no room on the disk (or no quota), nothing was
 * done, and the file is well. `Refused`: it is not ours, damaged or not accessible, which waiting does not change. `Broken`:
 * something failed, and nothing was done. `Unknown`: perhaps done.
 */
export class FileTrouble extends Error {
  readonly kind: "Busy" | "Full" | "Refused" | "Broken" | "Unknown"
  constructor(kind: FileTrouble["kind"], reason: string) {
    super(reason)
    this.kind = kind
  }
}

/** SQLite's own primary result codes */
const busy = new Set([5, 6])
/** no room for the last page of a transaction: its commit was not written, whatever else was */
const full = new Set([13])
const lasting = new Set([3, 8, 11, 14, 23, 26])
/** SQLITE_IOERR_WRITE: a page could not be written, for want of quota, beyond the largest file allowed, or on a bad disk */
const unwritten = 778

/** any failure of a call of SQLite, in our terms */
export const troubleOf = (error: unknown): FileTrouble => {
  if (error instanceof FileTrouble) return error
  const { errcode, message } = error as { readonly errcode?: number; readonly message?: string }
  const code = (errcode ?? 1) & 0xff
  const kind = busy.has(code) ? "Busy" : full.has(code) ? "Full" : lasting.has(code) ? "Refused" : "Broken"
  return new FileTrouble(kind, message ?? String(error))
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
  const stat = Fs.statSync(path, { throwIfNoEntry: false })
  return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`
}

const isWritable = (path: string): boolean => {
  try {
    Fs.accessSync(path, Fs.constants.R_OK | Fs.constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** bytes of the log's header, and of that before each page in it */
const logHeader = 32
const frameHeader = 24

/**
 * Does the log hold a commit beyond the last one that readers know, which a recovery would find? A commit is the mark on its last page,
 * and its pages carry the salts of the log. Yes where it cannot be told. (The third file, through which readers know, must not be
 * opened here: closing it would give back SQLite's locks.)
 */
export const logHoldsMore = (db: DatabaseSync, log: string): boolean => {
  // SQLite before 3.51 knows no NOOP and does what it can without waiting, which is as good
  const known = db.prepare("PRAGMA wal_checkpoint(NOOP)").get()?.["log"]
  if (typeof known !== "number" || known < 0) return true
  const file = Fs.openSync(log, "r")
  try {
    const header = Buffer.alloc(logHeader)
    const { size } = Fs.fstatSync(file)
    if (Fs.readSync(file, header, 0, logHeader, 0) < logHeader) return true
    const frame = Buffer.alloc(frameHeader)
    const frameSize = frameHeader + header.readUInt32BE(8)
    for (let at = logHeader + known * frameSize; at + frameSize <= size; at += frameSize) {
      if (Fs.readSync(file, frame, 0, frameHeader, at) < frameHeader) return true
      if (!frame.subarray(8, 16).equals(header.subarray(16, 24))) return false
      if (frame.readUInt32BE(4) !== 0) return true
    }
    return false
  } finally {
    Fs.closeSync(file)
  }
}

const rollback = (db: DatabaseSync): void => {
  if (db.isTransaction) db.exec("ROLLBACK")
}

/** Is the store made already? Refuses what is no store of ours before anything is written to it. */
const isMade = (db: DatabaseSync, path: string): boolean => {
  const owner = db.prepare("PRAGMA application_id").get()?.["application_id"]
  const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"])
  if (owner === applicationId) {
    if (version > layoutVersion) throw new FileTrouble("Refused", `${path} was written by a newer version`)
    return true
  }
  const tables = Number(db.prepare("SELECT count(*) AS tables FROM sqlite_schema").get()?.["tables"])
  if (owner !== 0 || tables > 0) throw new FileTrouble("Refused", `${path} is the database of another application`)
  return false
}

const open = (path: string, synchronous: "full" | "normal"): DatabaseSync => {
  const folder = Path.dirname(path)
  if (!Fs.existsSync(folder)) throw new FileTrouble("Refused", `the folder ${folder} does not exist`)
  // SQLite opens what it may only read without a word
  if (!isWritable(folder)) throw new FileTrouble("Refused", `files cannot be made in ${folder}`)
  if (Fs.existsSync(path) && !isWritable(path)) throw new FileTrouble("Refused", `${path} cannot be written to`)
  const db = new DatabaseSync(path, { timeout: openPatience })
  try {
    // in one transaction, so that a store which another process is just making is not half seen
    db.exec("BEGIN")
    const made = isMade(db, path)
    db.exec("COMMIT")
    const mode = db.prepare("PRAGMA journal_mode = WAL").get()?.["journal_mode"]
    if (mode !== "wal") throw new FileTrouble("Refused", `${path} cannot be shared between processes (${mode})`)
    db.exec(`PRAGMA synchronous = ${synchronous === "full" ? "FULL" : "NORMAL"}`)
    if (made) {
      const found = db.prepare("PRAGMA quick_check(1)").get()?.["quick_check"]
      if (found !== "ok") throw new FileTrouble("Refused", `${path} is damaged: ${String(found)}`)
    } else {
      db.exec("BEGIN IMMEDIATE")
      isMade(db, path)
      db.exec(layout)
      db.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${layoutVersion}`)
      db.exec("COMMIT")
    }
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
    const { kind, message } = troubleOf(error)
    throw new FileTrouble(kind, message.includes(Path.dirname(path)) ? message : `${path}: ${message}`)
  }
  // SQLite locks through the two files beside the database: where one of the three is another file now, locks mean nothing
  const files = [path, `${path}-wal`, `${path}-shm`]
  const inodes = files.map(inodeOf)
  let looked = performance.now()

  db.exec(logging("INSERT"))
  db.exec(logging("UPDATE"))
  const begin = db.prepare("BEGIN IMMEDIATE")
  const commit = db.prepare("COMMIT")
  const readIdentity = db.prepare("SELECT identity FROM store")
  const readCounter = db.prepare("SELECT max(revision) AS revision FROM changes")
  const readEntry = db.prepare("SELECT key, value, revision FROM entries WHERE key = ?")
  const readRevision = db.prepare("SELECT revision FROM entries WHERE key = ?")
  const readEntries = db.prepare("SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key")
  const next = "(SELECT coalesce(max(revision), 0) + 1 FROM changes)"
  const create = db.prepare(
    `INSERT INTO entries (key, revision, value) VALUES (?, ${next}, ?) ON CONFLICT DO NOTHING RETURNING revision`
  )
  const update = db.prepare(
    `UPDATE entries SET revision = ${next}, value = ? WHERE key = ? AND revision = ? RETURNING revision`
  )
  const remove = db.prepare("DELETE FROM entries WHERE key = ? AND revision = ?")
  const logRemoval = db.prepare(
    `INSERT INTO changes (revision, key, bytes) VALUES (${next}, ?, ?) RETURNING revision`
  )
  const readLog = db.prepare("SELECT key, value, revision FROM changes WHERE revision > ? ORDER BY revision")
  const sumLog = db.prepare("SELECT sum(bytes) AS bytes FROM changes WHERE revision > ?")
  const readLogSizes = db.prepare("SELECT revision, bytes FROM changes ORDER BY revision DESC")
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
    const now = performance.now()
    const all = now - looked >= lookBesideEvery
    if (all) looked = now
    const at = files.findIndex((file, i) => (i === 0 || all) && inodeOf(file) !== inodes[i])
    return at < 0 ? undefined : `${files[at]} was removed or replaced`
  }

  const counter = (): number => Number(readCounter.get()?.["revision"] ?? 0)
  const state = (): State => {
    const identity = readIdentity.get()?.["identity"]
    if (typeof identity !== "string") throw new FileTrouble("Broken", "the store has lost its identity")
    return { identity, revision: counter() }
  }

  /** One write; undefined where the key is not at the revision that it asks for. All rows are asked for, so that it ends here. */
  const apply = (one: Write): number | undefined => {
    if (one.op === "create") return create.all(one.key, one.value)[0]?.["revision"] as number | undefined
    if (one.op === "update") {
      return update.all(one.value, one.key, Number(one.revision))[0]?.["revision"] as number | undefined
    }
    if (Number(remove.run(one.key, Number(one.revision)).changes) === 0) return undefined
    return logRemoval.all(one.key, Buffer.byteLength(one.key))[0]?.["revision"] as number
  }

  let addedEntries = 0
  let addedBytes = 0
  const mustTidy = (): boolean => addedEntries >= cutAfterEntries || addedBytes >= cutAfterBytes
  /** Cuts what is beyond the limits; always leaves the newest. */
  const tidyLog = (): void => {
    if (!mustTidy()) return
    addedEntries = 0
    addedBytes = 0
    // revisions have no holes, so the usual case needs no look at each row
    const oldest = counter() - logEntries
    if (Number(sumLog.get(oldest)?.["bytes"] ?? 0) <= logBytes) return void cutLog.run(oldest + 1)
    let entries = 0
    let kept = 0
    for (const row of readLogSizes.iterate()) {
      const { bytes, revision } = row as unknown as { readonly revision: number; readonly bytes: number }
      entries += 1
      kept += bytes
      if (entries > 1 && (entries > logEntries || kept > logBytes)) {
        cutLog.run(revision + 1)
        return
      }
    }
  }

  const mayHoldMore = (): boolean => {
    try {
      return logHoldsMore(db, files[1]!)
    } catch {
      return true
    }
  }
  const write = (writes: ReadonlyArray<Write>): ReadonlyArray<WriteResult> => {
    // a statement outside of a transaction is one by itself, and commits when it ends
    const lone = writes.length === 1 && writes[0]!.op !== "remove" && !mustTidy()
    let committing = lone
    try {
      if (!lone) begin.run()
      let written = false
      const results = writes.map((one): WriteResult => {
        const revision = apply(one)
        if (revision === undefined) return { conflict: readRevision.get(one.key)?.["revision"] as number | undefined }
        written = true
        addedEntries += 1
        addedBytes += one.key.length + (one.op === "remove" ? 0 : one.value.length)
        return { revision }
      })
      if (!written) {
        rollback(db)
        return results
      }
      if (!lone) {
        tidyLog()
        committing = true
        commit.run()
      }
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
      if (!committing || trouble.kind === "Busy" || trouble.kind === "Full") throw trouble
      // a commit that broke off may lie in the log all the same, where the next reader would find it
      const isOut = (error as { readonly errcode?: number }).errcode === unwritten && !mayHoldMore()
      throw isOut
        ? new FileTrouble("Full", `the log could not be written to: ${trouble.message}`)
        : new FileTrouble("Unknown", trouble.message)
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
          return read(state())
        } finally {
          rollback(db)
        }
      }),
    changesSince: (revision, now) =>
      guarded(() => {
        const changes = readLog.all(revision) as unknown as ReadonlyArray<Change>
        return changes.length === now.revision - revision ? changes : undefined
      }),
    dataVersion: () => guarded(() => Number(readDataVersion.get()?.["data_version"])),
    replaced,
    close: () => {
      if (db.isOpen) db.close()
    }
  }
}

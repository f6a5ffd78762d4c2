// A program whose files may grow no further, by one byte more each time: so a commit breaks off at each place where it can. Prints how
// its writes ended, and whether a recovery of what then lies on the disk finds one of those that failed. Argument: a folder.
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { FileTrouble, openFile } from "../../../src/ControlPlane/internal/sqliteFile.edge.ts"

const folder = process.argv[2]!
const path = join(folder, "store.db")
const copy = join(folder, "copy.db")
const store = openFile(path, "full")

/** Signals of the limit are ignored by Node; what is written beyond it fails, as it does beyond a quota. */
const limit = (bytes: number | "unlimited") =>
  execFileSync("prlimit", ["--pid", String(process.pid), `--fsize=${bytes}:`])

/** Keys that are found after a crash of the machine: by the database and its log alone. */
const recovered = (): ReadonlyArray<string> => {
  for (const suffix of ["", "-wal"]) Fs.copyFileSync(path + suffix, copy + suffix)
  const db = new DatabaseSync(copy)
  const keys = db.prepare("SELECT key FROM entries ORDER BY key").all().map(({ key }) => String(key))
  db.close()
  return keys
}

store.write([{ op: "create", key: "first", value: "1" }])
const ends = new Map<string, number>()
const resurrected: Array<string> = []
const written = ["first"]
for (let more = 0; more < 24_000; more += 431) {
  limit(Fs.statSync(`${path}-wal`).size + more)
  // a lone write is a statement by itself, several are a transaction
  const keys = Array.from({ length: more % 2 === 0 ? 1 : 3 }, (_, i) => `${String(more).padStart(5, "0")}/${i}`)
  let end = "written"
  try {
    store.write(keys.map((key) => ({ op: "create", key, value: "x".repeat(9_000 / keys.length) })))
    written.push(...keys)
  } catch (error) {
    end = error instanceof FileTrouble ? error.kind : String(error)
  }
  ends.set(end, (ends.get(end) ?? 0) + 1)
  limit("unlimited")
  resurrected.push(...recovered().filter((key) => !written.includes(key)))
}
store.write([{ op: "create", key: "last", value: "1" }])
console.log(
  JSON.stringify({ ends: Object.fromEntries(ends), resurrected, kept: store.list("").length - written.length })
)

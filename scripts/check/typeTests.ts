/**
 * The type tests (`*.tst.ts`), on a TypeScript that is a library: 7 is none, so the last 6 is brought into the cache folder by npm, which
 * knows this machine's registry and certificates. Used as a module: `run` says how many passed and failed.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.join(import.meta.dirname, "../..")
const cache = Path.join(root, ".cache")
const version = "6.0.3"

/** The path of TypeScript's library, brought if need be. */
const bring = (): string => {
  const folder = Path.join(cache, `typescript-${version}`)
  const library = Path.join(folder, "node_modules/typescript/lib/typescript.js")
  if (Fs.existsSync(library)) return library
  Fs.mkdirSync(folder, { recursive: true })
  Fs.writeFileSync(Path.join(folder, "package.json"), JSON.stringify({ private: true }))
  const npm = process.env["npm_execpath"]
  const args = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", folder, `typescript@${version}`]
  const installed = npm === undefined
    ? spawnSync("npm", args, { cwd: folder, stdio: "inherit" })
    : spawnSync(process.execPath, [npm, ...args], { cwd: folder, stdio: "inherit" })
  if (installed.status !== 0) throw new Error(`type tests need TypeScript ${version}, and npm could not bring it`)
  return library
}

export const run = (): { readonly passed: number; readonly failed: number } => {
  const report = Path.join(cache, "tstyche.json")
  Fs.rmSync(report, { force: true })
  const tests = spawnSync(process.execPath, [
    Path.join(root, "node_modules/tstyche/dist/bin.js"),
    "--reporters",
    `list,summary,${Path.join(root, "scripts/check/tstyche-count.ts")}`
  ], {
    cwd: root,
    stdio: "inherit",
    env: {
      ...process.env,
      TSTYCHE_TYPESCRIPT_MODULE: bring(),
      TSTYCHE_STORE_PATH: Path.join(cache, "tstyche"),
      TSTYCHE_COUNT: report
    }
  })
  const { failed, passed } = Fs.existsSync(report)
    ? JSON.parse(Fs.readFileSync(report, "utf8")) as { readonly passed: number; readonly failed: number }
    : { passed: 0, failed: 0 }
  return tests.status === 0 && passed > 0 ? { passed, failed } : { passed, failed: Math.max(1, failed) }
}

if (process.argv[1] !== undefined && Path.resolve(process.argv[1]) === import.meta.filename) {
  process.exitCode = run().failed === 0 ? 0 : 1
}

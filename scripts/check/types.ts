/**
 * The type check, with Effect's own diagnostics in the same pass (a floating Effect is a compile error): `node scripts/check/types.ts [TSCONFIG]`.
 * The compiler is TypeScript 7 with Effect's language service built in; where that has no binary for this platform, plain `tsc`
 * checks the types alone and says so.
 */
import { spawnSync } from "node:child_process"
import * as Path from "node:path"

const modules = Path.join(import.meta.dirname, "../../node_modules")

const compiler = (): ReadonlyArray<string> => {
  const asked = spawnSync(process.execPath, [Path.join(modules, "@effect/tsgo/dist/effect-tsgo.cjs"), "get-exe-path"], {
    encoding: "utf8",
    cwd: Path.dirname(modules)
  })
  if (asked.status === 0) return [asked.stdout.trim()]
  console.warn(`no Effect diagnostics here, plain tsc instead: ${asked.stderr.trim()}`)
  return [process.execPath, Path.join(modules, "typescript/bin/tsc")]
}

const [command, ...before] = compiler()
const run = spawnSync(command!, [...before, "--noEmit", "-p", process.argv[2] ?? "tsconfig.json"], { stdio: "inherit" })
if (run.error !== undefined) console.error(`type check: ${run.error.message}`)
process.exitCode = run.status ?? 1

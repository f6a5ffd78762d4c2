/**
 * The type check, with Effect's own diagnostics in the same pass (a floating Effect is a compile error): `node scripts/check/types.ts [TSCONFIG]`.
 * The compiler is TypeScript 7 with Effect's language service built in; where that has no binary for this platform, plain `tsc`
 * checks the types alone and says so.
 */
import { spawnSync } from "node:child_process"
import * as Path from "node:path"
import getExePath from "@effect/tsgo/lib/getExePath"

const compiler = (): ReadonlyArray<string> => {
  try {
    return [getExePath()]
  } catch (error) {
    console.warn(`no Effect diagnostics here, plain tsc instead: ${String(error)}`)
    return [process.execPath, Path.join(import.meta.dirname, "../../node_modules/typescript/bin/tsc")]
  }
}

const [command, ...before] = compiler()
const run = spawnSync(command!, [...before, "--noEmit", "-p", process.argv[2] ?? "tsconfig.json"], { stdio: "inherit" })
if (run.error !== undefined) console.error(`type check: ${run.error.message}`)
process.exitCode = run.status ?? 1

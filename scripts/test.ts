/**
 * `npm test`: everything that must hold, one step after the other, and one plain last line with the sum: `N passed, N failed`.
 * A step that counts nothing itself (type check, lint) counts as one. Later steps run even if earlier ones fail.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as typeTests from "./check/typeTests.ts"

const root = Path.join(import.meta.dirname, "..")
const cache = Path.join(root, ".cache")
const modules = Path.join(root, "node_modules")

interface Count {
  readonly passed: number
  readonly failed: number
}

const none: Count = { passed: 0, failed: 0 }

const start = (command: string, args: ReadonlyArray<string>) => {
  const run = spawnSync(command, args, {
    cwd: root,
    stdio: "inherit",
    env: {
      ...process.env,
      PATH: `${Path.join(modules, ".bin")}${Path.delimiter}${process.env["PATH"]}`
    }
  })
  if (run.error !== undefined) console.error(`${command}: ${run.error.message}`)
  return run.status === 0
}

/** A step that passes or fails as a whole. */
const script = (path: string, ...args: ReadonlyArray<string>) => (): Count =>
  start(process.execPath, [Path.join(root, path), ...args]) ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 }

/** Vitest on some projects of its configuration, counted from its own report. Ending badly without a failed test is a failure. */
const vitest = (...projects: ReadonlyArray<string>) => (): Count => {
  Fs.mkdirSync(cache, { recursive: true })
  const report = Path.join(cache, `vitest-${projects.join("-")}.json`)
  Fs.rmSync(report, { force: true })
  const passed = start(process.execPath, [
    Path.join(modules, "vitest/vitest.mjs"),
    "run",
    "--allowOnly=false",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...projects.map((project) => `--project=${project}`)
  ])
  if (!Fs.existsSync(report)) return { passed: 0, failed: 1 }
  const { numFailedTestSuites, numFailedTests, numPassedTests } = JSON.parse(Fs.readFileSync(report, "utf8")) as {
    readonly numPassedTests: number
    readonly numFailedTests: number
    readonly numFailedTestSuites: number
  }
  const failed = numFailedTests > 0 ? numFailedTests : passed ? 0 : Math.max(1, numFailedTestSuites)
  return { passed: numPassedTests, failed }
}

const steps: Readonly<Record<string, ReadonlyArray<readonly [name: string, run: () => Count]>>> = {
  all: [
    ["type check", script("scripts/check/types.ts")],
    ["lint", script("node_modules/oxlint/bin/oxlint")],
    ["house rules", script("scripts/check/main.ts")],
    ["format", script("node_modules/dprint/bin.cjs", "check")],
    ["type tests", typeTests.run],
    ["tests", vitest("unit", "ground", "integration")]
  ],
  faults: [["failure tests", vitest("faults")]]
}

const wanted = process.argv[2] ?? "all"
const chosen = steps[wanted]
if (chosen === undefined) throw new Error(`no such set of steps: ${wanted} (${Object.keys(steps).join(", ")})`)

const outcomes = chosen.map(([name, run]) => {
  console.log(`\n== ${name}`)
  const begun = process.hrtime.bigint()
  const count = run()
  const seconds = Number((process.hrtime.bigint() - begun) / 1_000_000n) / 1000
  return { name, seconds, ...count }
})
console.log("")
for (const { failed, name, passed, seconds } of outcomes) {
  console.log(
    `${name.padEnd(16)} ${String(passed).padStart(6)} passed ${String(failed).padStart(4)} failed ${
      seconds.toFixed(1)
    } s`
  )
}
const sum = outcomes.reduce((a, b) => ({ passed: a.passed + b.passed, failed: a.failed + b.failed }), none)
console.log(`${sum.passed} passed, ${sum.failed} failed`)
process.exitCode = sum.failed === 0 && sum.passed > 0 ? 0 : 1

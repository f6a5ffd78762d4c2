// The ledger demo as a person starts it: on each control plane its balances equal the fold's, and it fails when a single cent differs.
import { afterAll, assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"

const folder = Path.join(import.meta.dirname, "../../examples/ledger")

const demo = (args: ReadonlyArray<string>, before: ReadonlyArray<string> = []) => {
  const run = spawnSync(process.execPath, [...before, Path.join(folder, "demo.ts"), ...args], {
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
    timeout: 120_000
  })
  return { status: run.status, output: run.stdout + run.stderr }
}

const temporary = Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-demo-"))
afterAll(() => Fs.rmSync(temporary, { recursive: true, force: true }))

/** The accounts of the ledger and its first transfers, wrong lines included. */
const shorter = (lines: number): string => {
  const path = Path.join(Fs.mkdtempSync(Path.join(temporary, "short-")), "short.jsonl")
  const all = Fs.readFileSync(Path.join(folder, "ledger.jsonl"), "utf8").split("\n")
  Fs.writeFileSync(path, [...all.slice(0, lines), "{ broken"].join("\n"))
  return path
}

/** What every good run says, whatever it ran on. */
const assertGood = ({ output, status }: ReturnType<typeof demo>) => {
  assert.strictEqual(status, 0, output)
  assert.notInclude(output, "DIFFERS")
  assert.match(output, /^us-east-1 +3 /m)
  assert.match(output, /^eu-west-1 +3 /m)
  assert.match(output, /datacenter that does not exist: RecordNotFound/)
  assert.match(output, /kind that nobody registered: KindNotRegistered/)
  assert.match(output, /a withdrawal of ten billion from .*: Overdrawn/)
  assert.match(output, /line \d+: MalformedLine/)
  assert.match(output, /equal: balances of 420 accounts/)
}

describe("npm run demo", () => {
  it("runs the whole ledger with the embedded control plane", () => {
    const run = demo([])
    assertGood(run)
    assert.match(run.output, /equal: 10 \d\d\d transfers performed/)
    assert.match(run.output, /line 1645: MalformedLine/)
  }, 150_000)

  for (const controlPlane of ["nats", "etcd"]) {
    it(`runs a shorter one with real ${controlPlane} servers`, () => {
      assertGood(demo(["--control-plane", controlPlane, "--input", shorter(1_500)]))
    }, 150_000)
  }

  it("runs each node as a process on SQLite files, and loses no cent when one is killed halfway", () => {
    const run = demo(["--processes", "--input", shorter(1_000)])
    assertGood(run)
    assert.match(run.output, /^(us-east|eu-west)-1 [a-f] was killed after \d+ transfers/m)
    const [, accounts] = /^ {2}.* until the last of its (\d+) accounts answered elsewhere/m.exec(run.output) ?? []
    assert.isAbove(Number(accounts), 50)
    assert.include(run.output, `yes: ${accounts} accounts of the killed process run elsewhere`)
    assert.match(run.output, /yes: 5 processes left in order, 1 was killed/)
  }, 150_000)

  it("exits with 1 when the fold says one cent more", () => {
    const hook = Path.join(Path.dirname(shorter(1)), "one-cent.mjs")
    Fs.writeFileSync(
      hook,
      `import { registerHooks } from "node:module"
       registerHooks({ load: (url, context, next) => {
         const loaded = next(url, context)
         if (!url.endsWith("/fold.ts")) return loaded
         const source = String(loaded.source).replace("holds + credit.cents", "holds + credit.cents + 1")
         if (source === String(loaded.source)) throw new Error("nothing was replaced")
         return { ...loaded, source }
       } })`
    )
    const run = demo(["--input", shorter(450)], ["--import", hook])
    assert.strictEqual(run.status, 1, run.output)
    assert.match(run.output, /DIFFERS: balances of 420 accounts/)
  }, 150_000)

  it("refuses a file that is not there, and a control plane that it does not know", () => {
    assert.notStrictEqual(demo(["--input", Path.join(folder, "no-such-file.jsonl")]).status, 0)
    assert.notStrictEqual(demo(["--control-plane", "chalk"]).status, 0)
    assert.match(demo(["--processes", "--control-plane", "memory"]).output, /processes share no memory/)
  }, 60_000)
})

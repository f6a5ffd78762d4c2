// Shows that a command is complete by itself: what is missing or of another version is installed first, once, and only then the script runs,
// by a nested npm, with its arguments. npm is played by a program that writes down what it was asked.
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterEach, beforeEach, describe, expect, it } from "vitest"

const project = Path.join(import.meta.dirname, "../..")
let root = ""

const write = (path: string, content: unknown) => {
  Fs.mkdirSync(Path.dirname(Path.join(root, path)), { recursive: true })
  Fs.writeFileSync(Path.join(root, path), typeof content === "string" ? content : JSON.stringify(content))
}

/** What the project wants: one package it names, one that this needs, and one for another platform. */
const wanted = { "node_modules/tool": "1.0.0", "node_modules/part": "2.0.0" }

const install = (versions: Readonly<Record<string, string>>) => {
  write("node_modules/.package-lock.json", {
    packages: Object.fromEntries(Object.entries(versions).map(([path, version]) => [path, { version }]))
  })
  for (const [path, version] of Object.entries(versions)) write(`${path}/package.json`, { version })
}

/** npm: writes its arguments down; `install` puts there what is wanted, unless the registry is said to be empty. */
const npm = `
import { appendFileSync, mkdirSync, writeFileSync } from "node:fs"
const args = process.argv.slice(2)
appendFileSync("asked.txt", args.join(" ") + "\\n")
if (args[0] === "install" && process.env.EMPTY_REGISTRY === undefined) {
  const wanted = ${JSON.stringify(wanted)}
  for (const path of Object.keys(wanted)) {
    mkdirSync(path, { recursive: true })
    writeFileSync(path + "/package.json", "{}")
  }
  const packages = Object.fromEntries(Object.entries(wanted).map(([path, version]) => [path, { version }]))
  writeFileSync("node_modules/.package-lock.json", JSON.stringify({ packages }))
}
if (args[0] === "run") process.exitCode = Number(process.env.SCRIPT_EXIT ?? 0)
`

const bootstrap = (args: ReadonlyArray<string>, environment: Readonly<Record<string, string>> = {}) => {
  const run = spawnSync(process.execPath, [Path.join(root, "scripts/bootstrap.mjs"), ...args], {
    encoding: "utf8",
    env: { PATH: process.env["PATH"], npm_execpath: Path.join(root, "npm.mjs"), ...environment }
  })
  const asked = Path.join(root, "asked.txt")
  const lines = Fs.existsSync(asked) ? Fs.readFileSync(asked, "utf8").trim().split("\n") : []
  Fs.rmSync(asked, { force: true })
  return { status: run.status, asked: lines, errors: run.stderr }
}

beforeEach(() => {
  root = Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-bootstrap-"))
  write("scripts/bootstrap.mjs", Fs.readFileSync(Path.join(project, "scripts/bootstrap.mjs"), "utf8"))
  write("npm.mjs", npm)
  write("package.json", { type: "module", devDependencies: { tool: "1.0.0" } })
  write("package-lock.json", {
    packages: {
      "": {},
      "node_modules/tool": { version: "1.0.0" },
      "node_modules/part": { version: "2.0.0" },
      "node_modules/for-another-platform": { version: "3.0.0", optional: true }
    }
  })
})
afterEach(() => Fs.rmSync(root, { recursive: true, force: true }))

const installing = "install --no-audit --no-fund --loglevel=error"

describe("the bootstrap", () => {
  it("installs where nothing is there, and then runs the script by a nested npm, with its arguments", () => {
    expect(bootstrap(["demo:run", "--input", "FILE"])).toMatchObject({
      status: 0,
      asked: [installing, "run --silent demo:run -- --input FILE"]
    })
  })

  it("installs nothing where all is there, other platforms' packages aside", () => {
    install(wanted)
    expect(bootstrap(["test:run"])).toMatchObject({ status: 0, asked: ["run --silent test:run --"] })
  })

  it.each([
    ["a package of another version", { "node_modules/tool": "0.9.0", "node_modules/part": "2.0.0" }],
    ["a package of a package of another version", { "node_modules/tool": "1.0.0", "node_modules/part": "2.0.1" }],
    ["a package that is missing", { "node_modules/tool": "1.0.0" }]
  ])("installs again for %s", (_, versions) => {
    install(versions)
    expect(bootstrap(["test:run"]).asked[0]).toBe(installing)
  })

  it("installs again where a package's folder is gone, whatever the lock says", () => {
    install(wanted)
    Fs.rmSync(Path.join(root, "node_modules/part"), { recursive: true })
    expect(bootstrap(["test:run"]).asked[0]).toBe(installing)
  })

  it("says what is still missing, and runs nothing, where npm brought it not", () => {
    const run = bootstrap(["test:run"], { EMPTY_REGISTRY: "yes" })
    expect(run).toMatchObject({ status: 1, asked: [installing] })
    expect(run.errors).toContain("still missing after npm install")
  })

  it("ends with the exit code of the script", () => {
    install(wanted)
    expect(bootstrap(["test:run"], { SCRIPT_EXIT: "7" }).status).toBe(7)
  })

  it("is plain JavaScript that Node 20 runs: it imports nothing but the platform", () => {
    const source = Fs.readFileSync(Path.join(project, "scripts/bootstrap.mjs"), "utf8")
    const imports = [...source.matchAll(/from "([^"]+)"/g)].map((match) => match[1]!)
    expect(imports.filter((name) => !name.startsWith("node:"))).toEqual([])
  })
})

describe(".ci/run", () => {
  /** Runs a copy of it, with an npm that says what the table says for each script. */
  const run = (scripts: Readonly<Record<string, { readonly output: string; readonly status: number }>>) => {
    Fs.mkdirSync(Path.join(root, ".ci"))
    Fs.copyFileSync(Path.join(project, ".ci/run"), Path.join(root, ".ci/run"))
    const cases = Object.entries(scripts).map(([name, { output, status }]) =>
      `  ${name}) printf '${output}\\n'; exit ${status};;`
    )
    write("bin/npm", `#!/bin/sh\ncase "$2" in\n${cases.join("\n")}\nesac\n`)
    Fs.chmodSync(Path.join(root, "bin/npm"), 0o755)
    const done = spawnSync(Path.join(root, ".ci/run"), {
      encoding: "utf8",
      env: { PATH: `${Path.join(root, "bin")}:${process.env["PATH"]}` }
    })
    return { status: done.status, last: done.stdout.trim().split("\n").at(-1) }
  }

  it("ends with the sum over both suites", () => {
    expect(run({
      test: { output: "some\\n12 passed, 0 failed", status: 0 },
      "test:faults": { output: "3 passed, 0 failed", status: 0 }
    })).toEqual({ status: 0, last: "15 passed, 0 failed" })
  })

  it("fails when one of them fails, and runs the other all the same", () => {
    expect(run({
      test: { output: "11 passed, 1 failed", status: 1 },
      "test:faults": { output: "3 passed, 0 failed", status: 0 }
    })).toEqual({ status: 1, last: "14 passed, 1 failed" })
  })

  it("counts a suite that ends without its sum as failed", () => {
    expect(run({
      test: { output: "12 passed, 0 failed", status: 0 },
      "test:faults": { output: "Segmentation fault", status: 139 }
    })).toEqual({ status: 1, last: "12 passed, 1 failed" })
  })
})

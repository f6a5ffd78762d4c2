// Shows that the house rules see what they forbid: each forbidden thing is planted in a copy of the house's layout and must be found,
// by the linter or by our own check, as the table says; and the plain house around it must pass both.
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { publicTypes } from "../../scripts/check/publicTypes.ts"
import { check, show } from "../../scripts/check/rules.ts"

const project = Path.join(import.meta.dirname, "../..")

/** A small house in which every wall has two sides. */
const plain: Readonly<Record<string, string>> = {
  "src/index.ts": `export * as Actor from "./Actor/index.ts"\nexport * as Layers from "./Layers/index.ts"\n`,
  "src/Actor/index.ts": `export const actor = 1\n`,
  "src/Remoting/index.ts": `export { actor as remoting } from "../Actor/index.ts"\n`,
  "src/ControlPlane/index.ts": `export { remoting as plane } from "../Remoting/index.ts"\n`,
  "src/ControlPlane/Nats.ts": `export { connect } from "@nats-io/transport-node"\n`,
  "src/ControlPlane/Etcd.ts": `export { Etcd3 } from "etcd3"\n`,
  "src/Cluster/index.ts": `export { plane as cluster } from "../ControlPlane/index.ts"\n`,
  "src/DataCenter/index.ts": `export { cluster as dataCenter } from "../Cluster/index.ts"\n`,
  "src/Layers/index.ts": `export { dataCenter as layers } from "../DataCenter/index.ts"\n`,
  "src/Testing/index.ts": `export { layers as testing } from "../Layers/index.ts"\n`,
  "src/Remoting/Sockets.edge.ts":
    `export const nonce = async () => [crypto.randomUUID(), performance.now(), Date.now(), Math.random()]\n`
}

const entries = {
  ".": "./src/index.ts",
  "./Actor": "./src/Actor/index.ts",
  "./ControlPlane": "./src/ControlPlane/index.ts",
  "./ControlPlane/Nats": "./src/ControlPlane/Nats.ts",
  "./ControlPlane/Etcd": "./src/ControlPlane/Etcd.ts",
  "./Layers": "./src/Layers/index.ts",
  "./testing": "./src/Testing/index.ts"
}

let root = ""
beforeAll(() => {
  root = Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-rules-"))
  Fs.symlinkSync(Path.join(project, "node_modules"), Path.join(root, "node_modules"))
  Fs.copyFileSync(Path.join(project, "oxlint.config.ts"), Path.join(root, "oxlint.config.ts"))
  write("package.json", JSON.stringify({ type: "module", exports: entries }))
  for (const [path, text] of Object.entries(plain)) write(path, text)
})
afterAll(() => Fs.rmSync(root, { recursive: true, force: true }))

const write = (path: string, text: string) => {
  Fs.mkdirSync(Path.dirname(Path.join(root, path)), { recursive: true })
  Fs.writeFileSync(Path.join(root, path), text)
}

const restore = (path: string) => {
  const before = plain[path]
  if (before === undefined) Fs.rmSync(Path.join(root, path))
  else write(path, before)
}

/** What each of the two says: the findings, one a line, and whether it refused. */
const ownCheck = () => {
  const { findings } = check(root)
  return { refused: findings.length > 0, output: findings.map(show).join("\n") }
}
const linter = () => {
  const run = spawnSync(process.execPath, [Path.join(project, "node_modules/oxlint/bin/oxlint"), "-f", "unix"], {
    encoding: "utf8",
    cwd: root
  })
  return { refused: run.status !== 0, output: run.stdout + run.stderr }
}

/** What is planted, where, and who must see it. Both: the linter tells it in the editor, the check is the authority. */
const planted: ReadonlyArray<readonly [name: string, path: string, text: string, by: "both" | "check" | "linter"]> = [
  // walls
  ["Actor imports Remoting", "src/Actor/planted.ts", `export { remoting } from "../Remoting/index.ts"`, "both"],
  [
    "Actor imports a type of Cluster",
    "src/Actor/planted.ts",
    `export type { cluster } from "../Cluster/index.ts"`,
    "both"
  ],
  [
    "Actor imports by import type",
    "src/Actor/planted.ts",
    `export type T = import("../Cluster/index.ts").cluster`,
    "check"
  ],
  ["Actor imports dynamically", "src/Actor/planted.ts", `export const later = import("../Cluster/index.ts")`, "check"],
  [
    "Remoting imports ControlPlane",
    "src/Remoting/planted.ts",
    `export { plane } from "../ControlPlane/index.ts"`,
    "both"
  ],
  [
    "ControlPlane imports Cluster",
    "src/ControlPlane/planted.ts",
    `export { cluster } from "../Cluster/index.ts"`,
    "both"
  ],
  [
    "Cluster imports DataCenter",
    "src/Cluster/planted.ts",
    `export { dataCenter } from "../DataCenter/index.ts"`,
    "both"
  ],
  ["DataCenter imports Layers", "src/DataCenter/planted.ts", `export { layers } from "../Layers/index.ts"`, "both"],
  ["Layers imports Testing", "src/Layers/planted.ts", `export { testing } from "../Testing/index.ts"`, "both"],
  ["the root entry imports Testing", "src/index.ts", `export * as Testing from "./Testing/index.ts"`, "check"],
  ["a ring imports the root entry", "src/Cluster/planted.ts", `export { Actor } from "../index.ts"`, "check"],
  ["a source imports its own package", "src/Cluster/planted.ts", `export { Actor } from "effect-troupe"`, "both"],
  ["a source imports from outside src", "src/Cluster/planted.ts", `export { x } from "../../test/x.ts"`, "check"],
  ["a room that the house does not have", "src/Attic/planted.ts", `export { actor } from "../Actor/index.ts"`, "check"],
  // vendor clients
  ["Cluster imports a vendor client", "src/Cluster/planted.ts", `export { Etcd3 } from "etcd3"`, "both"],
  [
    "ControlPlane outside the backends does",
    "src/ControlPlane/planted.ts",
    `export { jetstream } from "@nats-io/jetstream"`,
    "both"
  ],
  ["the root entry reaches a backend", "src/ControlPlane/index.ts", `export { connect } from "./Nats.ts"`, "check"],
  ["./Actor reaches a vendor client", "src/Actor/index.ts", `export const client = import("etcd3")`, "check"],
  // clock
  ["Date.now", "src/Actor/planted.ts", `export const at = Date.now()`, "both"],
  ["new Date()", "src/Actor/planted.ts", `export const at = new Date()`, "both"],
  ["a clock under another name", "src/Actor/planted.ts", `const D = Date\nexport const at = new D()`, "both"],
  ["a clock taken apart", "src/Actor/planted.ts", `export const { now } = Date`, "both"],
  ["performance.now", "src/Actor/planted.ts", `export const at = performance.now()`, "both"],
  ["process.hrtime", "src/Actor/planted.ts", `export const at = process.hrtime.bigint()`, "both"],
  ["setTimeout", "src/Actor/planted.ts", `setTimeout(() => {}, 1)`, "both"],
  ["globalThis.setTimeout", "src/Actor/planted.ts", `globalThis.setTimeout(() => {}, 1)`, "both"],
  ["globalThis taken apart", "src/Actor/planted.ts", `export const { setTimeout: later } = globalThis`, "check"],
  ["globalThis by text", "src/Actor/planted.ts", `globalThis["setInterval"](() => {}, 1)`, "both"],
  ["setInterval", "src/Actor/planted.ts", `setInterval(() => {}, 1)`, "both"],
  ["setImmediate", "src/Actor/planted.ts", `setImmediate(() => {})`, "both"],
  ["node:timers", "src/Actor/planted.ts", `export { setTimeout } from "node:timers"`, "both"],
  ["node:timers/promises", "src/Actor/planted.ts", `export { setTimeout } from "node:timers/promises"`, "both"],
  ["node:perf_hooks", "src/Actor/planted.ts", `export { performance } from "node:perf_hooks"`, "both"],
  // chance
  ["Math.random", "src/Actor/planted.ts", `export const n = Math.random()`, "both"],
  ["Math by text", "src/Actor/planted.ts", `export const n = Math["random"]()`, "both"],
  ["chance taken apart", "src/Actor/planted.ts", `export const { random } = Math`, "check"],
  ["crypto.randomUUID", "src/Actor/planted.ts", `export const id = crypto.randomUUID()`, "both"],
  ["globalThis.crypto.randomUUID", "src/Actor/planted.ts", `export const id = globalThis.crypto.randomUUID()`, "check"],
  [
    "randomUUID by import",
    "src/Actor/planted.ts",
    `import { randomUUID } from "node:crypto"\nexport const id = randomUUID()`,
    "check"
  ],
  [
    "randomUUID by namespace",
    "src/Actor/planted.ts",
    `import * as C from "node:crypto"\nexport const id = C.randomUUID()`,
    "check"
  ],
  // async
  ["an async function", "src/Actor/planted.ts", `export async function f() { return await 1 }`, "both"],
  ["an async arrow", "src/Actor/planted.ts", `export const f = async () => 1`, "both"],
  ["an async method", "src/Actor/planted.ts", `export const o = { async f() { return 1 } }`, "both"],
  ["await at the top", "src/Actor/planted.ts", `export const x = await import("effect")`, "check"],
  // types
  ["any in a signature", "src/Actor/planted.ts", `export const f = (x: any): number => x as number`, "linter"]
]

describe("the house rules", () => {
  it("pass the plain house, with the platform in an edge module and the vendors in the backends", () => {
    expect(ownCheck()).toMatchObject({ refused: false })
    expect(linter()).toMatchObject({ refused: false })
  })

  it.each(planted)("see: %s", (_name, path, text, by) => {
    write(path, `${text}\n`)
    const own = ownCheck()
    const lint = linter()
    restore(path)
    if (by !== "linter") {
      expect(own.refused).toBe(true)
      expect(own.output).toContain(path)
    }
    if (by !== "check") {
      expect(lint.refused).toBe(true)
      expect(lint.output).toContain(path)
    }
  })

  it("end the command with 1 and the place of each finding", () => {
    const run = () =>
      spawnSync(process.execPath, [Path.join(project, "scripts/check/main.ts"), root], { encoding: "utf8" })
    expect(run().status).toBe(0)
    write("src/Actor/planted.ts", "export const one = 1\nexport const at = Date.now()\n")
    const refused = run()
    restore("src/Actor/planted.ts")
    expect(refused.status).toBe(1)
    expect(refused.stdout).toContain("src/Actor/planted.ts:2: clock:")
  })

  it("see an any that was inferred into a declaration, and let Effect's own error constructors be", () => {
    const built = Path.join(root, "built")
    const put = (path: string, text: string) => {
      Fs.mkdirSync(Path.dirname(Path.join(built, path)), { recursive: true })
      Fs.writeFileSync(Path.join(built, path), text)
    }
    put(
      "Actor/Good.d.ts",
      `declare const E_base: new <A extends Record<string, any>>(args: A) => A\nexport declare class E extends E_base {}\n`
    )
    put("Actor/internal/hidden.d.ts", `export declare const hidden: any\n`)
    expect(publicTypes(built).map(show)).toEqual([])
    put("Actor/Bad.d.ts", `export declare const ok: 1\nexport declare const make: (x: 1) => Promise<any>\n`)
    expect(publicTypes(built).map(show)).toEqual(["Actor/Bad.d.ts:2: public-types: any in a public type"])
  })

  it("leave names alone that only look like the clock", () => {
    write(
      "src/Actor/planted.ts",
      [
        `export interface Dated { readonly at: Date; readonly performance: number }`,
        `export const dated = { Date: 1, setTimeout: 2, random: 3 }`,
        `export const sum = dated.Date + dated.setTimeout + dated.random`,
        `export const max = (date: Date) => Math.max(date.getTime(), 1)`
      ].join("\n")
    )
    const own = ownCheck()
    restore("src/Actor/planted.ts")
    expect(own).toMatchObject({ refused: false })
  })
})

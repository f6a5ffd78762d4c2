// Shows that what is published works where it is installed: the package is built, packed and installed into a consumer that has nothing of
// this project, and is type-checked and run there. Vendor clients stay away, as they do from a consumer that wants none.
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { publicTypes } from "../../scripts/check/publicTypes.ts"
import { show } from "../../scripts/check/rules.ts"

const project = Path.join(import.meta.dirname, "../..")
const modules = Path.join(project, "node_modules")
let folder = ""
let consumer = ""
let unpacked = ""

const run = (command: string, args: ReadonlyArray<string>, cwd: string) => {
  const done = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    env: { ...process.env, npm_config_loglevel: "error" }
  })
  return {
    status: done.status,
    output: `${done.stdout}${done.stderr}${done.error?.message ?? ""}`,
    stdout: done.stdout
  }
}
const node = (args: ReadonlyArray<string>, cwd: string) => run(process.execPath, args, cwd)

const published = () =>
  JSON.parse(Fs.readFileSync(Path.join(unpacked, "package.json"), "utf8")) as {
    readonly exports: Readonly<Record<string, string | { readonly types: string; readonly default: string }>>
    readonly peerDependencies: Readonly<Record<string, string>>
    readonly peerDependenciesMeta: Readonly<Record<string, { readonly optional: boolean }>>
  }

/** The packages that a consumer of the plain entry points has: the peers that are not optional, and all that these need. */
const needed = (): ReadonlyArray<string> => {
  const { peerDependencies, peerDependenciesMeta } = published()
  const names = new Set(Object.keys(peerDependencies).filter((name) => !peerDependenciesMeta[name]?.optional))
  for (const name of names) {
    const manifest = JSON.parse(Fs.readFileSync(Path.join(modules, name, "package.json"), "utf8")) as {
      readonly dependencies?: Readonly<Record<string, string>>
    }
    for (const next of Object.keys(manifest.dependencies ?? {})) {
      if (Fs.existsSync(Path.join(modules, next))) names.add(next)
    }
  }
  return [...names]
}

beforeAll(() => {
  folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-package-"))
  const dist = Path.join(folder, "dist")
  const built = node([Path.join(project, "scripts/build.ts"), dist], project)
  expect(built.output).toBe("")
  expect(built.status).toBe(0)
  const packed = run("npm", ["pack", dist, "--json", "--pack-destination", folder], folder)
  expect(packed.status, packed.output).toBe(0)
  const tarball = Fs.readdirSync(folder).find((name) => name.endsWith(".tgz"))!

  // npm installs the tarball itself; its peers are linked from here, so that nothing is fetched.
  consumer = Path.join(folder, "consumer")
  Fs.mkdirSync(Path.join(consumer, "node_modules"), { recursive: true })
  Fs.writeFileSync(
    Path.join(consumer, "package.json"),
    JSON.stringify({ name: "consumer", private: true, type: "module" })
  )
  const installed = run(
    "npm",
    ["install", "--no-audit", "--no-fund", "--offline", "--legacy-peer-deps", Path.join(folder, tarball)],
    consumer
  )
  expect(installed.status, installed.output).toBe(0)
  unpacked = Path.join(consumer, "node_modules/effect-troupe")
  for (const name of new Set([...needed(), "@types/node", "undici-types"])) {
    const link = Path.join(consumer, "node_modules", name)
    Fs.mkdirSync(Path.dirname(link), { recursive: true })
    Fs.symlinkSync(Path.join(modules, name), link)
  }
}, 120_000)

afterAll(() => Fs.rmSync(folder, { recursive: true, force: true }))

const promised = [
  ".",
  "./Actor",
  "./Remoting",
  "./ControlPlane",
  "./ControlPlane/Nats",
  "./ControlPlane/Etcd",
  "./ControlPlane/Sqlite",
  "./Cluster",
  "./DataCenter",
  "./Layers",
  "./testing"
]
const vendorSubPaths = ["./ControlPlane/Nats", "./ControlPlane/Etcd"]
const root = JSON.parse(Fs.readFileSync(Path.join(project, "package.json"), "utf8")) as {
  readonly exports: Readonly<Record<string, string>>
}
const subPaths = Object.keys(root.exports).filter((subPath) => !vendorSubPaths.includes(subPath))
const specifier = (subPath: string) => subPath === "." ? "effect-troupe" : `effect-troupe/${subPath.slice(2)}`

const program = `
import { NodeRuntime } from "@effect/platform-node"
import { Actor, ActorSystem, Layers } from "effect-troupe"
import { Console, Effect, Layer, Schema } from "effect"
import { Rpc } from "effect/rpc"

const Counter = Actor.make("Counter", {
  protocol: [Rpc.make("Add", { payload: { by: Schema.Int }, success: Schema.Int })],
  props: { from: Schema.Int }
})

const CounterLive = Counter.toLayer(Effect.gen(function*() {
  let { from: value } = yield* Counter.props
  return Counter.of({ Add: ({ by }) => Effect.sync(() => value += by) })
}))

const program = Effect.gen(function*() {
  const system = yield* ActorSystem.ActorSystem
  const counter = yield* system.spawn(Counter, "counter-1", { props: { from: 40 } })
  const value: number = yield* counter.ask.Add({ by: 2 })
  yield* Console.log(\`value: \${value}\`)
})

program.pipe(
  Effect.provide(CounterLive.pipe(Layer.provideMerge(Layers.singleNode({ system: "consumer" })))),
  NodeRuntime.runMain
)
`

describe("the package as it is published", () => {
  it("names what it is and nothing of its development", () => {
    const manifest = published() as unknown as Record<string, unknown>
    const names = Object.keys(published().exports)
    expect(names).toEqual(expect.arrayContaining(promised))
    expect(names.sort()).toEqual([...Object.keys(root.exports), "./package.json"].sort())
    for (const key of ["private", "scripts", "devDependencies", "optionalDependencies", "dependencies"]) {
      expect(manifest).not.toHaveProperty(key)
    }
    expect(Object.keys(published().peerDependenciesMeta).sort()).toEqual([
      "@nats-io/jetstream",
      "@nats-io/transport-node",
      "etcd3"
    ])
    for (const target of Object.values(published().exports)) {
      for (const file of typeof target === "string" ? [target] : [target.types, target.default]) {
        expect(Fs.existsSync(Path.join(unpacked, file)), file).toBe(true)
      }
    }
    expect(Fs.readdirSync(unpacked)).toEqual(expect.arrayContaining(["LICENSE", "README.md", "package.json"]))
  })

  it("has every page that its pages lead to", () => {
    const pages = ["README.md"]
    const broken: Array<string> = []
    // grows while it is walked
    for (const page of pages) {
      const text = Fs.readFileSync(Path.join(unpacked, page), "utf8")
      for (const [, link] of text.matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
        if (/^https?:/.test(link!)) continue
        const target = Path.posix.join(Path.posix.dirname(page), link!)
        if (!Fs.existsSync(Path.join(unpacked, target))) broken.push(`${page}: ${link}`)
        else if (target.endsWith(".md") && !pages.includes(target)) pages.push(target)
      }
    }
    expect(broken).toEqual([])
    expect(pages).toEqual(expect.arrayContaining(["ARCHITECTURE.md", "CHANGELOG.md", "docs/README.md"]))
  })

  it("has no any in a public type", () => {
    expect(publicTypes(unpacked).map(show)).toEqual([])
  })

  it("runs a program on one node, without any vendor client", () => {
    for (const vendor of ["etcd3", "@nats-io/transport-node"]) {
      expect(Fs.existsSync(Path.join(consumer, "node_modules", vendor))).toBe(false)
    }
    Fs.writeFileSync(Path.join(consumer, "program.ts"), program)
    expect(node(["program.ts"], consumer)).toMatchObject({ status: 0, stdout: "value: 42\n" })
  })

  it("starts the thread of the SQLite store from what is published", () => {
    Fs.writeFileSync(
      Path.join(consumer, "sqlite.mjs"),
      `
import { ControlStoreSqlite } from "effect-troupe/ControlPlane/Sqlite"
import { Effect } from "effect"
const store = ControlStoreSqlite.make({ file: ${JSON.stringify(Path.join(folder, "published.db"))} })
const revision = await Effect.runPromise(Effect.scoped(Effect.flatMap(store, (opened) => opened.create("k", "1"))))
console.log("revision: " + revision)
`
    )
    expect(node(["sqlite.mjs"], consumer)).toMatchObject({ status: 0, stdout: "revision: 1\n" })
  })

  it("loads every sub-path but the vendors' without any vendor client", () => {
    const imports = subPaths.map((subPath) => `await import("${specifier(subPath)}")`).join("\n")
    Fs.writeFileSync(Path.join(consumer, "load.mjs"), `${imports}\nconsole.log("loaded")\n`)
    expect(node(["load.mjs"], consumer)).toMatchObject({ status: 0, stdout: "loaded\n" })
  })

  it("type-checks strictly there, with every sub-path and all declarations", () => {
    for (const vendor of ["@nats-io", "etcd3", "@grpc"]) {
      const link = Path.join(consumer, "node_modules", vendor)
      if (!Fs.existsSync(link)) Fs.symlinkSync(Path.join(modules, vendor), link)
    }
    const names = [...subPaths, ...vendorSubPaths]
    Fs.writeFileSync(
      Path.join(consumer, "types.ts"),
      `${names.map((subPath, index) => `import * as E${index} from "${specifier(subPath)}"`).join("\n")}\n` +
        `export const all = [${names.map((_, index) => `E${index}`).join(", ")}]\n`
    )
    Fs.writeFileSync(Path.join(consumer, "program.ts"), program)
    Fs.writeFileSync(
      Path.join(consumer, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          target: "ES2023",
          lib: ["ES2023", "ESNext.Disposable", "DOM"],
          module: "NodeNext",
          strict: true,
          exactOptionalPropertyTypes: true,
          noUncheckedIndexedAccess: true,
          types: ["node"],
          noEmit: true,
          skipLibCheck: false
        },
        include: ["*.ts"]
      })
    )
    const checked = node([Path.join(modules, "typescript/bin/tsc"), "-p", "tsconfig.json"], consumer)
    expect(checked.output).toBe("")
    expect(checked.status).toBe(0)
  })

  it("loads the vendors' sub-paths where their clients are installed", () => {
    const imports = vendorSubPaths.map((subPath) => `await import("${specifier(subPath)}")`).join("\n")
    Fs.writeFileSync(Path.join(consumer, "vendors.mjs"), `${imports}\nconsole.log("loaded")\n`)
    expect(node(["vendors.mjs"], consumer)).toMatchObject({ status: 0, stdout: "loaded\n" })
  })
})

/**
 * `npm run build`: what is published. Compiles `src` to `dist` and writes its package.json: the same sub-paths as the root's, to `.js`
 * and `.d.ts`; peers and engines as they are; the pages and examples; nothing of development.
 */
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Path from "node:path"

const root = Path.join(import.meta.dirname, "..")
const out = Path.resolve(process.argv[2] ?? Path.join(root, "dist"))

interface Manifest {
  readonly name: string
  readonly version: string
  readonly type: string
  readonly description: string
  readonly license: string
  readonly engines: unknown
  readonly sideEffects: boolean
  readonly exports: Readonly<Record<string, string>>
  readonly peerDependencies: unknown
  readonly peerDependenciesMeta: unknown
}

Fs.rmSync(out, { recursive: true, force: true })
const compiled = spawnSync(
  process.execPath,
  [Path.join(root, "node_modules/typescript/bin/tsc"), "-p", Path.join(root, "tsconfig.build.json"), "--outDir", out],
  { cwd: root, stdio: "inherit" }
)
if (compiled.status !== 0) process.exit(compiled.status ?? 1)

const manifest = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8")) as Manifest
const { description, engines, license, name, peerDependencies, peerDependenciesMeta, sideEffects, type, version } =
  manifest
const exports = Object.fromEntries(
  Object.entries(manifest.exports).map(([subPath, source]) => {
    const compiledTo = source.replace(/^\.\/src\//, "./").replace(/\.ts$/, "")
    return [subPath, { types: `${compiledTo}.d.ts`, default: `${compiledTo}.js` }]
  })
)
const published = {
  name,
  version,
  type,
  description,
  license,
  engines,
  sideEffects,
  exports: { ...exports, "./package.json": "./package.json" },
  peerDependencies,
  peerDependenciesMeta
}
Fs.writeFileSync(Path.join(out, "package.json"), `${JSON.stringify(published, null, 2)}\n`)
for (const file of ["LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md"]) {
  Fs.copyFileSync(Path.join(root, file), Path.join(out, file))
}
// what the pages lead to: other pages and example programs, not the data that these read or write
for (const folder of ["docs", "examples"]) {
  Fs.cpSync(Path.join(root, folder), Path.join(out, folder), {
    recursive: true,
    filter: (path) => Fs.statSync(path).isDirectory() || /\.(md|ts)$/.test(path)
  })
}

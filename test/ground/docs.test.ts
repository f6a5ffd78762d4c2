// Shows that the pages tell the truth where a test can know it: settings, links, commands.
import * as Fs from "node:fs"
import * as Path from "node:path"
import { describe, expect, it } from "vitest"
import { page, render } from "../../scripts/configuration.ts"

const project = Path.join(import.meta.dirname, "../..")
const folders = [".", "docs", "docs/decisions", "examples/ledger"]
const pages = folders.flatMap((folder) =>
  Fs.existsSync(Path.join(project, folder))
    ? Fs.readdirSync(Path.join(project, folder)).filter((file) => file.endsWith(".md")).map((file) =>
      Path.posix.join(folder, file)
    )
    : []
)
const read = (path: string) => Fs.readFileSync(Path.join(project, path), "utf8")

describe("the pages", () => {
  it("list every setting as the sources declare it (npm run docs writes the page)", () => {
    expect(Fs.readFileSync(page, "utf8")).toBe(render())
    expect(render()).toContain("| `TROUPE_DATACENTER` |")
    expect(render()).toContain("| `NATS_SERVERS` |")
  })

  it.each(pages)("link only to what is there: %s", (path) => {
    const links = [...read(path).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)].map((match) => match[1]!)
    const broken = links.filter((link) =>
      !/^https?:/.test(link) && !Fs.existsSync(Path.join(project, Path.dirname(path), link))
    )
    expect(broken).toEqual([])
  })

  it("are all listed in docs/README.md", () => {
    const listed = [...read("docs/README.md").matchAll(/\]\(([^)#]+)\)/g)].map((match) => match[1])
    const there = pages.filter((path) => path.startsWith("docs/") && path !== "docs/README.md")
    expect(there.map((path) => path.slice("docs/".length)).filter((path) => !listed.includes(path))).toEqual([])
  })

  it.each(pages)("name only commands and paths that are there: %s", (path) => {
    const { scripts } = JSON.parse(read("package.json")) as { readonly scripts: Readonly<Record<string, string>> }
    const text = read(path)
    const commands = [...text.matchAll(/npm run (?:-s |--silent )?([a-z][a-z:]*)/g)].map((match) => match[1]!)
    expect(commands.filter((command) => !(command in scripts))).toEqual([])
    const paths = [...text.matchAll(/`((?:src|test|scripts|examples|docs|bench)\/[A-Za-z0-9/._-]+)`/g)].map((match) =>
      match[1]!
    )
    expect(paths.filter((named) => !Fs.existsSync(Path.join(project, named)))).toEqual([])
  })

  it("show actors by parts of a program that runs", () => {
    const parts = [...read("docs/actors.md").matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!)
    expect(parts.length).toBeGreaterThan(5)
    const program = read("examples/tour.test.ts")
    expect(parts.filter((part) => !program.includes(part))).toEqual([])
  })

  it("show the first program as it stands in examples, where it is type-checked", () => {
    const program = /```ts\n([\s\S]*?)```/.exec(read("README.md"))?.[1]
    expect(program).toBeDefined()
    expect(read("examples/first-program.ts").trim()).toBe(program!.trim())
  })
})

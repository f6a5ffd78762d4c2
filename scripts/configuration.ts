/**
 * `npm run docs`: writes docs/configuration.md from the settings in the sources, so that the page cannot fall behind. A test compares
 * them. Settings are found by their shape: `name: Settings.kind({ env: "...", ... })`, with the comment above.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { filesUnder, isNode, parse, type SourceFile, type SyntaxNode, walk } from "./check/sources.ts"

const root = Path.join(import.meta.dirname, "..")
export const page = Path.join(root, "docs/configuration.md")

interface Setting {
  readonly name: string
  readonly kind: string
  readonly variable: string
  readonly standard: string
  readonly range: string
  readonly comment: string
}

const text = (file: SourceFile, node: unknown): string | undefined =>
  isNode(node) ? file.text.slice(node.start, node.end).replace(/\s+/g, " ") : undefined

const fieldsOf = (node: unknown): ReadonlyMap<string, SyntaxNode> => {
  const properties = isNode(node) && Array.isArray(node["properties"]) ? node["properties"].filter(isNode) : []
  return new Map(properties.flatMap((property) => {
    const key = property["key"]
    const value = property["value"]
    return isNode(key) && isNode(value) ? [[String(key["name"] ?? key["value"]), value] as const] : []
  }))
}

/** The comment that ends right before the node. */
const commentBefore = (file: SourceFile, node: SyntaxNode): string => {
  const before = file.text.slice(0, node.start).trimEnd()
  const begin = before.endsWith("*/") ? before.lastIndexOf("/**") : -1
  return begin < 0
    ? ""
    : before.slice(begin + 3, -2).split("\n").map((line) => line.replace(/^\s*\* ?/, "").trim()).join(" ").trim()
}

/** Numbers that settings name: `export const defaultMaxFrameBytes = 1024 * 1024`. */
const constants: ReadonlyMap<string, string> = new Map(
  filesUnder(root, "src").flatMap((path) =>
    [...Fs.readFileSync(Path.join(root, path), "utf8").matchAll(/^export const (\w+) = ([\d_ *]+)$/gm)]
      .map((match) => [match[1]!, match[2]!] as const)
  )
)

/** A value as a person reads it: no quotes, products worked out, named numbers looked up. */
const plain = (source: string | undefined): string => {
  if (source === undefined) return ""
  const product = constants.get(source) ?? source
  return /^[\d_ *]+$/.test(product)
    ? String(product.replaceAll("_", "").split("*").reduce((all, factor) => all * Number(factor), 1))
    : source.replace(/^"(.*)"$/, "$1")
}

const settingsOf = (file: SourceFile): ReadonlyArray<Setting> => {
  const found: Array<Setting> = []
  walk(file.tree, (node) => {
    const call = node["value"]
    if (node.type !== "Property" || !isNode(call) || call.type !== "CallExpression") return
    const callee = text(file, call["callee"]) ?? ""
    const options = fieldsOf(Array.isArray(call["arguments"]) ? call["arguments"][0] : undefined)
    const variable = plainName(file, options.get("env"))
    if (!callee.startsWith("Settings.") || variable === undefined) return
    const limits = [options.get("minimum"), options.get("maximum")].map((limit) => plain(text(file, limit)))
    const [minimum, maximum] = limits
    found.push({
      name: text(file, node["key"]) ?? "",
      kind: callee.slice("Settings.".length),
      variable,
      standard: plain(text(file, options.get("default"))),
      range: minimum === "" && maximum === "" ? "" : maximum === "" ? `from ${minimum}` : `${minimum} to ${maximum}`,
      comment: commentBefore(file, node)
    })
  })
  return found
}

const plainName = (file: SourceFile, node: SyntaxNode | undefined): string | undefined => {
  const name = plainQuotes(text(file, node))
  return name === undefined || !/^[A-Z][A-Z0-9_]+$/.test(name) ? undefined : name
}
const plainQuotes = (source: string | undefined) => source?.replace(/^"(.*)"$/, "$1")

/** The name of the group that a file's settings form. */
const groupOf = (file: SourceFile): string =>
  /Settings\.group\(\s*"([^"]+)"/.exec(file.text)?.[1] ?? Path.basename(file.path, ".ts")

const kinds: Readonly<Record<string, string>> = {
  text: "text",
  optionalDuration: "duration",
  optionalText: "text",
  optionalSecret: "secret",
  texts: "texts, by commas",
  labels: "`name=value`, by commas",
  int: "whole number",
  number: "number",
  duration: "duration",
  boolean: "yes or no"
}

const cell = (content: string): string => content.replaceAll("|", "\\|")

export const render = (): string => {
  const sections = filesUnder(root, "src").map((path) => parse(root, path)).flatMap((file) => {
    const settings = settingsOf(file)
    if (settings.length === 0) return []
    return [
      `## ${groupOf(file)}`,
      "",
      `Declared in \`${file.path}\`.`,
      "",
      "| setting | variable | kind | default | range | meaning |",
      "|---|---|---|---|---|---|",
      ...settings.map(({ comment, kind, name, range, standard, variable }) => {
        const unit = kinds[kind] === "duration" && range !== "" ? `${range} ms` : range
        const shown = standard !== ""
          ? `\`${standard}\``
          : kind.startsWith("optional") || kind === "labels"
          ? "none"
          : "required"
        return `| \`${name}\` | \`${variable}\` | ${kinds[kind] ?? kind} | ${cell(shown)} | ${unit} | ${
          cell(comment)
        } |`
      }),
      ""
    ]
  })
  return [
    "# Configuration",
    "",
    "Every setting, as the sources declare it (`npm run docs` writes this page). In code a setting is a field of its group; `layerConfig` variants read",
    "the variables. A bad value is `SettingInvalid` with the setting's name, before anything starts. Durations are Effect's (`\"10 seconds\"`), or milliseconds;",
    "in code a secret is `Redacted.make(\"...\")`.",
    "",
    ...sections
  ].join("\n").trimEnd() + "\n"
}

if (process.argv[1] !== undefined && Path.resolve(process.argv[1]) === import.meta.filename) {
  Fs.writeFileSync(page, render())
}

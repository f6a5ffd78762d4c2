/**
 * Source files as syntax trees, for the checks of this folder. TypeScript 7 has no library to ask, so the parser of the test
 * runner is used.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { parseAst } from "vitest/node"

/** A node of the tree, as far as the checks care. */
export interface SyntaxNode {
  readonly type: string
  readonly start: number
  readonly end: number
  readonly [property: string]: unknown
}

export interface SourceFile {
  /** relative to the project, with `/` */
  readonly path: string
  readonly text: string
  readonly tree: SyntaxNode
}

/** One thing found; `rule` is the name that a test asserts. */
export interface Finding {
  readonly rule: string
  readonly path: string
  readonly line: number
  readonly message: string
}

export const isNode = (value: unknown): value is SyntaxNode =>
  typeof value === "object" && value !== null && typeof (value as { readonly type?: unknown }).type === "string"

/** Visits the tree from the outside in. `visit` returns false to leave the children of a node out. */
export const walk = (
  node: SyntaxNode,
  visit: (node: SyntaxNode, parent: SyntaxNode | undefined, property: string) => boolean | void,
  parent?: SyntaxNode,
  property = ""
): void => {
  if (visit(node, parent, property) === false) return
  for (const [key, value] of Object.entries(node)) {
    if (Array.isArray(value)) {
      for (const item of value) if (isNode(item)) walk(item, visit, node, key)
    } else if (isNode(value)) {
      walk(value, visit, node, key)
    }
  }
}

export const lineOf = (file: SourceFile, node: SyntaxNode): number => file.text.slice(0, node.start).split("\n").length

export const parse = (root: string, path: string): SourceFile => {
  const text = Fs.readFileSync(Path.join(root, path), "utf8")
  return { path, text, tree: parseAst(text, { lang: path.endsWith(".d.ts") ? "dts" : "ts" }, path) as never }
}

/** All TypeScript files under a folder of the project, sorted. */
export const filesUnder = (root: string, folder: string): ReadonlyArray<string> =>
  Fs.existsSync(Path.join(root, folder))
    ? Fs.readdirSync(Path.join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
      .map((entry) => Path.relative(root, Path.join(entry.parentPath, entry.name)).replaceAll(Path.sep, "/"))
      .sort()
    : []

/** An import, export-from, dynamic import or import type. `erased` ones load nothing when the program runs. */
export interface ModuleReference {
  readonly specifier: string
  readonly node: SyntaxNode
  readonly erased: boolean
}

export const references = (file: SourceFile): ReadonlyArray<ModuleReference> => {
  const found: Array<ModuleReference> = []
  walk(file.tree, (node) => {
    const source = node["source"] ?? node["argument"]
    const literal = isNode(source) && source["type"] === "TSLiteralType" ? source["literal"] : source
    const specifier = isNode(literal) && typeof literal["value"] === "string" ? literal["value"] : undefined
    if (specifier === undefined) return
    switch (node.type) {
      case "ImportDeclaration":
      case "ExportNamedDeclaration":
      case "ExportAllDeclaration":
        found.push({ specifier, node, erased: node["importKind"] === "type" || node["exportKind"] === "type" })
        break
      case "ImportExpression":
        found.push({ specifier, node, erased: false })
        break
      case "TSImportType":
        found.push({ specifier, node, erased: true })
        break
    }
  })
  return found
}

/** The project's file that a relative specifier names. */
export const resolve = (from: string, specifier: string): string | undefined =>
  specifier.startsWith(".") ? Path.posix.normalize(Path.posix.join(Path.posix.dirname(from), specifier)) : undefined

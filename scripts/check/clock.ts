/**
 * Time and chance come from services, so that a simulation owns them. Finds every way around that the platform offers, in
 * all files but edge modules (`*.edge.ts`): by global, by property of a global (also computed), by destructuring, by import.
 */
import { type Finding, isNode, lineOf, references, type SourceFile, type SyntaxNode, walk } from "./sources.ts"

const globals = new Set([
  "Date",
  "performance",
  "setTimeout",
  "setInterval",
  "setImmediate",
  "clearTimeout",
  "clearInterval",
  "clearImmediate"
])

/** Properties that are forbidden wherever their object is a global or a module of that name. */
const properties: Readonly<Record<string, ReadonlySet<string>>> = {
  Math: new Set(["random"]),
  crypto: new Set(["randomUUID", "getRandomValues", "randomBytes", "randomInt"]),
  process: new Set(["hrtime", "uptime"])
}

const globalObjects = new Set(["globalThis", "global", "window", "self"])

/** Modules that hand out time; none of their exports is welcome. */
const timeModules = /^(node:)?(timers(\/.*)?|perf_hooks)$/
const cryptoModules = /^(node:)?crypto$/

/** A type has no value: names inside it are no use of the clock. */
const isTypePosition = (node: SyntaxNode): boolean => node.type.startsWith("TS") && !valueWrappers.has(node.type)
const valueWrappers = new Set([
  "TSAsExpression",
  "TSSatisfiesExpression",
  "TSNonNullExpression",
  "TSTypeAssertion",
  "TSInstantiationExpression",
  "TSParameterProperty",
  "TSExportAssignment",
  "TSEnumDeclaration",
  "TSModuleDeclaration",
  "TSModuleBlock"
])

/** The name of a property where it is known: `a.b`, `a["b"]`, `` a[`b`] ``. */
const propertyName = (member: SyntaxNode): string | undefined => {
  const property = member["property"]
  if (!isNode(property)) return undefined
  if (member["computed"] !== true) return typeof property["name"] === "string" ? property["name"] : undefined
  if (typeof property["value"] === "string") return property["value"]
  const quasis = property["quasis"]
  return property.type === "TemplateLiteral" && Array.isArray(quasis) && quasis.length === 1 && isNode(quasis[0])
    ? (quasis[0]["value"] as { readonly cooked?: string }).cooked
    : undefined
}

/** Is this identifier a use of a variable, and not the name of a property, parameter, import or label? */
const isReference = (parent: SyntaxNode | undefined, property: string): boolean => {
  if (parent === undefined) return true
  switch (parent.type) {
    case "MemberExpression":
      return property !== "property" || parent["computed"] === true
    case "Property":
    case "PropertyDefinition":
    case "MethodDefinition":
    case "AccessorProperty":
      return property !== "key" || parent["computed"] === true || parent["shorthand"] === true
    case "ImportSpecifier":
    case "ImportDefaultSpecifier":
    case "ImportNamespaceSpecifier":
    case "ExportSpecifier":
    case "LabeledStatement":
    case "BreakStatement":
    case "ContinueStatement":
      return false
    default:
      return true
  }
}

/** Names that an import binds in this file: they shadow the globals. */
const importedNames = (file: SourceFile): ReadonlySet<string> => {
  const names = new Set<string>()
  walk(file.tree, (node) => {
    if (/^Import(Default|Namespace)?Specifier$/.test(node.type) && isNode(node["local"])) {
      names.add(String(node["local"]["name"]))
    }
  })
  return names
}

/** The last name of a chain of members whose head is a global object: `globalThis.crypto` is `crypto`. */
const globalName = (node: unknown, shadowed: ReadonlySet<string>): string | undefined => {
  if (!isNode(node)) return undefined
  if (node.type === "Identifier") {
    const name = String(node["name"])
    return shadowed.has(name) ? undefined : name
  }
  if (node.type === "MemberExpression") {
    const head = globalName(node["object"], shadowed)
    return head !== undefined && globalObjects.has(head) ? propertyName(node) : undefined
  }
  return undefined
}

/** Each forbidden use in one file. */
const clockOf = (file: SourceFile): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const add = (node: SyntaxNode, what: string) =>
    findings.push({
      rule: "clock",
      path: file.path,
      line: lineOf(file, node),
      message: `${what}: time and chance are services (Clock, Random, Schedule); only *.edge.ts may ask the platform`
    })

  const shadowed = importedNames(file)
  const cryptoNames = new Set<string>()
  for (const { specifier, node, erased } of references(file)) {
    if (erased) continue
    if (timeModules.test(specifier)) add(node, `import of ${specifier}`)
    if (!cryptoModules.test(specifier)) continue
    if (node.type !== "ImportDeclaration") add(node, `${node.type} of ${specifier}`)
    const specifiers = Array.isArray(node["specifiers"]) ? node["specifiers"].filter(isNode) : []
    for (const imported of specifiers) {
      const name = isNode(imported["imported"]) ? String(imported["imported"]["name"]) : undefined
      if (name === undefined || name === "default" || name === "webcrypto") {
        if (isNode(imported["local"])) cryptoNames.add(String(imported["local"]["name"]))
      } else if (properties["crypto"]!.has(name)) {
        add(node, `import of ${name} from ${specifier}`)
      }
    }
  }

  walk(file.tree, (node, parent, property) => {
    if (isTypePosition(node)) return false
    if (node["async"] === true) add(node, "async")
    if (node.type === "AwaitExpression") add(node, "await")
    if (node.type === "Identifier" && isReference(parent, property)) {
      const name = String(node["name"])
      if (globals.has(name) && !shadowed.has(name)) add(node, name)
    }
    if (node.type === "MemberExpression") {
      const object = node["object"]
      const name = propertyName(node)
      const local = isNode(object) && object.type === "Identifier" ? String(object["name"]) : ""
      const owner = cryptoNames.has(local) ? "crypto" : globalName(object, shadowed)
      if (owner === undefined || name === undefined) return
      if (globalObjects.has(owner) && globals.has(name)) add(node, `${owner}.${name}`)
      if (Object.hasOwn(properties, owner) && properties[owner]!.has(name)) add(node, `${owner}.${name}`)
    }
    if (node.type === "VariableDeclarator" && isNode(node["id"]) && node["id"].type === "ObjectPattern") {
      const owner = globalName(node["init"], shadowed)
      const taken = owner === undefined
        ? undefined
        : globalObjects.has(owner)
        ? globals
        : Object.hasOwn(properties, owner)
        ? properties[owner]
        : undefined
      const fields = node["id"]["properties"]
      for (const field of taken !== undefined && Array.isArray(fields) ? fields.filter(isNode) : []) {
        const key = field["key"]
        if (isNode(key) && taken!.has(String(key["name"]))) add(field, `${owner}.${String(key["name"])}`)
      }
    }
  })
  return findings
}

/** Each forbidden use in all files but edge modules. */
export const clock = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files.filter((file) => !file.path.endsWith(".edge.ts")).flatMap(clockOf)

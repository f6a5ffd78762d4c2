/**
 * No `any` reaches a user: looks at the declarations that the compiler wrote, where an inferred `any` shows too. Files in `internal/` are
 * nobody's surface, and the constructor that Effect gives to an error class (`X_base`) is not ours.
 */
import { filesUnder, type Finding, lineOf, parse, walk } from "./sources.ts"

export const publicTypes = (built: string): ReadonlyArray<Finding> =>
  filesUnder(built, ".").filter((path) => path.endsWith(".d.ts") && !path.includes("/internal/")).flatMap((path) => {
    const file = parse(built, path)
    const findings: Array<Finding> = []
    walk(file.tree, (node) => {
      const id = node["id"] as { readonly name?: unknown } | undefined | null
      if (node.type === "VariableDeclarator" && String(id?.name).endsWith("_base")) return false
      if (node.type === "TSAnyKeyword") {
        findings.push({ rule: "public-types", path, line: lineOf(file, node), message: "any in a public type" })
      }
    })
    return findings
  })

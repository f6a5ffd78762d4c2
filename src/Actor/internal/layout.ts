/**
 * What of a schema a compact codec needs to know: schemas of plain data only, without transformations, classes or open records.
 * Part of a kind's fingerprint, so two nodes that have the same one also have the same layouts.
 */
import { Schema, type SchemaAST } from "effect"

export type Layout =
  & {
    /** on what has been decoded, or is to be encoded */
    readonly checks: ReadonlyArray<(value: unknown) => boolean>
    /** the fewest bytes that a value takes */
    readonly least: number
  }
  & (
    | { readonly _tag: "String" | "Number" | "Boolean" | "Bytes" | "Undefined" | "Null" }
    | { readonly _tag: "Literals"; readonly values: ReadonlyArray<SchemaAST.LiteralValue> }
    | { readonly _tag: "Array"; readonly item: Layout }
    | { readonly _tag: "Maybe"; readonly none: null | undefined; readonly some: Layout }
    | { readonly _tag: "Struct"; readonly fields: ReadonlyArray<Field> }
  )

export interface Field {
  readonly name: string
  readonly optional: boolean
  readonly layout: Layout
}

/** An index of a literal is one byte. */
const maxLiterals = 128
/** deeper ones are for the general codec */
const maxDepth = 16

const flatten = (check: SchemaAST.Check<unknown>): ReadonlyArray<SchemaAST.Filter<unknown>> =>
  check._tag === "Filter" ? [check] : check.checks.flatMap(flatten)

const checksOf = (ast: SchemaAST.AST): Layout["checks"] =>
  (ast.checks ?? []).flatMap(flatten).map((filter) => (value) => filter.run(value, ast, {}) === undefined)

const noneOf = (ast: SchemaAST.AST): boolean =>
  (ast._tag === "Null" || ast._tag === "Undefined") && ast.checks === undefined && ast.encoding === undefined

const unionOf = (ast: SchemaAST.Union, depth: number): Layout | undefined => {
  const checks = checksOf(ast)
  const values: Array<SchemaAST.LiteralValue> = []
  for (const type of ast.types) {
    if (type._tag === "Literal" && type.encoding === undefined && type.checks === undefined) values.push(type.literal)
  }
  if (values.length === ast.types.length && values.length > 0 && values.length <= maxLiterals) {
    return { _tag: "Literals", values, checks, least: 1 }
  }
  const none = ast.types.find(noneOf)
  const rest = ast.types.find((type) => type !== none)
  if (none === undefined || rest === undefined || ast.types.length !== 2 || noneOf(rest)) return undefined
  const some = layoutAt(rest, depth + 1)
  return some === undefined
    ? undefined
    : { _tag: "Maybe", none: none._tag === "Null" ? null : undefined, some, checks, least: 1 }
}

const structOf = (ast: SchemaAST.Objects, depth: number): Layout | undefined => {
  if (ast.indexSignatures.length > 0 || ast.encodingChecks !== undefined) return undefined
  const fields: Array<Field> = []
  for (const { name, type } of ast.propertySignatures) {
    const layout = layoutAt(type, depth + 1)
    if (typeof name !== "string" || name === "__proto__" || layout === undefined) return undefined
    fields.push({ name, optional: type.context?.isOptional === true, layout })
  }
  const optional = fields.filter((field) => field.optional).length
  const least = fields.reduce((sum, field) => field.optional ? sum : sum + field.layout.least, (optional + 7) >> 3)
  return { _tag: "Struct", fields, checks: checksOf(ast), least }
}

const layoutAt = (ast: SchemaAST.AST, depth: number): Layout | undefined => {
  if (ast.encoding !== undefined || depth > maxDepth) return undefined
  switch (ast._tag) {
    case "String":
    case "Number":
    case "Boolean":
      return { _tag: ast._tag, checks: checksOf(ast), least: 1 }
    case "Void":
    case "Undefined":
      return { _tag: "Undefined", checks: checksOf(ast), least: 0 }
    case "Null":
      return { _tag: "Null", checks: checksOf(ast), least: 0 }
    case "Literal":
      return { _tag: "Literals", values: [ast.literal], checks: checksOf(ast), least: 1 }
    case "Union":
      return ast.encodingChecks === undefined ? unionOf(ast, depth) : undefined
    case "Objects":
      return structOf(ast, depth)
    case "Arrays": {
      if (ast.elements.length > 0 || ast.rest.length !== 1 || ast.encodingChecks !== undefined) return undefined
      const item = layoutAt(ast.rest[0]!, depth + 1)
      // a count of items without bytes could say anything
      return item === undefined || item.least === 0
        ? undefined
        : { _tag: "Array", item, checks: checksOf(ast), least: 1 }
    }
    case "Declaration":
      return ast === Schema.Uint8Array.ast ? { _tag: "Bytes", checks: [], least: 1 } : undefined
    default:
      return undefined
  }
}

/** Undefined: it is no plain data. */
export const layoutOf = (schema: Schema.Top): Layout | undefined => layoutAt(schema.ast, 0)

/** What two layouts must share to be the same. */
export const signature = (layout: Layout | undefined): unknown => {
  if (layout === undefined) return null
  switch (layout._tag) {
    case "Literals":
      return ["Literals", ...layout.values.map(String)]
    case "Array":
      return ["Array", signature(layout.item)]
    case "Maybe":
      return ["Maybe", String(layout.none), signature(layout.some)]
    case "Struct":
      return ["Struct", ...layout.fields.map(({ layout, name, optional }) => [name, optional, signature(layout)])]
    default:
      return layout._tag
  }
}

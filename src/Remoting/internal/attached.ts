/**
 * Large byte arrays and texts travel beside their message, not in it: the codec sees an empty one in their place. So ten
 * megabytes are not copied through an encoder in one go; they leave by reference, piece by piece, and arrive in a buffer that
 * becomes the value. Only fields of plain structs, and values that are one themselves; what is deeper goes the ordinary way.
 */
import type { Schema } from "effect"
import { maxParts } from "./bulk.ts"

type Form = "bytes" | "text"

/** By the name of the field; the empty name is the value itself. */
export type Places = ReadonlyMap<string, Form>

/** What was taken out of a value, and where it belongs. */
export interface Detached {
  /** the value with an empty one in each place */
  readonly rest: unknown
  readonly names: ReadonlyArray<string>
  readonly parts: ReadonlyArray<Uint8Array>
}

/** Bytes, or UTF-16 units of a text, from which on it travels beside its message. */
export const detachedFrom = 64 * 1024

const utf8 = new TextEncoder()
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const formOf = (ast: Schema.Top["ast"]): Form | undefined => {
  // a check must see the whole value, and an encoding changes it
  if (ast.checks !== undefined || ast.encoding !== undefined) return undefined
  if (ast._tag === "String") return "text"
  const representation = ast._tag === "Declaration" ? ast.annotations?.representation : undefined
  const known = representation as { readonly id?: unknown } | undefined
  return known?.id === "effect/schema/Uint8Array" ? "bytes" : undefined
}

const find = ({ ast }: Schema.Top): Places | undefined => {
  const whole = formOf(ast)
  if (whole !== undefined) return new Map([["", whole]])
  if (ast._tag !== "Objects" || ast.checks !== undefined || ast.encoding !== undefined) return undefined
  const places = new Map<string, Form>()
  for (const { name, type } of ast.propertySignatures) {
    const form = formOf(type)
    if (form !== undefined && typeof name === "string" && name !== "" && name !== "__proto__") places.set(name, form)
  }
  return places.size === 0 ? undefined : places
}

const cache = new WeakMap<Schema.Top, Places | undefined>()

/** Where a value of that schema may hold something large; undefined: nowhere. */
export const placesOf = (schema: Schema.Top): Places | undefined => {
  if (!cache.has(schema)) cache.set(schema, find(schema))
  return cache.get(schema)
}

const isLarge = (form: Form, value: unknown): value is Uint8Array | string =>
  form === "text"
    ? typeof value === "string" && value.length > detachedFrom
    : value instanceof Uint8Array && value.length > detachedFrom

const bytesOf = (value: Uint8Array | string) => typeof value === "string" ? utf8.encode(value) : value
const emptyOf = (form: Form) => form === "text" ? "" : new Uint8Array(0)

/** Takes out what is large; undefined: nothing is. The value stays as it is. */
export const detach = (places: Places, value: unknown): Detached | undefined => {
  const whole = places.get("")
  if (whole !== undefined) {
    return isLarge(whole, value) ? { rest: emptyOf(whole), names: [""], parts: [bytesOf(value)] } : undefined
  }
  if (typeof value !== "object" || value === null) return undefined
  let rest: Record<string, unknown> | undefined
  const names: Array<string> = []
  const parts: Array<Uint8Array> = []
  for (const [name, form] of places) {
    const field = (value as Record<string, unknown>)[name]
    if (!isLarge(form, field) || parts.length + 1 === maxParts) continue
    rest ??= { ...value }
    rest[name] = emptyOf(form)
    names.push(name)
    parts.push(bytesOf(field))
  }
  return rest === undefined ? undefined : { rest, names, parts }
}

/** Puts it back; what this side's schema does not have is dropped, as any field that it does not know. Throws what does not fit. */
export const attach = (
  places: Places | undefined,
  rest: unknown,
  names: ReadonlyArray<string>,
  parts: ReadonlyArray<Uint8Array>
): unknown => {
  let value = rest
  for (const [index, name] of names.entries()) {
    const form = places?.get(name)
    if (form === undefined) {
      if (name !== "" && (typeof rest !== "object" || rest === null || !Object.hasOwn(rest, name))) continue
      throw new Error(`${name === "" ? "the value" : name} is not expected to be large`)
    }
    const part = parts[index]!
    const whole = form === "text" ? strictUtf8.decode(part) : part
    if (name === "") value = whole
    else (rest as Record<string, unknown>)[name] = whole
  }
  return value
}

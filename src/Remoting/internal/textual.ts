/**
 * Schema values as JSON, for schemas whose binary form would let a few bytes stand for a lot of memory: lists of items that take no
 * bytes, up to four million each, and recursive ones, where each of some five hundred lists within lists may say that it has a
 * million items and has room made for them before the first is there. JSON takes a byte for each item at least, and makes no room
 * before.
 *
 * Invariant: a schema that is textual is never read from binary, whoever sends it.
 */
import { Schema, SchemaAST } from "effect"

const takesNothing = (ast: SchemaAST.AST): boolean =>
  ast._tag === "Null" || ast._tag === "Undefined" || ast._tag === "Void" ||
  (ast._tag === "Union" && ast.types.every(takesNothing))

const swells = (ast: SchemaAST.AST): boolean => {
  switch (ast._tag) {
    // what comes around to itself does so by way of one
    case "Suspend":
      return true
    case "Arrays":
      return ast.rest.some((item) => takesNothing(item) || swells(item)) || ast.elements.some(swells)
    case "Objects":
      return ast.propertySignatures.some(({ type }) => swells(type)) ||
        ast.indexSignatures.some(({ type }) => swells(type))
    case "Union":
      return ast.types.some(swells)
    default:
      return false
  }
}

/** Does it need to be? Looks at what is written, so it sees into classes, sets and tables too. */
export const isTextual = (schema: Schema.Top): boolean => swells(SchemaAST.toEncoded(Schema.toCodecJson(schema).ast))

const utf8 = new TextEncoder()
const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Both functions throw for what does not fit. */
export const textual = (schema: Schema.Codec<unknown, unknown>) => {
  const json = Schema.toCodecJson(schema)
  const encode = Schema.encodeSync(json)
  const decode = Schema.decodeUnknownSync(json)
  return {
    encode: (value: unknown): Uint8Array => utf8.encode(JSON.stringify(encode(value))),
    decode: (bytes: Uint8Array): unknown => decode(JSON.parse(strictUtf8.decode(bytes)))
  }
}

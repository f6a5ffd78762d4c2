/** A digest of a kind's schemas. Two builds of the same protocol have the same one; any change of a schema changes it. */
import { Schema, SchemaRepresentation } from "effect"
import { RpcSchema } from "effect/rpc"
import type { MessageDefinition } from "../Kind.ts"
import { layoutOf, signature } from "./layout.ts"

const canonical = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(canonical)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(
      Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([key, part]) => [key, canonical(part)])
    )
    : typeof value === "bigint" || typeof value === "symbol" || typeof value === "function"
    ? String(value)
    : value

/** The encoded side decides: it is what travels. So does the layout, for those who need no other encoding. */
const describe = (schema: Schema.Top): unknown => [encoded(schema), signature(layoutOf(schema))]

const encoded = (schema: Schema.Top): unknown => {
  if (RpcSchema.isStreamSchema(schema)) {
    return { stream: [describe(schema.success as Schema.Top), describe(schema.error as Schema.Top)] }
  }
  try {
    return canonical(SchemaRepresentation.toRepresentation(Schema.toCodecJson(schema).ast))
  } catch {
    // A declaration without a representation: its place in the protocol is known, its inside is not.
    return schema.ast._tag
  }
}

/** FNV-1a, twice with different offsets: 16 hex digits. Not for security. */
const digest = (text: string): string => {
  let low = 0x811c9dc5
  let high = 0x01000193
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    low = Math.imul(low ^ code, 0x01000193)
    high = Math.imul(high ^ code, 0x01000193) ^ low
  }
  return (low >>> 0).toString(16).padStart(8, "0") + (high >>> 0).toString(16).padStart(8, "0")
}

export const fingerprint = (
  name: string,
  messages: ReadonlyMap<string, MessageDefinition>,
  props: Schema.Top
): string =>
  digest(JSON.stringify([
    name,
    [...messages.values()].sort((a, b) => a.tag < b.tag ? -1 : 1).map((message) => [
      message.tag,
      message.stream,
      describe(message.payload),
      describe(message.success),
      describe(message.error)
    ]),
    describe(props)
  ]))

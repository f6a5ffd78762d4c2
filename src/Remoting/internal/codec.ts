/**
 * Schema values as bytes, by `SchemaBinary`, or compactly where both sides know that they may; as text where bytes could not be
 * trusted. Codecs are made once a schema; both functions throw a plain error for data that does not fit, which the caller turns
 * into a typed failure that names what it was.
 */
import { Schema } from "effect"
import { SchemaBinary } from "effect/encoding"
import { layoutOf } from "../../Actor/internal/layout.ts"
import { type Compact, compactOf } from "./compact.ts"
import { isTextual, textual } from "./textual.ts"
import { Malformed, Reader, Writer } from "./wire.ts"

export interface Codec {
  readonly encode: (value: unknown) => Uint8Array
  readonly decode: (bytes: Uint8Array) => unknown
  /** the same without bytes of its own in between, where it is compact */
  readonly compact: Compact | undefined
}

/**
 * `evolving` tells fields by name, so that both sides may differ by additions; `exact` needs equal schemas and is smaller;
 * `compact` is the same with a layout of our own for plain data.
 */
export type Mode = "evolving" | "exact" | "compact"

const caches: Record<Mode, WeakMap<Schema.Top, Codec>> = {
  evolving: new WeakMap(),
  exact: new WeakMap(),
  compact: new WeakMap()
}

export const codecOf = (schema: Schema.Top, mode: Mode): Codec => {
  const cache = caches[mode]
  let codec = cache.get(schema)
  if (codec === undefined) cache.set(schema, codec = mode === "compact" ? compactCodec(schema) : general(schema, mode))
  return codec
}

const general = (schema: Schema.Top, mode: Mode): Codec => {
  const options = { fingerprint: mode === "exact" }
  // Schemas that need services cannot travel: there is nobody to provide them on the other side.
  const pure = schema as unknown as Schema.Codec<unknown, unknown>
  if (isTextual(schema)) return { ...textual(pure), compact: undefined }
  const { encode } = SchemaBinary.encoder(pure, options)
  // a parser keeps its buffers; one that has failed is of no more use
  let parser = SchemaBinary.parser(pure, options)
  const decode = (bytes: Uint8Array): unknown => {
    if (!isOneFrame(bytes)) throw new Error("not exactly one value")
    try {
      return parser.feedSync(bytes)[0]
    } catch (error) {
      parser = SchemaBinary.parser(pure, options)
      throw error
    }
  }
  return { encode, decode, compact: undefined }
}

const compactCodec = (schema: Schema.Top): Codec => {
  const layout = layoutOf(schema)
  if (layout === undefined) return codecOf(schema, "exact")
  const compact = compactOf(layout)
  const encode = (value: unknown): Uint8Array => {
    const writer = new Writer()
    try {
      compact.write(writer, value)
    } catch (error) {
      // it can say what is wrong
      codecOf(schema, "exact").encode(value)
      throw error
    }
    return writer.take()
  }
  const decode = (bytes: Uint8Array): unknown => {
    const reader = new Reader(bytes)
    const value = compact.read(reader)
    if (!reader.done) throw new Error("more than one value")
    return value
  }
  return { encode, decode, compact }
}

/** Is that one length, as a varint, and as many bytes? What a parser would keep for later must not get into it. */
const isOneFrame = (bytes: Uint8Array): boolean => {
  let length = 0
  let scale = 1
  for (let i = 0; i < Math.min(6, bytes.length); i++) {
    const byte = bytes[i]!
    length += (byte & 0x7f) * scale
    if (byte < 0x80) return bytes.length === i + 1 + length
    scale *= 0x80
  }
  return false
}

/** An error in a few words, without stack and of bounded length. */
export const reasonOf = (error: unknown): string => {
  const text = error instanceof Error || error instanceof Malformed ? error.message : String(error)
  return text.length > 300 ? `${text.slice(0, 300)}...` : text
}

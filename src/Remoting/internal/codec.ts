/**
 * Schema values as bytes, by `SchemaBinary`. Codecs are made once a schema; both functions throw a plain error for data that
 * does not fit, which the caller turns into a typed failure that names what it was.
 */
import { Schema } from "effect"
import { SchemaBinary } from "effect/encoding"

export interface Codec {
  readonly encode: (value: unknown) => Uint8Array
  readonly decode: (bytes: Uint8Array) => unknown
}

/** `evolving` tells fields by name, so that both sides may differ by additions; `exact` needs equal schemas and is smaller. */
export type Mode = "evolving" | "exact"

const caches: Record<Mode, WeakMap<Schema.Top, Codec>> = { evolving: new WeakMap(), exact: new WeakMap() }

export const codecOf = (schema: Schema.Top, mode: Mode): Codec => {
  const cache = caches[mode]
  let codec = cache.get(schema)
  if (codec === undefined) {
    const options = { fingerprint: mode === "exact" }
    // Schemas that need services cannot travel: there is nobody to provide them on the other side.
    const pure = schema as unknown as Schema.Codec<unknown, unknown>
    const { encode } = SchemaBinary.encoder(pure, options)
    const decode = Schema.decodeUnknownSync(SchemaBinary.toCodec(pure, options))
    cache.set(schema, codec = { encode, decode })
  }
  return codec
}

/** An error in a few words, without stack and of bounded length. */
export const reasonOf = (error: unknown): string => {
  const text = error instanceof Error ? error.message : String(error)
  return text.length > 300 ? `${text.slice(0, 300)}...` : text
}

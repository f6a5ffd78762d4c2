/** Codecs of a kind, made once a definition. */
import { Exit, Schema } from "effect"
import type { KindDefinition } from "../Kind.ts"

export interface JsonCodec {
  readonly encode: (value: unknown) => Exit.Exit<unknown, unknown>
  readonly decode: (value: unknown) => Exit.Exit<unknown, unknown>
}

const nothing = Exit.succeed(Object.freeze({}))

/** of all kinds without props */
export const noProps: JsonCodec = { encode: () => nothing, decode: () => nothing }

const cache = new WeakMap<KindDefinition, JsonCodec>()

/** Props from and to JSON values. */
export const propsCodec = (kind: KindDefinition): JsonCodec => {
  let codec = cache.get(kind)
  if (codec === undefined) {
    const fields = (kind.props as unknown as { readonly fields?: object }).fields
    if (fields !== undefined && Object.keys(fields).length === 0) {
      cache.set(kind, noProps)
      return noProps
    }
    // Codecs that need services cannot travel; `Actor.make` admits none.
    const schema = Schema.toCodecJson(kind.props) as unknown as Schema.Codec<unknown, unknown>
    codec = { encode: Schema.encodeUnknownExit(schema), decode: Schema.decodeUnknownExit(schema) }
    cache.set(kind, codec)
  }
  return codec
}

/** Codecs of a kind, made once a definition. */
import { type Exit, Schema } from "effect"
import type { KindDefinition } from "../Kind.ts"

export interface JsonCodec {
  readonly encode: (value: unknown) => Exit.Exit<unknown, unknown>
  readonly decode: (value: unknown) => Exit.Exit<unknown, unknown>
}

const cache = new WeakMap<KindDefinition, JsonCodec>()

/** Props from and to JSON values. */
export const propsCodec = (kind: KindDefinition): JsonCodec => {
  let codec = cache.get(kind)
  if (codec === undefined) {
    // Codecs that need services cannot travel; `Actor.make` admits none.
    const schema = Schema.toCodecJson(kind.props) as unknown as Schema.Codec<unknown, unknown>
    codec = { encode: Schema.encodeUnknownExit(schema), decode: Schema.decodeUnknownExit(schema) }
    cache.set(kind, codec)
  }
  return codec
}

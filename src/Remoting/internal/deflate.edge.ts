/** The platform's compression, as pure functions of bytes. */
import { deflateRawSync, inflateRawSync } from "node:zlib"

/** The quickest level: what is saved on the way is to cost less than the way. */
const options = { level: 1 } as const

export const deflated = (bytes: Uint8Array): Uint8Array => deflateRawSync(bytes, options)

/** At most `limit` bytes, whatever the input wants to become; undefined where it is more, or no deflated bytes at all. */
export const inflated = (bytes: Uint8Array, limit: number): Uint8Array | undefined => {
  try {
    return inflateRawSync(bytes, { maxOutputLength: limit })
  } catch {
    return undefined
  }
}

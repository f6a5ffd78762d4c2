/** The two cryptographic functions that the handshake needs, as pure functions of bytes. */
import { createHmac, timingSafeEqual } from "node:crypto"

/** HMAC-SHA256 over a label and what both sides said. The label keeps a proof from being played back the other way. */
export const mac = (secret: string, label: string, transcript: ReadonlyArray<Uint8Array>): Uint8Array => {
  const hmac = createHmac("sha256", secret)
  hmac.update(label).update("\u0000")
  for (const part of transcript) {
    const length = new Uint8Array(4)
    new DataView(length.buffer).setUint32(0, part.length)
    hmac.update(length).update(part)
  }
  return new Uint8Array(hmac.digest())
}

/** Equal, in a time that tells nothing about where they differ. */
export const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && timingSafeEqual(a, b)

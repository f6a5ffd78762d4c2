/** Memory that nobody has written to yet. An edge because only the platform's `Buffer` gives it. */

/** For whoever fills it to the last byte: clearing ten megabytes first would hold up everything else. */
export const unwritten = (bytes: number): Uint8Array<ArrayBuffer> =>
  new Uint8Array(Buffer.allocUnsafeSlow(bytes).buffer as ArrayBuffer)

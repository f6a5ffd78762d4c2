/**
 * Texts to bytes and back by the platform's own routines, which need no view of the bytes. `Buffer` lends them: they work on any
 * `Uint8Array`.
 */
interface Routines {
  readonly latin1Slice: (start: number, end: number) => string
  readonly utf8Write: (text: string, at: number, length: number) => number
}

const { latin1Slice, utf8Write } = Buffer.prototype as unknown as Routines

/** Bytes as characters of the same number. */
export const latin1At = (bytes: Uint8Array, start: number, end: number): string => latin1Slice.call(bytes, start, end)

/** Writes UTF-8 there, which must have room for it; how many bytes. */
export const writeUtf8 = (bytes: Uint8Array, at: number, text: string): number =>
  utf8Write.call(bytes, text, at, bytes.length - at)

export const utf8Length = (text: string): number => Buffer.byteLength(text)

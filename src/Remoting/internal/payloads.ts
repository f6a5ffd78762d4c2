/**
 * A payload between its schema and the wire: written in place where it is small and plain, read where it lies, parted where some of
 * it travels beside its message.
 *
 * Not for: what stands around a payload; that is the business of whoever writes or reads the operation.
 *
 * Invariant: `put` either writes a whole payload with its length, or says that it did not; what was written by then is to be taken
 * back.
 */
import { InvalidData } from "../../Actor/errors.ts"
import { detach, type Detached, type Places } from "./attached.ts"
import { partsCapability } from "./bulk.ts"
import type { Codec } from "./codec.ts"
import type { Compact } from "./compact.ts"
import type { Tables } from "./messageTables.ts"
import { frontBytes } from "./outbox.ts"
import type { Session } from "./session.ts"
import { Malformed, type Reader, type Writer } from "./wire.ts"

/** Messages below this are written where they leave from, in bytes. */
export const smallBytes = 4096

/** Writes a small value with its length in front. False: it goes another way, or nowhere, and the writer is to be set back. */
export const put = (session: Session, writer: Writer, compact: Compact, value: unknown): boolean => {
  const at = writer.length
  writer.length = at + 2
  writer.fixed = true
  try {
    compact.write(writer, value)
  } catch {
    return false
  } finally {
    writer.fixed = false
  }
  const bytes = writer.length - at - 2
  if (bytes >= smallBytes || writer.length - frontBytes > session.outbox.maxMessageBytes) return false
  writer.buffer[at] = (bytes & 0x7f) | 0x80
  writer.buffer[at + 1] = bytes >> 7
  return true
}

/** What is between `start` and where the reader is, which it has passed over. */
export const read = ({ compact, decode }: Codec, reader: Reader, start: number): unknown => {
  const { limit, position } = reader
  if (compact === undefined) return decode(reader.bytes.subarray(start, position))
  reader.position = start
  reader.limit = position
  try {
    const value = compact.read(reader)
    if (reader.position !== position) throw new Malformed("more than one value")
    return value
  } finally {
    reader.position = position
    reader.limit = limit
  }
}

/** What of the value travels beside its message, where the peer knows of that. */
export const setAside = (session: Session, tables: Tables, places: Places, value: unknown): Detached | undefined => {
  tables.inParts ??= session.supports(partsCapability)
  return tables.inParts ? detach(places, value) : undefined
}

/** For an ask or an answer whose bytes are no longer its own. */
export const takenAway = (what: string, of: { readonly reply?: true } = {}) =>
  new InvalidData({ what, reason: "its bytes were given away before they had left", ...of })

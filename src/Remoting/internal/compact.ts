/**
 * Plain data as bytes, field by field in the order of the schema, into the buffer that leaves and out of the one that came: no
 * names, no frames of their own, no copies on the way. For two sides with the same layout only; what a schema checks is checked
 * on both. The general codec writes and reads a message of a few fields in some hundred nanoseconds, this one in some dozens.
 */
import type { Layout } from "../../Actor/internal/layout.ts"
import { latin1At, utf8Length, writeUtf8 } from "./text.edge.ts"
import { Malformed, type Reader, type Writer } from "./wire.ts"

/** Whoever names this understands kinds whose plain messages are compact. */
export const compactCapability = "compact"

export interface Compact {
  /** Throws for what does not fit the schema; the writer's length is anything then. */
  readonly write: (out: Writer, value: unknown) => void
  /** Throws for what is not exactly such a value. */
  readonly read: (from: Reader) => unknown
}

const unfit = new Malformed("does not fit the schema")

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

// Texts have their bytes' number times two in front, plus one where each byte is a character.

/** characters up to which a loop is faster than the platform's routine */
const shortWrite = 24
const shortRead = 12

const varintBytes = (value: number): number => {
  let bytes = 1
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) bytes++
  return bytes
}

const writeText = (out: Writer, value: unknown): void => {
  if (typeof value !== "string") throw unfit
  const { length } = value
  if (length < shortWrite) {
    out.ensure(1 + length)
    const { buffer } = out
    let at = out.length + 1
    let all = 0
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i)
      all |= code
      buffer[at++] = code
    }
    if (all < 0x80) {
      buffer[out.length] = length * 2 + 1
      out.length = at
      return
    }
  }
  out.ensure(8 + (length < 0x4000 ? length * 3 : utf8Length(value)))
  const head = out.length
  // as if it were of one byte a character, which it mostly is
  const at = out.varint(length * 2 + 1).length
  const bytes = writeUtf8(out.buffer, at, value)
  if (bytes === length) {
    out.length = at + bytes
    return
  }
  const moved = head + varintBytes(bytes * 2)
  // before the longer length in front overwrites its beginning
  if (moved !== at) out.buffer.copyWithin(moved, at, at + bytes)
  out.length = head
  out.varint(bytes * 2)
  out.length = moved + bytes
}

const readText = (from: Reader): string => {
  const code = from.varint()
  const length = Math.floor(code / 2)
  const start = from.skip(length)
  const end = from.position
  const { bytes } = from
  if (code % 2 === 0) return strictUtf8.decode(bytes.subarray(start, end))
  if (length > shortRead) return latin1At(bytes, start, end)
  let text = ""
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at]!)
  return text
}

// Small integers are odd where they are not negative, else even; 0 stands before eight bytes.

const maxSmall = 0x3ffffff0
const float = new DataView(new ArrayBuffer(8))
const floatBytes = new Uint8Array(float.buffer)

const writeNumber = (out: Writer, value: unknown): void => {
  if (typeof value !== "number") throw unfit
  if ((value | 0) === value && value <= maxSmall && value >= -maxSmall && !Object.is(value, -0)) {
    out.varint(value < 0 ? -value * 2 : value * 2 + 1)
    return
  }
  float.setFloat64(0, value, true)
  out.byte(0).raw(floatBytes)
}

const readNumber = (from: Reader): number => {
  const code = from.varint()
  if (code === 0) {
    const start = from.skip(8)
    for (let i = 0; i < 8; i++) floatBytes[i] = from.bytes[start + i]!
    return float.getFloat64(0, true)
  }
  return code % 2 === 1 ? (code - 1) / 2 : -(code / 2)
}

const readFlag = (from: Reader): boolean => {
  const value = from.byte()
  if (value > 1) throw unfit
  return value === 1
}

const scalar = (tag: "String" | "Number" | "Boolean" | "Bytes" | "Undefined" | "Null"): Compact => {
  switch (tag) {
    case "String":
      return { write: writeText, read: readText }
    case "Number":
      return { write: writeNumber, read: readNumber }
    case "Boolean":
      return {
        write: (out, value) => {
          if (typeof value !== "boolean") throw unfit
          out.byte(value ? 1 : 0)
        },
        read: readFlag
      }
    case "Bytes":
      return {
        write: (out, value) => {
          if (!(value instanceof Uint8Array)) throw unfit
          out.ensure(8 + value.length)
          out.blob(value)
        },
        read: (from) => {
          const bytes = from.blob()
          const copy = new Uint8Array(bytes.length)
          copy.set(bytes)
          return copy
        }
      }
    default: {
      const only = tag === "Null" ? null : undefined
      return {
        write: (_, value) => {
          if (value !== only) throw unfit
        },
        read: () => only
      }
    }
  }
}

const literals = (values: ReadonlyArray<unknown>): Compact => ({
  write: (out, value) => {
    const index = values.indexOf(value)
    if (index < 0) throw unfit
    out.byte(index)
  },
  read: (from) => {
    const index = from.byte()
    if (index >= values.length) throw unfit
    return values[index]
  }
})

const maybe = (none: null | undefined, some: Compact): Compact => ({
  write: (out, value) => {
    if (value === none) out.byte(0)
    else some.write(out.byte(1), value)
  },
  read: (from) => readFlag(from) ? some.read(from) : none
})

const array = (item: Compact, least: number): Compact => ({
  write: (out, value) => {
    if (!Array.isArray(value)) throw unfit
    out.varint(value.length)
    for (let i = 0; i < value.length; i++) item.write(out, value[i])
  },
  read: (from) => {
    const length = from.varint()
    // before any memory is taken
    if (length * least > from.limit - from.position) throw unfit
    const items: Array<unknown> = []
    for (let i = 0; i < length; i++) items.push(item.read(from))
    return items
  }
})

interface Part {
  readonly name: string
  /** its bit among those of the optional fields; -1: it is required */
  readonly bit: number
  readonly compact: Compact
}

const struct = (parts: ReadonlyArray<Part>): Compact => {
  const optional = parts.filter((part) => part.bit >= 0).length
  if (optional === 0) {
    return {
      write: (out, value) => {
        if (typeof value !== "object" || value === null) throw unfit
        for (let i = 0; i < parts.length; i++) {
          const { compact, name } = parts[i]!
          const part = (value as Record<string, unknown>)[name]
          if (part === undefined && !Object.hasOwn(value, name)) throw unfit
          compact.write(out, part)
        }
      },
      read: (from) => {
        const value: Record<string, unknown> = {}
        for (let i = 0; i < parts.length; i++) {
          const { compact, name } = parts[i]!
          value[name] = compact.read(from)
        }
        return value
      }
    }
  }
  const maskBytes = (optional + 7) >> 3
  return {
    write: (out, value) => {
      if (typeof value !== "object" || value === null) throw unfit
      out.ensure(maskBytes)
      const mask = out.length
      out.buffer.fill(0, mask, mask + maskBytes)
      out.length += maskBytes
      for (let i = 0; i < parts.length; i++) {
        const { bit, compact, name } = parts[i]!
        if (Object.hasOwn(value, name)) {
          if (bit >= 0) out.buffer[mask + (bit >> 3)]! |= 1 << (bit & 7)
          compact.write(out, (value as Record<string, unknown>)[name])
        } else if (bit < 0) throw unfit
      }
    },
    read: (from) => {
      const mask = from.skip(maskBytes)
      const value: Record<string, unknown> = {}
      for (let i = 0; i < parts.length; i++) {
        const { bit, compact, name } = parts[i]!
        if (bit >= 0 && (from.bytes[mask + (bit >> 3)]! & (1 << (bit & 7))) === 0) continue
        value[name] = compact.read(from)
      }
      return value
    }
  }
}

const unchecked = (layout: Layout): Compact => {
  switch (layout._tag) {
    case "Literals":
      return literals(layout.values)
    case "Array":
      return array(compactOf(layout.item), layout.item.least)
    case "Maybe":
      return maybe(layout.none, compactOf(layout.some))
    case "Struct": {
      let optional = 0
      return struct(layout.fields.map((field) => ({
        name: field.name,
        bit: field.optional ? optional++ : -1,
        compact: compactOf(field.layout)
      })))
    }
    default:
      return scalar(layout._tag)
  }
}

export const compactOf = (layout: Layout): Compact => {
  const compact = unchecked(layout)
  const { checks } = layout
  if (checks.length === 0) return compact
  const check = (value: unknown): void => {
    for (const holds of checks) if (!holds(value)) throw unfit
  }
  return {
    // its type first: a check takes that for granted
    write: (out, value) => {
      compact.write(out, value)
      check(value)
    },
    read: (from) => {
      const value = compact.read(from)
      check(value)
      return value
    }
  }
}

/**
 * What every backend checks before it sends anything: keys, prefixes and values that no store could take end as `InvalidData`
 * here, with the same words whatever the backend.
 */
import { Effect, Random } from "effect"
import { InvalidData } from "../../Actor/errors.ts"

/** longest key in bytes that every backend takes */
export const maxKeyBytes = 512

/** largest value in bytes of UTF-8 where a backend has no tighter cap: below NATS' 1 MiB frame and etcd's 1.5 MiB request */
export const defaultMaxValueBytes = 512 * 1024

const keyPattern = /^[A-Za-z0-9\-_.=@]+(?:\/[A-Za-z0-9\-_.=@]+)*$/
const prefixPattern = /^[A-Za-z0-9\-_.=@/]*$/

/** undefined: a key that every backend takes; else why not */
export const keyProblem = (key: string): string | undefined =>
  key === ""
    ? "is empty"
    : key.length > maxKeyBytes
    ? `is ${key.length} bytes long, the most is ${maxKeyBytes}`
    : keyPattern.test(key)
    ? undefined
    : "may hold letters, digits and -_.=@ in non-empty parts joined by /"

const prefixProblem = (prefix: string): string | undefined =>
  prefix.length > maxKeyBytes
    ? `is ${prefix.length} bytes long, the most is ${maxKeyBytes}`
    : !prefixPattern.test(prefix) || prefix.startsWith("/") || prefix.includes("//")
    ? "may hold letters, digits and -_.=@ in non-empty parts joined by /"
    : undefined

/** bytes of UTF-8, without encoding the text */
export const utf8Bytes = (text: string): number => Buffer.byteLength(text, "utf8")

const valueProblem = (value: string, maxValueBytes: number): string | undefined => {
  if (/\p{Surrogate}/u.test(value)) return "holds half of a surrogate pair, which UTF-8 cannot carry"
  const bytes = utf8Bytes(value)
  return bytes > maxValueBytes ? `is ${bytes} bytes long, the most is ${maxValueBytes}` : undefined
}

/** What is wrong, on one line and shortened, so that a huge key does not become a huge error. */
export const shown = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text)

const check = (what: string, of: string, problem: string | undefined): Effect.Effect<void, InvalidData> =>
  problem === undefined ? Effect.void : Effect.fail(new InvalidData({ what: `${what} ${shown(of)}`, reason: problem }))

export const checkKey = (key: string): Effect.Effect<void, InvalidData> => check("key", key, keyProblem(key))

export const checkPrefix = (prefix: string): Effect.Effect<void, InvalidData> =>
  check("prefix", prefix, prefixProblem(prefix))

export const checkEntry = (key: string, value: string, maxValueBytes: number): Effect.Effect<void, InvalidData> => {
  const problem = keyProblem(key)
  return problem === undefined
    ? check("value of", key, valueProblem(value, maxValueBytes))
    : check("key", key, problem)
}

/** Can this be the revision of an entry? Zero, which some stores give to absent keys, and what is no number cannot. */
export const isRevision = (revision: string): boolean => /^[1-9]\d{0,17}$/.test(revision)

const hex = (x: number) => Math.floor(x * 0x1_0000_0000).toString(16).padStart(8, "0")

/** 128 random bits as text */
export const randomId: Effect.Effect<string> = Effect.map(
  Effect.all([Random.next, Random.next, Random.next, Random.next]),
  (parts) => parts.map(hex).join("")
)

/**
 * A source of ids that no other client gives out: 96 random bits of its own and a counter, as 32 hex digits. A write carries one, so
 * that its writer recognises it after an answer was lost.
 */
export const makeIdSource: Effect.Effect<() => string> = Effect.map(randomId, (random) => {
  const own = random.slice(0, 24)
  let count = 0
  return () => own + (count++ % 0x1_0000_0000).toString(16).padStart(8, "0")
})

/** Revisions of one key, older to newer. Backends write them as decimal integers. */
export const compareRevision = (a: string, b: string): number => {
  const x = BigInt(a)
  const y = BigInt(b)
  return x < y ? -1 : x > y ? 1 : 0
}

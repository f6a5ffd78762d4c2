/**
 * Settings in one place: each with its default, its range, its environment variable and a sentence. A group decodes a partial
 * record given in code, or the environment, and a bad value is a `SettingInvalid` that names it before anything starts.
 */
import { Config, Duration, Effect, Option, Redacted } from "effect"
import { SettingInvalid } from "./errors.ts"

export interface Setting<in out Input, out Value> {
  /** undefined: the setting is required (its `default` is never read) */
  readonly required: boolean
  readonly default: Value | undefined
  /** the environment variable that `layerConfig` reads */
  readonly env: string
  /** from the value given in code; a string is why it is refused */
  readonly check: (input: Input) => { readonly value: Value } | string
  /** from the environment's text */
  readonly parse: (text: string) => { readonly value: Value } | string
}

/** One that has no default and cannot be absent: code must give it. */
export interface RequiredSetting<in out Input, out Value> extends Setting<Input, Value> {
  readonly required: true
}

interface Range {
  readonly minimum?: number | undefined
  readonly maximum?: number | undefined
}

const inRange = (value: number, range: Range, show: (n: number) => string): string | undefined =>
  Number.isNaN(value)
    ? "is not a number"
    : range.minimum !== undefined && value < range.minimum
    ? `is below ${show(range.minimum)}`
    : range.maximum !== undefined && value > range.maximum
    ? `is above ${show(range.maximum)}`
    : undefined

/** A whole number. */
export const int = (options: Range & { readonly env: string; readonly default: number }): Setting<number, number> => {
  const check = (value: number) => {
    if (!Number.isInteger(value)) return "is not a whole number"
    return inRange(value, options, String) ?? { value }
  }
  return { ...options, required: false, check, parse: (text) => check(text.trim() === "" ? NaN : Number(text)) }
}

/** A number between `minimum` and `maximum`. */
export const number = (
  options: Range & { readonly env: string; readonly default: number }
): Setting<number, number> => {
  const check = (value: number) => inRange(value, options, String) ?? { value }
  return { ...options, required: false, check, parse: (text) => check(text.trim() === "" ? NaN : Number(text)) }
}

/** A span of time; `minimum` and `maximum` in milliseconds. */
export const duration = (
  options: Range & { readonly env: string; readonly default: Duration.Input }
): Setting<Duration.Input, Duration.Duration> => {
  const check = (input: Duration.Input) => {
    const decoded = Duration.fromInput(input)
    if (Option.isNone(decoded)) return "is not a duration"
    const value = decoded.value
    return inRange(Duration.toMillis(value), options, (n) => Duration.format(Duration.millis(n))) ?? { value }
  }
  return {
    env: options.env,
    required: false,
    default: Duration.fromInputUnsafe(options.default),
    check,
    parse: (text) => check((/^\d+$/.test(text.trim()) ? Number(text) : text.trim()) as Duration.Input)
  }
}

/** A span of time that may be absent, where the standard one depends on what is found; `minimum` and `maximum` in milliseconds. */
export const optionalDuration = (
  options: Range & { readonly env: string }
): Setting<Duration.Input | undefined, Duration.Duration | undefined> => {
  const { check, parse } = duration({ ...options, default: 0 })
  return {
    env: options.env,
    required: false,
    default: undefined,
    check: (input) => input === undefined ? { value: undefined } : check(input),
    parse
  }
}

/** Yes or no. */
export const boolean = (options: { readonly env: string; readonly default: boolean }): Setting<boolean, boolean> => ({
  ...options,
  required: false,
  check: (value) => typeof value === "boolean" ? { value } : "is neither true nor false",
  parse: (text) =>
    ["true", "yes", "on", "1"].includes(text.trim().toLowerCase())
      ? { value: true }
      : ["false", "no", "off", "0"].includes(text.trim().toLowerCase())
      ? { value: false }
      : "is neither true nor false"
})

interface TextOptions {
  readonly env: string
  readonly default?: string | undefined
  readonly pattern?: RegExp | undefined
}

/** A text that is not empty; without a default it is required. */
export function text(options: TextOptions & { readonly default: string }): Setting<string, string>
export function text(options: TextOptions & { readonly default?: undefined }): RequiredSetting<string, string>
export function text(options: TextOptions): Setting<string, string> {
  const check = (value: string) =>
    typeof value !== "string"
      ? "is no text"
      : value === ""
      ? "is empty"
      : options.pattern !== undefined && !options.pattern.test(value)
      ? `does not match ${options.pattern.source}`
      : { value }
  return { env: options.env, default: options.default, required: options.default === undefined, check, parse: check }
}

/** A text that may be absent. */
export const optionalText = (options: { readonly env: string }): Setting<string | undefined, string | undefined> => ({
  env: options.env,
  required: false,
  default: undefined,
  check: (value) =>
    value !== undefined && typeof value !== "string" ? "is no text" : value === "" ? "is empty" : { value },
  parse: (value) => value === "" ? "is empty" : { value }
})

/** What programs without types may give for a secret: plain text, or none. A reason never quotes it. */
const secretProblem = (given: unknown): string | undefined => {
  if (!Redacted.isRedacted(given)) return "is not redacted: give Redacted.make(...)"
  try {
    const value = Redacted.value(given)
    return typeof value !== "string" ? "is no text" : value === "" ? "is empty" : undefined
  } catch {
    // it was wiped
    return "is no text"
  }
}

/** A secret that may be absent; it shows in no log, error or span. */
export const optionalSecret = (options: {
  readonly env: string
}): Setting<Redacted.Redacted<string> | undefined, Redacted.Redacted<string> | undefined> => ({
  env: options.env,
  required: false,
  default: undefined,
  check: (value) => value === undefined ? { value } : secretProblem(value) ?? { value },
  parse: (value) => value === "" ? "is empty" : { value: Redacted.make(value) }
})

/** Texts, in the environment separated by commas. */
export const texts = (options: {
  readonly env: string
  readonly default: ReadonlyArray<string>
}): Setting<ReadonlyArray<string>, ReadonlyArray<string>> => {
  const check = (value: ReadonlyArray<string>) =>
    !Array.isArray(value) || value.some((part) => typeof part !== "string")
      ? "is no list of texts"
      : value.some((part) => part === "")
      ? "holds an empty part"
      : { value }
  return {
    ...options,
    required: false,
    check,
    parse: (value) => check(value.split(",").map((part) => part.trim()).filter((part) => part !== ""))
  }
}

/** Stands for every name in a list of those that are allowed. */
export const everyName = "*"

/** Is that name in a list of allowed ones? */
export const allows = (names: ReadonlyArray<string>, name: string): boolean =>
  names.includes(everyName) || names.includes(name)

/** Names with values, in the environment `a=1,b=2`. */
export const labels = (options: {
  readonly env: string
}): Setting<Readonly<Record<string, string>>, Readonly<Record<string, string>>> => {
  const forbidden = new Set(["__proto__", "constructor", "prototype"])
  const check = (value: Readonly<Record<string, string>>) => {
    const bad = Object.keys(value).find((name) => forbidden.has(name) || name === "")
    return bad === undefined ? { value } : `has a forbidden name "${bad}"`
  }
  return {
    env: options.env,
    required: false,
    default: {},
    check,
    parse: (value) => {
      const pairs = value.split(",").map((part) => part.trim()).filter((part) => part !== "").map((part) =>
        part.split("=")
      )
      return pairs.some((pair) => pair.length !== 2)
        ? "is not a list of name=value"
        : check(Object.fromEntries(pairs.map((pair) => [pair[0]!, pair[1]!] as const)))
    }
  }
}

type InputOf<S> = S extends Setting<infer Input, infer _> ? Input : never
type ValueOf<S> = S extends Setting<infer _, infer Value> ? Value : never

/** What code gives: what is required, and of the rest what is not to have its default. All of it is checked. */
export type Partial_<S extends Record<string, unknown>> =
  & { readonly [K in keyof S as S[K] extends { readonly required: true } ? K : never]: InputOf<S[K]> }
  & {
    readonly [K in keyof S as S[K] extends { readonly required: true } ? never : K]?: InputOf<S[K]> | undefined
  }
/** What the services read. */
export type Values<S extends Record<string, unknown>> = { readonly [K in keyof S]: ValueOf<S[K]> }

export interface Group<S extends Record<string, unknown>> {
  readonly decode: (partial: Partial_<S>) => Effect.Effect<Values<S>, SettingInvalid>
  /** from the environment (the current `ConfigProvider`); what is not set takes its default */
  readonly config: Effect.Effect<Values<S>, SettingInvalid>
}

const erase = (setting: unknown) =>
  setting as {
    readonly required: boolean
    readonly default: unknown
    readonly env: string
    readonly check: (input: unknown) => { readonly value: unknown } | string
    readonly parse: (text: string) => { readonly value: unknown } | string
  }

/** A group of settings under one name, e.g. `cluster`. */
export const group = <S extends Record<string, unknown>>(name: string, settings: S): Group<S> => {
  const entries = Object.entries(settings).map(([key, setting]) => [key, erase(setting)] as const)
  return {
    decode: (partial) =>
      Effect.gen(function*() {
        const values: Record<string, unknown> = {}
        const unknown = Object.keys(partial).find((key) => !(key in settings))
        if (unknown !== undefined) {
          return yield* new SettingInvalid({ setting: `${name}.${unknown}`, reason: "is not a setting" })
        }
        for (const [key, setting] of entries) {
          const given = (partial as Record<string, unknown>)[key]
          const checked = given === undefined
            ? setting.required ? "is required" : { value: setting.default }
            : setting.check(given)
          if (typeof checked === "string") {
            return yield* new SettingInvalid({ setting: `${name}.${key}`, reason: checked })
          }
          values[key] = checked.value
        }
        return values as Values<S>
      }),
    config: Effect.gen(function*() {
      const values: Record<string, unknown> = {}
      for (const [key, setting] of entries) {
        const given = yield* Config.option(Config.String(setting.env)).pipe(
          Effect.mapError((error) => new SettingInvalid({ setting: setting.env, reason: error.message }))
        )
        const checked = Option.isNone(given)
          ? setting.required ? "is required" : { value: setting.default }
          : setting.parse(given.value)
        if (typeof checked === "string") return yield* new SettingInvalid({ setting: setting.env, reason: checked })
        values[key] = checked.value
      }
      return values as Values<S>
    })
  }
}

/**
 * The ledger file as typed lines: accounts, transfers, and what could not be read, each with its line number. A wrong line is data
 * here, not a failure: it is counted and reported, and the rest goes on. `README.md` has the rules.
 */
import { Effect, FileSystem, Option, Schema } from "effect"

const Cents = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const PositiveCents = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const Money = Schema.Struct({ cents: PositiveCents, currency: Schema.NonEmptyString })

/** Where the law wants an account's data; which datacenter serves it is the demo's business. */
export const Residency = Schema.Literals(["us", "ca", "br", "eu", "uk", "ch"])
export type Residency = typeof Residency.Type

export const AccountLine = Schema.Struct({
  type: Schema.Literal("account"),
  id: Schema.NonEmptyString,
  holder: Schema.NonEmptyString,
  residency: Residency,
  currency: Schema.NonEmptyString,
  openingCents: Cents
})
export type AccountLine = typeof AccountLine.Type

export const TransferLine = Schema.Struct({
  type: Schema.Literal("transfer"),
  id: Schema.NonEmptyString,
  at: Schema.String.check(
    Schema.makeFilter((text) =>
      /^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text)) || "Expected a time in ISO 8601"
    )
  ),
  from: Schema.NonEmptyString,
  to: Schema.NonEmptyString,
  debit: Money,
  credit: Money,
  memo: Schema.String
})
export type TransferLine = typeof TransferLine.Type

const decodeLine = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Union([AccountLine, TransferLine])))

/** A line that is wrong, and why; numbers begin with 1. */
export class MalformedLine extends Schema.TaggedError<MalformedLine>()("MalformedLine", {
  line: Schema.Int,
  reason: Schema.String
}) {}

export interface Transfer extends TransferLine {
  readonly line: number
  /** the file has told this transfer before: it must not move money again */
  readonly repeated: boolean
}

export interface Ledger {
  readonly accounts: ReadonlyArray<AccountLine>
  /** in the order of the file */
  readonly transfers: ReadonlyArray<Transfer>
  readonly malformed: ReadonlyArray<MalformedLine>
}

const sameMovement = (a: TransferLine, b: TransferLine): boolean =>
  a.from === b.from && a.to === b.to && a.debit.cents === b.debit.cents && a.credit.cents === b.credit.cents

/** Reads a whole ledger. Only a file that cannot be read at all is a failure. */
export const read = Effect.fnUntraced(function*(path: string) {
  const files = yield* FileSystem.FileSystem
  const text = yield* files.readFileString(path)
  const accounts = new Map<string, AccountLine>()
  const transfers = new Map<string, TransferLine>()
  const inOrder: Array<Transfer> = []
  const malformed: Array<MalformedLine> = []

  /** what is wrong with a line that can be read, if anything; takes it in otherwise */
  const take = (line: number, entry: AccountLine | TransferLine): string | undefined => {
    if (entry.type === "account") {
      if (accounts.has(entry.id)) return `account ${entry.id} is opened twice`
      accounts.set(entry.id, entry)
      return undefined
    }
    const [from, to] = [accounts.get(entry.from), accounts.get(entry.to)]
    if (from === undefined) return `no account ${entry.from}`
    if (to === undefined) return `no account ${entry.to}`
    if (from === to) return "from and to are the same account"
    if (from.currency !== entry.debit.currency) return `${entry.from} is held in ${from.currency}`
    if (to.currency !== entry.credit.currency) return `${entry.to} is held in ${to.currency}`
    const before = transfers.get(entry.id)
    if (before !== undefined && !sameMovement(before, entry)) return `transfer ${entry.id} was told otherwise before`
    transfers.set(entry.id, entry)
    inOrder.push({ ...entry, line, repeated: before !== undefined })
    return undefined
  }

  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue
    const reason = yield* decodeLine(line).pipe(
      Effect.map((entry) => Option.fromUndefinedOr(take(index + 1, entry))),
      Effect.catchTag("SchemaError", (error) => Effect.succeed(Option.some(firstLine(error.message))))
    )
    if (Option.isSome(reason)) malformed.push(new MalformedLine({ line: index + 1, reason: reason.value }))
  }
  return { accounts: [...accounts.values()], transfers: inOrder, malformed } satisfies Ledger
})

const firstLine = (text: string): string => text.split("\n").map((line) => line.trim()).join(" ").slice(0, 90)

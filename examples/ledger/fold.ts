/**
 * What the balances must be, folded straight from the file. On purpose it shares no code with the actors or their reader: plain
 * JavaScript values, its own reading of the rules in `README.md`, one line after the other.
 */
export interface Expected {
  /** cents by account */
  readonly balances: ReadonlyMap<string, number>
  /** transfers that moved money, that were refused for lack of it, that the file tells again */
  readonly applied: number
  readonly refused: number
  readonly repeated: number
  /** numbers of the lines that are wrong, from 1 */
  readonly wrong: ReadonlyArray<number>
}

const isText = (value: unknown): value is string => typeof value === "string" && value.length > 0
const isMoney = (value: unknown, least: number): value is number =>
  Number.isSafeInteger(value) && Number(value) >= least

const residencies = ["us", "ca", "br", "eu", "uk", "ch"]

export const fold = (file: string): Expected => {
  const balances = new Map<string, number>()
  const currencies = new Map<string, string>()
  const told = new Map<string, string>()
  const wrong: Array<number> = []
  let applied = 0
  let refused = 0
  let repeated = 0

  file.split("\n").forEach((text, index) => {
    if (text.trim() === "") return
    const bad = () => void wrong.push(index + 1)
    let line: Record<string, unknown>
    try {
      line = Object(JSON.parse(text))
    } catch {
      return bad()
    }
    if (line["type"] === "account") {
      const { currency, holder, id, openingCents, residency } = line
      if (![id, holder, currency].every(isText) || !isMoney(openingCents, 0)) return bad()
      if (!residencies.includes(String(residency))) return bad()
      if (balances.has(String(id))) return bad()
      balances.set(String(id), openingCents)
      currencies.set(String(id), String(currency))
      return
    }
    if (line["type"] !== "transfer") return bad()
    const { at, from, id, memo, to } = line
    const [debit, credit] = [line["debit"], line["credit"]] as ReadonlyArray<{ cents?: unknown; currency?: unknown }>
    if (![id, from, to].every(isText) || typeof memo !== "string") return bad()
    if (!isText(at) || Number.isNaN(Date.parse(at)) || !/^\d{4}-\d\d-\d\dT/.test(at)) return bad()
    if (!isMoney(debit?.cents, 1) || !isMoney(credit?.cents, 1)) return bad()
    const [sender, receiver] = [String(from), String(to)]
    const [has, holds] = [balances.get(sender), balances.get(receiver)]
    if (has === undefined || holds === undefined || sender === receiver) return bad()
    if (currencies.get(sender) !== debit.currency || currencies.get(receiver) !== credit.currency) return bad()
    const before = told.get(String(id))
    const movement = JSON.stringify([sender, receiver, debit.cents, credit.cents])
    if (before !== undefined) {
      if (before !== movement) return bad()
      repeated++
      return
    }
    told.set(String(id), movement)
    if (has < debit.cents) {
      refused++
      return
    }
    balances.set(sender, has - debit.cents)
    balances.set(receiver, holds + credit.cents)
    applied++
  })
  return { balances, applied, refused, repeated, wrong }
}

/**
 * Makes the ledger of this folder: `node examples/ledger/generate.ts > examples/ledger/ledger.jsonl`. The same seed gives the same
 * bytes. `README.md` beside it describes the fields, and the lines that are wrong on purpose.
 */
const seed = Number(process.argv[2] ?? 20_250_101)
const accountCount = 420
const transferCount = 10_400

/** A small generator of 32-bit numbers (mulberry32): no library, the same on every machine. */
const randomOf = (start: number) => {
  let state = start >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
const random = randomOf(seed)
const below = (limit: number) => Math.floor(random() * limit)
const pick = <A>(values: ReadonlyArray<A>): A => values[below(values.length)]!
/** Few are chosen often, most seldom: as payees are. */
const pickSkewed = <A>(values: ReadonlyArray<A>): A => values[Math.floor(values.length * random() ** 2.2)]!
const digits = (count: number) => Array.from({ length: count }, () => below(10)).join("")
const hex = (count: number) => Array.from({ length: count }, () => below(16).toString(16)).join("")
/** Around 1, seldom far from it. */
const spread = (width: number) => Math.exp(width * (random() + random() + random() - 1.5))

interface Residency {
  readonly code: string
  readonly share: number
  readonly currency: string
  /** units of the currency for one euro */
  readonly rate: number
}

const residencies: ReadonlyArray<Residency> = [
  { code: "us", share: 0.34, currency: "USD", rate: 1.04 },
  { code: "ca", share: 0.1, currency: "CAD", rate: 1.49 },
  { code: "br", share: 0.09, currency: "BRL", rate: 6.21 },
  { code: "eu", share: 0.31, currency: "EUR", rate: 1 },
  { code: "uk", share: 0.11, currency: "GBP", rate: 0.83 },
  { code: "ch", share: 0.05, currency: "CHF", rate: 0.94 }
]

const givenNames = [
  "Ada",
  "Bruno",
  "Chiara",
  "Diego",
  "Elin",
  "Farid",
  "Greta",
  "Hugo",
  "Ines",
  "Jonas",
  "Kaya",
  "Luis"
]
const familyNames = ["Almeida", "Berger", "Chen", "Dubois", "Eriksen", "Fischer", "Garcia", "Hughes", "Ito", "Jensen"]
const memos = [
  "rent",
  "invoice",
  "refund",
  "salary",
  "groceries",
  "dinner",
  "savings",
  "train tickets",
  "subscription",
  "gift"
]

const residencyAt = (share: number): Residency => {
  let left = share
  for (const residency of residencies) {
    left -= residency.share
    if (left < 0) return residency
  }
  return residencies[0]!
}

interface Account {
  readonly id: string
  readonly residency: Residency
}

const lines: Array<string> = []
const accounts: Array<Account> = []
for (let n = 0; n < accountCount; n++) {
  const residency = residencyAt((n + 0.5) / accountCount)
  accounts.push({ id: `${residency.code}-${digits(8)}`, residency })
}
const opened = [...accounts]
for (let n = opened.length - 1; n > 0; n--) {
  const other = below(n + 1)
  ;[opened[n], opened[other]] = [opened[other]!, opened[n]!]
}
for (const { id, residency } of opened) {
  lines.push(JSON.stringify({
    type: "account",
    id,
    holder: `${pick(givenNames)} ${pick(familyNames)}`,
    residency: residency.code,
    currency: residency.currency,
    openingCents: Math.round(180_000 * residency.rate * spread(1.1))
  }))
}

let at = Date.UTC(2025, 0, 1, 6)
const transfers: Array<string> = []
for (let n = 0; n < transferCount; n++) {
  at += 1 + Math.floor(2 * 748_000 * random())
  const from = pick(accounts)
  let to = pickSkewed(opened)
  while (to === from) to = pickSkewed(opened)
  const euros = 4_200 * spread(1.9)
  const memo = pick(memos)
  const transfer = JSON.stringify({
    type: "transfer",
    id: `tr_${hex(14)}`,
    at: new Date(at).toISOString(),
    from: from.id,
    to: to.id,
    debit: { cents: Math.max(1, Math.round(euros * from.residency.rate)), currency: from.residency.currency },
    credit: { cents: Math.max(1, Math.round(euros * to.residency.rate)), currency: to.residency.currency },
    memo: memo === "invoice" ? `invoice ${below(9_000) + 1_000}` : memo
  })
  transfers.push(transfer)
}

// What real files have, at places that the seed chooses: the same transfer told twice ...
for (let n = 0; n < 24; n++) {
  const from = below(transfers.length - 400)
  transfers.splice(from + 1 + below(300), 0, transfers[from]!)
}
// ... and lines that are wrong, each in its own way.
const broken: ReadonlyArray<(line: string) => string> = [
  (line) => line.slice(0, Math.floor(line.length * 0.6)),
  (line) => line.replace(/"debit":\{"cents":\d+/, `"debit":{"cents":-500`),
  (line) => line.replace(/"to":"[^"]+"/, `"to":"zz-00000000"`),
  (line) => line.replace(/"credit":\{"cents":(\d+)/, `"credit":{"cents":"$1"`),
  (line) => line.replace(/"from":"[^"]+",/, ""),
  (line) => line.replace(/"at":"[^"]+"/, `"at":"yesterday"`),
  () => "# end of month"
]
for (const breakIt of broken) {
  const place = below(transfers.length)
  transfers.splice(place, 0, breakIt(transfers[place]!).replace(/"id":"tr_[^"]+"/, `"id":"tr_${hex(14)}"`))
}

process.stdout.write(`${[...lines, ...transfers].join("\n")}\n`)

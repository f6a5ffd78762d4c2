/** Tables and figures for people. */

/** A plain table: the first column to the left, all others to the right. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const all = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => row[column]!.length)))
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, column) => column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)).join("   ")
  return [line(head), widths.map((width) => "-".repeat(width)).join("   "), ...rows.map(line)].join("\n")
}

/** 10400 -> `10 400` */
export const count = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, " ")

/** { cents: 1250, currency: "EUR" } -> `12.50 EUR` */
export const money = ({ cents, currency }: { readonly cents: number; readonly currency: string }): string =>
  `${(cents / 100).toFixed(2)} ${currency}`

export const milliseconds = (microseconds: number): string => `${(microseconds / 1_000).toFixed(1)} ms`

export const seconds = (nanoseconds: bigint): string => `${(Number(nanoseconds / 1_000_000n) / 1_000).toFixed(1)} s`

/** The value that the given share of all is at or below; 0 of none. */
export const percentile = (values: ReadonlyArray<number>, share: number): number => {
  if (values.length === 0) return 0
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]!
}

/**
 * Is there one order of the operations on a register, consistent with when each began and ended, that explains what they
 * answered? The search of Wing and Gong with the memory of Lowe: pick any operation that may come next, and remember which
 * (set of done operations, state) has failed already.
 *
 * States are revisions; null is absent. Meant for histories of at most two hundred operations.
 */
export interface RegisterOperation {
  /** `written`: compare-and-set from `expected` to `value`. `refused`: it found another revision than `expected`. */
  readonly kind: "read" | "written" | "refused"
  readonly value: string | null
  readonly expected: string | null
  /** any clock that orders the ends before later starts */
  readonly start: number
  readonly end: number
}

/** `Unknown`: the search was given up; treat it as a failure to be made smaller. */
export type Verdict = "Linearizable" | "NotLinearizable" | "Unknown"

const after = (operation: RegisterOperation, state: string | null): string | null | undefined => {
  switch (operation.kind) {
    case "read":
      return operation.value === state ? state : undefined
    case "written":
      return operation.expected === state ? operation.value : undefined
    case "refused":
      return operation.expected === state ? undefined : state
  }
}

export const checkRegister = (
  history: ReadonlyArray<RegisterOperation>,
  initial: string | null = null,
  budget = 500_000
): Verdict => {
  const operations = history.toSorted((a, b) => a.start - b.start)
  const failed = new Set<string>()
  let steps = 0
  const search = (done: bigint, state: string | null): Verdict => {
    if (done === (1n << BigInt(operations.length)) - 1n) return "Linearizable"
    const memo = `${done}/${state}`
    if (failed.has(memo)) return "NotLinearizable"
    if (++steps > budget) return "Unknown"
    // Whatever comes next must have begun before every other remaining operation has ended.
    let earliestEnd = Infinity
    for (const [i, operation] of operations.entries()) {
      if ((done >> BigInt(i) & 1n) === 0n) earliestEnd = Math.min(earliestEnd, operation.end)
    }
    for (const [i, operation] of operations.entries()) {
      if ((done >> BigInt(i) & 1n) === 1n) continue
      if (operation.start > earliestEnd) break
      const next = after(operation, state)
      if (next === undefined) continue
      const verdict = search(done | 1n << BigInt(i), next)
      if (verdict !== "NotLinearizable") return verdict
    }
    failed.add(memo)
    return "NotLinearizable"
  }
  return search(0n, initial)
}

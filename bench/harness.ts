/**
 * What all benchmarks share: rounds that take turns, CPU and heap readings, figures with their ratios, a table for people and
 * one object for programs.
 *
 * Sides of one figure run in one invocation, round by round in turn, so that a machine that becomes slower does so for all of
 * them. A figure is a median, and is only ever compared with another side of the same run: no absolute time means anything.
 */

/** How much is done; `quick` only shows that everything runs. */
export interface Options {
  readonly quick: boolean
  readonly rounds: number
}

/** One side's measurements of one figure, a value a round. */
export interface Side {
  readonly name: string
  readonly values: ReadonlyArray<number>
  /** what a reader should know before they compare */
  readonly note?: string | undefined
}

/** A statement about two sides, which becomes one entry of the JSON object. */
export interface Comparison {
  readonly figure: string
  /** the side that is the yardstick */
  readonly against: string
  /** the side that is judged; default: the first side of ours, `troupe` */
  readonly of?: string | undefined
  /** give the reciprocal of the values, in this unit */
  readonly rate?: { readonly unit: string; readonly per: number } | undefined
  /** what we want the ratio to be; for people, never a reason to fail */
  readonly goal?: { readonly most: number } | { readonly least: number } | undefined
}

export interface Result {
  readonly title: string
  readonly unit: string
  readonly sides: ReadonlyArray<Side>
  readonly comparisons: ReadonlyArray<Comparison>
}

/** name of our own side */
export const troupe = "effect-troupe"

export interface Figure {
  readonly value: number
  readonly unit: string
  readonly against: string
  readonly ratio: number
}

// ---- readings -----------------------------------------------------------------------------------------------------------

const usage: () => NodeJS.CpuUsage = "threadCpuUsage" in process
  ? () => process.threadCpuUsage()
  : () => (process as NodeJS.Process).cpuUsage()

/** CPU time of the main thread so far, in nanoseconds: what else runs on the machine is not in it. */
export const cpuTime = (): number => {
  const { system, user } = usage()
  return (user + system) * 1000
}

/** wall-clock time, in nanoseconds from an arbitrary start */
export const wallTime = (): number => Number(process.hrtime.bigint())

/** Collects garbage, all of it; the process must run with `--expose-gc`. */
export const collect = (): void => {
  if (globalThis.gc === undefined) throw new Error("run node with --expose-gc")
  globalThis.gc()
}

/** Live bytes after a collection: of the heap, and of buffers that it holds outside of itself. */
export const heapUsed = (): number => {
  collect()
  collect()
  const { external, heapUsed } = process.memoryUsage()
  return heapUsed + external
}

/** CPU nanoseconds for each of `count` things that `run` does; garbage of the past is collected first. */
export const cpuPer = async (count: number, run: () => PromiseLike<void> | void): Promise<number> => {
  collect()
  const before = cpuTime()
  await run()
  return since(before) / count
}

/** CPU nanoseconds since an earlier `cpuTime`; at least one microsecond, because the kernel may count in steps of 4 ms. */
export const since = (before: number): number => Math.max(1000, cpuTime() - before)

/** Wall-clock nanoseconds for each of `count` things. */
export const wallPer = async (count: number, run: () => PromiseLike<void> | void): Promise<number> => {
  collect()
  const before = wallTime()
  await run()
  return (wallTime() - before) / count
}

// ---- rounds -------------------------------------------------------------------------------------------------------------

export interface Contestant {
  readonly name: string
  readonly note?: string | undefined
  /** one round; its value in the figure's unit */
  readonly round: () => PromiseLike<number>
}

/** Every contestant once a round, after two rounds that do not count. */
export const compete = async (
  contestants: ReadonlyArray<Contestant>,
  options: Options
): Promise<ReadonlyArray<Side>> => {
  const values = contestants.map((): Array<number> => [])
  const warmUp = options.quick ? 0 : 2
  for (let round = -warmUp; round < options.rounds; round++) {
    for (const [index, contestant] of contestants.entries()) {
      const value = await contestant.round()
      if (round >= 0) values[index]!.push(value)
    }
  }
  return contestants.map(({ name, note }, index) => ({ name, note, values: values[index]! }))
}

/** The middle value; of an even number the lower of the two. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[(sorted.length - 1) >> 1]!
}

/** The value below which this share of all values lies. */
export const percentile = (values: ArrayLike<number>, share: number): number => {
  const sorted = Float64Array.from(values).sort()
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}

// ---- what comes out -----------------------------------------------------------------------------------------------------

const sideOf = (result: Result, name: string): Side => {
  const side = result.sides.find((side) => side.name === name)
  if (side === undefined) throw new Error(`${result.title}: there is no side ${name}`)
  return side
}

/** The entries of the JSON object that a result gives. `ratio` is always value / value of the other side, in `unit`. */
export const figuresOf = (result: Result): Record<string, Figure> =>
  Object.fromEntries(result.comparisons.map((comparison) => {
    const { against, figure, of = troupe, rate } = comparison
    const mine = median(sideOf(result, of).values)
    const theirs = median(sideOf(result, against).values)
    return [figure, {
      value: round(rate === undefined ? mine : rate.per / mine),
      unit: rate?.unit ?? result.unit,
      against,
      ratio: round(rate === undefined ? mine / theirs : theirs / mine)
    }]
  }))

/** four digits that count */
const round = (value: number): number => Number(value.toPrecision(4))

const number = (value: number): string =>
  Number(value.toPrecision(value >= 1000 ? 15 : 3)).toLocaleString("en", {
    maximumFractionDigits: value >= 1000 ? 0 : 3
  })

const goalOf = (goal: Comparison["goal"]): string =>
  goal === undefined ? "" : "most" in goal ? `goal <= ${goal.most}` : `goal >= ${goal.least}`

const met = (ratio: number, goal: Comparison["goal"]): string =>
  goal === undefined ? "" : ("most" in goal ? ratio <= goal.most : ratio >= goal.least) ? "met" : "not met"

/** One result as lines: each side with median and range, then each comparison with its ratio. */
export const table = (result: Result): string => {
  const best = Math.min(...result.sides.map((side) => median(side.values)))
  const width = Math.max(44, ...result.sides.map((side) => side.name.length))
  const lines = [`${result.title} (${result.unit})`]
  for (const side of result.sides) {
    const middle = median(side.values)
    const low = number(Math.min(...side.values))
    const high = number(Math.max(...side.values))
    lines.push(
      `  ${side.name.padEnd(width)} ${number(middle).padStart(11)}  ${`[${low} .. ${high}]`.padEnd(24)} ` +
        `${number(middle / best).padStart(7)} x${side.note === undefined ? "" : `  ${side.note}`}`
    )
  }
  const figures = figuresOf(result)
  for (const { against, figure, goal } of result.comparisons) {
    const { ratio, unit, value } = figures[figure]!
    lines.push(
      `  -> ${figure}: ${number(value)} ${unit}, ${number(ratio)} of ${against}  ${goalOf(goal)} ${met(ratio, goal)}`
        .trimEnd()
    )
  }
  return lines.join("\n")
}

/** The comparisons of many results as rows of one Markdown table, for a page that says which command made it. */
export const markdown = (results: ReadonlyArray<Result>): string => {
  const rows = results.flatMap((result) => {
    const figures = figuresOf(result)
    return result.comparisons.map(({ figure, goal }) => {
      const { against, ratio, unit, value } = figures[figure]!
      const wanted = goal === undefined ? "" : "most" in goal ? `at most ${goal.most}` : `at least ${goal.least}`
      return `| \`${figure}\` | ${result.title.split(":")[0]} | ${number(value)} ${unit} | ${
        number(ratio)
      } | ${against} | ${wanted} |`
    })
  })
  return ["| figure | what | here | ratio | to | wanted |", "|---|---|---|---|---|---|", ...rows].join("\n")
}

// ---- processes ----------------------------------------------------------------------------------------------------------

/** What a measuring process says to the one that started it. */
export const report = (message: unknown): Promise<void> =>
  new Promise((resolve, reject) => {
    if (process.send === undefined) {
      console.log(JSON.stringify(message))
      return resolve()
    }
    process.send(message, (error: Error | null) => error === null ? resolve() : reject(error))
  })

/** What the starting process has asked for. */
export const asked = <A>(): A => JSON.parse(process.argv[2] ?? "{}") as A

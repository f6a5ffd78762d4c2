/**
 * `npm run -s bench -- local|remote|store [--json | --markdown] [--quick] [--rounds N] [--only TEXT]`
 *
 * Prints a table; with `--json` the last line is one object, `{ "<figure>": { value, unit, against, ratio } }`; with
 * `--markdown` all figures follow as one table for a page. `--quick` shows that everything runs, with sizes that mean nothing;
 * `--only` leaves out what does not have TEXT in its name.
 */
import { parseArgs } from "node:util"
import { type Figure, figuresOf, markdown, type Result, table } from "./harness.ts"
import type { Bench } from "./processes.ts"

const benches: Record<string, () => Promise<Bench>> = {
  local: async () => (await import("./local.ts")).bench,
  remote: async () => (await import("./remote.ts")).bench,
  store: async () => (await import("./store.ts")).bench
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    markdown: { type: "boolean", default: false },
    quick: { type: "boolean", default: false },
    rounds: { type: "string" },
    only: { type: "string", default: "" }
  }
})
const load = benches[positionals[0] ?? ""]
const rounds = Number(values.rounds ?? (values.quick ? 1 : 7))
if (load === undefined || positionals.length !== 1 || !Number.isInteger(rounds) || rounds < 1) {
  console.error(
    "usage: npm run -s bench -- local|remote|store [--json | --markdown] [--quick] [--rounds N] [--only TEXT]"
  )
  process.exit(2)
}

const figures: Record<string, Figure> = {}
const results: Array<Result> = []
const show = (result: Result): void => {
  console.log(`${table(result)}\n`)
  Object.assign(figures, figuresOf(result))
  results.push(result)
}
const bench = await load()
const known = Object.keys(bench).filter((name) => name.includes(values.only))
for (const name of known) {
  process.stderr.write(`bench: ${positionals[0]} ${name}\n`)
  for await (const result of bench[name]!({ quick: values.quick, rounds })) show(result)
}
if (values.markdown) console.log(markdown(results))
if (values.json) console.log(JSON.stringify(figures))

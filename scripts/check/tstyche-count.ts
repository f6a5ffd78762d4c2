/** Writes how many type tests passed and failed to the file that `TSTYCHE_COUNT` names; `scripts/test.ts` reads it. */
import * as Fs from "node:fs"
import type { ReporterEvent } from "tstyche/api"

export default class CountReporter {
  on([event, payload]: ReporterEvent): void {
    const path = process.env["TSTYCHE_COUNT"]
    if (event !== "run:end" || path === undefined) return
    const { failed, passed } = payload.result.testCounts
    Fs.writeFileSync(path, JSON.stringify({ passed, failed }))
  }
}

/** What is found under a store's prefix and was not written by one: left out of every reading, and told. */
import { Effect, Ref } from "effect"
import { shown } from "./storeData.ts"

/** Told of entries that are none of ours or cannot be read; the rest goes on. `what` names the entry, `reason` says why it is left out. */
export type ReportForeign = (what: string, reason: string) => Effect.Effect<void>

/** Each is told once, and no more than some hundred of them. `where` names the store in the log. */
export const makeReportForeign = (where: string): Effect.Effect<ReportForeign> =>
  Effect.map(Ref.make<ReadonlySet<string>>(new Set()), (reported) => (name, reason) => {
    // others may have given it any name, of any length
    const what = shown(name)
    return Ref.modify(reported, (known) => {
      const fresh = !known.has(what) && known.size < 256
      return [fresh, fresh ? new Set(known).add(what) : known]
    }).pipe(
      Effect.flatMap((fresh) => fresh ? Effect.logWarning(`${where}: ${what} ${reason}; left out`) : Effect.void)
    )
  })

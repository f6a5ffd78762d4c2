/**
 * Pure core of a rebuild: what a new owner makes of its predecessors' entries and of what members say they run.
 *
 * Invariants: the highest placement of a name wins; a placement at or below a removed one does not live; what runs and is not
 * accepted is revoked before the name is served; a name that was to run on a living member which does not run it is homeless.
 */
import type { SpawnSpec } from "../../Actor/Placement.ts"
import type { StopReason } from "../../Actor/SystemEvents.ts"
import type { Placed } from "./ClusterRpcs.ts"

export interface RunningReport {
  readonly host: string
  readonly spec: SpawnSpec
  readonly placement: number
  readonly epoch: number
}

export interface EndedReport {
  readonly name: string
  readonly placement: number
  readonly reason: StopReason
}

export interface Sources {
  /** of journals and tables, in any order */
  readonly placed: ReadonlyArray<Placed>
  readonly removed: ReadonlyArray<{ readonly name: string; readonly placement: number }>
  readonly running: ReadonlyArray<RunningReport>
  readonly ended: ReadonlyArray<EndedReport>
}

export interface Merged {
  /** to be served as running */
  readonly running: ReadonlyArray<Placed & { readonly epoch: number }>
  /** to be placed again; `host` is where they were last */
  readonly homeless: ReadonlyArray<Placed>
  /** must certainly not run any more before the names are served */
  readonly strays: ReadonlyArray<{ readonly name: string; readonly placement: number; readonly host: string }>
}

export const merge = (sources: Sources): Merged => {
  const removed = new Map<string, number>()
  const raise = (name: string, placement: number) => {
    if (placement > (removed.get(name) ?? -1)) removed.set(name, placement)
  }
  for (const entry of sources.removed) raise(entry.name, entry.placement)
  // An end by itself frees the name; a withdrawn or replaced actor wants another home.
  for (const entry of sources.ended) {
    if (entry.reason === "Stopped" || entry.reason === "Failed") raise(entry.name, entry.placement)
  }
  const entries = new Map<string, Placed>()
  for (const placed of sources.placed) {
    const known = entries.get(placed.spec.name)
    if (known === undefined || placed.placement > known.placement) entries.set(placed.spec.name, placed)
  }
  const reports = new Map<string, Array<RunningReport>>()
  for (const report of sources.running) {
    const known = reports.get(report.spec.name)
    if (known === undefined) reports.set(report.spec.name, [report])
    else known.push(report)
  }

  const running: Array<Placed & { readonly epoch: number }> = []
  const homeless: Array<Placed> = []
  const strays: Array<{ readonly name: string; readonly placement: number; readonly host: string }> = []
  for (const name of new Set([...entries.keys(), ...reports.keys()])) {
    const gone = removed.get(name) ?? -1
    const entry = entries.get(name)
    const [best, ...others] = (reports.get(name) ?? []).sort((a, b) => b.placement - a.placement)
    const stray = (report: RunningReport) => strays.push({ name, placement: report.placement, host: report.host })
    others.forEach(stray)
    const live = entry !== undefined && entry.placement > gone ? entry : undefined
    if (best !== undefined && best.placement > gone && best.placement >= (live?.placement ?? -1)) {
      running.push({
        spec: best.spec,
        // Without an entry the first placement is not known; the current one is the highest that it can be.
        first: entry !== undefined && entry.spec.id === best.spec.id ? entry.first : best.placement,
        placement: best.placement,
        host: best.host,
        epoch: best.epoch
      })
      continue
    }
    if (best !== undefined) stray(best)
    if (live !== undefined) homeless.push(live)
  }
  return { running, homeless, strays }
}

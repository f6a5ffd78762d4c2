/** A kind's counts, brought to `effect/Metric`. */
import { Metric } from "effect"
import * as ActorMetrics from "../ActorMetrics.ts"
import type { Counts, Registration } from "./Host.ts"

interface Reported {
  readonly counters: ReadonlyArray<readonly [metric: Metric.Metric<number, unknown>, key: keyof Counts]>
  readonly actors: Metric.Metric<number, unknown>
  readonly waiting: Metric.Metric<number, unknown>
  readonly last: Record<string, number>
}

const reported = new WeakMap<Registration, Reported>()

const of = (registration: Registration): Reported => {
  let known = reported.get(registration)
  if (known === undefined) {
    const attributes = { kind: registration.definition.name }
    known = {
      counters: [
        [Metric.withAttributes(ActorMetrics.messages, attributes), "handled"],
        [Metric.withAttributes(ActorMetrics.failures, attributes), "failures"],
        [Metric.withAttributes(ActorMetrics.restarts, attributes), "restarts"],
        [Metric.withAttributes(ActorMetrics.deadLetters, attributes), "deadLetters"]
      ],
      actors: Metric.withAttributes(ActorMetrics.actors, attributes),
      waiting: Metric.withAttributes(ActorMetrics.waiting, attributes),
      last: {}
    }
    reported.set(registration, known)
  }
  return known
}

/** Brings what has changed since the last time. */
export const report = (registration: Registration): void => {
  const { actors, counters, last, waiting } = of(registration)
  const { context, counts } = registration
  counts.dirty = false
  const set = (name: string, metric: Metric.Metric<number, unknown>, value: number, counter: boolean) => {
    const before = last[name] ?? 0
    if (value === before) return
    last[name] = value
    metric.updateUnsafe(counter ? value - before : value, context)
  }
  for (const [metric, key] of counters) set(key, metric, counts[key] as number, true)
  set("actors", actors, counts.started - counts.stopped, false)
  set("waiting", waiting, counts.waiting, false)
}

/**
 * What the runtime measures of itself, as `effect/Metric`s with the attribute `kind`. Counted as plain numbers while messages
 * run, and brought here at the end of each run of the dispatcher: a message costs an addition, not a metric.
 */
import { Metric } from "effect"

/** messages whose handling began */
export const messages = Metric.counter("troupe_actor_messages", {
  description: "Messages whose handling began",
  incremental: true
})
/** failures that supervision decided about */
export const failures = Metric.counter("troupe_actor_failures", {
  description: "Failures that supervision decided about",
  incremental: true
})
export const restarts = Metric.counter("troupe_actor_restarts", { description: "Restarts", incremental: true })
export const deadLetters = Metric.counter("troupe_dead_letters", {
  description: "Messages that were accepted and never handled",
  incremental: true
})
/** actors on this node, children and passivated ones included */
export const actors = Metric.gauge("troupe_actors", { description: "Actors on this node" })
/** messages that wait in all mailboxes of the kind */
export const waiting = Metric.gauge("troupe_mailbox_depth", { description: "Messages that wait in mailboxes" })
/** only for kinds with `measure: true` */
export const handlingTime = Metric.histogram("troupe_handling_milliseconds", {
  description: "Time from the beginning of a handler to its end, in milliseconds",
  boundaries: Metric.exponentialBoundaries({ start: 0.05, factor: 2, count: 18 })
})

/**
 * What waited in the mailbox of an actor that was withdrawn from this node goes after it, in its order, once it lives elsewhere.
 * Only tells: an asker is refused, and its own reference follows.
 */
import { Effect, Schedule } from "effect"
import type { Cell } from "./Cell.ts"
import type { Envelope } from "./Envelope.ts"

/** 50 ms doubling to 500 ms, for 5 seconds in all: about what a relocation takes */
const patience = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("500 millis")]).pipe(
  Schedule.jittered,
  Schedule.upTo({ duration: "5 seconds" })
)

/** The name is nowhere, and nobody will start it again. */
const gone = "gone"

export const followOn = (cell: Cell, rest: ReadonlyArray<Envelope>): void => {
  const { host, name, registration } = cell
  const { refs } = host
  if (refs === undefined) return
  const ref = refs.ref(registration.definition, name, cell.address)
  let given = 0
  const send = ({ payload, span, tag }: Envelope) => {
    const trace = span === undefined ? undefined : { traceId: span.traceId, spanId: span.spanId, sampled: span.sampled }
    const message = { kind: registration.definition, tag, payload, trace }
    const attempt = Effect.catch(
      Effect.suspend(() => refs.tell(ref, message)),
      (error) =>
        error._tag === "NodeUnreachable" && error.overloaded === true
          ? Effect.fail(error)
          : error._tag === "ActorStopped" || (error._tag === "NodeUnreachable" && error.outcome === "NotSent")
          ? Effect.flatMap(refs.isNowhere(ref), (nowhere) => Effect.fail(nowhere ? gone : error))
          : Effect.fail(gone)
    )
    return Effect.retry(attempt, { schedule: patience, while: (error) => error !== gone })
  }
  const all = Effect.forEach(rest, (envelope) => Effect.andThen(send(envelope), Effect.sync(() => given++)), {
    discard: true
  })
  // The first that cannot follow is the last that is tried: none may overtake it.
  host.follow(all, () => {
    for (const { tag } of rest.slice(given)) host.deadLetter(cell, tag, "ActorStopped")
  })
}

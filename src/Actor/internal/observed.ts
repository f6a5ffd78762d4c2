/** Handlers with a span, with their time taken, with their payload checked: for kinds that ask for it. */
import { Effect, Metric, Schema } from "effect"
import * as ActorMetrics from "../ActorMetrics.ts"
import { InvalidData } from "../errors.ts"
import type { Cell, HandlerTable } from "./Cell.ts"
import { Forwarded } from "./Envelope.ts"

type Handler = HandlerTable[string]

/** A span for each message, the child of its sender's where that has one. */
const traced = (cell: Cell, tag: string, handler: Handler): Handler => {
  const { kind, name } = cell
  return (payload) => {
    // The worker sets the message before it calls the handler.
    const parent = cell.worker?.current?.span
    return Effect.withSpan(Effect.suspend(() => handler(payload)), `${kind}.${tag}`, {
      attributes: { actor: name, kind },
      captureStackTrace: false,
      ...(parent === undefined ? { root: true } : { parent })
    })
  }
}

const measured = (cell: Cell, handler: Handler): Handler => {
  const { host, registration: { context } } = cell
  const timer = Metric.withAttributes(ActorMetrics.handlingTime, { kind: cell.kind })
  return (payload) => {
    const begun = host.timeouts.now()
    return Effect.onExit(
      Effect.suspend(() => handler(payload)),
      () => Effect.sync(() => timer.updateUnsafe(host.timeouts.now() - begun, context))
    )
  }
}

/** Refuses a payload that does not fit its schema, before the handler sees it. */
export const validated = (cell: Cell, tag: string, handler: Handler): Handler => {
  const message = cell.registration.definition.messages.get(tag)
  if (message === undefined) return handler
  const fits = Schema.is(message.payload as Schema.Schema<unknown>)
  const what = `${cell.kind}.${tag}`
  return (payload) =>
    fits(payload)
      ? handler(payload)
      : Effect.die(new Forwarded(new InvalidData({ what, reason: "the payload does not fit its schema" })))
}

export const observedHandlers = (cell: Cell, handlers: HandlerTable): HandlerTable => {
  const { measure, streams, trace, validate } = cell.registration.options
  if (!measure && !trace && !validate) return handlers
  const table: Record<string, Handler> = {}
  for (const tag of Object.keys(handlers)) {
    let handler = handlers[tag]!
    // A stream's handler makes a description; what runs of it is its asker's to measure, and `streamHandlers` checks what it is given.
    if (streams === undefined || !streams.includes(tag)) {
      if (validate) handler = validated(cell, tag, handler)
      if (measure) handler = measured(cell, handler)
      if (trace) handler = traced(cell, tag, handler)
    }
    table[tag] = handler
  }
  return table
}

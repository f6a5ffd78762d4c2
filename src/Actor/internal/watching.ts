/** Learning of the end of an actor: at once where it lives here, by asking again and again where it lives elsewhere. */
import { Effect, Schedule } from "effect"
import type { StopReason } from "../SystemEvents.ts"
import type { Cell } from "./Cell.ts"
import type { Watcher } from "./Extras.ts"
import type { Host } from "./Host.ts"
import type { Ref } from "./Ref.ts"
import { watchTag } from "./systemMessages.ts"

/** milliseconds that one question may stay open at the other side, and that its asker waits */
const questionOpen = 20_000
const questionTimeout = 25_000

/** after an answer that settles nothing: 100 ms doubling to 5 s */
const pause = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)

/** Tells the end of an actor of this node; undefined where it is none. Returns how to stop watching. */
export const watchHere = (host: Host, ref: Ref, ended: (reason: StopReason) => void): (() => void) | undefined => {
  const cell = host.cellAt(ref.address)
  if (cell === undefined || !cell.accepts) return undefined
  const watchers = cell.more.watchers ??= new Set<Watcher>()
  const watcher: Watcher = { ended }
  watchers.add(watcher)
  return () => watchers.delete(watcher)
}

/**
 * Follows an actor wherever it goes and calls `ended` once it has ended for good: it stopped, or is nowhere to be found.
 * A node that cannot be reached proves nothing, nor does one that has it no more; whether an actor is gone is for the directory to say.
 */
export const followEnd = (watcher: Cell, ref: Ref, ended: () => void): () => void => {
  const { host } = watcher
  const refs = host.refs!
  const ask = refs.ask(ref, { kind: ref.kind, tag: watchTag, payload: { wait: questionOpen } }, questionTimeout)
  const nowhere = refs.isNowhere(ref)
  // true: it has ended; a failure: ask again after a pause
  const question: Effect.Effect<boolean, "unsettled"> = Effect.matchEffect(ask, {
    onSuccess: (reason) => Effect.succeed(reason === "Stopped" || reason === "Failed"),
    // That it has stopped where it was says nothing while the directory cannot tell where it is.
    onFailure: () => Effect.flatMap(nowhere, (gone) => gone ? Effect.succeed(true) : Effect.fail("unsettled" as const))
  })
  const asked = Effect.retry(question, pause)
  let over = false
  const loop = Effect.whileLoop({
    while: () => !over,
    body: () => asked,
    step: (end) => {
      over = end
    }
  })
  const fiber = host.runFork(loop)
  fiber.addObserver((exit) => {
    if (exit._tag === "Success") ended()
  })
  return () => fiber.interruptUnsafe()
}

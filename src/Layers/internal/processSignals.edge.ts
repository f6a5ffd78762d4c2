/**
 * Edge: the process's signals and exit code, for nodes that are a process of their own. One that was asked to end by SIGTERM and
 * has left in order ends with 0, as supervisors of processes expect (Effect's runtime would report the interruption as 130). One
 * whose node was fenced can never act again under its incarnation: it ends with 1, for its supervisor to start it afresh.
 */
import { Effect, Exit, Layer, Stream } from "effect"
import process from "node:process"
import { SystemEvents } from "../../Actor/SystemEvents.ts"

/** what Effect's `runMain` gives a program that was interrupted */
const interruptedCode = 130
const fencedCode = 1

/** Goes to the bottom of a node's Layers, so that its finalizer runs when everything above has ended. */
export const layer: Layer.Layer<never, never, SystemEvents> = Layer.effectDiscard(
  Effect.gen(function*() {
    const events = yield* SystemEvents
    const state = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const state = { asked: false, fenced: false, onSignal: () => {} }
        state.onSignal = () => {
          state.asked = true
        }
        process.on("SIGTERM", state.onSignal)
        return state
      }),
      (state, exit) =>
        Effect.sync(() => {
          process.off("SIGTERM", state.onSignal)
          if (!state.asked || (Exit.isFailure(exit) && !Exit.hasInterrupts(exit))) return
          process.once("exit", (code) => {
            if (code === interruptedCode) process.exitCode = state.fenced ? fencedCode : 0
          })
        })
    )
    yield* events.stream.pipe(
      Stream.filter((event) => event._tag === "MemberFenced"),
      Stream.runHead,
      Effect.andThen(Effect.logFatal("this node's lease was closed by others: the process ends")),
      Effect.andThen(Effect.sync(() => {
        state.fenced = true
        process.kill(process.pid, "SIGTERM")
      })),
      Effect.forkScoped
    )
  })
)

/**
 * Edge: the process's signals and exit code. A node that was asked to end by SIGTERM and has left in order ends with 0, as
 * supervisors of processes expect; Effect's runtime would report the interruption as 130.
 */
import { Effect, Exit, Layer } from "effect"
import process from "node:process"

/** what Effect's `runMain` gives a program that was interrupted */
const interruptedCode = 130

/** Goes to the bottom of a node's Layers, so that its finalizer runs when everything above has ended. */
export const layerExitCode: Layer.Layer<never> = Layer.effectDiscard(
  Effect.acquireRelease(
    Effect.sync(() => {
      const state = { asked: false, onSignal: () => {} }
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
          if (code === interruptedCode) process.exitCode = 0
        })
      })
  )
)

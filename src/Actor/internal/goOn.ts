/**
 * How an effect of ours ends that has succeeded with nothing: straight into what follows in its fiber, as the library's own do,
 * without an `Exit` that the fiber's loop unwraps in one more round; that is a tenth of a tell.
 *
 * The method is none of a fiber's public ones, so it is tried once. Should it be gone or do something else, an `Exit` it is.
 */
import { Effect, Effectable, Exit, type Fiber } from "effect"

type GoOn = (fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<void>

const straight: GoOn = (fiber) =>
  (fiber as unknown as { readonly succeedWith: (value: void) => Effect.Effect<void> }).succeedWith(undefined)

/** An effect that ends so, in the midst of others. */
const tried = Effect.suspend((): Effect.Effect<void> =>
  Object.create(Effectable.Prototype<Effect.Effect<void>>({ label: "Tried", evaluate: straight }))
)
const exit = Effect.runSyncExit(Effect.flatMap(tried, (value) => Effect.succeed([value])))

export const goOn: GoOn = exit._tag === "Success" && exit.value.length === 1 && exit.value[0] === undefined
  ? straight
  : () => Exit.void

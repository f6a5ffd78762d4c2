/**
 * `Effect.sync` (and what is made of it: `Ref.get`, `Ref.update`, ...) without a fiber. A fiber would call its thunk and end;
 * calling the thunk is all there is to it, and costs a third.
 *
 * The library does not say where it keeps the thunk, so it is looked for once, in a sample. Should that change, nothing is
 * found, and such effects run in a fiber like any other.
 */
import { Effect } from "effect"

const probe = (): number => 0
const sample: Effect.Effect<number> = Effect.sync(probe)
const prototype: unknown = Object.getPrototypeOf(sample)
const key: PropertyKey | undefined = Reflect.ownKeys(sample).find((name) => Reflect.get(sample, name) === probe)

type Thunk = () => unknown

/** The effect's thunk, if it is nothing but one. */
export const thunkOf: (effect: Effect.Effect<unknown, unknown>) => Thunk | undefined = key === undefined
  ? () => undefined
  : (effect) =>
    Object.getPrototypeOf(effect) === prototype
      ? (effect as unknown as Record<PropertyKey, Thunk | undefined>)[key]
      : undefined

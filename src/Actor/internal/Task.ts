/** A message of the runtime's own: an effect that is run as if it were a handler. It has no tag that a protocol could have. */
import type { Effect } from "effect"
import type { Envelope } from "./Envelope.ts"

export class Task implements Envelope {
  readonly tag = ""
  readonly payload = undefined
  readonly span = undefined
  readonly effect: Effect.Effect<unknown, unknown>
  constructor(effect: Effect.Effect<unknown, unknown>) {
    this.effect = effect
  }
  reply(): void {}
  succeed(): void {}
  refuse(): void {}
}

/** Errors that only the cluster's own operations have; those of the actor ring's ports are declared there. */
import { Schema } from "effect"

/** The node cannot be declared dead: it is no member (any more), or it is the very one that was asked. Nothing was done. */
export class DownRefused extends Schema.TaggedError<DownRefused>()("DownRefused", {
  /** `id@incarnation` */
  node: Schema.String,
  reason: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.node} cannot be declared dead: ${this.reason}`
  }
}

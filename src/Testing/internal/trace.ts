/**
 * The trace of a world: what happened, where, at which virtual time, in order, and one hash over all of it. Same seed and same
 * code, same hash; that is how a run proves that it is repeatable.
 */
import { createHash } from "node:crypto"
import type { SystemEvent } from "../../Actor/SystemEvents.ts"

/** What the world itself does to its nodes. */
export type WorldAction =
  | { readonly _tag: "NodeStarted"; readonly incarnation: string }
  | { readonly _tag: "NodeCrashed" }
  | { readonly _tag: "NodeFailed"; readonly reason: string }
  | { readonly _tag: "Partitioned"; readonly between: ReadonlyArray<string>; readonly and: ReadonlyArray<string> }
  | { readonly _tag: "Rejected"; readonly between: ReadonlyArray<string>; readonly and: ReadonlyArray<string> }
  | { readonly _tag: "Healed" }

export interface TraceEvent {
  /** virtual milliseconds since the world began */
  readonly at: number
  /** a node's id, or `world` */
  readonly where: string
  readonly event: SystemEvent | WorldAction
}

export class Trace {
  readonly events: Array<TraceEvent> = []
  private readonly digest = createHash("sha256")

  add(event: TraceEvent): void {
    this.events.push(event)
    this.digest.update(JSON.stringify(event))
    this.digest.update("\n")
  }

  /** Something that belongs into the hash but would drown a reader: frames, store operations. */
  mix(text: string): void {
    this.digest.update(text)
    this.digest.update("\n")
  }

  /** hex; the trace may go on afterwards */
  get hash(): string {
    return this.digest.copy().digest("hex")
  }
}

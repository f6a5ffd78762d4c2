/** What a behaviour sees of its own cell: the `ActorContext` service, one small object an actor. */
import { Cause, Effect } from "effect"
import type { ActorRef } from "../ActorRef.ts"
import type { Cell } from "./Cell.ts"
import { propsCodec } from "./codecs.ts"

export class ContextOfCell {
  private readonly cell: Cell
  constructor(cell: Cell) {
    this.cell = cell
  }

  get name() {
    return this.cell.spec.name
  }
  get kind() {
    return this.cell.spec.kind
  }
  get address() {
    return this.cell.address
  }
  get self(): ActorRef {
    const { host, registration, spec } = this.cell
    return host.refs!.ref(registration.definition, spec.name, this.cell.address)
  }
  get stop(): Effect.Effect<void> {
    return Effect.sync(() => this.cell.stop("Stopped"))
  }
  propsOf(kind: string): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      if (kind !== this.cell.spec.kind) {
        return Effect.die(new Error(`props of ${kind} were read inside an actor of kind ${this.cell.spec.kind}`))
      }
      // The host decoded the same value before it made the cell.
      const props = propsCodec(this.cell.registration.definition).decode(this.cell.spec.props)
      return props._tag === "Success" ? Effect.succeed(props.value) : Effect.die(Cause.squash(props.cause))
    })
  }
}

/** The methods of a reference: for each kind two classes, whose prototypes all references of the kind share. */
import type { AskOptions } from "../ActorRef.ts"
import type { KindDefinition } from "../Kind.ts"
import { ask, streamOf, TellEffect } from "./messageEffects.ts"
import type { Ref } from "./Ref.ts"
import type { RefRuntime } from "./RefRuntime.ts"

/** a symbol: a message may have any name */
const to: unique symbol = Symbol("to")

export interface SurfaceClasses {
  readonly runtime: RefRuntime
  readonly kind: KindDefinition
  readonly tell: new(ref: Ref) => object
  readonly ask: new(ref: Ref) => object
}

/** For each message of the kind one method, on prototypes that all references of the kind share. */
export const surfaceClasses = (runtime: RefRuntime, kind: KindDefinition): SurfaceClasses => {
  class TellSurface {
    readonly [to]: Ref
    constructor(ref: Ref) {
      this[to] = ref
    }
  }
  class AskSurface {
    readonly [to]: Ref
    constructor(ref: Ref) {
      this[to] = ref
    }
  }
  for (const [tag, message] of kind.messages) {
    const empty = message.payload.ast._tag === "Void"
    const send = message.stream ? streamOf : ask
    Object.defineProperty(TellSurface.prototype, tag, {
      value(this: TellSurface, payload: unknown) {
        return new TellEffect(this[to], tag, payload)
      }
    })
    Object.defineProperty(AskSurface.prototype, tag, {
      value: empty
        ? function(this: AskSurface, options?: AskOptions) {
          return send(this[to], tag, undefined, options)
        }
        : function(this: AskSurface, payload: unknown, options?: AskOptions) {
          return send(this[to], tag, payload, options)
        }
    })
  }
  return { runtime, kind, tell: TellSurface, ask: AskSurface }
}

/**
 * What a behaviour knows of the actor that it is. Given to the start of a behaviour and to each of its handlers; nobody else
 * has it, so that one actor cannot act as another.
 */
import { Context } from "effect"
import type { Effect } from "effect"
import type { ActorRef } from "./ActorRef.ts"
import type { ActorAddress } from "./Address.ts"

export class ActorContext extends Context.Service<ActorContext, {
  readonly name: string
  readonly kind: string
  readonly address: ActorAddress
  /** a reference to this actor, without its protocol; `Kind.self` is the typed one */
  readonly self: ActorRef
  /** Ends this actor (reason `Stopped`) once the message in hand is handled; what waits becomes dead letters. */
  readonly stop: Effect.Effect<void>
  /** This actor's props, given the name of its own kind; used by `Kind.props`. */
  readonly propsOf: (kind: string) => Effect.Effect<unknown>
}>()("effect-troupe/Actor/ActorContext") {}

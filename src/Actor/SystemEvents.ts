/**
 * What happens in a node, as one typed stream. Publishing never waits: a subscriber that is slow loses the oldest events and
 * the loss is counted; nothing of the runtime depends on an event being seen.
 */
import { Context, Effect, Layer, Schema } from "effect"
import type { Stream } from "effect"
import { ActorAddress, Member, NodeAddress } from "./Address.ts"
import { Hub } from "./internal/Hub.ts"

export const DeadLetterReason = Schema.Literals([
  "ActorStopped",
  "MailboxOverflow",
  "NoSuchActor",
  "Undecodable",
  "NotAllowed",
  "NodeLost"
])
export type DeadLetterReason = typeof DeadLetterReason.Type

/** Why an actor ended: asked to, by supervision, because its kind or node was withdrawn, or because another owner took its name. */
export const StopReason = Schema.Literals(["Stopped", "Failed", "Withdrawn", "Replaced"])
export type StopReason = typeof StopReason.Type

/** Every event that the runtime tells about itself. */
export const SystemEvent = Schema.Union([
  /** this subscriber was too slow and lost as many events here */
  Schema.TaggedStruct("EventsLost", { count: Schema.Int }),
  Schema.TaggedStruct("ActorStarted", { actor: ActorAddress }),
  Schema.TaggedStruct("ActorRestarted", { actor: ActorAddress, reason: Schema.String }),
  /** it keeps its mailbox and handles nothing until it is reinstated */
  Schema.TaggedStruct("ActorSuspended", { actor: ActorAddress, reason: Schema.String }),
  Schema.TaggedStruct("ActorReinstated", { actor: ActorAddress }),
  /** it has given up its behaviour; the next message builds it anew */
  Schema.TaggedStruct("ActorPassivated", { actor: ActorAddress }),
  Schema.TaggedStruct("ActorStopped", { actor: ActorAddress, reason: StopReason }),
  /** a message that nobody handled; `message` is its tag */
  Schema.TaggedStruct("DeadLetter", {
    to: Schema.String,
    kind: Schema.String,
    message: Schema.String,
    reason: DeadLetterReason
  }),
  /** this node's actors hold their messages, because it may not act for now (its lease lapsed), or handle them again */
  Schema.TaggedStruct("WorkHeld", { held: Schema.Boolean }),
  Schema.TaggedStruct("MemberUp", { member: Member }),
  Schema.TaggedStruct("MemberLeft", { member: Member }),
  /** this node's own incarnation has ended for good: its lease was closed, its actors are stopped; only a new start joins again */
  Schema.TaggedStruct("MemberFenced", { node: NodeAddress, reason: Schema.String }),
  Schema.TaggedStruct("LeaderChanged", { leader: Schema.optionalKey(NodeAddress) }),
  Schema.TaggedStruct("RelocationStarted", { from: NodeAddress, actors: Schema.Int }),
  Schema.TaggedStruct("ActorRelocated", { actor: ActorAddress, from: NodeAddress }),
  Schema.TaggedStruct("RelocationFailed", {
    name: Schema.String,
    kind: Schema.String,
    from: NodeAddress,
    reason: Schema.String
  }),
  Schema.TaggedStruct("RelocationCompleted", { from: NodeAddress, actors: Schema.Int, failed: Schema.Int }),
  Schema.TaggedStruct("DataCenterChanged", { dataCenter: Schema.String, state: Schema.String }),
  Schema.TaggedStruct("DataCenterGone", { dataCenter: Schema.String, reason: Schema.String }),
  Schema.TaggedStruct("StoreTrouble", { store: Schema.String, reason: Schema.String }),
  Schema.TaggedStruct("PeerRefused", { peer: Schema.String, reason: Schema.String })
])
export type SystemEvent = typeof SystemEvent.Type

/** Events a subscriber may be behind before it loses the oldest. */
export const subscriberBuffer = 1024

export class SystemEvents extends Context.Service<SystemEvents, {
  /** tells it to whoever listens now; never waits, never fails */
  readonly publish: (event: SystemEvent) => void
  /** Does anybody listen now? Absent: take it that somebody does. What nobody hears need not be put into words. */
  readonly observed?: (() => boolean) | undefined
  /** events from the moment of subscription on; in the place of what a slow subscriber lost it sees one `EventsLost` */
  readonly stream: Stream.Stream<SystemEvent>
}>()("effect-troupe/Actor/SystemEvents") {}

export const make = Effect.gen(function*() {
  const hub = yield* Hub.make<SystemEvent>()
  return SystemEvents.of({
    publish: (event) => hub.publish(event),
    observed: () => hub.observed,
    stream: hub.stream(subscriberBuffer, (count) => ({ _tag: "EventsLost", count }))
  })
})

export const layer: Layer.Layer<SystemEvents> = Layer.effect(SystemEvents, make)

/**
 * Publish and subscribe within a node: a topic is a name with a type, its subscribers are streams or actors. Publishing never
 * waits; a slow subscriber loses the oldest, and `Topics.stats` counts what was lost.
 *
 * Not for: other nodes. A message published here is seen by subscribers here and nowhere else, and nobody keeps it for those who
 * come later. Across a cluster let an actor stand for the topic: its name is unique there, its subscribers are names that it tells.
 */
import { Context, Effect, Layer, Stream } from "effect"
import type { Scope } from "effect"
import { Hub } from "./internal/Hub.ts"
import type { TellError } from "./errors.ts"

/** Messages a subscriber may be behind before it loses the oldest. */
export const subscriberBuffer = 1024

/** The topics of a node. Programs use `Topic`; this is where its messages meet. */
export class Topics extends Context.Service<Topics, {
  /** the hub of a topic; made when it is first asked for, kept for the life of the node */
  readonly hub: (name: string) => Hub<unknown>
  /** topics so far, with the messages that their slow subscribers have lost, all together and since the node was started */
  readonly stats: Effect.Effect<ReadonlyArray<{ readonly topic: string; readonly lost: number }>>
}>()("effect-troupe/Actor/Topics") {}

export interface Topic<A> {
  readonly name: string
  /**
   * Hands the message to whoever subscribes now; succeeds also where nobody does, and does not wait until anybody has seen it. One
   * publisher's messages reach each subscriber in their order.
   */
  readonly publish: (message: A) => Effect.Effect<void, never, Topics>
  /**
   * Messages from the moment it is run on, without end. Whoever is more than `subscriberBuffer` behind loses the oldest and goes on
   * with the next that is left: there is no mark in the stream, so number the messages where a gap matters.
   */
  readonly stream: Stream.Stream<A, never, Topics>
  /**
   * Tells each message to an actor, wherever it runs: `topic.tellTo((order) => ref.tell.Placed(order))`, for as long as the scope
   * lives; one after the other, in their order. A tell that fails (`ActorStopped`, `MailboxFull`, ...), dies or throws is logged as a
   * warning and its message skipped. Subscribing twice tells each message twice.
   */
  readonly tellTo: (
    tell: (message: A) => Effect.Effect<void, TellError>
  ) => Effect.Effect<void, never, Topics | Scope.Scope>
}

/**
 * Defines a topic; costs nothing until it is used. Two of one name are the same topic, so they must agree on `A`: define it once and
 * import it, as one does with a kind.
 */
export const make = <A>(name: string): Topic<A> => {
  const hub = Topics.useSync((topics) => topics.hub(name) as Hub<A>)
  const stream = Stream.unwrap(Effect.map(hub, (hub) => hub.stream(subscriberBuffer)))
  return {
    name,
    publish: (message) => Effect.map(hub, (hub) => hub.publish(message)),
    stream,
    tellTo: (tell) =>
      stream.pipe(
        Stream.runForEach((message) =>
          Effect.catchCause(
            Effect.suspend(() => tell(message)),
            (cause) => Effect.logWarning(`a message of topic ${name} was not told`, cause)
          )
        ),
        Effect.forkScoped({ startImmediately: true }),
        Effect.asVoid
      )
  }
}

export const layer: Layer.Layer<Topics> = Layer.effect(
  Topics,
  Effect.gen(function*() {
    const context = yield* Effect.context<never>()
    const hubs = new Map<string, Hub<unknown>>()
    return Topics.of({
      hub: (name) => {
        let hub = hubs.get(name)
        if (hub === undefined) hubs.set(name, hub = new Hub(context))
        return hub
      },
      stats: Effect.sync(() => [...hubs].map(([topic, hub]) => ({ topic, lost: hub.lost })))
    })
  })
)

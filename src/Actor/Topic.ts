/**
 * Publish and subscribe within a node: a topic is a name with a schema, its subscribers are streams or actors. Publishing never
 * waits; a slow subscriber loses the oldest and learns how many.
 */
import { Context, Effect, Layer, Stream } from "effect"
import type { Scope } from "effect"
import { Hub } from "./internal/Hub.ts"
import type { TellError } from "./errors.ts"

/** Messages a subscriber may be behind before it loses the oldest. */
export const subscriberBuffer = 1024

export class Topics extends Context.Service<Topics, {
  /** the hub of a topic; made when it is first asked for, kept for the life of the node */
  readonly hub: (name: string) => Hub<unknown>
  /** topics so far, with the messages that slow subscribers have lost */
  readonly stats: Effect.Effect<ReadonlyArray<{ readonly topic: string; readonly lost: number }>>
}>()("effect-troupe/Actor/Topics") {}

export interface Topic<A> {
  readonly name: string
  /** Hands the message to whoever subscribes now; succeeds also where nobody does. */
  readonly publish: (message: A) => Effect.Effect<void, never, Topics>
  /** messages from the moment it is run on */
  readonly stream: Stream.Stream<A, never, Topics>
  /**
   * Tells each message to an actor: `topic.tellTo((order) => ref.tell.Placed(order))`, for as long as the scope lives. A tell that
   * fails is logged and skipped.
   */
  readonly tellTo: (
    tell: (message: A) => Effect.Effect<void, TellError>
  ) => Effect.Effect<void, never, Topics | Scope.Scope>
}

/** Defines a topic. Two topics of one name are the same topic, so they must agree on `A`. */
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
          Effect.catch(tell(message), (error) => Effect.logWarning(`a message of topic ${name} was not told`, error))
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

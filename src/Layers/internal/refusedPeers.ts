/**
 * A node's events, where the log hears of peers that were refused: with another secret, another authority, another protocol. Such a node may
 * be a member by the store and reach nobody, and whoever operates it reads the log first.
 *
 * It does not subscribe: events that nobody listens to stay as cheap as they are.
 *
 * Invariant: one warning a peer and reason in `quiet`, and never more than `most` in that time. A stranger dials from another port each time,
 * so there a peer is its host.
 */
import { Clock, Duration, Effect, Layer } from "effect"
import * as SystemEvents from "../../Actor/SystemEvents.ts"

/** A peer that is still refused for the same reason is told again after that. */
export const quiet = Duration.minutes(10)
/** Warnings in that time, whatever strangers do. */
export const most = 100

/** The ephemeral port of a peer says nothing of who it is. */
const hostOf = (peer: string) => peer.replace(/:\d+$/, "")

export const layerEvents: Layer.Layer<SystemEvents.SystemEvents> = Layer.effect(
  SystemEvents.SystemEvents,
  Effect.gen(function*() {
    const inner = yield* SystemEvents.make
    const clock = yield* Clock.Clock
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    const told = new Set<string>()
    let since = clock.monotonicTimeNanosUnsafe()

    const tell = (peer: string, reason: string) => {
      const now = clock.monotonicTimeNanosUnsafe()
      if (now - since >= Duration.toNanosUnsafe(quiet)) {
        told.clear()
        since = now
      }
      const key = `${hostOf(peer)} ${reason}`
      if (told.has(key) || told.size >= most) return
      told.add(key)
      runFork(Effect.annotateLogs(Effect.logWarning(`a peer is refused: ${reason}`), { peer }))
    }
    return SystemEvents.SystemEvents.of({
      ...inner,
      publish: (event) => {
        if (event._tag === "PeerRefused") tell(event.peer, event.reason)
        inner.publish(event)
      }
    })
  })
)

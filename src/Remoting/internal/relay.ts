/**
 * Frames carried for an outsider to a node that it cannot reach itself: the gateway shakes hands with the outsider, makes sure that the
 * node is one of its own, and passes frames on unread; then the outsider and the node shake hands with each other, so sessions,
 * their order and their heartbeats are as without a gateway.
 */
import { Effect } from "effect"
import type { FrameTooLarge, NodeUnreachable } from "../../Actor/errors.ts"
import type { Connection } from "../Transport.ts"

export interface Endpoint {
  readonly host: string
  readonly port: number
}

/** `host:port`, as a Hello or a client says it; an address of IPv6 may be in brackets. */
export const parseEndpoint = (text: string): Endpoint | undefined => {
  const match = /^(.+):(\d{1,5})$/.exec(text)
  const port = Number(match?.[2])
  return match === null || port < 1 || port > 65_535 ? undefined : { host: match[1]!.replace(/^\[(.*)\]$/, "$1"), port }
}

/** The connection, with frames that were received before. */
export const withFirst = (connection: Connection, first: ReadonlyArray<Uint8Array>): Connection => {
  if (first.length === 0) return connection
  let waiting: ReadonlyArray<Uint8Array> | undefined = first
  return {
    peer: connection.peer,
    loopback: connection.loopback,
    certifies: connection.certifies,
    untrusted: connection.untrusted,
    send: connection.send,
    offer: connection.offer,
    unsent: connection.unsent,
    onIdle: connection.onIdle,
    limitInbound: connection.limitInbound,
    receive: Effect.suspend(() => {
      const frames = waiting
      waiting = undefined
      return frames === undefined ? connection.receive : Effect.succeed(frames)
    }),
    close: connection.close
  }
}

const pump = (from: Connection, to: Connection): Effect.Effect<never, NodeUnreachable | FrameTooLarge> =>
  from.receive.pipe(
    // waits while the other side is slow, and reads no more meanwhile
    Effect.flatMap((frames) => Effect.forEach(frames, to.send, { discard: true })),
    Effect.forever
  )

/** Until one of them is over; then what was handed over still leaves, and both are. */
export const join = (a: Connection, b: Connection): Effect.Effect<void> =>
  Effect.raceFirst(pump(a, b), pump(b, a)).pipe(
    Effect.ignore,
    Effect.ensuring(Effect.andThen(a.close, b.close))
  )

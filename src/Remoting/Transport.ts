/**
 * Port: connections that carry frames. Two implementations, `layerTcp` (sockets) and the simulated network of
 * `effect-troupe/testing`, share everything above it: handshake, lanes, codecs, back-pressure.
 *
 * A frame is an opaque, non-empty byte array of at most `maxFrameBytes`; a connection keeps their order, delivers each at most
 * once, and says when it is over. Who is at the other end, and whether it may be, is the handshake's business, not ours.
 */
import { Context } from "effect"
import type { Effect, Queue, Scope } from "effect"
import type { FrameTooLarge, NodeUnreachable } from "../Actor/errors.ts"

export { defaultMaxFrameBytes, hardMaxFrameBytes } from "./Limits.ts"

export interface Connection {
  /** `host:port` of the other side as the transport knows it; for people only */
  readonly peer: string
  /** is the other side on this machine's loopback? decides whether a shared secret may be absent */
  readonly loopback: boolean
  /**
   * Queues a frame behind those sent before; what piles up while a write is in flight leaves in one write. Waits only while
   * the outbox is over its bound. Fails `NodeUnreachable` (`NotSent`) once the connection is over.
   */
  readonly send: (frame: Uint8Array) => Effect.Effect<void, NodeUnreachable | FrameTooLarge>
  /**
   * The same at once and without a bound, for a caller that keeps its own by `unsent` and `onIdle`: a session has two lanes
   * and decides itself what leaves next. False once the connection is over or where the frame is above the cap. The transport
   * owns the bytes from here on.
   */
  readonly offer: (frame: Uint8Array) => boolean
  /** bytes that were handed over and have not left this process yet */
  readonly unsent: () => number
  /** the one listener that is called whenever `unsent` has come down to 0, and when the connection is over */
  readonly onIdle: (listener: () => void) => void
  /** Takes no larger frame from the peer than that from now on, in bytes: little before it is known who it is. */
  readonly limitInbound: (bytes: number) => void
  /** the frames received, at least one; fails once the connection is over and all received frames were taken */
  readonly receive: Effect.Effect<ReadonlyArray<Uint8Array>, NodeUnreachable>
  /** takes no more frames in either direction; those handed over before still leave. Idempotent */
  readonly close: Effect.Effect<void>
}

export class Transport extends Context.Service<Transport, {
  /** the advertised address of this node, known once bound */
  readonly address: { readonly host: string; readonly port: number }
  /** inbound connections, in order of arrival; nobody reads from one before it is taken */
  readonly accept: Queue.Dequeue<Connection>
  /** dials; the connection lives until it is closed, is lost, or the scope ends */
  readonly connect: (to: {
    readonly host: string
    readonly port: number
  }) => Effect.Effect<Connection, NodeUnreachable, Scope.Scope>
}>()("effect-troupe/Remoting/Transport") {}

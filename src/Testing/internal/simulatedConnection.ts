/**
 * One simulated connection: two ends, two directions. A direction is a queue of frames in flight, ended by a mark that its sender
 * closed (`fin`) or died (`reset`). Frames leave the queue in order, each when it is due and the link is open.
 */
import { Effect, Exit } from "effect"
import { FrameTooLarge, NodeUnreachable } from "../../Actor/errors.ts"
import type { Connection } from "../../Remoting/Transport.ts"

export interface PairOptions {
  readonly from: string
  readonly to: string
  /** what the dialing and the accepting side call each other */
  readonly fromPeer: string
  readonly toPeer: string
  readonly maxFrameBytes: number
  readonly outboxBytes: number
  readonly open: (from: string, to: string) => boolean
  readonly latencyOf: (from: string, to: string) => number
  readonly resets: () => boolean
  /** milliseconds of the virtual monotonic clock */
  readonly now: () => number
  readonly soon: (task: () => void) => void
  readonly later: (millis: number, task: () => void) => void
  readonly onFrame: ((from: string, to: string, frame: Uint8Array) => void) | undefined
  readonly opened: (direction: Direction) => void
  readonly ended: (direction: Direction) => void
}

type InFlight = { readonly due: number; readonly content: Uint8Array | "fin" | "reset" }

export class Direction {
  readonly from: string
  readonly to: string
  readonly options: PairOptions
  readonly queue: Array<InFlight> = []
  sender: End | undefined
  receiver: End | undefined
  /** bytes that have not left their sender: they do on the next turn on which the link is open */
  bytes = 0
  leaving = false
  lastDue = 0
  scheduled = false

  constructor(from: string, to: string, options: PairOptions) {
    this.from = from
    this.to = to
    this.options = options
    options.opened(this)
  }

  push(content: Uint8Array | "fin" | "reset"): void {
    const { latencyOf, now } = this.options
    const due = Math.max(this.lastDue, now() + latencyOf(this.from, this.to))
    this.lastDue = due
    this.queue.push({ due, content })
    if (typeof content !== "string") this.bytes += content.length
    this.leave()
    this.resume()
  }

  private leave(): void {
    if (this.leaving || this.bytes === 0 || !this.options.open(this.from, this.to)) return
    this.leaving = true
    this.options.soon(() => {
      this.leaving = false
      if (this.bytes === 0 || !this.options.open(this.from, this.to)) return
      this.bytes = 0
      this.sender!.idle()
    })
  }

  /** Arranges the next delivery, if there is one and the link is open; called again when the link may have opened. */
  resume(): void {
    this.leave()
    const head = this.queue[0]
    if (this.scheduled || head === undefined || !this.options.open(this.from, this.to)) return
    this.scheduled = true
    const wait = head.due - this.options.now()
    if (wait > 0) this.options.later(wait, this.deliver)
    else this.options.soon(this.deliver)
  }

  readonly deliver = (): void => {
    this.scheduled = false
    const { now, onFrame, open, resets } = this.options
    const frames: Array<Uint8Array> = []
    let last: "fin" | "reset" | undefined
    while (last === undefined && this.queue.length > 0 && this.queue[0]!.due <= now() && open(this.from, this.to)) {
      const { content } = this.queue.shift()!
      if (typeof content === "string") last = content
      else {
        if (resets()) return this.reset()
        onFrame?.(this.from, this.to, content)
        frames.push(content)
      }
    }
    this.receiver!.deliver(frames)
    if (last !== undefined) {
      this.drop()
      this.receiver!.end(last === "fin" ? "closed by the peer" : "connection reset by the peer")
      return
    }
    this.resume()
  }

  /** Both ends see it at once, as when something on the way resets the connection. */
  reset(): void {
    this.sender!.end("connection reset")
    this.receiver!.end("connection reset")
  }

  /** nothing more will be delivered */
  drop(): void {
    this.queue.length = 0
    this.bytes = 0
    this.options.ended(this)
  }
}

/** One side's view of the connection. */
export class End {
  readonly peer: string
  readonly options: PairOptions
  readonly incoming: Direction
  readonly outgoing: Direction
  readonly onOver: () => void
  inbox: Array<Uint8Array> = []
  over: string | undefined
  waiter: (() => void) | undefined
  readonly senders = new Set<() => void>()
  listener: (() => void) | undefined

  constructor(peer: string, incoming: Direction, outgoing: Direction, options: PairOptions, onOver: () => void) {
    this.peer = peer
    this.incoming = incoming
    this.outgoing = outgoing
    this.options = options
    this.onOver = onOver
    incoming.receiver = this
    outgoing.sender = this
  }

  deliver(frames: Array<Uint8Array>): void {
    if (frames.length === 0 || this.over !== undefined) return
    this.inbox.push(...frames)
    this.wake()
  }

  wake(): void {
    const waiter = this.waiter
    this.waiter = undefined
    waiter?.()
  }

  idle(): void {
    for (const sender of [...this.senders]) sender()
    this.listener?.()
  }

  /** It is over for this side: nothing is sent or received any more. What is in flight to the peer stays in flight. */
  end(reason: string): void {
    if (this.over !== undefined) return
    this.over = reason
    this.onOver()
    this.wake()
    this.idle()
  }

  /** The process is gone: what it had in flight is lost, and the peer sees a reset. */
  readonly abort = (): void => {
    if (this.over !== undefined) return
    this.outgoing.queue.length = 0
    this.outgoing.bytes = 0
    this.outgoing.push("reset")
    this.end("this host is down")
  }

  /** Takes part no longer; what was handed over before still arrives, and the peer sees the end after it. */
  readonly close = (): void => {
    if (this.over !== undefined) return
    this.outgoing.push("fin")
    this.end("closed by this side")
  }

  get connection(): Connection {
    const failure = () =>
      new NodeUnreachable({ node: this.peer, outcome: "NotSent", reason: this.over ?? "the connection is over" })
    const { maxFrameBytes, outboxBytes } = this.options
    const offer = (frame: Uint8Array): boolean => {
      if (this.over !== undefined || frame.length > maxFrameBytes || frame.length === 0) return false
      // the sender gets its bytes back before they arrive
      this.outgoing.push(frame.slice())
      return true
    }
    const send: Connection["send"] = (frame) =>
      Effect.suspend(() => {
        if (this.over !== undefined) return Effect.fail(failure())
        if (frame.length > maxFrameBytes) {
          return Effect.fail(new FrameTooLarge({ bytes: frame.length, limit: maxFrameBytes }))
        }
        if (this.outgoing.bytes <= outboxBytes) {
          offer(frame)
          return Effect.void
        }
        return Effect.andThen(
          Effect.callback<void>((resume) => {
            const sender = () => {
              this.senders.delete(sender)
              resume(Exit.void)
            }
            this.senders.add(sender)
            return Effect.sync(() => void this.senders.delete(sender))
          }),
          send(frame)
        )
      })
    const receive: Connection["receive"] = Effect.suspend(() => {
      if (this.inbox.length > 0) {
        const frames = this.inbox
        this.inbox = []
        return Effect.succeed(frames)
      }
      if (this.over !== undefined) return Effect.fail(failure())
      return Effect.andThen(
        Effect.callback<void>((resume) => {
          this.waiter = () => resume(Exit.void)
          return Effect.sync(() => {
            this.waiter = undefined
          })
        }),
        receive
      )
    })
    return {
      peer: this.peer,
      loopback: true,
      send,
      offer,
      unsent: () => this.outgoing.bytes,
      onIdle: (listener) => {
        this.listener = listener
      },
      receive,
      // the sender's cap is the network's own
      limitInbound: () => {},
      close: Effect.sync(this.close)
    }
  }
}

/** A new connection between two hosts, with both of its ends. */
export const makePair = (options: PairOptions) => {
  const forward = new Direction(options.from, options.to, options)
  const backward = new Direction(options.to, options.from, options)
  let live = 2
  let onEnd = () => {}
  const over = () => {
    if (--live === 0) onEnd()
  }
  const near = new End(options.fromPeer, backward, forward, options, over)
  const far = new End(options.toPeer, forward, backward, options, over)
  const side = (end: End) => ({ connection: end.connection, close: end.close, abort: end.abort })
  return {
    near: side(near),
    far: side(far),
    onEnd: (listener: () => void) => {
      onEnd = listener
    }
  }
}

// Sessions on wires that take, lose and hold back frames as they are told.
import { Clock, Effect, Exit } from "effect"
import type { Delivery } from "../../src/Actor/Delivery.ts"
import { type AskError, NodeUnreachable } from "../../src/Actor/errors.ts"
import { Resumed } from "../../src/Actor/internal/Envelope.ts"
import { Timeouts } from "../../src/Actor/internal/Timeouts.ts"
import type { KindDefinition } from "../../src/Actor/Kind.ts"
import type { SystemEvent } from "../../src/Actor/SystemEvents.ts"
import { Buffers } from "../../src/Remoting/internal/buffers.ts"
import { Calls } from "../../src/Remoting/internal/calls.ts"
import { identityOf } from "./support.ts"
import { Messages } from "../../src/Remoting/internal/messages.ts"
import { Session } from "../../src/Remoting/internal/session.ts"
import { Turns } from "../../src/Remoting/internal/turns.ts"

/** What stands for a connection. */
export interface Wire {
  closed: boolean
  /** it takes nothing any more */
  over: boolean
  /** bytes that have not left, as it says */
  unsent: number
  /** does what it takes stay unsent? */
  stuck: boolean
  taken: Array<Uint8Array>
  /** tells that all has left, or that it is over */
  idle: () => void
}

export interface SideOptions {
  readonly kind: KindDefinition
  readonly delivery: Delivery["Service"]
  readonly dialed: boolean
  readonly outboxBytes?: number
  readonly windowBytes?: number
  readonly receive?: Effect.Effect<ReadonlyArray<Uint8Array>>
}

/** One end of a session between nodes that know the same kind. */
export const makeSide = Effect.fnUntraced(function*({ delivery, dialed, kind, ...options }: SideOptions) {
  const identity = identityOf("b", {
    windowBytes: options.windowBytes ?? 64 * 1024 * 1024,
    kinds: new Map([[kind.name, kind.fingerprint]]),
    capabilities: ["parts", "compact"]
  })
  const events: Array<SystemEvent> = []
  const timeouts = new Timeouts(yield* Clock.Clock, yield* Effect.context<never>())
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const messages = new Messages({
    delivery,
    kinds: () => new Map([[kind.name, kind]]),
    self: identity,
    timeouts,
    publish: (event) => void events.push(event),
    runFork
  })
  const calls = new Calls({ timeouts, runFork, self: "b:1" })
  const wire: Wire = { closed: false, over: false, unsent: 0, stuck: false, taken: [], idle: () => {} }
  const session = new Session({
    connection: {
      peer: "b",
      loopback: true,
      send: () => Effect.void,
      offer: (frame) => {
        if (wire.over) return false
        wire.taken.push(frame.slice())
        if (wire.stuck) wire.unsent += frame.length
        return true
      },
      unsent: () => wire.unsent,
      onIdle: (listener) => {
        wire.idle = listener
      },
      limitInbound: () => {},
      receive: Effect.suspend(() => {
        if (!wire.closed) return options.receive ?? Effect.never
        return Effect.fail(new NodeUnreachable({ node: "b:1", outcome: "NotSent", reason: "closed by this side" }))
      }),
      close: Effect.sync(() => {
        wire.closed = true
      })
    },
    self: identity,
    peer: identity,
    dialed,
    number: 1,
    outboxBytes: options.outboxBytes ?? 64 * 1024 * 1024,
    buffers: new Buffers(),
    turns: new Turns(),
    now: () => 0,
    onData: messages.onData,
    onControl: calls.onControl,
    onEnd: (session) => {
      messages.onEnd(session)
      calls.onEnd(session)
    },
    onLost: messages.onLost
  })
  const outcomes: Array<string> = []
  const to = (name: string) => ({ kind: kind.name, name, node: identity, placement: 1, epoch: 1 })
  const ask = (tag: string, payload: unknown, name = "x") =>
    messages.outgoing.ask(
      session,
      to(name),
      new Resumed({ kind, tag, payload }, name, 60_000, (exit) => {
        if (Exit.isSuccess(exit)) return void outcomes.push("Success")
        const error = Exit.findErrorOption(exit as Exit.Exit<unknown, AskError>)
        outcomes.push(error._tag === "Some" && error.value._tag === "NodeUnreachable" ? error.value.outcome : "Other")
      })
    )
  const tell = (tag: string, payload: unknown, name: string) =>
    messages.outgoing.tell(session, to(name), { kind, tag, payload })
  /** to whom */
  const lost = () => events.flatMap((event) => event._tag === "DeadLetter" ? [event.to] : [])
  return { messages, session, wire, to, ask, tell, calls, timeouts, runFork, outcomes, lost }
})

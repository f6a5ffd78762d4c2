/**
 * The control lane: calls of rpc groups and their answers. Handlers run under `RpcServer`, one a group, so middleware,
 * interruption and forks behave as everywhere in Effect; the envelopes are ours, because a call here must say whether it was
 * sent, and a server that stops must not look like an interrupted caller.
 */
import { Cause, Effect, Exit, type Fiber, Option, type Scope } from "effect"
import { Headers } from "effect/http"
import { Rpc, type RpcGroup, RpcMessage, RpcServer } from "effect/rpc"
import { NodeUnreachable } from "../../Actor/errors.ts"
import { Deadline, type Timeouts } from "../../Actor/internal/Timeouts.ts"
import { codecOf, reasonOf } from "./codec.ts"
import { FrameType, type Identity } from "./handshake.ts"
import type { Session } from "./session.ts"
import { Malformed, peerMillis, type Reader, wholeMillis, Writer } from "./wire.ts"

const Op = { Call: 1, Cancel: 2, Success: 3, Failure: 4, NotServed: 5, Died: 6, Stopped: 7, Undecodable: 8 } as const

/** Calls of one peer that may be unanswered here; more are refused as not served. */
const maxServing = 16_384
/** Bytes of what they say, the same. */
const maxServingBytes = 64 * 1024 * 1024
/** why a peer that does not read its answers gets no more of them */
const unread = "too many answers wait to be read"
const maxTag = 255

type AnyRpc = Rpc.AnyWithProps

interface Served {
  readonly rpc: AnyRpc
  readonly write: (client: number, message: RpcMessage.FromClient<Rpc.Any>) => Effect.Effect<void>
  readonly disconnect: (client: number) => Effect.Effect<void>
  /** why that peer may not call it */
  readonly admit: (caller: Identity) => string | undefined
}

const everybody = () => undefined

/** On the request that a handler is given, where a client asks. */
const ofClient = Headers.fromInput({ client: "yes" })
export const isOfClient = (headers: Headers.Headers): boolean => "client" in headers

/** An answer that is not bytes of the rpc's schemas is a reason in words. */
type Respond = (op: number, content: Uint8Array | string) => void

interface Serving extends Deadline {
  readonly served: Served
  readonly respond: Respond
}

class ServingCall extends Deadline implements Serving {
  readonly served: Served
  /** of its payload */
  readonly bytes: number
  readonly respond: Respond
  readonly interrupt: () => void
  constructor(served: Served, bytes: number, respond: Respond, interrupt: () => void) {
    super()
    this.served = served
    this.bytes = bytes
    this.respond = respond
    this.interrupt = interrupt
  }
  expire(): void {
    this.interrupt()
  }
}

type Resume = (exit: Exit.Exit<unknown, unknown>) => void

class PendingCall extends Deadline {
  readonly calls: Calls
  readonly session: Session
  readonly number: number
  readonly rpc: AnyRpc
  readonly frame: Uint8Array
  readonly timeout: number
  readonly resume: Resume
  constructor(
    calls: Calls,
    session: Session,
    number: number,
    rpc: AnyRpc,
    frame: Uint8Array,
    timeout: number,
    resume: Resume
  ) {
    super()
    this.calls = calls
    this.session = session
    this.number = number
    this.rpc = rpc
    this.frame = frame
    this.timeout = timeout
    this.resume = resume
  }
  expire(): void {
    const sent = this.calls.forget(this)
    this.resume(Exit.fail(
      this.session.failure(sent ? "Unknown" : "NotSent", `${this.rpc._tag}: no answer within ${this.timeout} ms`)
    ))
  }
}

interface SessionCalls {
  readonly pending: Map<number, PendingCall>
  readonly serving: Map<number, ServingCall>
  /** bytes of what those say */
  servingBytes: number
  next: number
}

const noCalls = (): SessionCalls => ({ pending: new Map(), serving: new Map(), servingBytes: 0, next: 1 })

export interface CallsOptions {
  readonly timeouts: Timeouts
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  /** this node as `host:port`, for messages about calls to itself */
  readonly self: string
}

/** The client number under which calls of this very node run; sessions count from 1. */
const selfClient = 0

export class Calls {
  readonly options: CallsOptions
  private readonly served = new Map<string, Served>()
  private readonly own = noCalls()
  /** by client number, to find the call that a server answers */
  private readonly clients = new Map<number, SessionCalls>([[selfClient, this.own]])

  constructor(options: CallsOptions) {
    this.options = options
  }

  private of(session: Session): SessionCalls {
    let calls = session.calls as SessionCalls | undefined
    if (calls === undefined) {
      session.calls = calls = noCalls()
      this.clients.set(session.options.number, calls)
    }
    return calls
  }

  // ---- caller --------------------------------------------------------------------------------------------------------------

  call(session: Session, rpc: AnyRpc, payload: unknown, timeout: number): Effect.Effect<unknown, unknown> {
    return Effect.suspend(() => {
      const bytes = this.encode(rpc, payload, (reason) => session.failure("NotSent", reason))
      if (!(bytes instanceof Uint8Array)) return Effect.fail(bytes)
      if (session.over !== undefined) return Effect.fail(session.failure("NotSent"))
      if (bytes.length + 2 * maxTag > session.outbox.maxMessageBytes) {
        return Effect.fail(session.failure("NotSent", `${rpc._tag}: the payload is larger than a frame`))
      }
      return Effect.callback<unknown, unknown>((resume) => {
        const calls = this.of(session)
        const number = calls.next++
        const frame = new Writer().byte(FrameType.Control).byte(Op.Call).varint(number).text(rpc._tag)
          .varint(wholeMillis(timeout)).blob(bytes).take()
        const pending = new PendingCall(this, session, number, rpc, frame, timeout, resume)
        calls.pending.set(number, pending)
        this.options.timeouts.add(timeout, pending)
        session.outbox.sendControl(frame)
        return Effect.sync(() => void this.forget(pending))
      })
    })
  }

  /** Gives the call up; tells the peer if it may have heard of it. True if it had left this node. */
  forget(pending: PendingCall): boolean {
    const { number, session } = pending
    this.options.timeouts.cancel(pending)
    if (!this.of(session).pending.delete(number)) return true
    if (session.outbox.takeBack(pending.frame)) return false
    session.outbox.sendControl(new Writer().byte(FrameType.Control).byte(Op.Cancel).varint(number).take())
    return true
  }

  /** A call of this node to itself: the same server and codecs, no connection. */
  callSelf(rpc: AnyRpc, payload: unknown, timeout: number): Effect.Effect<unknown, unknown> {
    const failure = (outcome: "NotSent" | "Unknown", reason: string) =>
      new NodeUnreachable({ node: this.options.self, outcome, reason })
    return Effect.suspend(() => {
      const bytes = this.encode(rpc, payload, (reason) => failure("NotSent", reason))
      if (!(bytes instanceof Uint8Array)) return Effect.fail(bytes)
      return Effect.callback<unknown, unknown>((resume) => {
        const number = this.own.next++
        this.serve(this.own, selfClient, number, rpc._tag, timeout, bytes, (op, content) => {
          resume(this.answer(rpc, op, content, failure))
        })
        return Effect.sync(() => this.cancelServing(this.own, selfClient, number))
      })
    })
  }

  private encode(rpc: AnyRpc, payload: unknown, failure: (reason: string) => NodeUnreachable) {
    try {
      return codecOf(rpc.payloadSchema, "evolving").encode(rpc.payloadSchema.make(payload))
    } catch (error) {
      return failure(`${rpc._tag}: ${reasonOf(error)}`)
    }
  }

  private answer(
    rpc: AnyRpc,
    op: number,
    content: Uint8Array | string,
    failure: (outcome: "NotSent" | "Unknown", reason: string) => NodeUnreachable
  ): Exit.Exit<unknown, unknown> {
    try {
      switch (op) {
        case Op.Success:
          return Exit.succeed(codecOf(rpc.successSchema, "evolving").decode(content as Uint8Array))
        case Op.Failure:
          return Exit.fail(codecOf(rpc.errorSchema, "evolving").decode(content as Uint8Array))
        case Op.NotServed:
        case Op.Undecodable:
          return Exit.fail(failure("NotSent", `${rpc._tag}: ${String(content)}`))
        default:
          return Exit.fail(failure("Unknown", `${rpc._tag}: ${String(content)}`))
      }
    } catch (error) {
      return Exit.fail(failure("Unknown", `${rpc._tag}: ${reasonOf(error)}`))
    }
  }

  // ---- wire ----------------------------------------------------------------------------------------------------------------

  readonly onControl = (session: Session, reader: Reader): void => {
    const op = reader.byte()
    const number = reader.varint()
    const calls = this.of(session)
    switch (op) {
      case Op.Call: {
        if (calls.serving.has(number)) throw new Malformed("a call came twice")
        const tag = reader.text(maxTag)
        const timeout = peerMillis(reader.varint())
        const respond: Respond = (op, content) => {
          if (session.outbox.isUnheard && typeof content !== "string") return respond(Op.Died, unread)
          const writer = new Writer().byte(FrameType.Control).byte(op).varint(number)
          if (typeof content === "string") writer.text(content)
          else if (content.length + maxTag <= session.outbox.maxMessageBytes) writer.blob(content)
          else {
            const tooLarge = new Writer().byte(FrameType.Control).byte(Op.Died).varint(number)
            return session.outbox.sendControl(tooLarge.text("the answer is larger than a frame").take())
          }
          session.outbox.sendControl(writer.take())
        }
        const denied = this.served.get(tag)?.admit(session.peer)
        if (denied !== undefined) return respond(Op.NotServed, denied)
        if (session.outbox.isUnheard) return respond(Op.NotServed, unread)
        const headers = session.peer.client ? ofClient : Headers.empty
        return this.serve(calls, session.options.number, number, tag, timeout, reader.blob(), respond, headers)
      }
      case Op.Cancel:
        return this.cancelServing(calls, session.options.number, number)
      default: {
        const pending = calls.pending.get(number)
        const content = op === Op.Success || op === Op.Failure ? reader.blob() : reader.text(4096)
        // too late: it has timed out or was given up
        if (pending === undefined) return
        calls.pending.delete(number)
        this.options.timeouts.cancel(pending)
        pending.resume(this.answer(pending.rpc, op, content, (outcome, reason) => session.failure(outcome, reason)))
      }
    }
  }

  readonly onEnd = (session: Session): void => {
    const calls = this.of(session)
    const pending = [...calls.pending.values()]
    calls.pending.clear()
    for (const call of pending) {
      this.options.timeouts.cancel(call)
      call.resume(Exit.fail(session.failure(session.outbox.takeBack(call.frame) ? "NotSent" : "Unknown")))
    }
    const serving = [...calls.serving.values()]
    calls.serving.clear()
    this.clients.delete(session.options.number)
    for (const call of serving) this.options.timeouts.cancel(call)
    // a lost caller's handlers are interrupted: nobody waits for them; and each server forgets whom it has served
    for (const disconnect of new Set([...this.served.values()].map((served) => served.disconnect))) {
      this.options.runFork(disconnect(session.options.number))
    }
  }

  // ---- server --------------------------------------------------------------------------------------------------------------

  private serve(
    calls: SessionCalls,
    client: number,
    number: number,
    tag: string,
    timeout: number,
    payload: Uint8Array,
    respond: Respond,
    headers = Headers.empty
  ): void {
    const served = this.served.get(tag)
    if (served === undefined) return respond(Op.NotServed, "is not served there")
    if (calls.serving.size >= maxServing || calls.servingBytes > maxServingBytes) {
      return respond(Op.NotServed, "too many unanswered calls")
    }
    let value: unknown
    try {
      value = codecOf(served.rpc.payloadSchema, "evolving").decode(payload)
    } catch (error) {
      return respond(Op.Undecodable, reasonOf(error))
    }
    const call = new ServingCall(served, payload.length, respond, () => this.cancelServing(calls, client, number))
    calls.serving.set(number, call)
    calls.servingBytes += call.bytes
    this.options.timeouts.add(timeout, call)
    this.options.runFork(served.write(client, {
      _tag: "Request",
      id: RpcMessage.RequestId(number),
      tag,
      payload: value,
      headers
    } as RpcMessage.FromClient<Rpc.Any>))
  }

  private cancelServing(calls: SessionCalls, client: number, number: number): void {
    const call = calls.serving.get(number)
    if (call === undefined) return
    calls.serving.delete(number)
    calls.servingBytes -= call.bytes
    this.options.timeouts.cancel(call)
    this.options.runFork(
      call.served.write(client, { _tag: "Interrupt", requestId: RpcMessage.RequestId(number), interruptors: [] })
    )
    // a caller that waits hears of it; one that gave up has forgotten the number
    call.respond(Op.Stopped, "the deadline of the call is over")
  }

  private finish(client: number, number: number, exit: Exit.Exit<unknown, unknown>): void {
    const calls = this.clients.get(client)
    const call = calls?.serving.get(number)
    if (calls === undefined || call === undefined) return
    calls.serving.delete(number)
    calls.servingBytes -= call.bytes
    this.options.timeouts.cancel(call)
    const { rpc } = call.served
    try {
      if (Exit.isSuccess(exit)) {
        return call.respond(Op.Success, codecOf(rpc.successSchema, "evolving").encode(exit.value))
      }
      const error = Exit.findErrorOption(exit)
      if (Option.isSome(error)) {
        return call.respond(Op.Failure, codecOf(rpc.errorSchema, "evolving").encode(error.value))
      }
      if (Cause.hasInterruptsOnly(exit.cause)) return call.respond(Op.Stopped, "the peer stopped")
      call.respond(Op.Died, `the handler died: ${reasonOf(Cause.squash(exit.cause))}`)
    } catch (error) {
      call.respond(Op.Died, `the answer does not fit its schema: ${reasonOf(error)}`)
    }
  }

  readonly serveGroup = <Rpcs extends Rpc.Any>(
    group: RpcGroup.RpcGroup<Rpcs>,
    options?: { readonly admit?: ((caller: Identity) => string | undefined) | undefined }
  ): Effect.Effect<void, never, Scope.Scope | Rpc.ToHandler<Rpcs>> =>
    Effect.gen({ self: this }, function*() {
      const server = yield* RpcServer.makeNoSerialization(group, {
        onFromServer: (response) =>
          Effect.sync(() => {
            if (response._tag !== "Exit") return
            this.finish(response.clientId, Number(response.requestId), response.exit as Exit.Exit<unknown, unknown>)
          }),
        disableTracing: true,
        disableClientAcks: true,
        disableFatalDefects: true
      })
      for (const [tag, rpc] of group.requests) {
        if (this.served.has(tag)) return yield* Effect.die(new Error(`rpc ${tag} is served already`))
        this.served.set(tag, {
          rpc: rpc as unknown as AnyRpc,
          write: (client, message) => server.write(client, message as never),
          disconnect: server.disconnect,
          admit: options?.admit ?? everybody
        })
      }
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const tag of group.requests.keys()) this.served.delete(tag)
        })
      )
    }) as Effect.Effect<void, never, Scope.Scope | Rpc.ToHandler<Rpcs>>
}

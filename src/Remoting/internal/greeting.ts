/**
 * The handshake on a connection: performs what the pure core (`handshake.ts`) commands, within a time, and puts refusals into words.
 */
import { type Duration, Effect, Exit } from "effect"
import { NodeUnreachable } from "../../Actor/errors.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { Connection } from "../Transport.ts"
import * as Handshake from "./handshake.ts"
import { Malformed } from "./wire.ts"

/** Who answered, with the frames that came after the handshake; `known`: this connection is not needed. */
export interface Met {
  readonly peer: Handshake.Identity
  readonly known: boolean
  readonly rest: ReadonlyArray<Uint8Array>
}

export type GreetingError = NodeUnreachable | Handshake.Refusal

const unanswered = "was closed before the handshake: "
/** Did the connection end before anybody had answered? Then nobody has refused anything. */
export const isUnanswered = (error: GreetingError): boolean =>
  error._tag === "NodeUnreachable" && error.reason.startsWith(unanswered)

export const describe = (error: GreetingError): string => {
  switch (error._tag) {
    case "Authentication":
      return "authentication failed"
    case "Protocol":
      return `${error.error.what}: ours ${error.error.ours}, theirs ${error.error.theirs}`
    default:
      return error.reason
  }
}

/** Runs the handshake on a fresh connection; its own refusals are told as events. */
export const greet = (options: {
  readonly connection: Connection
  readonly config: Handshake.Config
  readonly start: readonly [Handshake.State, ReadonlyArray<Handshake.Command>]
  readonly timeout: Duration.Duration
  readonly publish: SystemEvents["Service"]["publish"]
}): Effect.Effect<Met, GreetingError> => {
  const { config, connection, start: [first, commands] } = options
  const refused = (reason: string) => options.publish({ _tag: "PeerRefused", peer: connection.peer, reason })
  const unreachable = (reason: string) => new NodeUnreachable({ node: connection.peer, outcome: "NotSent", reason })
  const perform = (commands: ReadonlyArray<Handshake.Command>) => {
    for (const command of commands) {
      if (command._tag === "Send") connection.offer(command.frame)
      else if (command._tag !== "Refused") return Exit.succeed(command)
      else {
        const { byPeer, refusal } = command
        // that a balancer led to another node is no refusal of that node
        if (!byPeer && !(refusal._tag === "Elsewhere" && refusal.another === true)) refused(describe(refusal))
        return Exit.fail(refusal)
      }
    }
  }
  return Effect.gen(function*() {
    connection.limitInbound(Handshake.maxHandshakeBytes)
    let state = first
    perform(commands)
    while (true) {
      const frames = yield* connection.receive.pipe(
        Effect.mapError((error) => unreachable(unanswered + error.reason))
      )
      for (const [index, frame] of frames.entries()) {
        let next: ReturnType<typeof Handshake.step>
        try {
          next = Handshake.step(state, config, frame)
        } catch (error) {
          if (!(error instanceof Malformed)) throw error
          refused(`no handshake: ${error.message}`)
          return yield* unreachable("does not speak this protocol")
        }
        state = next[0]
        const done = perform(next[1])
        if (done === undefined) continue
        if (Exit.isFailure(done)) yield* connection.close
        const { _tag, peer } = yield* done
        connection.limitInbound(config.self.maxFrameBytes)
        return { peer, known: _tag === "Known", rest: frames.slice(index + 1) }
      }
    }
  }).pipe(
    Effect.timeoutOrElse({
      duration: options.timeout,
      orElse: () => {
        refused("the handshake took too long")
        return Effect.fail(unreachable("the handshake timed out"))
      }
    })
  )
}

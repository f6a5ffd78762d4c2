/**
 * One dial, past every pause and every remembered failure, to learn whether a node's port refuses; nothing is said over it.
 *
 * Only a refusal is told from the rest: silence, a connection, and failures of this side's own (no route, no free port, too many open
 * files) say nothing about the life of a node.
 */
import { Effect } from "effect"
import type { RemotingSettings } from "../Settings.ts"
import type { Listening, Transport } from "../Transport.ts"
import { allowedBy } from "./hosts.edge.ts"

/**
 * `Vacant`: certainly nobody listens where that node does, in this node's own network stack, and as it listens for as long as it lives, it
 * is dead. `Refused`: its advertised address refuses; who answered is not known. `Open`: nothing was refused.
 */
export type Probe = "Vacant" | "Refused" | "Open"

/** An address with its advertised host and port, and where it listens as far as it has told. */
export interface Probed {
  readonly host: string
  readonly port: number
  readonly listening?: Listening | undefined
}

/** By which address somebody who is bound to all of them is reached on this machine. */
const loopbacks: Readonly<Record<string, string>> = { "0.0.0.0": "127.0.0.1", "::": "::1" }

export const make = (transport: Transport["Service"], settings: RemotingSettings) => {
  const mayDial = allowedBy(settings.dialHosts)
  const isRefused = (to: { readonly host: string; readonly port: number }): Effect.Effect<boolean> =>
    mayDial(to.host)
      ? Effect.scoped(transport.connect(to)).pipe(
        Effect.as(false),
        Effect.timeoutOrElse({ duration: settings.dialTimeout, orElse: () => Effect.succeed(false) }),
        Effect.catch((error) => Effect.succeed(error.refused === true))
      )
      : Effect.succeed(false)

  return Effect.fnUntraced(function*({ host, listening, port }: Probed): Effect.fn.Return<Probe> {
    const { isListening, listening: own } = transport
    if (listening === undefined || listening.stack !== own?.stack || isListening === undefined) {
      return (yield* isRefused({ host, port })) ? "Refused" : "Open"
    }
    // The way to it leads through nothing but this machine; yet its firewall may answer for it: the books have the last word.
    const near = { host: loopbacks[listening.host] ?? listening.host, port: listening.port }
    return (yield* isRefused(near)) && !(yield* isListening(listening)) ? "Vacant" : "Open"
  })
}

/**
 * Who this node is. One value, fixed before anything else starts: every other service of the node reads it.
 *
 * `layerLocal` is for a system without remoting; with remoting the address is known once the listener is bound, and the
 * remoting ring provides this service.
 */
import { Context, Effect, Layer, Random } from "effect"
import type { NodeAddress } from "./Address.ts"

export interface NodeOptions {
  /** name of the system; all nodes that talk to each other carry the same */
  readonly system: string
  /** default `local` */
  readonly dataCenter?: string | undefined
  /** default: eight random hex digits */
  readonly id?: string | undefined
}

export class Node extends Context.Service<Node, {
  readonly system: string
  readonly address: NodeAddress
}>()("effect-troupe/Actor/Node") {}

/** Random hex digits from the `Random` service, so that a simulation draws them from its seed. */
export const randomHex = (digits: number): Effect.Effect<string> =>
  Effect.map(
    Effect.forEach(Array.from({ length: digits }), () => Random.nextIntBetween(0, 15)),
    (values) => values.map((value) => value.toString(16)).join("")
  )

/** The node's address for a bound or advertised `host:port`, with a fresh incarnation. */
export const make = Effect.fnUntraced(
  function*(options: NodeOptions & { readonly host: string; readonly port: number }) {
    const id = options.id ?? `node-${yield* randomHex(8)}`
    const incarnation = yield* randomHex(16)
    return Node.of({
      system: options.system,
      address: { dataCenter: options.dataCenter ?? "local", id, incarnation, host: options.host, port: options.port }
    })
  }
)

/** A node that nobody can dial. */
export const layerLocal = (options: NodeOptions): Layer.Layer<Node> =>
  Layer.effect(Node, make({ ...options, host: "local", port: 0 }))

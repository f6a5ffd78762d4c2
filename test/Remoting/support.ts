// Nodes with recorders on the simulated network.
import { Effect, Layer, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Identity } from "../../src/Remoting/internal/handshake.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"
import { type ContractNode, type Harness, layerRecorders, Recorder } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"

export interface NodeOptions {
  readonly remoting?: RemotingOptions
  readonly system?: string
  readonly kind?: typeof Recorder
  readonly scope?: Scope.Scope
  /** default: the host's name */
  readonly id?: string
  /** of what it draws, its incarnation among them; default: the host's name */
  readonly seed?: string
  /** what stands between the node and the network */
  readonly through?: (transport: Transport.Transport["Service"]) => Transport.Transport["Service"]
}

/** Starts a node on a host of that network; it lives as long as the scope. */
export const startNode = Effect.fnUntraced(
  function*(network: SimulatedNetwork.SimulatedNetwork, host: string, options: NodeOptions = {}) {
    const scope = options.scope ?? (yield* Effect.scope)
    const random = yield* Random.Random.pipe(Random.withSeed(`test/${options.seed ?? host}`))
    const layer = Remoting.layer(options.remoting ?? {}).pipe(
      Layer.provideMerge(Layer.mergeAll(
        Remoting.layerNode({ system: options.system ?? "test", dataCenter: "dc", id: options.id ?? host }),
        layerRecorders(options.kind)
      )),
      Layer.provide(
        Layer.effect(Transport.Transport, Effect.map(network.transport(host), options.through ?? ((inner) => inner)))
      )
    )
    const context = yield* Layer.buildWithScope(layer, scope).pipe(
      Effect.provideService(Random.Random, random),
      Effect.provideService(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random))
    )
    return context as ContractNode
  }
)

export const simulatedHarness = Effect.fnUntraced(
  function*(options: { readonly network?: SimulatedNetwork.Options; readonly remoting?: RemotingOptions } = {}) {
    const network = yield* SimulatedNetwork.make({ seed: 1, ...options.network })
    const nodeOptions = options.remoting === undefined ? {} : { remoting: options.remoting }
    const a = yield* startNode(network, "a", nodeOptions)
    const b = yield* startNode(network, "b", nodeOptions)
    const harness: Harness = {
      a,
      b,
      reset: Effect.sync(() => network.reset(["a"], ["b"])),
      crashB: Effect.sync(() => network.crash("b")),
      pass: (duration) => TestClock.adjust(duration)
    }
    return { ...harness, network }
  }
)

/** A node as a handshake shows it; of no kinds unless told. */
export const identityOf = (id: string, more: Partial<Identity> = {}): Identity => ({
  system: "test",
  dataCenter: "dc",
  id,
  incarnation: "1",
  host: id,
  port: 1,
  client: false,
  maxFrameBytes: 1024 * 1024,
  windowBytes: 4 * 1024 * 1024,
  kinds: new Map(),
  ...more
})

// Actors across nodes on the simulated network, in virtual time.
import { describe, it } from "@effect/vitest"
import { Effect, Layer, Random } from "effect"
import { TestClock } from "effect/testing"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { cases, startNodes } from "./actors.ts"

describe("actors on the simulated network", () => {
  for (const { name, run } of cases) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const network = yield* SimulatedNetwork.make({ seed: 1 })
        const random = yield* Random.Random.pipe(Random.withSeed("test/actors"))
        const nodes = yield* startNodes(
          (id, layer) =>
            layer.pipe(
              Layer.provide(network.layer(id)),
              Layer.provide(Layer.succeed(SimulatedNetwork.Entropy, SimulatedNetwork.entropyOf(random)))
            ),
          (id) => Effect.sync(() => network.crash(id)),
          (duration) => TestClock.adjust(duration)
        )
        yield* run(nodes)
      }).pipe(Effect.scoped))
  }
})

// Actors across nodes on real sockets.
import { describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as Transport from "../../src/Remoting/Transport.ts"
import { cases, startNodes } from "../Remoting/actors.ts"

describe("actors over TCP", () => {
  for (const { name, run } of cases) {
    it.live(name, () =>
      Effect.gen(function*() {
        const nodes = yield* startNodes(
          (_id, layer) => layer.pipe(Layer.provide(Layer.orDie(Transport.layerTcp({})))),
          () => Effect.void,
          (duration) => Effect.sleep(duration)
        )
        yield* run(nodes)
      }).pipe(Effect.scoped))
  }
})

/** Runs the control plane's public contract on a real server's store: a fresh place in it for each case, all side by side. */
import { afterAll, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, References, Scope } from "effect"
import * as ControlPlaneStore from "../../../src/ControlPlane/ControlPlaneStore.ts"
import type { ControlStoreService } from "../../../src/ControlPlane/ControlStore.ts"
import * as ControlPlaneContract from "../../../src/Testing/ControlPlaneContract.ts"

export const planeContract = <Servers, E, E2>(
  title: string,
  setup: {
    readonly start: Effect.Effect<Servers, E, Scope.Scope>
    /** a new client of the place with that number */
    readonly open: (servers: Servers, place: number) => Effect.Effect<ControlStoreService, E2, Scope.Scope>
  }
): void => {
  const scope = Effect.runSync(Scope.make())
  let servers: Servers | undefined
  let places = 0
  describe.concurrent(title, () => {
    beforeAll(async () => {
      servers = await Effect.runPromise(Scope.provide(setup.start, scope))
    }, 60_000)
    afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
    ControlPlaneContract.suite({
      open: (ttl) =>
        Effect.gen(function*() {
          const place = ++places
          const [first, second] = yield* Effect.all(
            [setup.open(servers!, place), setup.open(servers!, place)],
            { concurrency: 2 }
          )
          return {
            one: yield* ControlPlaneStore.make(first, { ttl }),
            other: yield* ControlPlaneStore.make(second, { ttl }),
            store: first
          }
        }),
      pass: Effect.sleep,
      // real servers on a busy machine: what takes a TTL must not fail for a late turn
      ttl: "2 seconds",
      patience: "8 seconds"
    }, (name, run) => it.live(name, () => Effect.provideService(run, References.MinimumLogLevel, "Error"), 60_000))
  })
}

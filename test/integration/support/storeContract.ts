/** Runs the store's public contract against real servers that are started once for all cases; the cases run side by side. */
import { afterAll, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, References, Scope } from "effect"
import * as ControlStoreContract from "../../../src/Testing/ControlStoreContract.ts"

export const storeContract = <Servers, E, E2>(
  title: string,
  setup: {
    readonly start: Effect.Effect<Servers, E, Scope.Scope>
    readonly options: (servers: Servers) => ControlStoreContract.Options<E2>
    /** which cases; default all */
    readonly only?: (definition: ControlStoreContract.CaseDefinition) => boolean
  }
): void => {
  const scope = Effect.runSync(Scope.make())
  let cases: ReadonlyArray<ControlStoreContract.Case> = []
  describe.concurrent(title, () => {
    beforeAll(async () => {
      cases = ControlStoreContract.cases(
        setup.options(await Effect.runPromise(Scope.provide(setup.start, scope)))
      )
    }, 60_000)
    afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
    for (const definition of ControlStoreContract.definitions) {
      if (setup.only?.(definition) === false) continue
      it.live(
        definition.name,
        () =>
          (cases.find(({ name }) => name === definition.name)?.run
            ?? Effect.die("the case was left out, because no client can be cut")).pipe(
              Effect.provideService(References.MinimumLogLevel, "Warn")
            ),
        60_000
      )
    }
  })
}

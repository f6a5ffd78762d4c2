/**
 * The contract of `ControlStore` as named cases that any backend can run against itself, with any test runner: each case is an
 * Effect that fails with a `ContractViolation` saying what was expected and what the store did.
 *
 *     for (const { name, run } of ControlStoreContract.cases({ client: MyStore.make({ ... }) })) it.live(name, () => run)
 *
 * Cases share one store: each works under a prefix of its own, so that they may run in any order, at once, and again.
 */
import { Duration, Effect, Random } from "effect"
import type { Scope } from "effect"
import type { ControlStoreService } from "../ControlPlane/ControlStore.ts"
import { clientCases } from "./internal/contractClients.ts"
import { faultCases } from "./internal/contractFaults.ts"
import type { ContractViolation, Elapse } from "./internal/contractHarness.ts"
import { keyCases } from "./internal/contractKeys.ts"
import { watchCases } from "./internal/contractWatch.ts"

export { ContractViolation } from "./internal/contractHarness.ts"

/** Cuts one client from the store and joins it again. Both return once it is done, not once the client has noticed. */
export interface Cut {
  readonly client: ControlStoreService
  readonly cut: Effect.Effect<void>
  readonly restore: Effect.Effect<void>
}

export interface Options<E> {
  /** Opens one more client of the same store, for the length of the scope. */
  readonly client: Effect.Effect<ControlStoreService, E, Scope.Scope>
  /** A client that can be cut from the store; without it the cases about outages are left out. */
  readonly cuttable?: Effect.Effect<Cut, E, Scope.Scope> | undefined
  /** How time passes for the store: `TestClock.adjust` in virtual time; default is to wait. */
  readonly elapse?: Elapse | undefined
  /** the deadline of each of the client's operations; default 5 s */
  readonly requestTimeout?: Duration.Input | undefined
}

/** What a case gets: two clients of one store, a prefix that nobody else uses (it ends with `/`), and time. */
export interface World {
  readonly a: ControlStoreService
  readonly b: ControlStoreService
  readonly prefix: string
  readonly elapse: Elapse
  readonly another: Effect.Effect<ControlStoreService, unknown, Scope.Scope>
  readonly cuttable: Effect.Effect<Cut, unknown, Scope.Scope>
  readonly requestTimeout: Duration.Duration
}

export type CaseEffect = Effect.Effect<void, unknown, Scope.Scope>

/** One promise of the contract. `needs: "cut"` where the client must be cut from the store. */
export interface CaseDefinition {
  readonly name: string
  readonly needs?: "cut"
  readonly run: (world: World) => CaseEffect
}

export interface Case {
  readonly name: string
  /** fails with a `ContractViolation`, or with the store's own error where the case expects none */
  readonly run: Effect.Effect<void, unknown>
}

export const definitions: ReadonlyArray<CaseDefinition> = [...keyCases, ...clientCases, ...watchCases, ...faultCases]

/** All cases that the given store can run, in order. */
export const cases = <E>(options: Options<E>): ReadonlyArray<Case> => {
  const elapse: Elapse = options.elapse ?? Effect.sleep
  return definitions
    .filter((definition) => definition.needs !== "cut" || options.cuttable !== undefined)
    .map((definition, index) => ({
      name: definition.name,
      run: Effect.scoped(Effect.gen(function*() {
        const a = yield* options.client
        const b = yield* options.client
        const run = yield* Random.nextIntBetween(0, 0x7fff_ffff)
        yield* definition.run({
          a,
          b,
          prefix: `contract/${run.toString(36)}-${index}/`,
          elapse,
          another: options.client,
          cuttable: options.cuttable ?? Effect.die("no client can be cut"),
          requestTimeout: Duration.fromInputUnsafe(options.requestTimeout ?? "5 seconds")
        })
      }))
    }))
}

/** Registers all cases with a test runner that takes a name and a function returning a promise (vitest, node:test, ...). */
export const register = <E>(
  test: (name: string, run: () => Promise<void>) => unknown,
  options: Options<E>
): void => {
  for (const { name, run } of cases(options)) {
    test(name, () => Effect.runPromise(run as Effect.Effect<void, ContractViolation>))
  }
}

// The example's own store proves itself with the public contract, as an outsider's would.
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Custom from "../../examples/custom-control-store.ts"
import * as ControlStoreContract from "../../src/Testing/ControlStoreContract.ts"

const table = Custom.sqliteTable(":memory:")

describe("the store of docs/custom-control-store.md keeps the contract", () => {
  const cases = ControlStoreContract.cases({
    client: Effect.sync(() => Custom.make(table)),
    cuttable: Effect.sync(() => {
      let cut = false
      const store = Custom.make({
        ...table,
        rows: (sql, ...parameters) => {
          if (cut) throw new Error("the database is not reachable")
          return table.rows(sql, ...parameters)
        }
      })
      return {
        client: store,
        cut: Effect.sync(() => void (cut = true)),
        restore: Effect.sync(() => void (cut = false))
      }
    }),
    elapse: TestClock.adjust
  })
  for (const { name, run } of cases) it.effect(name, () => run)
})

import type { Cluster } from "effect-troupe"
import type { Effect } from "effect"
import { describe, expect, test } from "tstyche"

type Service = Cluster.Cluster["Service"]
type ErrorOf<F> = F extends (...args: never) => Effect.Effect<infer _, infer E>
  ? E extends { readonly _tag: infer Tag } ? Tag : never
  : never

describe("what the cluster can fail with", () => {
  test("a member declared dead: refused, no member oneself any more, or the store's three outcomes", () => {
    expect<ErrorOf<Service["down"]>>().type.toBe<
      "DownRefused" | "Fenced" | "StoreUnavailable" | "OutcomeUnknown" | "InvalidData"
    >()
  })

  test("only one start of a node can be declared dead, by somebody, for a reason", () => {
    expect<Service["down"]>().type.not.toBeCallableWith({ id: "b" }, { by: "ann", reason: "it burnt" })
    expect<Service["down"]>().type.not.toBeCallableWith({ id: "b", incarnation: "1" }, { by: "ann" })
    expect<Service["down"]>().type.toBeCallableWith({ id: "b", incarnation: "1" }, { by: "ann", reason: "it burnt" })
  })
})

import { type ControlPlane, type ControlStore, DataCenters, type Lease } from "effect-troupe"
import { ControlPlaneEtcd } from "effect-troupe/ControlPlane/Etcd"
import { ControlPlaneNats } from "effect-troupe/ControlPlane/Nats"
import type { Effect, Layer } from "effect"
import { describe, expect, test } from "tstyche"
import type { AuthenticationFailed, SettingInvalid, StoreUnavailable } from "../../src/Actor/errors.ts"

type Plane = ControlPlane.ControlPlane["Service"]
type Service = DataCenters.DataCenters["Service"]
type ErrorOf<F> = F extends (...args: never) => Effect.Effect<infer _, infer E> ?
  E extends { readonly _tag: infer Tag } ? Tag : never
  : F extends Effect.Effect<infer _, infer E> ? E extends { readonly _tag: infer Tag } ? Tag : never
  : never

describe("what the control plane can fail with", () => {
  test("writes: three outcomes, no record, unfit data", () => {
    type Written = "RecordNotFound" | "RevisionConflict" | "StoreUnavailable" | "OutcomeUnknown" | "InvalidData"
    expect<ErrorOf<Plane["register"]>>().type.toBe<Written>()
    expect<ErrorOf<Plane["heartbeat"]>>().type.toBe<Written>()
    expect<ErrorOf<Plane["setState"]>>().type.toBe<Written>()
    expect<ErrorOf<Plane["deregister"]>>().type.toBe<Written>()
  })

  test("reads: the store cannot be asked", () => {
    expect<ErrorOf<Plane["list"]>>().type.toBe<"StoreUnavailable">()
    expect<ErrorOf<Plane["listActive"]>>().type.toBe<"StoreUnavailable">()
  })

  test("a Layer of it provides the global store beside it", () => {
    type Opening = AuthenticationFailed | SettingInvalid | StoreUnavailable
    type Provided = ControlPlane.ControlPlane | ControlStore.GlobalStore
    expect(ControlPlaneNats.layerConfig).type.toBe<Layer.Layer<Provided, Opening>>()
    expect(ControlPlaneEtcd.layerConfig).type.toBe<Layer.Layer<Provided, Opening>>()
    expect(ControlPlaneNats.layer({ ttl: "10 seconds" })).type.toBe<Layer.Layer<Provided, Opening>>()
    expect(ControlPlaneEtcd.layer()).type.toBe<Layer.Layer<Provided, Opening>>()
    expect(ControlPlaneNats.layer).type.not.toBeCallableWith({ TTL: "10 seconds" })
  })
})

describe("what a choice of a datacenter can fail with", () => {
  test("select and reach", () => {
    type Selecting = "DataCenterNotReady" | "StaleRecords" | "RecordNotFound" | "AmbiguousDataCenter"
    expect<ErrorOf<Service["select"]>>().type.toBe<Selecting>()
    expect<ErrorOf<Service["reach"]>>().type.toBe<Selecting>()
    expect<ErrorOf<Service["reachable"]>>().type.toBe<"DataCenterNotReady" | "StaleRecords">()
    expect<ErrorOf<Service["await"]>>().type.toBe<"DataCenterNotReady">()
    expect<ErrorOf<Service["drain"]>>().type.toBe<
      Selecting | "StoreUnavailable" | "OutcomeUnknown" | "InvalidData"
    >()
  })

  test("readiness and age are never failures", () => {
    expect<ErrorOf<Service["ready"]>>().type.toBe<never>()
    expect<ErrorOf<Service["lastRefresh"]>>().type.toBe<never>()
    expect<ErrorOf<Service["known"]>>().type.toBe<never>()
  })

  test("the Layer fails only for its settings", () => {
    expect<Layer.Error<ReturnType<typeof DataCenters.layer>>>().type.toBe<SettingInvalid>()
  })
})

describe("what a lease can fail with", () => {
  test("renewing says Fenced, closing does not", () => {
    type Doubt = "StoreUnavailable" | "OutcomeUnknown" | "InvalidData"
    expect<ErrorOf<Lease.HeldLease["renew"]>>().type.toBe<"Fenced" | Doubt>()
    expect<ErrorOf<Lease.HeldLease["close"]>>().type.toBe<Doubt>()
    expect<ErrorOf<Lease.LeaseObserver["close"]>>().type.toBe<Doubt>()
  })
})

// The public contract of a control plane, on the embedded one, in virtual time.
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { ControlStore } from "../../src/ControlPlane/index.ts"
import * as ControlPlaneStore from "../../src/ControlPlane/ControlPlaneStore.ts"
import * as ControlPlaneContract from "../../src/Testing/ControlPlaneContract.ts"

const subject: ControlPlaneContract.Subject = {
  open: (ttl) =>
    Effect.gen(function*() {
      const backend = yield* ControlStore.makeMemoryBackend
      return {
        one: yield* ControlPlaneStore.make(backend.client(), { ttl }),
        other: yield* ControlPlaneStore.make(backend.client(), { ttl }),
        store: backend.client()
      }
    }),
  pass: TestClock.adjust
}

describe("the control plane in memory", () => {
  ControlPlaneContract.suite(subject, (name, run) => it.effect(name, () => run))
})

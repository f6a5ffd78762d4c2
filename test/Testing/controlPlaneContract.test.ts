// A contract proves nothing unless it refuses what is wrong: control planes with one planted bug each, and the case that sees it.
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ControlPlane } from "../../src/ControlPlane/ControlPlane.ts"
import * as ControlPlaneStore from "../../src/ControlPlane/ControlPlaneStore.ts"
import { ControlStore } from "../../src/ControlPlane/index.ts"
import * as ControlPlaneContract from "../../src/Testing/ControlPlaneContract.ts"

type Plane = ControlPlane["Service"]

const recordOf = (plane: Plane, id: string) =>
  Effect.map(plane.list, (records) => records.find((record) => record.id === id))
/** the version that is there, whatever the caller said */
const currentOf = (plane: Plane, id: string, otherwise: string) =>
  Effect.map(recordOf(plane, id), (record) => record?.version ?? otherwise)

const planted: Record<string, (plane: Plane) => Partial<Plane>> = {
  "a heartbeat makes what it meets ACTIVE": (plane) => ({
    heartbeat: (id, writer) =>
      Effect.gen(function*() {
        yield* plane.heartbeat(id, writer)
        const record = yield* recordOf(plane, id)
        if (record !== undefined && record.state !== "ACTIVE") yield* plane.setState(id, "ACTIVE", record.version)
      })
  }),
  "a heartbeat moves the version": (plane) => ({
    heartbeat: (id, writer) =>
      Effect.gen(function*() {
        yield* plane.heartbeat(id, writer)
        const record = yield* recordOf(plane, id)
        if (record !== undefined) yield* plane.setState(id, record.state, record.version)
      })
  }),
  "a heartbeat for nothing succeeds": (plane) => ({
    heartbeat: (id, writer) => Effect.catchTag(plane.heartbeat(id, writer), "RecordNotFound", () => Effect.void)
  }),
  "heartbeats of any but the first writer are ignored": (plane) => ({
    heartbeat: (id, writer) => writer === "w1" ? plane.heartbeat(id, writer) : Effect.void
  }),
  "setState takes any version": (plane) => ({
    setState: (id, state, version) =>
      Effect.flatMap(currentOf(plane, id, version), (current) => plane.setState(id, state, current))
  }),
  "deregister takes any version": (plane) => ({
    deregister: (id, version) =>
      Effect.flatMap(currentOf(plane, id, version), (current) => plane.deregister(id, current))
  }),
  "deregister of nothing fails": (plane) => ({
    deregister: (id, version) =>
      Effect.flatMap(
        recordOf(plane, id),
        (record) => record === undefined ? plane.setState(id, "INACTIVE", version) : plane.deregister(id, version)
      )
  }),
  "register takes over what exists": (plane) => ({
    register: (registration, version) =>
      Effect.flatMap(
        recordOf(plane, registration.id),
        (record) => plane.register(registration, record?.version ?? version)
      )
  }),
  "leases never run out": (plane) => ({
    listActive: Effect.map(plane.list, (records) => records.filter(({ state }) => state === "ACTIVE"))
  }),
  "leases run out in half the time": (plane) => ({
    listActive: Effect.map(
      plane.listActive,
      (records) =>
        records.filter(({ lease }) => Duration.toMillis(lease.remaining) > Duration.toMillis(lease.duration) / 2)
    )
  }),
  "what is draining is listed as active": (plane) => ({
    listActive: Effect.map(
      plane.list,
      (records) =>
        records.filter(({ lease, state }) =>
          (state === "ACTIVE" || state === "DRAINING") && Duration.toMillis(lease.remaining) > 0
        )
    )
  }),
  "lists come in the order of versions": (plane) => ({
    list: Effect.map(plane.list, (records) => [...records].sort((a, b) => Number(a.version) - Number(b.version)))
  }),
  "endpoints are sorted on the way": (plane) => ({
    list: Effect.map(
      plane.list,
      (records) => records.map((record) => ({ ...record, endpoints: [...record.endpoints].sort() }))
    )
  }),
  "a watch begins without a snapshot": (plane) => ({
    watch: Stream.filter(plane.watch, ({ _tag }) => _tag !== "Snapshot")
  }),
  "a watch does not tell removals": (plane) => ({
    watch: Stream.filter(plane.watch, ({ _tag }) => _tag !== "Removed")
  }),
  "a watch never says that it is current": (plane) => ({
    watch: Stream.filter(plane.watch, ({ _tag }) => _tag !== "Current")
  }),
  "a watch tells each version once, renewals not at all": (plane) => ({
    watch: Stream.suspend(() => {
      const told = new Map<string, string>()
      return Stream.filter(plane.watch, (event) => {
        if (event._tag !== "Upsert") return true
        const known = told.get(event.record.id) === event.record.version
        told.set(event.record.id, event.record.version)
        return !known
      })
    })
  }),
  "any id is taken": (plane) => ({
    register: (registration, version) =>
      Effect.catchTag(plane.register(registration, version), "InvalidData", () => Effect.succeed("1"))
  })
}

describe("the control plane's contract sees", () => {
  for (const [bug, plant] of Object.entries(planted)) {
    it.effect(bug, () =>
      Effect.gen(function*() {
        const failed: Array<string> = []
        const subject: ControlPlaneContract.Subject = {
          open: (ttl) =>
            Effect.gen(function*() {
              const backend = yield* ControlStore.makeMemoryBackend
              const one = yield* ControlPlaneStore.make(backend.client(), { ttl })
              const other = yield* ControlPlaneStore.make(backend.client(), { ttl })
              return { one: { ...one, ...plant(one) }, other: { ...other, ...plant(other) }, store: backend.client() }
            }),
          pass: TestClock.adjust,
          // long against the second in which a watch proves itself
          ttl: "10 seconds"
        }
        for (const { name, run } of ControlPlaneContract.cases(subject)) {
          const exit = yield* Effect.exit(run)
          if (exit._tag === "Failure") failed.push(name)
        }
        assert.isAbove(failed.length, 0)
      }))
  }
})

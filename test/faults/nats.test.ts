/** The control store on real NATS servers that die, stall, vanish and forget. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as Fs from "node:fs"
import { type Server, startNats, startProxy } from "../../scripts/servers/index.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"
import type { ControlStoreService } from "../../src/ControlPlane/ControlStore.ts"
import { eventually, forgetful, observe, persist, trial } from "./support/trial.ts"

const range = (count: number) => Array.from({ length: count }, (_, i) => i)

const requestTimeout = 3_000
const settings = { bucket: "faults", requestTimeout } as const

describe("one NATS server", () => {
  it.live("killed and started again, it has lost nothing", () =>
    Effect.gen(function*() {
      const { members, servers } = yield* startNats()
      yield* trial({
        client: ControlStoreNats.make({ ...settings, servers }),
        requestTimeout,
        fault: Effect.gen(function*() {
          yield* members[0]!.kill
          yield* Effect.sleep("1 second")
          yield* members[0]!.restart
        })
      })
    }).pipe(Effect.scoped))

  it.live("frozen for longer than the deadline, it makes writes unknown and the watch lost", () =>
    Effect.gen(function*() {
      const { members, servers } = yield* startNats()
      const { unknown } = yield* trial({
        client: ControlStoreNats.make({ ...settings, servers }),
        requestTimeout,
        fault: Effect.gen(function*() {
          yield* members[0]!.freeze
          yield* Effect.sleep("6 seconds")
          yield* members[0]!.thaw
        })
      })
      assert.isAbove(unknown, 0)
    }).pipe(Effect.scoped))

  it.live("behind a connection that goes silent, it is missed and found again", () =>
    Effect.gen(function*() {
      const { servers } = yield* startNats()
      const proxy = yield* startProxy(servers[0]!)
      yield* trial({
        client: ControlStoreNats.make({ ...settings, servers: [proxy.address] }),
        judge: ControlStoreNats.make({ ...settings, servers }),
        requestTimeout,
        fault: Effect.gen(function*() {
          yield* proxy.blackHole
          yield* Effect.sleep("5 seconds")
          yield* proxy.open
        })
      })
    }).pipe(Effect.scoped))

  it.live("behind a network that delivers late, it does not make a liar of its client", () =>
    Effect.gen(function*() {
      const { servers } = yield* startNats()
      const proxy = yield* startProxy(servers[0]!)
      yield* trial({
        client: ControlStoreNats.make({ ...settings, servers: [proxy.address] }),
        judge: ControlStoreNats.make({ ...settings, servers }),
        requestTimeout,
        fault: Effect.gen(function*() {
          yield* proxy.hold
          yield* Effect.sleep("4 seconds")
          yield* proxy.open
        })
      })
    }).pipe(Effect.scoped))

  it.live("behind connections that are reset again and again, it goes on", () =>
    Effect.gen(function*() {
      const { servers } = yield* startNats()
      const proxy = yield* startProxy(servers[0]!)
      yield* trial({
        client: ControlStoreNats.make({ ...settings, servers: [proxy.address] }),
        judge: ControlStoreNats.make({ ...settings, servers }),
        requestTimeout,
        fault: Effect.forEach([1, 2, 3, 4, 5, 6], () => Effect.andThen(proxy.reset, Effect.sleep("350 millis")))
      })
    }).pipe(Effect.scoped))

  /** A server whose data went back to an older copy, with what was acknowledged since then; and what a watch said of it. */
  const rolledBack = (
    count: 1 | 3,
    afterwards: (store: ControlStoreService) => Effect.Effect<unknown, unknown>
  ) =>
    Effect.gen(function*() {
      // else the watch would hear of ways around the proxy that keeps it away
      const { members, servers } = yield* startNats({ members: count, advertise: false })
      const replicated = { ...settings, replicas: count }
      const all = (act: (member: Server) => Effect.Effect<void, unknown>) =>
        Effect.forEach(members, act, { concurrency: "unbounded", discard: true })
      const folders = members.map(({ folder }) => folder)
      const proxy = yield* startProxy(servers[0]!)
      const store = yield* ControlStoreNats.make({ ...replicated, servers })
      const watcher = yield* ControlStoreNats.make({ ...replicated, servers: [proxy.address] })
      yield* Effect.forEach(range(20), (i) => store.create(`early/${i}`, "1"))
      yield* all((member) => member.stop)
      for (const folder of folders) Fs.cpSync(folder, `${folder}-copy`, { recursive: true })
      yield* all((member) => member.restart)
      const { reasons, held } = yield* observe(watcher)
      yield* eventually("the watch to know all", () => held().size === 20)
      yield* Effect.forEach(range(5), (i) => persist(store.create(`late/${i}`, "1")))
      yield* eventually("the watch to know all", () => held().size === 25)
      // away from the watch, so that it meets the store again only when others have gone on writing
      yield* proxy.refuse
      yield* all((member) => member.kill)
      for (const folder of folders) {
        Fs.rmSync(folder, { recursive: true, force: true })
        Fs.cpSync(`${folder}-copy`, folder, { recursive: true })
      }
      yield* all((member) => member.restart)
      yield* afterwards(store)
      const told = reasons().length
      yield* proxy.open
      yield* eventually("the watch to know what is there", () => !held().has("late/0"))
      yield* eventually("the loss to be told", () => reasons().slice(told).some((text) => forgetful.test(text)))
    })

  it.live("rolled back to an older copy, it is told", () => rolledBack(1, () => Effect.void).pipe(Effect.scoped))

  it.live("rolled back to an older copy and written on beyond where it was, it is told all the same", () =>
    rolledBack(1, (store) => Effect.forEach(range(30), (i) => persist(store.create(`other/${i}`, "1")))).pipe(
      Effect.scoped
    ))

  it.live("three of them, rolled back to an older copy and written on, it is told all the same", () =>
    rolledBack(3, (store) => Effect.forEach(range(30), (i) => persist(store.create(`other/${i}`, "1")))).pipe(
      Effect.scoped
    ))

  it.live("absent at start, it is waited for", () =>
    Effect.gen(function*() {
      const { members, servers } = yield* startNats()
      yield* members[0]!.kill
      const early = yield* Effect.forkChild(ControlStoreNats.make({ ...settings, servers, connectTimeout: "1 second" }))
      const error = yield* Effect.flip(Fiber.join(early))
      assert.strictEqual(error._tag, "StoreUnavailable")
      const waiting = yield* Effect.forkChild(ControlStoreNats.make({ ...settings, servers }))
      yield* Effect.sleep("2 seconds")
      yield* members[0]!.restart
      yield* (yield* Fiber.join(waiting)).create("k", "1")
    }).pipe(Effect.scoped))
})

describe("three NATS servers", () => {
  const replicated = { ...settings, replicas: 3 } as const
  /** what the replicas lose is told: they acknowledge before they sync */
  const client = (servers: ReadonlyArray<string>) => ControlStoreNats.make({ ...replicated, servers })

  it.live("the leader killed and started again, they go on", () =>
    Effect.gen(function*() {
      const { leaderOf, servers } = yield* startNats({ members: 3 })
      yield* trial({
        client: client(servers),
        requestTimeout,
        recovery: 12_000,
        mayForget: true,
        fault: Effect.gen(function*() {
          const leader = yield* leaderOf("KV_faults")
          assert.isDefined(leader)
          yield* leader!.kill
          yield* Effect.sleep("6 seconds")
          yield* leader!.restart
        })
      })
    }).pipe(Effect.scoped))

  it.live("the leader frozen for longer than a lease, they go on, and what is forgotten is told", () =>
    Effect.gen(function*() {
      const { leaderOf, servers } = yield* startNats({ members: 3 })
      yield* trial({
        client: client(servers),
        requestTimeout,
        recovery: 12_000,
        mayForget: true,
        fault: Effect.gen(function*() {
          const leader = yield* leaderOf("KV_faults")
          yield* leader!.freeze
          yield* Effect.sleep("11 seconds")
          yield* leader!.thaw
          yield* Effect.sleep("1 second")
        })
      })
    }).pipe(Effect.scoped))

  it.live("leaders frozen one after the other, what is forgotten is told", () =>
    Effect.gen(function*() {
      const { leaderOf, servers } = yield* startNats({ members: 3 })
      yield* trial({
        client: client(servers),
        requestTimeout,
        recovery: 15_000,
        mayForget: true,
        fault: Effect.forEach(range(3), () =>
          Effect.gen(function*() {
            const leader = yield* leaderOf("KV_faults")
            if (leader === undefined) return yield* Effect.sleep("1 second")
            yield* leader.freeze
            yield* Effect.sleep("5 seconds")
            yield* leader.thaw
            yield* Effect.sleep("500 millis")
          }))
      })
    }).pipe(Effect.scoped))

  it.live("a follower lost for good costs nothing", () =>
    Effect.gen(function*() {
      const { leaderOf, members, metaLeader, servers } = yield* startNats({ members: 3 })
      yield* trial({
        client: client(servers),
        requestTimeout,
        recovery: 12_000,
        unseen: true,
        fault: Effect.gen(function*() {
          // the one that places consumers is no mere follower: without it no watch begins until the next is elected
          const leaders = [yield* leaderOf("KV_faults"), yield* metaLeader]
          yield* members.find((member) => !leaders.includes(member))!.kill
          yield* Effect.sleep("1 second")
        })
      })
    }).pipe(Effect.scoped))

  it.live("without a majority they say so in time, and with it again they go on", () =>
    Effect.gen(function*() {
      const { leaderOf, members, servers } = yield* startNats({ members: 3 })
      yield* trial({
        client: client(servers),
        requestTimeout,
        recovery: 15_000,
        mayForget: true,
        fault: Effect.gen(function*() {
          const leader = yield* leaderOf("KV_faults")
          const others = members.filter((member) => member !== leader)
          for (const other of others) yield* other.kill
          yield* Effect.sleep("4 seconds")
          for (const other of others) yield* other.restart
        })
      })
    }).pipe(Effect.scoped))
})

/** The control store on real etcd members that die, stall, vanish and compact. Nothing that was acknowledged may be lost. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { startEtcd, startProxy } from "../../scripts/servers/index.ts"
import * as ControlStoreEtcd from "../../src/ControlPlane/ControlStoreEtcd.ts"
import { eventually, observe, trial } from "./support/trial.ts"

const range = (count: number) => Array.from({ length: count }, (_, i) => i)
const requestTimeout = 3_000
const client = (endpoints: ReadonlyArray<string>) => ControlStoreEtcd.make({ requestTimeout, endpoints })
const addressOf = (endpoint: string) => endpoint.slice("http://".length)

/** Forgets all history up to now, as operators and etcd's own schedule do. */
const compact = (endpoint: string) =>
  Effect.promise(async () => {
    const post = async (path: string, body: unknown) => {
      const answer = await fetch(`${endpoint}/v3/${path}`, { method: "POST", body: JSON.stringify(body) })
      assert.isTrue(answer.ok, `${path}: ${answer.status}`)
      return await answer.json() as { readonly header?: { readonly revision: string } }
    }
    const { header } = await post("kv/range", { key: Buffer.from("x").toString("base64") })
    await post("kv/compaction", { revision: header!.revision, physical: true })
  })

describe("one etcd member", () => {
  it.live("killed and started again, it has lost nothing", () =>
    Effect.gen(function*() {
      const { endpoints, members } = yield* startEtcd()
      yield* trial({
        client: client(endpoints),
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
      const { endpoints, members } = yield* startEtcd()
      const { unknown } = yield* trial({
        client: client(endpoints),
        requestTimeout,
        fault: Effect.gen(function*() {
          yield* members[0]!.freeze
          yield* Effect.sleep("6 seconds")
          yield* members[0]!.thaw
        })
      })
      assert.isAbove(unknown, 0)
    }).pipe(Effect.scoped))

  for (
    const [name, fault] of [
      ["behind a connection that goes silent, it is missed and found again", "blackHole"],
      ["behind a network that delivers late, it does not make a liar of its client", "hold"],
      ["behind a connection that is refused for a while, it is found again", "refuse"]
    ] as const
  ) {
    it.live(name, () =>
      Effect.gen(function*() {
        const { endpoints } = yield* startEtcd()
        const proxy = yield* startProxy(addressOf(endpoints[0]!))
        yield* trial({
          client: client([`http://${proxy.address}`]),
          judge: client(endpoints),
          requestTimeout,
          fault: Effect.gen(function*() {
            yield* proxy[fault]
            yield* Effect.sleep("5 seconds")
            yield* proxy.open
          })
        })
      }).pipe(Effect.scoped))
  }

  it.live("behind connections that are reset again and again, it goes on", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd()
      const proxy = yield* startProxy(addressOf(endpoints[0]!))
      yield* trial({
        client: client([`http://${proxy.address}`]),
        judge: client(endpoints),
        requestTimeout,
        fault: Effect.forEach(range(6), () => Effect.andThen(proxy.reset, Effect.sleep("350 millis")))
      })
    }).pipe(Effect.scoped))

  it.live("compacted amid the work, it costs the watch nothing", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd()
      yield* trial({
        client: client(endpoints),
        requestTimeout,
        unseen: true,
        fault: Effect.forEach(range(4), () => Effect.andThen(compact(endpoints[0]!), Effect.sleep("150 millis")))
      })
    }).pipe(Effect.scoped))

  it.live("compacted while a watch was away, it leaves no hole in what the watch holds", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd()
      const proxy = yield* startProxy(addressOf(endpoints[0]!))
      const store = yield* client(endpoints)
      const { held } = yield* observe(yield* client([`http://${proxy.address}`]))
      const first = yield* store.create("removed", "1")
      yield* store.create("kept", "1")
      yield* eventually("the watch to know both", () => held().size === 2)
      yield* proxy.refuse
      yield* store.remove("removed", first)
      yield* Effect.forEach(range(20), (i) => store.create(`new/${i}`, "1"))
      yield* compact(endpoints[0]!)
      yield* store.create("last", "1")
      yield* compact(endpoints[0]!)
      yield* proxy.open
      yield* eventually("the watch to hold what is there", () => held().size === 22 && !held().has("removed"))
    }).pipe(Effect.scoped))

  it.live("absent at start, it is waited for", () =>
    Effect.gen(function*() {
      const { endpoints, members } = yield* startEtcd()
      yield* members[0]!.kill
      const early = yield* Effect.forkChild(ControlStoreEtcd.make({ endpoints, connectTimeout: "1 second" }))
      assert.strictEqual((yield* Effect.flip(Fiber.join(early)))._tag, "StoreUnavailable")
      const waiting = yield* Effect.forkChild(client(endpoints))
      yield* Effect.sleep("2 seconds")
      yield* members[0]!.restart
      yield* (yield* Fiber.join(waiting)).create("k", "1")
    }).pipe(Effect.scoped))
})

describe("three etcd members", () => {
  it.live("the leader killed and started again, they go on and have lost nothing", () =>
    Effect.gen(function*() {
      const { endpoints, leader } = yield* startEtcd({ members: 3 })
      yield* trial({
        client: client(endpoints),
        requestTimeout,
        fault: Effect.gen(function*() {
          const lost = yield* leader
          yield* lost!.kill
          yield* Effect.sleep("4 seconds")
          yield* lost!.restart
        })
      })
    }).pipe(Effect.scoped))

  it.live("the leader frozen for longer than a lease, they go on and have lost nothing", () =>
    Effect.gen(function*() {
      const { endpoints, leader } = yield* startEtcd({ members: 3 })
      const { outage } = yield* trial({
        client: client(endpoints),
        requestTimeout,
        fault: Effect.gen(function*() {
          const lost = yield* leader
          yield* lost!.freeze
          yield* Effect.sleep("11 seconds")
          yield* lost!.thaw
          yield* Effect.sleep("1 second")
        })
      })
      assert.isBelow(outage, 8_000, "others took over meanwhile")
    }).pipe(Effect.scoped))

  it.live("a follower lost for good costs nothing", () =>
    Effect.gen(function*() {
      const { endpoints, leader, members } = yield* startEtcd({ members: 3 })
      yield* trial({
        client: client(endpoints),
        requestTimeout,
        unseen: true,
        fault: Effect.gen(function*() {
          const leads = yield* leader
          yield* members.find((member) => member !== leads)!.kill
          yield* Effect.sleep("1 second")
        })
      })
    }).pipe(Effect.scoped))

  it.live("without a majority they say so in time, and with it again they go on", () =>
    Effect.gen(function*() {
      const { endpoints, leader, members } = yield* startEtcd({ members: 3 })
      yield* trial({
        client: client(endpoints),
        requestTimeout,
        fault: Effect.gen(function*() {
          const leads = yield* leader
          const others = members.filter((member) => member !== leads)
          for (const other of others) yield* other.kill
          yield* Effect.sleep("4 seconds")
          yield* Effect.forEach(others, (other) => other.restart, { concurrency: "unbounded" })
        })
      })
    }).pipe(Effect.scoped))

  it.live("members paused one after the other lose nothing", () =>
    Effect.gen(function*() {
      const { endpoints, members } = yield* startEtcd({ members: 3 })
      yield* trial({
        client: client(endpoints),
        requestTimeout,
        fault: Effect.forEach(members, (member) =>
          Effect.gen(function*() {
            yield* member.freeze
            yield* Effect.sleep("2500 millis")
            yield* member.thaw
            yield* Effect.sleep("500 millis")
          }))
      })
    }).pipe(Effect.scoped))
})

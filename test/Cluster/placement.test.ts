import { assert, describe, it } from "@effect/vitest"
import { Actor } from "effect-troupe/Actor"
import { Effect, Layer, Random } from "effect"
import { TestClock } from "effect/testing"
import { Rpc } from "effect/rpc"
import { Counter, CounterLive, drive, hosts, makeWorld } from "./world.ts"

const Other = Actor.make("Other", { protocol: [Rpc.make("Ping")] })
const OtherLive = Other.toLayer(Effect.succeed(Other.of({ Ping: () => Effect.void })))

const spec = (name: string, more: Record<string, unknown> = {}) => ({
  id: `id-${name}`,
  kind: "Counter",
  name,
  props: { from: 0 },
  relocatable: true,
  ...more
})

describe("Placement", () => {
  it.effect("looks only at members that carry the role and advertise the kind", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a", { roles: ["web"] }))
      const b = yield* drive(world.start("b", { roles: ["ledger"] }))
      const c = yield* drive(world.start("c", { roles: ["ledger"], kinds: OtherLive }))
      yield* TestClock.adjust("5 seconds")
      for (let index = 0; index < 6; index++) {
        yield* drive(c.system.spawnOn(Counter, `n-${index}`, { role: "ledger", props: { from: 0 } }))
        assert.deepStrictEqual(hosts([a, b, c], `n-${index}`), ["b"])
      }
      yield* drive(a.system.spawnOn(Other, "o"))
      assert.deepStrictEqual(hosts([a, b, c], "o"), ["c"])
    }))

  it.effect("a role travels with the name: a relocation keeps it", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a", { roles: ["web"] }))
      const b = yield* drive(world.start("b", { roles: ["ledger"] }))
      const c = yield* drive(world.start("c", { roles: ["ledger"] }))
      yield* TestClock.adjust("5 seconds")
      yield* drive(a.system.spawnOn(Counter, "n", { on: "b", role: "ledger", props: { from: 0 } }))
      yield* b.crash
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(hosts([a, c], "n"), ["c"])
    }))

  it.effect("without an eligible member a homeless name waits for one and says so once", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a", { roles: ["web"] }))
      const b = yield* drive(world.start("b", { roles: ["ledger"] }))
      yield* TestClock.adjust("5 seconds")
      yield* drive(a.system.spawnOn(Counter, "n", { role: "ledger", props: { from: 0 } }))
      yield* b.crash
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(hosts([a], "n"), [])
      assert.strictEqual(a.events.filter((event) => event._tag === "RelocationFailed").length, 1)
      const waits = yield* drive(Effect.flip(a.placement.lookup("Counter", "n", {})))
      assert.strictEqual(waits._tag, "DirectoryRebuilding")
      const c = yield* drive(world.start("c", { roles: ["ledger"] }))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(hosts([a, c], "n"), ["c"])
      const completed = a.events.filter((event) => event._tag === "RelocationCompleted")
      assert.deepInclude(completed[0], { actors: 1, failed: 0 })
    }))

  it.effect("a member named in `on` that contradicts the role is NoEligibleMember at once", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a", { roles: ["web"] }))
      yield* TestClock.adjust("5 seconds")
      const refused = yield* Effect.flip(a.system.spawnOn(Counter, "n", { on: "a", role: "db", props: { from: 0 } }))
      assert.strictEqual(refused._tag, "NoEligibleMember")
    }))

  it.effect("a kind that nobody registers within the deadline is KindNotRegistered; a role that nobody has is not", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a"))
      yield* TestClock.adjust("5 seconds")
      const unknown = yield* drive(Effect.flip(a.system.spawnOn(Other, "o")))
      assert.deepInclude(unknown, { _tag: "KindNotRegistered", kind: "Other" })
      const noRole = yield* drive(Effect.flip(a.system.spawnOn(Counter, "n", { role: "db", props: { from: 0 } })))
      assert.strictEqual(noRole._tag, "NoEligibleMember")
    }))

  it.effect("a kind that is registered within the deadline is placed", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      const spawned = yield* Effect.forkChild(a!.system.spawnOn(Other, "o"), { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      yield* drive(world.start("c", { kinds: Layer.merge(OtherLive, CounterLive) }))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(spawned.pollUnsafe()?._tag, "Success")
      assert.deepStrictEqual(hosts([a!, b!], "o"), [])
    }))

  it.effect("round-robin spreads evenly, least-load follows load, local stays", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const members = yield* world.startAll(["a", "b", "c"])
      const [a] = members
      const countOf = (prefix: string, total: number) =>
        members.map((member) =>
          Array.from({ length: total }, (_, index) => `${prefix}-${index}`).filter((name) =>
            member.host.find(name) !== undefined
          ).length
        )
      for (let index = 0; index < 9; index++) {
        yield* drive(a!.placement.spawn(spec(`rr-${index}`), { strategy: "roundRobin" }))
        yield* drive(a!.placement.spawn(spec(`l-${index}`), { strategy: "local" }))
      }
      assert.deepStrictEqual(countOf("rr", 9), [3, 3, 3])
      assert.deepStrictEqual(countOf("l", 9), [9, 0, 0])
      for (let index = 0; index < 12; index++) {
        yield* drive(a!.placement.spawn(spec(`ll-${index}`), { strategy: "leastLoad" }))
      }
      for (let index = 0; index < 30; index++) {
        yield* drive(a!.placement.spawn(spec(`r-${index}`), { strategy: "random" }))
      }
      const byLoad = countOf("ll", 12)
      // a carries nine more than the others: of two members it is never the less loaded one
      assert.isBelow(byLoad[0]!, 4)
      const random = countOf("r", 30)
      assert.strictEqual(random.reduce((sum, n) => sum + n, 0), 30)
      assert.isTrue(random.every((n) => n > 0))
    }).pipe(Random.withSeed("placement")))

  it.effect("a name of another kind is KindMismatch when looked for and NameTaken when spawned", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const kinds = Layer.merge(OtherLive, CounterLive)
      const [a, b] = yield* world.startAll(["a", "b"], { kinds })
      yield* drive(a!.system.spawnOn(Counter, "n", { props: { from: 0 } }))
      const mismatch = yield* drive(Effect.flip(b!.placement.lookup("Other", "n", {})))
      assert.deepInclude(mismatch, { _tag: "KindMismatch", expected: "Other", actual: "Counter" })
      const taken = yield* drive(Effect.flip(b!.system.spawnOn(Other, "n")))
      assert.strictEqual(taken._tag, "NameTaken")
    }))

  it.effect("another datacenter is not this ring's: RecordNotFound names it", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a] = yield* world.startAll(["a"])
      const refused = yield* Effect.flip(
        a!.system.spawnOn(Counter, "n", { dataCenter: "elsewhere", props: { from: 0 } })
      )
      assert.deepInclude(refused, { _tag: "RecordNotFound", dataCenter: "elsewhere" })
    }))

  it.effect("a behaviour that does not start fails the spawn, and the name is free", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      let fails = true
      const kinds = Other.toLayer(
        Effect.suspend(() => fails ? Effect.die("no database") : Effect.succeed(Other.of({ Ping: () => Effect.void })))
      )
      const members = yield* world.startAll(["a", "b"], { kinds })
      const failed = yield* drive(Effect.flip(members[0]!.system.spawnOn(Other, "o")))
      assert.strictEqual(failed._tag, "StartFailed")
      fails = false
      yield* drive(members[1]!.system.spawnOn(Other, "o"))
      assert.strictEqual(hosts(members, "o").length, 1)
    }))

  it.effect("an actor that fails for good frees its name", () =>
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 0 } }))
      const running = b!.host.find("n")!
      yield* drive(b!.host.stop("n", { placement: running.address.placement, reason: "Failed" }))
      yield* TestClock.adjust("1 second")
      const gone = yield* drive(Effect.flip(a!.placement.lookup("Counter", "n", {})))
      assert.strictEqual(gone._tag, "ActorNotFound")
    }))
})

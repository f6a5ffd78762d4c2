// Deaths that need no lease to lapse: which ones are certain, which only look so, and who may act on them.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Cluster } from "effect-troupe/Cluster"
import { Simulation } from "effect-troupe/testing"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Account, AccountLive } from "../../examples/usage/account.ts"
import { nodeKey } from "../../src/Actor/Address.ts"
import { ActorHost } from "../../src/Actor/ActorHost.ts"
import { Lease } from "../../src/ControlPlane/index.ts"
import * as Refusals from "../../src/Cluster/internal/refusals.ts"
import { Counter, drive, eventsOf, hosts, makeWorld, type Member } from "./world.ts"

const lease = 10_000

/** Whole nodes on a simulated network; each on a machine of its own, or on as many as are given. */
const nodes = Effect.fnUntraced(function*(
  count: number,
  machines?: number,
  cluster: Partial<Simulation.Options["cluster"]> = {}
) {
  const world = yield* Simulation.make({
    seed: 5,
    kinds: AccountLive,
    dataCenters: { dc: { nodes: count, machines } },
    cluster: { memberLease: lease, ...cluster }
  })
  yield* world.awaitReady
  return { world, all: world.nodes, a: world.nodes[0]!, b: world.nodes[1]!, c: world.nodes[2]! }
})

const isMember = (seenBy: Simulation.SimulatedNode, key: string) =>
  Effect.map(seenBy.system.members, (members) => members.some((member) => nodeKey(member.node) === key))

/** Virtual milliseconds until the member has left that node's view, and until the name runs there; `limit` where neither. */
const gone = Effect.fnUntraced(function*(
  seenBy: Simulation.SimulatedNode,
  key: string,
  limit: number,
  runs: () => boolean = () => true
) {
  let at = 0
  while (at < limit && ((yield* isMember(seenBy, key)) || !runs())) {
    yield* TestClock.adjust("100 millis")
    at += 100
  }
  return at
})
const runsOn = (name: string, ...candidates: ReadonlyArray<Simulation.SimulatedNode>) =>
  candidates.some((node) => node.isUp && Context.get(node.context, ActorHost).find(name) !== undefined)

describe("a port that refuses on the same host", () => {
  it.effect("closes a killed member within about a heartbeat, and its names run elsewhere", () =>
    Effect.gen(function*() {
      const { a, b, c, world } = yield* nodes(3, 1)
      yield* world.run(a.system.spawnOn(Account, "n", { on: b.id, props: { opening: 1 } }))
      const key = nodeKey(b.address)
      yield* b.crash
      assert.isAtMost(yield* gone(a, key, lease, () => runsOn("n", a, c)), 2_000)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("closes the earlier start of a member that was restarted at its port, as soon as it is back", () =>
    Effect.gen(function*() {
      const { a, b, c, world } = yield* nodes(3)
      yield* world.run(a.system.spawnOn(Account, "n", { on: b.id, props: { opening: 1 } }))
      const before = b.address
      yield* b.crash
      yield* b.restart
      const after = yield* gone(a, nodeKey(before), lease, () => runsOn("n", a, b, c))
      assert.isAtMost(after, 2_000)
      assert.strictEqual(b.address.port, before.port)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("is noticed by whoever is on that host, however many members there are", () =>
    Effect.gen(function*() {
      // each has one neighbour on its machine, six further in the order of age
      const { a, all, world } = yield* nodes(12, 6)
      const lost = all[7]!
      const key = nodeKey(lost.address)
      yield* lost.crash
      assert.isAtMost(yield* gone(a, key, lease), 2_500)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("is no death where a firewall of that host answers for a living member", () =>
    Effect.gen(function*() {
      const { a, all, b, c, world } = yield* nodes(3, 1)
      yield* world.run(a.system.spawnOn(Account, "n", { on: b.id, props: { opening: 1 } }))
      yield* world.reject(a.id, b.id)
      yield* world.reject(c.id, b.id)
      yield* TestClock.adjust("1 minute")
      for (const node of all) assert.strictEqual((yield* node.system.members).length, 3)
      assert.isTrue(runsOn("n", b))
      yield* world.heal
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(
        yield* world.run(Effect.flatMap(a.system.actorOf(Account, "n"), (account) => account.ask.Balance())),
        1
      )
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("is silent under a black hole: a member that is cut off waits for its lease", () =>
    Effect.gen(function*() {
      const { a, b, c, world } = yield* nodes(3, 1)
      const key = nodeKey(b.address)
      yield* world.partition([b.id], [a.id, c.id, "store:dc"])
      const after = yield* gone(a, key, 3 * lease)
      // a renewal may be a quarter of the lease old
      assert.isAtLeast(after, 0.66 * lease)
      assert.isBelow(after, 1.5 * lease)
      assert.deepStrictEqual(world.violations, [])
    }))
})

describe("a port that refuses elsewhere", () => {
  it.effect("is suspicion: the lease decides", () =>
    Effect.gen(function*() {
      const { a, b, world } = yield* nodes(3)
      const key = nodeKey(b.address)
      yield* b.crash
      const after = yield* gone(a, key, 3 * lease)
      assert.isAtLeast(after, 0.66 * lease)
      assert.isBelow(after, 1.5 * lease)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("is death where the settings say so, once a renewal would have denied it", () =>
    Effect.gen(function*() {
      const { a, b, c, world } = yield* nodes(3, undefined, { refusalIsDeath: true })
      yield* world.run(a.system.spawnOn(Account, "n", { on: b.id, props: { opening: 1 } }))
      const key = nodeKey(b.address)
      yield* b.crash
      const after = yield* gone(a, key, lease, () => runsOn("n", a, c))
      assert.isAtLeast(after, Refusals.quietShare * lease)
      assert.isAtMost(after, 0.65 * lease)
      assert.deepStrictEqual(world.violations, [])
    }))

  it.effect("is denied by renewals of a living member, even where the settings say so", () =>
    Effect.gen(function*() {
      const { a, all, b, c, world } = yield* nodes(3, undefined, { refusalIsDeath: true })
      yield* world.reject(a.id, b.id)
      yield* world.reject(c.id, b.id)
      yield* TestClock.adjust("2 minutes")
      for (const node of all) assert.strictEqual((yield* node.system.members).length, 3)
      assert.deepStrictEqual(world.violations, [])
    }))
})

describe("refusals, judged one by one", () => {
  const settings = { refusalIsDeath: true, lease }
  const after = (probes: ReadonlyArray<readonly [number, "Vacant" | "Refused" | "Open"]>, using = settings) => {
    let seen: Refusals.Refused | undefined
    let verdict: Refusals.Verdict = "Perhaps"
    for (const [at, probe] of probes) [seen, verdict] = Refusals.judge(seen, probe, at, using)
    return verdict
  }
  it("one vacant port on the same host is enough, and nothing else there is anything", () => {
    assert.strictEqual(after([[0, "Vacant"]], { refusalIsDeath: false, lease }), "Dead")
    assert.strictEqual(after([[0, "Open"], [5_000, "Open"], [10_000, "Open"]]), "Perhaps")
  })
  it("elsewhere it takes several in a row, over more than a renewal's time, and the setting", () => {
    assert.strictEqual(after([[0, "Refused"], [2_000, "Refused"], [4_000, "Refused"]]), "DeadUnlessRenewed")
    assert.strictEqual(after([[0, "Refused"], [4_000, "Refused"]]), "Perhaps")
    assert.strictEqual(after([[0, "Refused"], [10, "Refused"], [20, "Refused"], [30, "Refused"]]), "Perhaps")
    assert.strictEqual(after([[0, "Refused"], [2_000, "Open"], [4_000, "Refused"], [6_000, "Refused"]]), "Perhaps")
    assert.strictEqual(
      after([[0, "Refused"], [2_000, "Refused"], [4_000, "Refused"]], { refusalIsDeath: false, lease }),
      "Perhaps"
    )
  })
  it("a port is the same only in one stack, at one address", () => {
    const port = { stack: "s", host: "127.0.0.1", port: 7000 }
    assert.isTrue(Refusals.samePort(port, { ...port }))
    for (const other of [{ stack: "t" }, { host: "10.0.0.1" }, { port: 7001 }]) {
      assert.isFalse(Refusals.samePort(port, { ...port, ...other }))
    }
    assert.isFalse(Refusals.sameStack(undefined, undefined))
    assert.isFalse(Refusals.samePort(undefined, port))
  })
})

type World = Effect.Success<ReturnType<typeof makeWorld>>
const leaseKeyOf = (world: World, member: Member) =>
  world.backend.entries().find(({ key }) => key.includes("lease") && key.endsWith(nodeKey(member.address)))!.key
/** what is written in the lease of that member */
const leaseOf = (world: World, member: Member) => {
  const key = leaseKeyOf(world, member)
  return JSON.parse(world.backend.entries().find((entry) => entry.key === key)!.value) as {
    readonly state: string
    readonly closed?: { readonly by: string; readonly reason: string }
  }
}
/** What a crashed member still tries, in vain, ends within a minute. */
const toTheEnd = <A, E>(name: string, body: Effect.Effect<A, E, Scope.Scope>) =>
  it.effect(name, () => Effect.ensuring(body, TestClock.adjust("1 minute")))

describe("who closes for certain", () => {
  toTheEnd(
    "a member whose own lease is closed closes nobody, and learns of its own end when it tries",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const a = yield* drive(world.start("a", { machine: "m" }))
      const b = yield* drive(world.start("b", { machine: "m" }))
      // elsewhere: it cannot be certain of b's death, and reaches nobody
      const c = yield* drive(world.start("c"))
      yield* TestClock.adjust("10 seconds")
      yield* world.cut(a, c)
      yield* world.cut(b, c)
      yield* world.cutStore(c)
      const observer = yield* Lease.observe(world.backend.client(), "")
      assert.strictEqual(yield* observer.close(leaseKeyOf(world, a), { certain: true }), "Closed")
      assert.strictEqual(eventsOf(a, "MemberFenced").length, 0)
      yield* b.crash
      yield* TestClock.adjust("4 seconds")
      assert.isTrue(world.probes.some(([from, to]) => from === nodeKey(a.address) && to === nodeKey(b.address)))
      assert.strictEqual(leaseOf(world, b).state, "Held")
      assert.strictEqual(eventsOf(a, "MemberFenced").length, 1)
    })
  )

  toTheEnd(
    "a member that cannot renew its own lease waits until it can",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"], { machine: "m" })
      yield* world.cutStore(a!, c!)
      yield* b!.crash
      yield* TestClock.adjust("5 seconds")
      assert.isAbove(world.probes.length, 2)
      assert.strictEqual(leaseOf(world, b!).state, "Held")
      yield* world.heal
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(leaseOf(world, b!).state, "Closed")
      assert.include([a!, c!].map((member) => nodeKey(member.address)), leaseOf(world, b!).closed?.by)
      assert.match(leaseOf(world, b!).closed!.reason, /nobody listens/)
    })
  )

  toTheEnd(
    "a paused member, whose port still accepts, is never closed before its lease has lapsed",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"], { machine: "m" })
      for (let round = 0; round < 6; round++) {
        yield* world.pause(b!)
        yield* TestClock.adjust("6 seconds")
        yield* world.resume(b!)
        yield* TestClock.adjust("5 seconds")
      }
      assert.isAbove(world.probes.length, 10)
      assert.strictEqual(leaseOf(world, b!).state, "Held")
      for (const member of [a!, b!, c!]) assert.strictEqual(eventsOf(member, "MemberLeft").length, 0)
    })
  )
})

describe("a member whose Layer has closed", () => {
  toTheEnd(
    "acts no more, though it could not say goodbye: its port refuses from then on",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"], { machine: "m", shutdownTimeout: "1 second" })
      assert.isTrue(b!.cluster.mayAct())
      yield* world.cutStore(b!)
      yield* drive(b!.leave)
      assert.strictEqual(leaseOf(world, b!).state, "Held")
      assert.isFalse(b!.cluster.mayAct())
      yield* TestClock.adjust("3 seconds")
      assert.match(leaseOf(world, b!).closed!.reason, /nobody listens/)
      assert.strictEqual((yield* a!.cluster.view).members.length, 1)
    })
  )
})

const podDeleted = (uid: string) =>
  Effect.gen(function*() {
    const cluster = yield* Cluster.Cluster
    const { members } = yield* cluster.view
    const gone = members.filter((member) => member.node.id === uid)
    yield* Effect.forEach(gone, ({ node }) => cluster.down(node, { by: "pod-watcher", reason: "its pod was deleted" }))
  })

describe("the word of an operator or the platform", () => {
  const word = { by: "pod-watcher", reason: "the pod was deleted" }

  toTheEnd(
    "closes at once, is kept in the closed lease, and moves the names; said twice it changes nothing",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 1 } }))
      yield* b!.crash
      yield* drive(a!.cluster.down(b!.address, word))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* a!.cluster.view).members.map((member) => member.node.id), ["a", "c"])
      assert.strictEqual(hosts([a!, c!], "n").length, 1)
      assert.deepStrictEqual(leaseOf(world, b!).closed, word)
      yield* drive(a!.cluster.down(b!.address, word))
      yield* drive(c!.cluster.down(b!.address, { by: "another", reason: "another" }))
      assert.deepStrictEqual(leaseOf(world, b!).closed, word)
    })
  )

  toTheEnd(
    "is given by a hook of the platform as the page shows it",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      yield* b!.crash
      yield* drive(Effect.provideService(podDeleted("b"), Cluster.Cluster, a!.cluster))
      assert.deepStrictEqual((yield* a!.cluster.view).members.map((member) => member.node.id), ["a", "c"])
      assert.strictEqual(leaseOf(world, b!).closed?.by, "pod-watcher")
      assert.strictEqual(leaseOf(world, c!).state, "Held")
      const page = Fs.readFileSync(Path.join(import.meta.dirname, "../../docs/cluster.md"), "utf8")
      const shown = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1]!)
      assert.strictEqual(shown.length, 1)
      assert.include(Fs.readFileSync(import.meta.filename, "utf8"), shown[0]!)
    })
  )

  toTheEnd(
    "stops one that lives after all before anybody acts in its place",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      yield* drive(a!.system.spawnOn(Counter, "n", { on: "b", props: { from: 1 } }))
      // it cannot hear of it by the store, and words between members take their time
      yield* world.cutStore(b!)
      world.net.before = () => Effect.sleep("100 millis")
      const down = yield* Effect.forkChild(a!.cluster.down(b!.address, word), { startImmediately: true })
      let both = false
      for (let i = 0; i < 500; i++) {
        yield* TestClock.adjust("10 millis")
        both ||= b!.cluster.mayAct() && leaseOf(world, b!).state === "Closed"
      }
      assert.strictEqual(down.pollUnsafe()?._tag, "Success")
      assert.isFalse(both)
      assert.strictEqual(eventsOf(b!, "MemberFenced").length, 1)
      assert.strictEqual(hosts([a!, c!], "n").length, 1)
      assert.deepStrictEqual(hosts([b!], "n"), [])
    })
  )

  toTheEnd(
    "is refused of a stranger, of an earlier start, and of the member that is asked",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b] = yield* world.startAll(["a", "b"])
      const stranger = yield* drive(Effect.flip(a!.cluster.down({ id: "x", incarnation: "0" }, word)))
      assert.strictEqual(stranger._tag, "DownRefused")
      const earlier = yield* drive(Effect.flip(a!.cluster.down({ id: "b", incarnation: "0" }, word)))
      assert.strictEqual(earlier._tag, "DownRefused")
      const itself = yield* drive(Effect.flip(a!.cluster.down(a!.address, word)))
      assert.strictEqual(itself._tag, "DownRefused")
      assert.strictEqual((yield* b!.cluster.view).members.length, 2)
    })
  )

  toTheEnd(
    "fails typed while the store is away, and from a member that is closed",
    Effect.gen(function*() {
      const world = yield* makeWorld()
      const [a, b, c] = yield* world.startAll(["a", "b", "c"])
      yield* b!.crash
      yield* world.cutStore(a!)
      const refused = yield* drive(Effect.flip(a!.cluster.down(b!.address, word)))
      assert.include(["StoreUnavailable", "OutcomeUnknown"], refused._tag)
      yield* world.heal
      yield* drive(c!.cluster.down(a!.address, word))
      const fenced = yield* drive(Effect.flip(a!.cluster.down(c!.address, word)))
      assert.strictEqual(fenced._tag, "Fenced")
    })
  )
})

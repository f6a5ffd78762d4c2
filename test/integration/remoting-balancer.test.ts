// Clusters behind a load balancer, over real sockets: clients and other datacenters know one address, which leads to any node.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Redacted, Scope } from "effect"
import { ActorSystem, Client, ControlPlane, ControlStore, Layers, Remoting, Transport } from "effect-troupe"
import { Account, AccountLive } from "../../examples/usage/account.ts"
import { ClusterRpcs } from "../../src/Cluster/internal/ClusterRpcs.ts"
import type * as DataCenterSettings from "../../src/DataCenter/DataCenterSettings.ts"
import { ClientRpcs } from "../../src/Remoting/ClientRpcs.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import { startProxy } from "./support/proxy.ts"

const secret = Redacted.make("s")
const brisk = { pingInterval: "100 millis", pingTimeout: "500 millis", reconnectDelay: "10 millis", secret } as const

/** A port that is free now. */
const freePort = Effect.scoped(
  Effect.map(Layer.build(Transport.layerTcp({})), (context) => Context.get(context, Transport.Transport).address.port)
)

const systemOf = (context: Context.Context<ActorSystem.ActorSystem>) => Context.get(context, ActorSystem.ActorSystem)

const until = (condition: Effect.Effect<boolean>, what: string): Effect.Effect<void> =>
  Effect.sleep("20 millis").pipe(
    Effect.andThen(condition),
    Effect.repeat({ until: (done) => done }),
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(new Error(`never happened: ${what}`)) }),
    Effect.asVoid
  )

/** Three nodes of one cluster; each in a scope of its own. */
const cluster = Effect.fnUntraced(function*(remotingOf: (index: number) => RemotingOptions) {
  const store = yield* ControlStore.makeMemory()
  const nodes = yield* Effect.forEach([0, 1, 2], (index) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
      const options = { system: "bank", id: `node-${index}`, remoting: { ...brisk, ...remotingOf(index) } }
      const context = yield* Layer.buildWithScope(
        AccountLive.pipe(
          Layer.provideMerge(Layers.cluster({ ...options, cluster: { minimumMembers: 1, partitionCount: 16 } })),
          Layer.provide(Layer.succeed(ControlStore.ControlStore)(store))
        ),
        scope
      )
      return { system: systemOf(context), stop: Scope.close(scope, Exit.void) }
    }))
  yield* until(
    Effect.map(
      Effect.forEach(nodes, ({ system }) => system.members),
      (views) => views.every((members) => members.filter(({ status }) => status === "Up").length === 3)
    ),
    "three members"
  )
  return nodes
})

/** A node of a datacenter, in a scope of its own. */
const startIn = (
  plane: Context.Context<ControlPlane.ControlPlane>,
  name: string,
  store: ControlStore.ControlStoreService,
  options: { readonly id: string } & Omit<DataCenterSettings.DataCenterOptions, "name">
) =>
  Effect.gen(function*() {
    const { id, ...dataCenter } = options
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const context = yield* Layer.buildWithScope(
      AccountLive.pipe(
        Layer.provideMerge(Layers.multiDataCenter({
          system: "bank",
          id,
          remoting: brisk,
          cluster: { partitionCount: 16 },
          dataCenter: { name, ...dataCenter }
        })),
        Layer.provide(Layer.succeed(ControlStore.ControlStore)(store)),
        Layer.provide(Layer.succeedContext(plane))
      ),
      scope
    )
    return { context, system: systemOf(context), stop: Scope.close(scope, Exit.void) }
  })

describe("a cluster behind a load balancer", () => {
  it.live(
    "serves a client that knows and reaches nothing but the balancer, at whatever node each connection ends",
    () =>
      Effect.gen(function*() {
        const nodes = yield* cluster(() => ({}))
        const ports = nodes.map(({ system }) => system.node.port)
        const balancer = yield* startProxy(ports)
        const client = yield* Layer.build(Client.layer({
          system: "bank",
          endpoints: [`${balancer.host}:${balancer.port}`],
          routing: "relay",
          ...brisk
        }))
        const system = systemOf(client)
        // one account on each node, spoken to from outside
        const accounts = yield* Effect.forEach(
          [0, 1, 2],
          (index) => system.spawnOn(Account, `acct-${index}`, { on: `node-${index}`, props: { opening: index } })
        )
        for (const [index, account] of accounts.entries()) {
          assert.strictEqual(account.address.node.id, `node-${index}`)
          yield* account.tell.Deposit({ cents: 10 })
          assert.strictEqual(yield* account.ask.Balance(), 10 + index)
        }
        const before = balancer.taken.length
        assert.isTrue(new Set(balancer.taken).size > 1, "several nodes have carried")
        // every connection is lost; the next ones may end elsewhere
        for (let round = 0; round < 3; round++) {
          balancer.cut()
          for (const [index, account] of accounts.entries()) {
            yield* until(
              Effect.map(
                Effect.exit(account.ask.Balance({ timeout: "1 second" })),
                (exit) => Exit.isSuccess(exit) && exit.value === 10 + index
              ),
              `account ${index} after cut ${round}`
            )
            const found = yield* system.actorOf(Account, `acct-${index}`)
            assert.strictEqual(yield* found.ask.Balance(), 10 + index)
          }
        }
        assert.isAbove(balancer.taken.length, before)
        yield* system.stop(accounts[1]!)
        assert.isFalse(yield* system.actorExists(Account, "acct-1"))
        // a node goes, and the balancer knows: what lives elsewhere is there for the client all the same
        balancer.spread(ports.slice(1))
        yield* nodes[0]!.stop
        yield* until(
          Effect.map(Effect.exit(accounts[2]!.ask.Balance({ timeout: "1 second" })), Exit.isSuccess),
          "with two nodes"
        )
        yield* until(
          Effect.map(
            Effect.exit(system.actorOf(Account, "acct-0")),
            (exit) => Exit.isSuccess(exit) && exit.value.address.node.id !== "node-0"
          ),
          "the account of the node that left has moved"
        )
        assert.strictEqual(yield* accounts[0]!.ask.Balance(), 0, "begun anew, and found again by the old reference")
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "forms where all of its nodes advertise the balancer, and serves a client that dials as it is told",
    () =>
      Effect.gen(function*() {
        const balancer = yield* startProxy()
        const ports = yield* Effect.forEach([0, 1, 2], () => freePort)
        balancer.spread(ports)
        const advertised = { advertisedHost: balancer.host, advertisedPort: balancer.port }
        const nodes = yield* cluster((index) => ({ port: ports[index]!, ...advertised }))
        for (const { system } of nodes) assert.strictEqual(system.node.port, balancer.port)
        const accounts = yield* Effect.forEach([0, 1, 2], (index) =>
          nodes[(index + 1) % 3]!.system.spawnOn(Account, `acct-${index}`, {
            on: `node-${index}`,
            props: { opening: index }
          }))
        for (const [index, account] of accounts.entries()) {
          assert.strictEqual(account.address.node.id, `node-${index}`)
          assert.strictEqual(yield* account.ask.Balance(), index)
        }
        const client = yield* Layer.build(
          Remoting.client({ system: "bank", endpoints: [`${balancer.host}:${balancer.port}`], ...brisk })
        )
        for (const index of [0, 1, 2]) {
          const account = yield* systemOf(client).actorOf(Account, `acct-${index}`)
          yield* account.tell.Deposit({ cents: 100 })
          assert.strictEqual(yield* account.ask.Balance(), 100 + index)
        }
      }).pipe(Effect.scoped),
    60_000
  )
})

describe("a datacenter behind a load balancer", () => {
  it.live(
    "is one endpoint in its record: spawns, lookups and messages get in by it, and by the next node when one is gone",
    () =>
      Effect.gen(function*() {
        const plane = yield* Layer.build(ControlPlane.layerMemory)
        const balancer = yield* startProxy()
        const stores = [yield* ControlStore.makeMemory(), yield* ControlStore.makeMemory()] as const
        const us = yield* startIn(plane, "us", stores[0], { id: "us-0" })
        const endpoints = [`${balancer.host}:${balancer.port}`]
        const eu = [
          yield* startIn(plane, "eu", stores[1], { id: "eu-0", endpoints }),
          yield* startIn(plane, "eu", stores[1], { id: "eu-1", endpoints })
        ] as const
        const ports = eu.map(({ system }) => system.node.port)
        balancer.spread(ports)
        yield* us.system.awaitDataCenter("eu")
        for (const index of [0, 1]) {
          const account = yield* us.system.spawnOn(Account, `acct-${index}`, {
            dataCenter: "eu",
            on: `eu-${index}`,
            props: { opening: index }
          })
          assert.strictEqual(yield* account.ask.Balance(), index)
        }
        assert.isAtLeast(balancer.taken.length, 1, "by the balancer")
        // the node that the connection led to is cut off and gone; the first the balancer tries is down as well
        balancer.cut()
        yield* eu[0].stop
        balancer.spread([1, ports[1]!])
        yield* until(
          Effect.map(
            Effect.exit(us.system.spawnOn(Account, "acct-2", { dataCenter: "eu", props: { opening: 2 } })),
            Exit.isSuccess
          ),
          "a spawn by the node that is left"
        )
        const found = yield* us.system.actorOf(Account, "acct-2")
        assert.strictEqual(found.address.node.id, "eu-1")
        assert.strictEqual(yield* found.ask.Balance(), 2)
        yield* us.system.stop(found)
        assert.isFalse(yield* us.system.actorExists(Account, "acct-2"))
      }).pipe(Effect.scoped),
    60_000
  )
})

describe("kinds that another datacenter may spawn", () => {
  it.live("are held to by the node that is asked, and cannot be passed by the calls of members or clients", () =>
    Effect.gen(function*() {
      const plane = yield* Layer.build(ControlPlane.layerMemory)
      const us = yield* startIn(plane, "us", yield* ControlStore.makeMemory(), { id: "us-0" })
      const eu = yield* startIn(plane, "eu", yield* ControlStore.makeMemory(), {
        id: "eu-0",
        spawnableKinds: ["Ledger"]
      })
      yield* us.system.awaitDataCenter("eu")
      yield* eu.system.awaitDataCenter("us")
      const target = { dataCenter: "eu", props: { opening: 0 } }
      const refused = yield* Effect.flip(us.system.spawnOn(Account, "acct-1", target))
      if (refused._tag !== "KindNotAllowed") return assert.fail(refused._tag)
      assert.deepInclude(refused, { kind: "Account", refusedBy: "eu-0", dataCenter: "eu" })
      assert.isFalse(yield* eu.system.actorExists(Account, "acct-1"))
      // its own may, and so may eu in us
      yield* eu.system.spawnOn(Account, "acct-1", target)
      yield* eu.system.spawnOn(Account, "acct-2", { ...target, dataCenter: "us" })
      // and there is no way around
      const spec = { id: "s", kind: "Account", name: "acct-3", props: { opening: 0 }, relocatable: true }
      const { call } = Context.get(us.context, Remoting.Remoting)
      const start = call(eu.system.node, ClusterRpcs, "Start", { spec, partition: 0, epoch: 1_000, placement: 1_000 })
      const spawn = call(eu.system.node, ClientRpcs, "Client.Spawn", { spec, target: { strategy: "local" } })
      for (const error of [yield* Effect.flip(start), yield* Effect.flip(spawn)]) {
        if (error._tag !== "NodeUnreachable") return assert.fail(error._tag)
        assert.strictEqual(error.outcome, "NotSent")
        assert.match(error.reason, /only (members|clients) are served/)
      }
      assert.isFalse(yield* eu.system.actorExists(Account, "acct-3"))
    }).pipe(Effect.scoped))
})

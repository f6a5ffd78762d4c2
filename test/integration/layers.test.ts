// Deployments: each is one Layer, refuses what contradicts it by name before anything starts, and gives its resources back.
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Context, Effect, Layer, Logger, Redacted, References, Schedule } from "effect"
import { ActorSystem, Client, ControlPlane, ControlStore, Jobs, Layers, Topic } from "effect-troupe"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Account, AccountLive } from "../../examples/usage/account.ts"
import { type Certified, certify } from "./certificates.ts"

const settingOf = (error: unknown): string =>
  typeof error === "object" && error !== null && "setting" in error ? String(error.setting) : String(error)

describe("Layers.singleNode", () => {
  it.effect("runs actors in this process, and refuses what only others could do", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const account = yield* system.spawn(Account, "acct-1", { props: { opening: 3 } })
      assert.strictEqual(yield* account.ask.Balance(), 3)
      const elsewhere = yield* Effect.flip(
        system.spawnOn(Account, "acct-2", { dataCenter: "mars-1", props: { opening: 0 } })
      )
      assert.include(["RecordNotFound", "DataCenterNotReady"], elsewhere._tag)
      const role = yield* Effect.flip(system.spawnOn(Account, "acct-2", { role: "ledger", props: { opening: 0 } }))
      assert.strictEqual(role._tag, "NoEligibleMember")
      assert.strictEqual((yield* system.members).length, 1)
      assert.isTrue(yield* system.isLeader)
    }).pipe(Effect.provide(AccountLive.pipe(Layer.provideMerge(Layers.singleNode({ system: "bank" }))))))
})

describe("two nodes in one program", () => {
  const systemOf = (context: Context.Context<ActorSystem.ActorSystem>) => Context.get(context, ActorSystem.ActorSystem)

  it.effect("are two, also where one is built inside the other", () =>
    Effect.gen(function*() {
      const outer = yield* ActorSystem.ActorSystem
      const inner = systemOf(yield* Layer.build(Layers.singleNode({ system: "b" })))
      assert.notStrictEqual(inner.node.id, outer.node.id)
    }).pipe(Effect.provide(Layers.singleNode({ system: "a" })), Effect.scoped))

  it.effect("are one where they are one Layer", () =>
    Effect.gen(function*() {
      const node = Layers.singleNode({ system: "a" })
      const ids: Array<string> = []
      const look = () =>
        Layer.effectDiscard(Effect.map(ActorSystem.ActorSystem, (system) => void ids.push(system.node.id))).pipe(
          Layer.provide(node)
        )
      yield* Layer.build(Layer.mergeAll(look(), look(), node))
      assert.strictEqual(ids.length, 2)
      assert.strictEqual(ids[0], ids[1])
    }).pipe(Effect.scoped))

  it.live("are two members of one cluster", () =>
    Effect.gen(function*() {
      const one = yield* ActorSystem.ActorSystem
      const other = systemOf(yield* Layer.build(Layers.cluster({ system: "bank", id: "other" })))
      assert.notStrictEqual(one.node.port, other.node.port)
      const members = yield* one.members.pipe(
        Effect.repeat({
          schedule: Schedule.spaced("20 millis"),
          until: (members) => members.length === 2
        })
      )
      assert.deepStrictEqual(members.map(({ node }) => node.id).sort(), ["one", "other"])
    }).pipe(
      Effect.provide(Layer.provideMerge(Layers.cluster({ system: "bank", id: "one" }), ControlStore.layerMemory)),
      Effect.scoped
    ))
})

describe("Layers.cluster", () => {
  const node = (options: Layers.ClusterNodeOptions) =>
    AccountLive.pipe(Layer.provideMerge(Layers.cluster(options)), Layer.provide(ControlStore.layerMemory))

  it.live("is a cluster of one over a real socket, and closes what it opened", () =>
    Effect.gen(function*() {
      const address = yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* Layer.build(node({ system: "bank" }))
        return yield* Effect.provideContext(
          Effect.gen(function*() {
            const system = yield* ActorSystem.ActorSystem
            const account = yield* system.spawnOn(Account, "acct-1", { props: { opening: 4 } })
            assert.strictEqual(yield* account.ask.Balance(), 4)
            return system.node
          }),
          context
        )
      }))
      // the port is free again
      yield* Effect.scoped(Layer.build(node({ system: "bank", remoting: { port: address.port } })))
    }))

  it.live("names a setting that is out of range, unknown, or exposes a node without a secret", () =>
    Effect.gen(function*() {
      const refused = (options: Layers.ClusterNodeOptions) =>
        Effect.scoped(Layer.build(node(options))).pipe(Effect.flip, Effect.map(settingOf))
      assert.strictEqual(yield* refused({ system: "" }), "node.system")
      assert.strictEqual(yield* refused({ system: "bank", cluster: { partitionCount: 0 } }), "cluster.partitionCount")
      assert.strictEqual(yield* refused({ system: "bank", remoting: { host: "0.0.0.0" } }), "remoting.host")
      const misspelt = { minimumMember: 1 } as Layers.ClusterNodeOptions["cluster"]
      assert.strictEqual(yield* refused({ system: "bank", cluster: misspelt }), "cluster.minimumMember")
    }))
})

describe("the log of a node", () => {
  interface Line {
    readonly message: string
    readonly node: unknown
    readonly peer: unknown
  }
  /** Each node's lines for itself. */
  const logged = <A, E, R>(layer: Layer.Layer<A, E, R>) => {
    const lines: Array<Line> = []
    const logger = Logger.make(({ fiber, message }) => {
      const { node, peer } = fiber.getRef(References.CurrentLogAnnotations)
      lines.push({ message: String(message), node, peer })
    })
    return { lines, layer: Layer.provide(layer, Logger.layer([logger])) }
  }
  const started = (id: string) => ({ message: "node is up", node: id, peer: undefined })

  it.live("says who is up, in a cluster as among datacenters", () =>
    Effect.gen(function*() {
      const stores = Layer.merge(ControlStore.layerMemory, ControlPlane.layerMemory)
      const environment = ConfigProvider.layer(
        ConfigProvider.fromUnknown({ TROUPE_SYSTEM: "bank", TROUPE_NODE_ID: "n1", TROUPE_DATACENTER: "eu" })
      )
      const nodes: ReadonlyArray<Layer.Layer<ActorSystem.ActorSystem, unknown>> = [
        Layers.cluster({ system: "bank", id: "n1" }).pipe(Layer.provide(stores)),
        Layers.clusterConfig.pipe(Layer.provide([stores, environment])),
        Layers.multiDataCenter({ system: "bank", id: "n1", dataCenter: { name: "eu" } }).pipe(Layer.provide(stores)),
        Layers.multiDataCenterConfig.pipe(Layer.provide([stores, environment]))
      ]
      for (const node of nodes) {
        const { layer, lines } = logged(node)
        yield* Effect.scoped(Layer.build(layer))
        assert.deepStrictEqual(lines.filter(({ message }) => message === "node is up"), [started("n1")])
      }
    }))

  it.live("warns once, on both sides, of a member with another secret", () =>
    Effect.gen(function*() {
      const store = Layer.succeedContext(yield* Layer.build(ControlStore.layerMemory))
      const node = (id: string, secret: string, previousSecret?: string) =>
        logged(
          Layers.cluster({
            system: "bank",
            id,
            // they cannot hand over to each other
            cluster: { shutdownTimeout: "500 millis" },
            remoting: {
              secret: Redacted.make(secret),
              previousSecret: previousSecret === undefined ? undefined : Redacted.make(previousSecret)
            }
          }).pipe(Layer.provide(store))
        )
      // one that has both lets the last one in
      const [a, b, c] = [
        node("a", "first-secret"),
        node("b", "next-secret", "first-secret"),
        node("c", "next-secret")
      ]
      for (const { layer } of [a, b, c]) yield* Layer.build(layer)
      const warnings = (lines: ReadonlyArray<Line>) =>
        lines.filter(({ message }) => message === "a peer is refused: authentication failed")
      yield* Effect.suspend(() =>
        warnings(a.lines).length > 0 && warnings(c.lines).length > 0 ? Effect.void : Effect.fail("not told yet")
      ).pipe(Effect.retry(Schedule.max([Schedule.spaced("50 millis"), Schedule.during("20 seconds")])))
      yield* Effect.sleep("2 seconds")
      assert.deepStrictEqual([a, b, c].map(({ lines }) => warnings(lines).length), [1, 0, 1])
      for (const { lines } of [a, c]) assert.match(String(warnings(lines)[0]!.peer), /^127\.0\.0\.1:\d+$/)
      assert.notInclude(JSON.stringify([a.lines, b.lines, c.lines]), "-secret")
    }))
})

describe("Layers.multiDataCenterConfig", () => {
  const stores = Layer.merge(ControlStore.layerMemory, ControlPlane.layerMemory)
  const start = (environment: Record<string, string>) =>
    Effect.scoped(Effect.flatMap(
      Layer.build(AccountLive.pipe(Layer.provideMerge(Layers.multiDataCenterConfig), Layer.provide(stores))),
      (context) =>
        Effect.provideContext(
          Effect.gen(function*() {
            const system = yield* ActorSystem.ActorSystem
            yield* system.awaitDataCenter(system.node.dataCenter)
            return system.node
          }),
          context
        )
    )).pipe(Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(environment))))

  it.live("takes everything from the environment", () =>
    Effect.gen(function*() {
      const node = yield* start({ TROUPE_SYSTEM: "bank", TROUPE_DATACENTER: "us-east-1", TROUPE_NODE_ID: "n1" })
      assert.strictEqual(node.dataCenter, "us-east-1")
      assert.strictEqual(node.id, "n1")
    }))

  it.live("names the variable that is missing or wrong", () =>
    Effect.gen(function*() {
      const refused = (environment: Record<string, string>) => Effect.map(Effect.flip(start(environment)), settingOf)
      assert.strictEqual(yield* refused({ TROUPE_DATACENTER: "us-east-1" }), "TROUPE_SYSTEM")
      assert.strictEqual(yield* refused({ TROUPE_SYSTEM: "bank" }), "TROUPE_DATACENTER")
      const base = { TROUPE_SYSTEM: "bank", TROUPE_DATACENTER: "us-east-1" }
      assert.strictEqual(yield* refused({ ...base, TROUPE_PORT: "http" }), "TROUPE_PORT")
      assert.strictEqual(yield* refused({ ...base, TROUPE_HEARTBEAT_INTERVAL: "soon" }), "TROUPE_HEARTBEAT_INTERVAL")
      assert.include(yield* refused({ ...base, TROUPE_HOST: "0.0.0.0" }), "host")
    }))
})

describe("a node of a cluster", () => {
  it.live("lets clients in that know the system's name, and has jobs and topics for its programs", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(
        AccountLive.pipe(
          Layer.provideMerge(Layers.cluster({ system: "bank" })),
          Layer.provide(ControlStore.layerMemory)
        )
      )
      assert.deepStrictEqual(yield* Context.get(context, Jobs.Jobs).list, [])
      assert.deepStrictEqual(yield* Context.get(context, Topic.Topics).stats, [])
      const { host, port } = Context.get(context, ActorSystem.ActorSystem).node
      const client = yield* Layer.build(Client.layer({ system: "bank", endpoints: [`${host}:${port}`] }))
      const system = Context.get(client, ActorSystem.ActorSystem)
      const account = yield* system.spawnOn(Account, "acct-1", { props: { opening: 8 } })
      assert.strictEqual(yield* account.ask.Withdraw({ cents: 3 }), 5)
    }))
})

describe("a node whose settings contradict its cluster's", () => {
  it.live("is refused by name", () =>
    Effect.gen(function*() {
      const store = yield* ControlStore.makeMemory()
      const stores = Layer.succeed(ControlStore.ControlStore)(store)
      const node = (partitionCount: number) =>
        Layers.cluster({ system: "bank", cluster: { partitionCount } }).pipe(Layer.provide(stores))
      yield* Effect.scoped(Effect.gen(function*() {
        yield* Layer.build(node(16))
        const refused = yield* Effect.flip(Effect.scoped(Layer.build(node(32))))
        assert.strictEqual(refused._tag, "ProtocolMismatch")
        assert.include(JSON.stringify(refused), "partitionCount")
      }))
    }))

  it.live("is refused by name where no member trusts its certificate, nor it theirs", () =>
    Effect.gen(function*() {
      const stores = Layer.succeedContext(yield* Layer.build(ControlStore.layerMemory))
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-layers-"))),
        (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true, force: true }))
      )
      const node = (id: string, authority: Certified) => {
        const { cert, key } = certify(id, { by: authority, hosts: ["127.0.0.1"] })
        const file = (name: string, content: string) => {
          Fs.writeFileSync(Path.join(folder, `${id}-${name}`), content)
          return Path.join(folder, `${id}-${name}`)
        }
        const remoting = {
          tlsCertificate: file("node.crt", cert),
          tlsKey: file("node.key", key),
          tlsAuthority: file("ca.crt", authority.cert)
        }
        return Layers.cluster({ system: "bank", id, remoting }).pipe(Layer.provide(stores))
      }
      const [ours, theirs] = [certify("ours"), certify("theirs")]
      yield* Layer.build(node("a", ours))
      const refused = yield* Effect.flip(Effect.scoped(Layer.build(node("b", theirs))))
      assert.strictEqual(settingOf(refused), "remoting.tlsCertificate")
      const c = yield* Layer.build(node("c", ours))
      const members = yield* Context.get(c, ActorSystem.ActorSystem).members
      assert.deepStrictEqual(members.map((member) => member.node.id), ["a", "c"])
    }))
})

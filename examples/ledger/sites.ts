/**
 * Two datacenters of three nodes each in this process, over real TCP sockets on loopback. The nodes of one datacenter share its
 * control store, the datacenters share the control plane, and nothing else is shared. Everything ends with the scope.
 */
import { ActorSystem, ControlPlane, ControlStore, Layers } from "effect-troupe"
import { Context, Effect, Layer, ManagedRuntime, References } from "effect"
import { AccountLive } from "./Account.ts"
import type { Residency } from "./Ledger.ts"

export const controlPlanes = ["memory", "sqlite", "nats", "etcd"] as const
export type ControlPlaneChoice = typeof controlPlanes[number]

export interface Site {
  readonly dataCenter: string
  /** one for each node */
  readonly systems: ReadonlyArray<ActorSystem.ActorSystem["Service"]>
}

export const nodesEach = 3

/** Which datacenter keeps whose data. */
export const dataCenters: ReadonlyArray<{ readonly name: string; readonly serves: ReadonlyArray<Residency> }> = [
  { name: "us-east-1", serves: ["us", "ca", "br"] },
  { name: "eu-west-1", serves: ["eu", "uk", "ch"] }
]

export const dataCenterFor = (residency: Residency): string =>
  dataCenters.find((dataCenter) => dataCenter.serves.includes(residency))!.name

/** By its labels a datacenter says whose data it keeps. */
export const labelsOf = (serves: ReadonlyArray<Residency>): Readonly<Record<string, string>> =>
  Object.fromEntries(serves.map((residency) => [residency, "served"]))

/** The stores behind the demo: one for each datacenter's own cluster, and the register that they share. */
const stores = Effect.fnUntraced(function*(choice: ControlPlaneChoice) {
  switch (choice) {
    case "memory":
      return {
        store: () => Layer.build(ControlStore.layerMemory),
        plane: yield* Layer.build(ControlPlane.layerMemory)
      }
    case "sqlite": {
      const { ControlPlaneSqlite, ControlStoreSqlite } = yield* Effect.promise(() =>
        import("effect-troupe/ControlPlane/Sqlite")
      )
      const { temporaryFolder } = yield* Effect.promise(() => import("../../scripts/servers/index.ts"))
      const file = `${yield* temporaryFolder("ledger")}/store.db`
      return {
        store: (namespace: string) => Layer.build(ControlStoreSqlite.layer({ file, namespace })),
        plane: yield* Layer.build(ControlPlaneSqlite.layer({ file }))
      }
    }
    case "nats": {
      const { ControlPlaneNats, ControlStoreNats } = yield* Effect.promise(() =>
        import("effect-troupe/ControlPlane/Nats")
      )
      const { startNats } = yield* Effect.promise(() => import("../../scripts/servers/index.ts"))
      const servers = Effect.map(startNats({ data: "memory" }), (nats) => ({ servers: nats.servers }))
      return {
        store: () => Effect.flatMap(servers, (options) => Layer.build(ControlStoreNats.layer(options))),
        plane: yield* Layer.build(ControlPlaneNats.layer(yield* servers))
      }
    }
    case "etcd": {
      const { ControlPlaneEtcd, ControlStoreEtcd } = yield* Effect.promise(() =>
        import("effect-troupe/ControlPlane/Etcd")
      )
      const { startEtcd } = yield* Effect.promise(() => import("../../scripts/servers/index.ts"))
      const endpoints = Effect.map(startEtcd({ data: "memory" }), (etcd) => ({ endpoints: etcd.endpoints }))
      return {
        store: () => Effect.flatMap(endpoints, (options) => Layer.build(ControlStoreEtcd.layer(options))),
        plane: yield* Layer.build(ControlPlaneEtcd.layer(yield* endpoints))
      }
    }
  }
})

/** One node: the application's actors on the platform's sockets. */
const node = (dataCenter: string, serves: ReadonlyArray<Residency>) =>
  AccountLive.pipe(
    Layer.provideMerge(Layers.multiDataCenter({
      system: "ledger",
      remoting: { host: "127.0.0.1", port: 0 },
      cluster: { roles: ["ledger"], minimumMembers: nodesEach },
      dataCenter: { name: dataCenter, labels: labelsOf(serves) }
    })),
    Layer.provide(Layer.succeed(References.MinimumLogLevel)("Warn")) // the demo speaks for its nodes
  )

/** Starts everything, and waits until each node sees the other datacenter. */
export const start = Effect.fnUntraced(function*(choice: ControlPlaneChoice) {
  const { plane, store } = yield* stores(choice)
  const sites = yield* Effect.forEach(dataCenters, ({ name, serves }) =>
    Effect.gen(function*() {
      const shared = Context.merge(yield* store(name), plane)
      const startNode = Effect.acquireRelease(
        Effect.sync(() => ManagedRuntime.make(node(name, serves).pipe(Layer.provide(Layer.succeedContext(shared))))),
        (runtime) => runtime.disposeEffect
      ).pipe(Effect.flatMap((runtime) => runtime.contextEffect))
      const nodes = yield* Effect.all(Array.from({ length: nodesEach }, () => startNode), { concurrency: "unbounded" })
      return { dataCenter: name, systems: nodes.map((context) => Context.get(context, ActorSystem.ActorSystem)) }
    }), { concurrency: "unbounded" })
  yield* Effect.forEach(
    sites.flatMap((site) => site.systems),
    (system) => Effect.forEach(dataCenters, ({ name }) => system.awaitDataCenter(name)),
    { concurrency: "unbounded", discard: true }
  )
  return sites satisfies ReadonlyArray<Site>
})

// Two datacenters over real sockets with a real server between them, which is killed and comes back: what runs goes on, new
// placements abroad fail typed, and nobody has to do anything for the recovery.
import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Layer, References, Schedule, type Scope } from "effect"
import { ActorSystem, ControlStore, Layers } from "effect-troupe"
import { Account, AccountLive } from "../../examples/usage/account.ts"
import { type Server, startEtcd, startNats } from "../../scripts/servers/index.ts"
import { ControlPlaneEtcd } from "../../src/ControlPlane/Etcd.ts"
import { ControlPlaneNats } from "../../src/ControlPlane/Nats.ts"

/** quick, so that the scene takes seconds; the proportions are those of the defaults */
const pace = {
  heartbeatInterval: "1 second",
  cacheRefreshInterval: "1 second",
  maxCacheStaleness: "3 seconds",
  leaderCheckInterval: "500 millis",
  requestTimeout: "1 second",
  maxBackoff: "1 second"
} as const

const node = (dataCenter: string) =>
  AccountLive.pipe(
    Layer.provideMerge(Layers.multiDataCenter({
      system: "outage",
      remoting: { host: "127.0.0.1", port: 0 },
      dataCenter: { name: dataCenter, ...pace }
    })),
    Layer.provide(ControlStore.layerMemory)
  )

/** Tries until it is so; what it was not is the failure's business. */
const eventually = <A, E, R>(effect: Effect.Effect<A, E, R>, within: Duration.Input) =>
  Effect.retry(effect, { schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ duration: within })) })

const scene = (
  start: Effect.Effect<
    { readonly server: Server; readonly plane: () => ReturnType<typeof ControlPlaneEtcd.layer> },
    unknown,
    Scope.Scope
  >
) =>
  Effect.gen(function*() {
    const { plane, server } = yield* start
    const build = (name: string) =>
      Effect.map(
        Layer.build(Layer.fresh(node(name)).pipe(Layer.provide(Layer.fresh(plane())))),
        (context) => Context.get(context, ActorSystem.ActorSystem)
      )
    const us = yield* build("us")
    const eu = yield* build("eu")
    yield* us.awaitDataCenter("eu")
    yield* eu.awaitDataCenter("us")
    const place = (name: string) => us.spawnOn(Account, name, { dataCenter: "eu", props: { opening: 1 } })

    const account = yield* place("before")
    yield* server.kill
    const refused = yield* eventually(
      Effect.flatMap(Effect.flip(place("during")), (error) =>
        error._tag === "StaleRecords" ? Effect.succeed(error) : Effect.fail(error)),
      "10 seconds"
    )
    assert.isAbove(Duration.toMillis(refused.age), 3_000)
    assert.strictEqual(Duration.toMillis(refused.limit), 3_000)
    assert.strictEqual(yield* account.ask.Balance(), 1)
    yield* us.spawn(Account, "at-home", { props: { opening: 2 } })
    assert.isTrue(yield* us.dataCenterReady)

    yield* server.restart
    yield* eventually(place("after"), "15 seconds")
    const found = yield* eventually(us.actorOf(Account, "before"), "10 seconds")
    assert.strictEqual(yield* found.ask.Balance(), 1)
  }).pipe(Effect.provideService(References.MinimumLogLevel, "Error"))

describe("the control plane's server is killed and comes back", () => {
  it.live("NATS", () =>
    scene(Effect.gen(function*() {
      const { members, servers } = yield* startNats()
      return {
        server: members[0]!,
        plane: () => ControlPlaneNats.layer({ servers, ttl: "3 seconds", requestTimeout: "1 second" })
      }
    })), 90_000)

  it.live("etcd", () =>
    scene(Effect.gen(function*() {
      const { endpoints, members } = yield* startEtcd()
      return {
        server: members[0]!,
        plane: () => ControlPlaneEtcd.layer({ endpoints, ttl: "3 seconds", requestTimeout: "1 second" })
      }
    })), 90_000)
})

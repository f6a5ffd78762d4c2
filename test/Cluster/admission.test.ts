// Shows that a node which no member lets in does not become one: it would own names that nobody can ask for.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Redacted, Scope } from "effect"
import { TestClock } from "effect/testing"
import { ControlStore } from "effect-troupe"
import { SimulatedNetwork } from "effect-troupe/testing"
import * as SystemEvents from "../../src/Actor/SystemEvents.ts"
import * as Cluster from "../../src/Cluster/Cluster.ts"
import * as Rings from "../../src/Layers/internal/rings.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"

describe("who may join", () => {
  const cluster = Effect.gen(function*() {
    const network = yield* SimulatedNetwork.make({ seed: 4 })
    const backend = yield* ControlStore.makeMemoryBackend
    const scope = yield* Scope.make()
    // nodes leave in order, which takes time that somebody must let pass
    yield* Effect.addFinalizer(() =>
      Effect.gen(function*() {
        const closing = yield* Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true })
        for (let step = 0; step < 100 && closing.pollUnsafe() === undefined; step++) {
          yield* TestClock.adjust("5 seconds")
        }
      })
    )
    const start = (id: string, remoting: Remoting.RemotingOptions) =>
      Effect.gen(function*() {
        const own = yield* Scope.fork(scope)
        const layer = Rings.clusterNode(Remoting.layer(remoting), Cluster.layer({ partitionCount: 16 })).pipe(
          Layer.provide(Remoting.layerNode({ system: "bank", dataCenter: "eu", id })),
          Layer.provide(network.layer(id)),
          Layer.provide(SystemEvents.layer),
          Layer.provide(Layer.succeed(ControlStore.ControlStore, backend.client()))
        )
        const built = yield* Effect.forkIn(
          Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), own).pipe(
            Effect.onError(() => Scope.close(own, Exit.void))
          ),
          scope
        )
        yield* TestClock.adjust("2 seconds")
        return built.pollUnsafe() ?? Exit.fail("has neither joined nor failed")
      })
    return { network, start }
  })
  const secrets = (secret: string, previousSecret?: string) => ({
    secret: Redacted.make(secret),
    ...(previousSecret === undefined ? {} : { previousSecret: Redacted.make(previousSecret) })
  })
  const upAt = (exit: Exit.Exit<Context.Context<Cluster.Cluster>, unknown>) =>
    Effect.gen(function*() {
      const { members } = yield* Context.get(yield* exit, Cluster.Cluster).view
      return members.filter((member) => member.status === "Up").map((member) => member.node.id)
    })
  const refusal = (exit: Exit.Exit<unknown, unknown>) =>
    Effect.map(Effect.flip(exit), (error) => String((error as { readonly message: string }).message))

  it.effect("not one whose secret no member has, nor one without any: it fails by that setting's name", () =>
    Effect.gen(function*() {
      const { start } = yield* cluster
      const a = yield* start("a", secrets("first-secret"))
      const b = yield* start("b", secrets("first-secret"))
      assert.deepStrictEqual(yield* upAt(a), ["a", "b"])
      for (const remoting of [secrets("other-secret"), {}]) {
        const message = yield* refusal(yield* start("c", remoting))
        assert.match(message, /^remoting\.secret /)
        assert.include(message, "a:7000")
        assert.notInclude(message, "-secret")
        assert.deepStrictEqual(yield* upAt(b), ["a", "b"])
      }
    }))

  it.effect("one that a single member lets in, as while secrets are exchanged", () =>
    Effect.gen(function*() {
      const { start } = yield* cluster
      const a = yield* start("a", secrets("first-secret"))
      yield* start("b", secrets("next-secret", "first-secret"))
      yield* start("c", secrets("next-secret"))
      assert.deepStrictEqual(yield* upAt(a), ["a", "b", "c"])
    }))

  it.effect("one that reaches nobody: whom it cannot ask has refused nothing", () =>
    Effect.gen(function*() {
      const { network, start } = yield* cluster
      const a = yield* start("a", secrets("first-secret"))
      network.partition(["a"], ["b"])
      yield* start("b", secrets("other-secret"))
      assert.deepStrictEqual(yield* upAt(a), ["a", "b"])
    }))
})

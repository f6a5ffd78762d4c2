// The link to etcd when a channel is abandoned under a request: it fails as one that never left.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { openLink } from "../../src/ControlPlane/internal/etcdClient.edge.ts"
import { grpc } from "../../src/ControlPlane/internal/etcdProtocol.edge.ts"

const options = {
  endpoints: ["127.0.0.1:1"],
  user: undefined,
  password: undefined,
  tlsCaFile: undefined,
  tlsCertFile: undefined,
  tlsKeyFile: undefined
}

/** A link whose channels are closed, although they seemed ready a moment ago. */
const abandoned = Effect.gen(function*() {
  const scope = yield* Scope.make()
  const link = yield* Scope.provide(openLink(options), scope)
  yield* Scope.close(scope, Exit.void)
  const original = grpc.Client.prototype.getChannel
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      grpc.Client.prototype.getChannel = function() {
        return Object.assign(Object.create(original.call(this)), {
          getConnectivityState: () => grpc.connectivityState.READY
        })
      }
    }),
    () => Effect.sync(() => void (grpc.Client.prototype.getChannel = original))
  )
  return link
})

describe("a request to etcd whose channel was abandoned just before", () => {
  it.effect("was never sent", () =>
    Effect.gen(function*() {
      const link = yield* abandoned
      const failure = yield* Effect.flip(link.call("KV", "range", { key: Buffer.from("k") }, 100))
      assert.strictEqual(failure.kind, "NotSent")
    }))

  it.effect("is no watch, and fails typed", () =>
    Effect.gen(function*() {
      const link = yield* abandoned
      const on = { data: () => undefined, end: () => undefined }
      const failure = yield* Effect.flip(Effect.scoped(link.watch({ key: Buffer.from("k") }, on, 100)))
      assert.strictEqual(failure.kind, "NotSent")
    }))
})

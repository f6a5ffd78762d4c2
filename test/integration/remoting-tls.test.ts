// Mutual TLS with real certificates: who has one that names it is let in, nobody else is.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"
import { layerRecorders, Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import { type Certified, certify } from "./certificates.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-tls-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

const authority = certify("authority")

/** Settings with these certificates in files. */
const withTls = Effect.fnUntraced(function*(own: Certified, ca: Certified = authority) {
  const path = yield* folder
  const file = (name: string, content: string) => {
    Fs.writeFileSync(Path.join(path, name), content)
    return Path.join(path, name)
  }
  return {
    tlsCertificate: file("node.crt", own.cert),
    tlsKey: file("node.key", own.key),
    tlsAuthority: file("ca.crt", ca.cert)
  } satisfies RemotingOptions
})

const start = (id: string, options: RemotingOptions) =>
  Layer.build(
    Remoting.layer(options).pipe(
      Layer.provideMerge(
        Layer.mergeAll(Remoting.layerNode({ system: "test", dataCenter: "dc", id }), layerRecorders())
      ),
      Layer.provide(Transport.layerTcp(options))
    )
  )

/** What becomes of an ask from a node with the first settings to one with the second. */
const ask = Effect.fnUntraced(function*(from: RemotingOptions, to: RemotingOptions) {
  const b = yield* start("b", to)
  const a = yield* start("a", from)
  const address = { kind: Recorder.name, name: "x", node: Context.get(b, Node).address, placement: 1, epoch: 1 }
  const exit = yield* Effect.exit(
    Context.get(a, Delivery).ask(address, { kind: Recorder, tag: "Parse", payload: { text: "42" } }, 4000)
  )
  const refusals = Context.get(b, Recorders).events.flatMap((event) =>
    event._tag === "PeerRefused" ? [event.reason] : []
  )
  return { exit, refusals }
})

const here = { hosts: ["127.0.0.1", "localhost"] }
const good = (name: string) => certify(name, { by: authority, ...here })

describe("mutual TLS", () => {
  it.live("lets in who shows a certificate of the authority that names its host", () =>
    Effect.gen(function*() {
      const { exit } = yield* ask(yield* withTls(good("a")), yield* withTls(good("b")))
      assert.isTrue(Exit.isSuccess(exit) && Exit.isSuccess(exit.value) && exit.value.value === 42)
    }).pipe(Effect.scoped))

  it.live("refuses a certificate of another authority, an expired one, and none at all", () =>
    Effect.gen(function*() {
      const server = yield* withTls(good("b"))
      const other = certify("other")
      const stranger = yield* withTls(certify("a", { by: other, ...here }))
      assert.isTrue(Exit.isFailure((yield* ask(stranger, server)).exit))
      const expired = certify("a", { by: authority, ...here, until: new Date(Date.now() - 3_600_000) })
      assert.isTrue(Exit.isFailure((yield* ask(yield* withTls(expired), server)).exit))
      assert.isTrue(Exit.isFailure((yield* ask({}, server)).exit))
      assert.isTrue(Exit.isFailure((yield* ask(server, {})).exit))
    }).pipe(Effect.scoped), 60_000)

  it.live("refuses a server whose certificate does not name the host that was dialed", () =>
    Effect.gen(function*() {
      const elsewhere = certify("b", { by: authority, hosts: ["10.1.2.3"] })
      assert.isTrue(Exit.isFailure((yield* ask(yield* withTls(good("a")), yield* withTls(elsewhere))).exit))
    }).pipe(Effect.scoped))

  it.live("refuses a node whose certificate does not name the host it says it has", () =>
    Effect.gen(function*() {
      const elsewhere = certify("a", { by: authority, hosts: ["10.1.2.3"] })
      const { exit, refusals } = yield* ask(yield* withTls(elsewhere), yield* withTls(good("b")))
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual(refusals, ["its certificate does not name it"])
    }).pipe(Effect.scoped))

  it.live("may be bound off loopback; files that are missing or do not fit are settings that are wrong", () =>
    Effect.gen(function*() {
      const tls = yield* withTls(good("a"))
      yield* Layer.build(Transport.layerTcp({ ...tls, host: "0.0.0.0", advertisedHost: "node-1" }))
      const refused = (options: RemotingOptions) =>
        Effect.map(Effect.flip(Layer.build(Transport.layerTcp(options))), (error) => error.setting)
      assert.strictEqual(yield* refused({ ...tls, tlsKey: undefined }), "remoting.tlsKey")
      assert.strictEqual(yield* refused({ ...tls, tlsAuthority: "/nowhere" }), "remoting.tlsAuthority")
      assert.strictEqual(yield* refused({ ...tls, tlsKey: (yield* withTls(good("b"))).tlsKey }), "remoting.tlsKey")
    }).pipe(Effect.scoped))
})

// What an etcd store needs at its start, and how it says what is missing: endpoints, credentials, TLS, namespaces, foreign entries.
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Fiber, Layer, Option, Queue, Redacted, Stream } from "effect"
import { Etcd3 } from "etcd3"
import { execFile } from "node:child_process"
import { generateKeyPairSync } from "node:crypto"
import * as Fs from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { startEtcd, startProxy, temporaryFolder } from "../../scripts/servers/index.ts"
import { ControlStore } from "../../src/ControlPlane/ControlStore.ts"
import type { WatchEvent } from "../../src/ControlPlane/ControlStore.ts"
import * as Lease from "../../src/ControlPlane/Lease.ts"
import * as ControlStoreEtcd from "../../src/ControlPlane/ControlStoreEtcd.ts"
import { pki } from "./support/pki/index.ts"

const brief = { connectTimeout: "2 seconds", requestTimeout: "2 seconds" } as const

/** opens a store, or says why not */
const refusal = (settings: ControlStoreEtcd.PartialSettings) =>
  Effect.scoped(Effect.flip(ControlStoreEtcd.make({ ...brief, ...settings })))

const works = (settings: ControlStoreEtcd.PartialSettings) =>
  Effect.scoped(Effect.gen(function*() {
    const store = yield* ControlStoreEtcd.make({ ...brief, ...settings })
    const revision = yield* store.create("k", "1")
    yield* store.remove("k", revision)
  }))

/** the vendor's own client, for what a store would never do */
const raw = (hosts: ReadonlyArray<string>, auth?: { readonly username: string; readonly password: string }) =>
  Effect.acquireRelease(
    Effect.sync(() => new Etcd3({ hosts: [...hosts], ...(auth === undefined ? {} : { auth }) })),
    (client) => Effect.sync(() => client.close())
  )

const secret = "s3cret-never-shown"

/** user `app` may read and write under /app/ only; authentication is on */
const withUsers = (endpoints: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const client = yield* raw(endpoints)
    yield* Effect.promise(async () => {
      await client.user("root").create("root")
      await client.role("root").create()
      await client.user("root").addRole("root")
      await client.user("app").create(secret)
      await client.role("app").create()
      await client.role("app").grant({ permission: "Readwrite", range: client.range({ prefix: "/app/" }) })
      await client.user("app").addRole("app")
      await client.auth.authEnable()
    })
  })

describe.concurrent("etcd at the start", () => {
  it.live("a malformed endpoint is a setting that is named, before anything is dialled", () =>
    Effect.gen(function*() {
      const malformed = [
        ["nonsense"],
        ["ftp://127.0.0.1:2379"],
        ["http://127.0.0.1"],
        ["127.0.0.1:0"],
        ["127.0.0.1:70000"],
        ["http://a b:1"],
        []
      ]
      for (const endpoints of [...malformed, ["http://127.0.0.1:1", "https://127.0.0.1:2"]]) {
        const error = yield* refusal({ endpoints })
        assert.strictEqual(error._tag === "SettingInvalid" && error.setting, "etcd.endpoints", endpoints.join())
      }
    }))

  it.live("bad settings are named: namespace, timeout, half of a credential, a file that is not there", () =>
    Effect.gen(function*() {
      const named = (settings: ControlStoreEtcd.PartialSettings) =>
        Effect.map(refusal(settings), (error) => error._tag === "SettingInvalid" ? error.setting : error._tag)
      assert.strictEqual(yield* named({ namespace: "/a//b" }), "etcd.namespace")
      assert.strictEqual(yield* named({ namespace: "/" }), "etcd.namespace")
      assert.strictEqual(yield* named({ requestTimeout: "1 millis" }), "etcd.requestTimeout")
      assert.strictEqual(yield* named({ user: "app" }), "etcd.user")
      assert.strictEqual(yield* named({ tlsCaFile: "/nowhere/ca.crt" }), "etcd.tlsCaFile")
      assert.strictEqual(
        yield* named({ endpoints: ["https://127.0.0.1:1"], tlsCertFile: pki.client.cert }),
        "etcd.tlsCertFile"
      )
      assert.strictEqual(yield* named({ tlsCaFile: pki.ca }), "etcd.endpoints")
      assert.strictEqual(
        yield* named({ endpoints: ["https://127.0.0.1:1"], tlsCaFile: fileURLToPath(import.meta.url) }),
        "etcd.tlsCaFile"
      )
    }))

  it.live("a member that is not there is unavailable, by its address and in time", () =>
    Effect.gen(function*() {
      const [took, error] = yield* Effect.timed(
        refusal({ endpoints: ["http://127.0.0.1:1"], connectTimeout: "1 second" })
      )
      assert.strictEqual(error._tag, "StoreUnavailable")
      assert.include(JSON.stringify(error), "127.0.0.1:1")
      assert.isBelow(Duration.toMillis(took), 2_500)
    }))

  it.live("a dead first endpoint does not matter", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      yield* works({ endpoints: ["127.0.0.1:1", ...endpoints] })
    }).pipe(Effect.scoped))

  it.live("user and password are needed and shown nowhere; outside of what they may, all is refused typed", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      yield* withUsers(endpoints)
      yield* works({ endpoints, namespace: "/app/x", user: "app", password: Redacted.make(secret) })
      const wrong: ReadonlyArray<ControlStoreEtcd.PartialSettings> = [
        { namespace: "/app/x" },
        { namespace: "/app/x", user: "app", password: Redacted.make(`${secret}-wrong`) },
        { namespace: "/app/x", user: "nobody", password: Redacted.make(secret) },
        { namespace: "/other", user: "app", password: Redacted.make(secret) }
      ]
      for (const settings of wrong) {
        const [took, error] = yield* Effect.timed(refusal({ endpoints, ...settings }))
        assert.strictEqual(error._tag, "AuthenticationFailed")
        assert.notInclude(JSON.stringify(error) + String(error), secret)
        assert.isBelow(Duration.toMillis(took), 1_500)
      }
    }).pipe(Effect.scoped))

  it.live("a token that the server has forgotten is asked for anew, by operations and watches", () =>
    Effect.gen(function*() {
      const { endpoints, members } = yield* startEtcd({ data: "disk" })
      yield* withUsers(endpoints)
      const store = yield* ControlStoreEtcd.make({
        endpoints,
        namespace: "/app",
        user: "app",
        password: Redacted.make(secret)
      })
      const events = yield* Queue.unbounded<WatchEvent>()
      yield* store.watch("").pipe(Stream.runForEach((event) => Queue.offer(events, event)), Effect.forkScoped)
      const revision = yield* store.create("k", "1")
      // simple tokens live in the member's memory
      yield* members[0]!.kill
      yield* members[0]!.restart
      yield* store.update("k", "2", revision)
      yield* Effect.sleep("4 seconds")
      const told = yield* Queue.clear(events)
      assert.isAbove(
        told.findLastIndex((event) => event._tag === "Snapshot" || event._tag === "Put"),
        told.findIndex((event) => event._tag === "Lost")
      )
      assert.strictEqual(told.at(-1)?._tag, "Current")
    }).pipe(Effect.scoped))

  it.live(
    "a token that expires is asked for anew, again and again, without a failed operation",
    () =>
      Effect.gen(function*() {
        const { endpoints } = yield* startEtcd({ data: "memory", flags: ["--auth-token-ttl=1"] })
        yield* withUsers(endpoints)
        const store = yield* ControlStoreEtcd.make({
          endpoints,
          namespace: "/app",
          user: "app",
          password: Redacted.make(secret)
        })
        let revision = yield* store.create("k", "0")
        for (let i = 1; i <= 3; i++) {
          // tokens that are not used for a second are forgotten
          yield* Effect.sleep("2500 millis")
          revision = yield* store.update("k", String(i), revision)
        }
        assert.strictEqual((yield* store.list("")).length, 1)
      }).pipe(Effect.scoped),
    30_000
  )

  it.live("authentication that is switched on under a client with credentials costs it nothing", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      const settings = { ...brief, endpoints, namespace: "/app", user: "app", password: Redacted.make(secret) }
      const store = yield* ControlStoreEtcd.make(settings)
      const revision = yield* store.create("k", "1")
      yield* withUsers(endpoints)
      yield* store.update("k", "2", revision)
      assert.strictEqual(Option.getOrUndefined(yield* store.get("k"))?.value, "2")
    }).pipe(Effect.scoped))

  it.live("a token that is older than a change of users is asked for anew, by operations and watches", () =>
    Effect.gen(function*() {
      const folder = yield* temporaryFolder("etcd-jwt")
      const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 })
      Fs.writeFileSync(join(folder, "key.pem"), privateKey.export({ type: "pkcs1", format: "pem" }))
      Fs.writeFileSync(join(folder, "pub.pem"), publicKey.export({ type: "spki", format: "pem" }))
      // such a token carries the revision of the users at which it was given out
      const keys = `pub-key=${join(folder, "pub.pem")},priv-key=${join(folder, "key.pem")}`
      const { endpoints } = yield* startEtcd({
        data: "memory",
        flags: [`--auth-token=jwt,${keys},sign-method=RS256,ttl=10m`]
      })
      yield* withUsers(endpoints)
      const settings = { ...brief, endpoints, namespace: "/app", user: "app", password: Redacted.make(secret) }
      const store = yield* ControlStoreEtcd.make(settings)
      const revision = yield* store.create("k", "1")
      const root = yield* raw(endpoints, { username: "root", password: "root" })
      yield* Effect.promise(() => root.user("another").create("x"))
      yield* store.update("k", "2", revision)
      const first = yield* Effect.timeout(Stream.runHead(store.watch("")), "3 seconds")
      assert.strictEqual(Option.getOrUndefined(first)?._tag, "Snapshot")
    }).pipe(Effect.scoped))

  it.live(
    "a first endpoint that swallows everything does not matter, for operations and watches",
    () =>
      Effect.gen(function*() {
        const { endpoints } = yield* startEtcd({ data: "memory" })
        const mute = yield* startProxy(endpoints[0]!.replace("http://", ""))
        yield* mute.blackHole
        const [took, store] = yield* Effect.timed(ControlStoreEtcd.make({ endpoints: [mute.address, ...endpoints] }))
        assert.isBelow(Duration.toMillis(took), 5_000)
        assert.deepStrictEqual(store.capabilities.found, { members: 1 })
        const snapshot = yield* Effect.forkChild(Stream.runHead(store.watch("")))
        const [wrote] = yield* Effect.timed(store.create("k", "1"))
        assert.isBelow(Duration.toMillis(wrote), 5_000)
        const first = yield* Effect.timeout(Fiber.join(snapshot), "5 seconds")
        assert.strictEqual(Option.getOrUndefined(first)?._tag, "Snapshot")
      }).pipe(Effect.scoped),
    30_000
  )

  it.live("whatever ends, no lease of etcd is left behind: none is ever taken", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      yield* Effect.scoped(Effect.gen(function*() {
        const store = yield* ControlStoreEtcd.make({ ...brief, endpoints })
        const held = yield* Lease.hold(store, { key: "leases/a", duration: "2 seconds" })
        yield* Lease.observe(store, "leases/")
        yield* Effect.sleep("1 second")
        assert.isTrue(held.isValid())
        const client = yield* raw(endpoints)
        assert.deepStrictEqual((yield* Effect.promise(() => client.leaseClient.leaseLeases())).leases, [])
      }))
      const client = yield* raw(endpoints)
      assert.deepStrictEqual((yield* Effect.promise(() => client.leaseClient.leaseLeases())).leases, [])
    }).pipe(Effect.scoped), 30_000)

  it.live("a watch that ends is none of the server's any more, whenever it was interrupted", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      const store = yield* ControlStoreEtcd.make({ ...brief, endpoints })
      yield* store.create("a/b", "1")
      const watchers = Effect.promise(async () => {
        const metrics = await (await fetch(`${endpoints[0]}/metrics`)).text()
        return Number(/^etcd_debugging_mvcc_watcher_total (\S+)$/m.exec(metrics)?.[1])
      })
      const watches = Array.from(
        { length: 24 },
        (_, i) => Effect.timeoutOption(Stream.runDrain(store.watch("a/")), i * 3)
      )
      yield* Effect.all([
        ...watches,
        Effect.gen(function*() {
          yield* Effect.forkScoped(Stream.runDrain(store.watch("a/")))
          yield* Effect.sleep("300 millis")
          assert.isAtLeast(yield* watchers, 1)
        }).pipe(Effect.scoped)
      ], { concurrency: "unbounded" })
      yield* Effect.sleep("500 millis")
      assert.strictEqual(yield* watchers, 0)
    }).pipe(Effect.scoped))

  it.live("credentials for a server without authentication are no obstacle", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      yield* works({ endpoints, user: "app", password: Redacted.make(secret) })
    }).pipe(Effect.scoped))

  it.live("TLS takes the authority that it is given, and no stranger's", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory", tls: pki.server })
      yield* works({ endpoints, tlsCaFile: pki.ca })
      for (const settings of [{ tlsCaFile: pki.stranger }, {}]) {
        const error = yield* refusal({ endpoints, ...settings })
        assert.strictEqual(error._tag, "StoreUnavailable")
        assert.match(JSON.stringify(error), /certificate|self.signed|issuer/i)
      }
    }).pipe(Effect.scoped))

  it.live("mutual TLS needs the client's certificate", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory", tls: { ...pki.server, ca: pki.ca } })
      yield* works({ endpoints, tlsCaFile: pki.ca, tlsCertFile: pki.client.cert, tlsKeyFile: pki.client.key })
      assert.strictEqual((yield* refusal({ endpoints, tlsCaFile: pki.ca }))._tag, "StoreUnavailable")
    }).pipe(Effect.scoped))

  it.live("everything comes from the environment, and a bad value is named by its variable", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      const from = (variables: Record<string, string>) =>
        Effect.scoped(Layer.build(ControlStoreEtcd.layerConfig)).pipe(
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(variables)))
        )
      const context = yield* from({ ETCD_ENDPOINTS: endpoints.join(","), ETCD_NAMESPACE: "/fromenv" })
      assert.isDefined(context.mapUnsafe.get(ControlStore.key))
      const error = yield* Effect.flip(from({ ETCD_ENDPOINTS: endpoints.join(","), ETCD_REQUEST_TIMEOUT: "soon" }))
      assert.strictEqual(error._tag === "SettingInvalid" && error.setting, "ETCD_REQUEST_TIMEOUT")
    }).pipe(Effect.scoped))

  it.live("a program that closed its store ends by itself", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      const program = fileURLToPath(new URL("support/storeClient.ts", import.meta.url))
      const { stdout } = yield* Effect.promise(() =>
        promisify(execFile)(process.execPath, [program, "etcd", endpoints[0]!], { timeout: 10_000 })
      )
      assert.include(stdout, "closed")
    }).pipe(Effect.scoped))
})

describe.concurrent("a namespace of etcd", () => {
  it.live("is its own world, also beside one whose name begins alike", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      const [a, b, same] = yield* Effect.forEach(["/a", "/ab", "/a/"], (namespace) =>
        ControlStoreEtcd.make({ ...brief, endpoints, namespace }))
      yield* a!.create("k", "1")
      yield* b!.create("k", "2")
      assert.deepStrictEqual(
        (yield* a!.list("")).map((entry) =>
          entry.value
        ),
        ["1"]
      )
      assert.deepStrictEqual((yield* b!.list("")).map((entry) => entry.value), ["2"])
      assert.deepStrictEqual((yield* same!.list("")).map((entry) => entry.value), ["1"])
    }).pipe(Effect.scoped))

  it.live("may hold foreign keys and bytes that are no text: they are left out, and the rest is told", () =>
    Effect.gen(function*() {
      const { endpoints } = yield* startEtcd({ data: "memory" })
      const store = yield* ControlStoreEtcd.make({ ...brief, endpoints, namespace: "/mixed" })
      yield* store.create("good/1", "1")
      const client = yield* raw(endpoints)
      const foreign = Effect.promise(async () => {
        await client.put("/mixed/good/bytes").value(Buffer.from([0xff, 0xfe, 0x00]))
        await client.put("/mixed/good/strange key!").value("text")
        await client.put("/mixed/good//").value("text")
        await client.put("/mixed/theirs").value("text")
      })
      yield* foreign
      assert.deepStrictEqual((yield* store.list("good/")).map((entry) => entry.key), ["good/1"])
      assert.strictEqual((yield* Effect.flip(store.get("good/bytes")))._tag, "InvalidData")
      const theirs = yield* Effect.fromOption(yield* store.get("theirs"))
      assert.strictEqual(theirs.value, "text")
      yield* store.update("theirs", "ours", theirs.revision)
      const events = yield* Queue.unbounded<WatchEvent>()
      yield* store.watch("good/").pipe(Stream.runForEach((event) => Queue.offer(events, event)), Effect.forkScoped)
      yield* Effect.sleep("500 millis")
      yield* foreign
      yield* store.create("good/2", "2")
      yield* Effect.sleep("500 millis")
      const told = (yield* Queue.clear(events)).filter((event) => event._tag !== "Current")
      assert.deepStrictEqual(
        told.map((event) =>
          event._tag === "Snapshot"
            ? event.entries.map((entry) => entry.key)
            : event._tag === "Put"
            ? event.entry.key
            : event._tag
        ),
        [["good/1"], "good/2"]
      )
    }).pipe(Effect.scoped))

  it.live("whose history is compacted under a watch that is away is told anew", () =>
    Effect.gen(function*() {
      const { endpoints, members } = yield* startEtcd({ data: "disk" })
      const store = yield* ControlStoreEtcd.make({
        ...brief,
        endpoints,
        namespace: "/compacted",
        requestTimeout: "5 seconds"
      })
      const events = yield* Queue.unbounded<WatchEvent>()
      yield* store.watch("").pipe(Stream.runForEach((event) => Queue.offer(events, event)), Effect.forkScoped)
      let revision = yield* store.create("k", "0")
      const removed = yield* store.create("gone", "0")
      yield* members[0]!.freeze
      yield* Effect.sleep("4 seconds")
      yield* members[0]!.thaw
      const other = yield* ControlStoreEtcd.make({ ...brief, endpoints, namespace: "/compacted" })
      for (let i = 1; i <= 20; i++) revision = yield* other.update("k", String(i), revision)
      yield* other.remove("gone", removed)
      const client = yield* raw(endpoints)
      yield* Effect.promise(() => client.kv.compact({ revision: String(BigInt(revision) + 1n), physical: true }))
      yield* Effect.sleep("4 seconds")
      const told = yield* Queue.clear(events)
      assert.isTrue(told.some((event) => event._tag === "Lost"))
      const held = new Map<string, string>()
      for (const event of told) {
        if (event._tag === "Snapshot") {
          held.clear()
          for (const entry of event.entries) held.set(entry.key, entry.value)
        } else if (event._tag === "Put") held.set(event.entry.key, event.entry.value)
        else if (event._tag === "Removed") held.delete(event.key)
      }
      assert.deepStrictEqual(Array.from(held), [["k", "20"]])
      assert.isTrue(Option.isNone(yield* store.get("gone")))
    }).pipe(Effect.scoped), 40_000)
})

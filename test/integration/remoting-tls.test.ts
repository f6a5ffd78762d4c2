// Mutual TLS with real certificates: who has one that names it is let in, nobody else is.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Redacted } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Tls from "node:tls"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { Node } from "../../src/Actor/Node.ts"
import { Framer } from "../../src/Remoting/internal/framer.ts"
import * as Handshake from "../../src/Remoting/internal/handshake.ts"
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
  const refusals = (node: Context.Context<Recorders>) =>
    Context.get(node, Recorders).events.flatMap((event) => event._tag === "PeerRefused" ? [event.reason] : [])
  return { exit, refusals: refusals(b), refusalsHere: refusals(a) }
})

/** The typed refusal that the asker gets: nothing was sent, and this is why. */
const reasonOf = (exit: Exit.Exit<unknown, { readonly _tag: string }>): string => {
  const error = Exit.findErrorOption(exit)
  const refused = Option.isSome(error) && error.value instanceof NodeUnreachable ? error.value : undefined
  assert.strictEqual(refused?.outcome, "NotSent")
  return refused!.reason
}

/** Speaks TLS without showing a certificate; the frames that come back until the other side ends it. */
const speakTls = (port: number, frames: ReadonlyArray<Uint8Array>) =>
  Effect.callback<ReadonlyArray<Uint8Array>>((resume) => {
    const framer = new Framer(1024)
    const answers: Array<Uint8Array> = []
    const socket = Tls.connect({ host: "127.0.0.1", port, rejectUnauthorized: false, minVersion: "TLSv1.3" }, () => {
      for (const frame of frames) {
        const header = Buffer.alloc(4)
        header.writeUInt32BE(frame.length)
        socket.write(Buffer.concat([header, frame]))
      }
    })
    socket.on("data", (chunk: Buffer) => void answers.push(...framer.feed(chunk)))
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.succeed(answers)))
    return Effect.sync(() => socket.destroy())
  })

/** Session tickets that a client with that certificate is given. */
const ticketsOf = (port: number, own: Certified) =>
  Effect.callback<number>((resume) => {
    let tickets = 0
    const { cert, key } = own
    const options = { host: "127.0.0.1", port, cert, key, ca: authority.cert, minVersion: "TLSv1.3" } as const
    const socket = Tls.connect(options, () => {
      let reused = 0
      socket.on("session", (session) => {
        tickets++
        const again = Tls.connect({ ...options, session }, () => {
          if (again.isSessionReused()) reused++
          again.destroy()
          socket.destroy()
        })
      })
      socket.on("close", () => resume(Effect.succeed(reused)))
      setTimeout(() => tickets === 0 && socket.destroy(), 300)
    })
    socket.on("error", () => {})
    return Effect.sync(() => socket.destroy())
  })

const here = { hosts: ["127.0.0.1", "localhost"] }
const good = (name: string) => certify(name, { by: authority, ...here })

describe("mutual TLS", () => {
  it.live("lets in who shows a certificate of the authority that names its host", () =>
    Effect.gen(function*() {
      const { exit } = yield* ask(yield* withTls(good("a")), yield* withTls(good("b")))
      assert.isTrue(Exit.isSuccess(exit) && Exit.isSuccess(exit.value) && exit.value.value === 42)
    }).pipe(Effect.scoped))

  const hour = 3_600_000
  const expired = () => certify("x", { by: authority, ...here, until: new Date(Date.now() - hour) })
  const notYet = () => certify("x", { by: authority, ...here, from: new Date(Date.now() + hour) })
  const wrongAuthority = () => certify("x", { by: certify("other"), ...here })
  const ofItself = () => certify("x", here)
  const wrong = [
    ["that has expired", expired, "its certificate has expired (CERT_HAS_EXPIRED)"],
    ["that is not valid yet", notYet, "its certificate is not valid yet (CERT_NOT_YET_VALID)"],
    ["of another authority", wrongAuthority, "its certificate is not signed by the authority"],
    ["that it signed itself", ofItself, "its certificate is not signed by the authority"]
  ] as const

  for (const [what, make, why] of wrong) {
    it.live(`refuses a node that dials with a certificate ${what}, and says so on both sides`, () =>
      Effect.gen(function*() {
        const { exit, refusals } = yield* ask(yield* withTls(make()), yield* withTls(good("b")))
        assert.include(reasonOf(exit), `refused there: ${why}`)
        assert.strictEqual(refusals.length, 1)
        assert.include(refusals[0], why)
      }).pipe(Effect.scoped))

    it.live(`refuses a node that answers with a certificate ${what}, and says so`, () =>
      Effect.gen(function*() {
        const { exit, refusalsHere } = yield* ask(yield* withTls(good("a")), yield* withTls(make()))
        assert.include(reasonOf(exit), why)
        assert.strictEqual(refusalsHere.length, 1)
        assert.include(refusalsHere[0], why)
      }).pipe(Effect.scoped))
  }

  it.live("refuses who shows no certificate, also with the right secret, and whatever it asks for", () =>
    Effect.gen(function*() {
      const secret = Redacted.make("s")
      const b = yield* start("b", { ...(yield* withTls(good("b"))), secret })
      const { port } = Context.get(b, Node).address
      // what another implementation could send: TLS without a certificate, then a Hello
      const answers = yield* speakTls(
        port,
        Handshake.dial({
          self: {
            system: "test",
            dataCenter: "dc",
            id: "a",
            incarnation: "1",
            host: "127.0.0.1",
            port: 1,
            client: true,
            maxFrameBytes: 1024,
            windowBytes: 1024,
            kinds: new Map()
          },
          nonce: new Uint8Array(Handshake.nonceBytes),
          secrets: ["s"],
          insecure: true,
          peer: "b",
          admit: () => undefined
        })[1].flatMap((command) => command._tag === "Send" ? [command.frame] : [])
      )
      assert.strictEqual(answers.length, 1)
      assert.strictEqual(answers[0]![0], Handshake.FrameType.Refused)
      assert.include(Buffer.from(answers[0]!).toString("latin1"), "it shows no certificate")
      const refusals = Context.get(b, Recorders).events.flatMap((event) =>
        event._tag === "PeerRefused" ? [event.reason] : []
      )
      assert.deepStrictEqual(refusals, ["it shows no certificate"])
    }).pipe(Effect.scoped))

  it.live("holds for a client through a gateway too: who shows a good certificate is carried, nobody else", () =>
    Effect.gen(function*() {
      const gateway = yield* start("a", yield* withTls(good("a")))
      yield* Context.get(gateway, Remoting.Remoting).relays
      const b = yield* start("b", yield* withTls(good("b")))
      const to = { kind: Recorder.name, name: "x", node: Context.get(b, Node).address, placement: 1, epoch: 1 }
      const { host, port } = Context.get(gateway, Node).address
      const through = (own: Certified) =>
        Effect.gen(function*() {
          const tls = yield* withTls(own)
          const client = yield* Layer.build(
            Remoting.layerClient(tls, { gateways: { endpoints: [{ host, port }], only: true } }).pipe(
              Layer.provideMerge(
                Layer.mergeAll(Remoting.layerNode({ system: "test", dataCenter: "client" }), layerRecorders())
              ),
              Layer.provide(Transport.layerTcpDial(tls))
            )
          )
          const message = { kind: Recorder, tag: "Parse", payload: { text: "42" } }
          return yield* Effect.exit(Context.get(client, Delivery).ask(to, message, 4000))
        }).pipe(Effect.scoped)
      // a client names no host, and need not
      const carried = yield* through(certify("client", { by: authority }))
      assert.isTrue(Exit.isSuccess(carried) && Exit.isSuccess(carried.value) && carried.value.value === 42)
      const expired = certify("client", { by: authority, until: new Date(Date.now() - hour) })
      assert.include(reasonOf(yield* through(expired)), "refused there: its certificate has expired")
    }).pipe(Effect.scoped))

  it.live("takes no session of an earlier connection for a certificate", () =>
    Effect.gen(function*() {
      const own = good("a")
      const b = yield* start("b", yield* withTls(good("b")))
      const { port } = Context.get(b, Node).address
      assert.deepStrictEqual(yield* ticketsOf(port, own), 0)
    }).pipe(Effect.scoped))

  it.live("and plain TCP do not meet: neither side is reached", () =>
    Effect.gen(function*() {
      const server = yield* withTls(good("b"))
      for (const [from, to] of [[{}, server], [server, {}]] as const) reasonOf((yield* ask(from, to)).exit)
    }).pipe(Effect.scoped), 60_000)

  it.live("refuses a server whose certificate does not name the host that was dialed", () =>
    Effect.gen(function*() {
      const elsewhere = certify("b", { by: authority, hosts: ["10.1.2.3"] })
      const { exit, refusalsHere } = yield* ask(yield* withTls(good("a")), yield* withTls(elsewhere))
      const why = "its certificate does not name the host that was dialed (ERR_TLS_CERT_ALTNAME_INVALID)"
      assert.strictEqual(reasonOf(exit), why)
      assert.deepStrictEqual(refusalsHere, [why])
    }).pipe(Effect.scoped))

  it.live("refuses a node whose certificate does not name the host it says it has", () =>
    Effect.gen(function*() {
      const elsewhere = certify("a", { by: authority, hosts: ["10.1.2.3"] })
      const { exit, refusals } = yield* ask(yield* withTls(elsewhere), yield* withTls(good("b")))
      assert.strictEqual(reasonOf(exit), "its certificate does not name it")
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

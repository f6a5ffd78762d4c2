// What a dial says about the life of a node, on real sockets and by the books of a real kernel (Linux).
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as net from "node:net"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { isListening, listeningPorts, networkStack } from "../../src/Remoting/internal/networkStack.edge.ts"
import * as Probe from "../../src/Remoting/internal/probe.ts"
import * as Settings from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"
import { pki } from "./support/pki/index.ts"

/** A node's transport, and what others would find in its record. */
const bind = Effect.fnUntraced(function*(options: Settings.RemotingOptions = {}) {
  const scope = yield* Effect.scope
  const own = yield* Scope.fork(scope)
  const settings = yield* Settings.decode({ dialTimeout: "500 millis", ...options })
  const transport = yield* Scope.provide(Transport.makeTcp(settings), own)
  return {
    transport,
    settings,
    record: { ...transport.address, listening: transport.listening },
    probe: Probe.make(transport, settings),
    close: Scope.close(own, Exit.void)
  }
})
const occupy = (port: number, host = "127.0.0.1") =>
  Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer().listen({ port, host }, () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
/** Another process that listens and accepts, and can be stopped. */
const stranger = Effect.acquireRelease(
  Effect.promise(async () => {
    const program =
      `require("net").createServer().listen(0, "127.0.0.1", function() { console.log(this.address().port) })`
    const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] })
    const [line] = await once(child.stdout, "data")
    return { child, port: Number(line) }
  }),
  ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))
)

describe("a probe of a node in the same network stack", () => {
  it.live("finds it open while it listens and vacant ever after, whatever it is bound to and with TLS, too", () =>
    Effect.gen(function*() {
      const tls = { tlsCertificate: pki.server.cert, tlsKey: pki.server.key, tlsAuthority: pki.ca }
      for (
        const options of [
          {},
          { host: "0.0.0.0", advertisedHost: "127.0.0.1", allowInsecure: true },
          { host: "::", advertisedHost: "127.0.0.1", allowInsecure: true },
          { host: "localhost", advertisedHost: "127.0.0.1" },
          tls
        ]
      ) {
        const a = yield* bind("tlsKey" in options ? tls : {})
        const b = yield* bind(options)
        assert.strictEqual(yield* a.probe(b.record), "Open", JSON.stringify(options))
        yield* b.close
        assert.strictEqual(yield* a.probe(b.record), "Vacant", JSON.stringify(options))
        assert.strictEqual(yield* a.probe(b.record), "Vacant")
      }
    }))

  it.live("finds it open where somebody else has taken the port since", () =>
    Effect.gen(function*() {
      const a = yield* bind()
      const b = yield* bind()
      yield* b.close
      yield* occupy(b.record.port)
      assert.strictEqual(yield* a.probe(b.record), "Open")
    }))

  it.live("finds it open where its process is stopped, even when its backlog is full, and vacant once it is killed", () =>
    Effect.gen(function*() {
      const a = yield* bind()
      const { child, port } = yield* stranger
      const record = { host: "127.0.0.1", port, listening: { ...a.transport.listening!, port } }
      child.kill("SIGSTOP")
      for (let dials = 0; dials < 5; dials++) assert.strictEqual(yield* a.probe(record), "Open")
      const sockets = Array.from({ length: 600 }, () => net.connect(port, "127.0.0.1").on("error", () => {}))
      yield* Effect.sleep("50 millis")
      assert.strictEqual(yield* a.probe(record), "Open")
      for (const socket of sockets) socket.destroy()
      child.kill("SIGKILL")
      yield* Effect.promise(() => once(child, "exit"))
      assert.strictEqual(yield* a.probe(record), "Vacant")
    }))

  it.live("believes the kernel's books, and no firewall that answers for it", () =>
    Effect.gen(function*() {
      const a = yield* bind()
      const b = yield* bind()
      const refused = new NodeUnreachable({ node: "b", outcome: "NotSent", reason: "ECONNREFUSED", refused: true })
      const probe = Probe.make({ ...a.transport, connect: () => Effect.fail(refused) }, a.settings)
      assert.strictEqual(yield* probe(b.record), "Open")
      yield* b.close
      assert.strictEqual(yield* probe(b.record), "Vacant")
      const blind = Probe.make({ ...a.transport, isListening: undefined }, a.settings)
      assert.strictEqual(yield* blind(b.record), "Refused")
    }))

  it.live("dials no host that may not be dialed", () =>
    Effect.gen(function*() {
      const a = yield* bind({ dialHosts: ["10.0.0.0/8"] })
      const b = yield* bind()
      yield* b.close
      assert.strictEqual(yield* a.probe(b.record), "Open")
    }))
})

describe("a probe of a node elsewhere", () => {
  it.live("tells a refusal from everything else that fails a dial, and is never certain", () =>
    Effect.gen(function*() {
      const a = yield* bind()
      const b = yield* bind()
      yield* b.close
      for (const listening of [undefined, { ...b.record.listening!, stack: "another" }]) {
        assert.strictEqual(yield* a.probe({ ...b.record, listening }), "Refused")
      }
      // another name for this host is another stack
      const c = yield* bind({ advertisedHost: "localhost" })
      yield* c.close
      assert.strictEqual(yield* a.probe(c.record), "Refused")
      for (const host of ["255.255.255.255", "no-such-host.invalid", "240.0.0.1"]) {
        assert.strictEqual(yield* a.probe({ host, port: 7000 }), "Open", host)
      }
    }))
})

describe("a network stack", () => {
  it.effect("has one name in one namespace, by the advertised host", () =>
    Effect.gen(function*() {
      const [one, same, other] = [yield* networkStack("a"), yield* networkStack("a"), yield* networkStack("b")]
      assert.isDefined(one)
      assert.strictEqual(one, same)
      assert.notStrictEqual(one, other)
    }))

  it.live("has listeners by the kernel's table, of both families", () =>
    Effect.gen(function*() {
      for (const host of ["127.0.0.1", "::1"]) {
        const server = yield* occupy(0, host)
        const { port } = server.address() as net.AddressInfo
        assert.isTrue(yield* isListening({ port }))
        yield* Effect.callback<void>((resume) => void server.close(() => resume(Effect.void)))
        assert.isFalse(yield* isListening({ port }))
      }
    }))

  it("has only those that listen, not those that are connected", () => {
    const table = `  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1B58 00000000:0000 0A 00000000:00000000
   1: 0100007F:1B59 0100007F:C350 01 00000000:00000000
   2: 00000000000000000000000001000000:1B5A 00000000000000000000000000000000:0000 0A 00000000:00000000
`
    assert.deepStrictEqual([...listeningPorts(table)], [7000, 7002])
  })
})

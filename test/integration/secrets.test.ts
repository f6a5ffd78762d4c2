// Nothing that is secret is said anywhere: not in a log of any level, an error in any dress, a span, an event, or what is printed of a
// service. Everything that could be read is gathered while secrets are used rightly and wrongly, and then searched.
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  ConfigProvider,
  Context,
  Effect,
  Exit,
  Layer,
  Logger,
  Option,
  Queue,
  Redacted,
  References,
  Tracer
} from "effect"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import { inspect } from "node:util"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import * as ControlPlaneEtcd from "../../src/ControlPlane/ControlPlaneEtcd.ts"
import * as ControlStoreEtcd from "../../src/ControlPlane/ControlStoreEtcd.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"
import * as Client from "../../src/Remoting/Client.ts"
import * as Remoting from "../../src/Remoting/Remoting.ts"
import * as Settings from "../../src/Remoting/Settings.ts"
import type { RemotingOptions } from "../../src/Remoting/Settings.ts"
import * as Transport from "../../src/Remoting/Transport.ts"
import { layerRecorders, Recorder } from "../../src/Testing/DeliveryContract.ts"
import { type Certified, certify } from "./certificates.ts"

/** Words that may stand nowhere. */
const secrets = {
  right: "right-9d1c7b-horse-staple",
  wrong: "wrong-51aa0e-battery",
  old: "old-70ce42-correct",
  password: "password-e8b1f6-xyzzy",
  token: "token-4c9d02-plugh",
  seed: "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4"
}

/** Everything that was said, in all the ways in which somebody might write it down. */
class Said {
  readonly texts: Array<string> = []
  /** the more ways the better: each hides or shows something else */
  add(value: unknown): void {
    const ways = [
      () => String(value),
      () => JSON.stringify(value),
      () =>
        inspect(value, {
          depth: Infinity,
          showHidden: true,
          getters: true,
          maxArrayLength: null,
          maxStringLength: null
        }),
      () => value instanceof Error ? `${value.message}\n${value.stack}\n${inspect(value.cause, { depth: null })}` : ""
    ]
    for (const way of ways) {
      try {
        this.texts.push(way() ?? "")
      } catch {
        // what cannot be printed that way says nothing that way
      }
    }
  }
  addCause(cause: Cause.Cause<unknown>): void {
    this.add(cause)
    this.texts.push(Cause.pretty(cause))
    for (const error of Cause.prettyErrors(cause)) this.add(error)
    this.add(Cause.squash(cause))
  }
}

const layerListening = (said: Said) =>
  Layer.mergeAll(
    Logger.layer([
      Logger.make((options) => {
        said.add(options.message)
        said.addCause(options.cause)
        said.add(Object.fromEntries(Object.entries(options.fiber.getRef(References.CurrentLogAnnotations))))
        for (const logger of [Logger.formatJson, Logger.formatLogFmt, Logger.formatStructured]) {
          said.add(logger.log(options))
        }
      })
    ]),
    Layer.succeed(References.MinimumLogLevel, "All"),
    Layer.succeed(
      Tracer.Tracer,
      Tracer.make({
        span: (options) => {
          said.add(options.name)
          said.add(options.annotations)
          const span = new Tracer.NativeSpan(options)
          const { attribute, end, event } = span
          span.attribute = (key, value) => {
            said.add([key, value])
            attribute.call(span, key, value)
          }
          span.event = (name, time, attributes) => {
            said.add([name, attributes])
            event.call(span, name, time, attributes)
          }
          span.end = (time, exit) => {
            said.add(exit)
            if (Exit.isFailure(exit)) said.addCause(exit.cause)
            end.call(span, time, exit)
          }
          return span
        }
      })
    )
  )

/** Runs it under listeners; its result, its failure and its services count as said too. */
const listen = <A, E, R>(said: Said, name: string, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const exit = yield* Effect.exit(Effect.withSpan(effect, name, { attributes: { name } }))
    if (Exit.isFailure(exit)) {
      said.addCause(exit.cause)
      const error = Cause.findErrorOption(exit.cause)
      if (Option.isSome(error)) said.add(error.value)
      yield* Effect.logError(name, exit.cause)
    } else {
      said.add(exit.value)
      yield* Effect.logDebug(name, exit.value)
    }
    return exit
  }).pipe(Effect.provide(layerListening(said)))

/** Also in other dresses: bytes in hexadecimal, in base64, and as a list of numbers. */
const forms = (secret: string): ReadonlyArray<string> => {
  const bytes = Buffer.from(secret)
  // base64 has three alignments; the inner part of each is the same wherever the text stands
  const base64 = [0, 1, 2].map((pad) =>
    Buffer.concat([Buffer.alloc(pad), bytes]).toString("base64").replace(/=+$/, "").slice(pad === 0 ? 0 : pad + 1, -2)
  )
  const spaced = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")
  return [secret, bytes.toString("hex"), spaced, [...bytes].join(","), [...bytes].join(", "), ...base64]
}

const silentAbout = (said: Said, words: Readonly<Record<string, string>>) => {
  assert.isAtLeast(said.texts.length, 10, "something was said at all")
  for (const [name, secret] of Object.entries(words)) {
    for (const form of forms(secret)) {
      const found = said.texts.find((text) => text.includes(form))
      const at = found?.indexOf(form) ?? 0
      assert.isUndefined(found?.slice(Math.max(0, at - 200), at + form.length + 50), `${name} was said`)
    }
  }
}

const folder = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-secrets-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

const authority = certify("authority")
const here = { hosts: ["127.0.0.1"] }

const withTls = Effect.fnUntraced(function*(own: Certified) {
  const path = yield* folder
  const file = (name: string, content: string) => {
    Fs.writeFileSync(Path.join(path, name), content)
    return Path.join(path, name)
  }
  return {
    tlsCertificate: file("node.crt", own.cert),
    tlsKey: file("node.key", own.key),
    tlsAuthority: file("ca.crt", authority.cert)
  }
})

/** Lines of a key in PEM: none of them may be said. */
const linesOf = (own: Certified) =>
  Object.fromEntries(
    own.key.split("\n").filter((line) => line.length > 20 && !line.startsWith("--")).map((
      line
    ) => [line.slice(0, 8), line])
  )

/** A node; all of its events, and its services as they print, count as said. */
const start = (said: Said, id: string, options: RemotingOptions) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(
      Remoting.layer(options).pipe(
        Layer.provideMerge(
          Layer.mergeAll(Remoting.layerNode({ system: "test", dataCenter: "dc", id }), layerRecorders())
        ),
        Layer.provideMerge(Transport.layerTcp(options))
      )
    )
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        said.add(context)
        for (const service of context.mapUnsafe.values()) said.add(service)
      })
    )
    return context
  })

const ask = (said: Said, from: RemotingOptions, to: RemotingOptions) =>
  Effect.gen(function*() {
    const b = yield* start(said, "b", to)
    const a = yield* start(said, "a", from)
    const address = { kind: Recorder.name, name: "x", node: Context.get(b, Node).address, placement: 1, epoch: 1 }
    const message = { kind: Recorder, tag: "Parse", payload: { text: "42" } }
    const asked = yield* Effect.exit(Context.get(a, Delivery).ask(address, message, 3000))
    said.add(asked)
    if (Exit.isFailure(asked)) said.addCause(asked.cause)
    return yield* yield* asked
  }).pipe(Effect.scoped)

const redacted = Redacted.make

describe("secrets are said nowhere", () => {
  it.live("listeners hear what is said: a secret that slips out is found in each of its dresses", () =>
    Effect.gen(function*() {
      const slips: ReadonlyArray<(secret: string) => Effect.Effect<unknown, unknown>> = [
        (secret) => Effect.logTrace("the secret", { secret }),
        (secret) => Effect.fail({ message: `bad ${secret}` }),
        (secret) => Effect.die({ key: Buffer.from(secret) }),
        (secret) => Effect.annotateCurrentSpan("secret", secret),
        (secret) => Effect.annotateLogs(Effect.logDebug("x"), { secret }),
        (secret) => Effect.succeed(new Map([["options", { bytes: new Uint8Array(Buffer.from(secret)) }]])),
        (secret) => Effect.succeed(Buffer.from(`user:${secret}`).toString("base64"))
      ]
      for (const slip of slips) {
        const said = new Said()
        yield* Effect.ignore(listen(said, "slip", slip(secrets.right)))
        said.texts.push(...Array.from({ length: 10 }, () => ""))
        assert.throws(() => silentAbout(said, { right: secrets.right }), /was said/)
      }
    }))

  it.live("shared secrets: right, wrong, none, rotated, by a node and by a client", () =>
    Effect.gen(function*() {
      const said = new Said()
      const right = { secret: redacted(secrets.right) }
      const both = { ...right, previousSecret: redacted(secrets.old) }
      const wrong = { secret: redacted(secrets.wrong) }
      const outcome = (from: RemotingOptions, to: RemotingOptions) =>
        Effect.map(listen(said, "ask", ask(said, from, to)), Exit.isSuccess)
      assert.isTrue(yield* outcome(right, right))
      assert.isFalse(yield* outcome(wrong, right))
      assert.isFalse(yield* outcome({}, right))
      assert.isFalse(yield* outcome(right, {}))
      assert.isTrue(yield* outcome({ secret: redacted(secrets.old) }, both))
      const client = listen(
        said,
        "client",
        Effect.gen(function*() {
          const b = yield* start(said, "b", right)
          const layer = Client.layer({ system: "test", endpoints: [Context.get(b, Node).address], ...wrong })
          const context = yield* Layer.build(layer)
          said.add(context)
          yield* Effect.sleep("200 millis")
          said.add(yield* Context.get(b, Remoting.Remoting).connected)
        }).pipe(Effect.scoped)
      )
      assert.isTrue(Exit.isSuccess(yield* client))
      silentAbout(said, secrets)
    }), 60_000)

  it.live(
    "keys of certificates: good, refused, unreadable, swapped, given as text instead of a path",
    () =>
      Effect.gen(function*() {
        const said = new Said()
        const own = certify("a", { by: authority, ...here })
        const stranger = certify("a", { by: certify("other"), ...here })
        const [good, bad] = [yield* withTls(own), yield* withTls(stranger)]
        assert.isTrue(Exit.isSuccess(yield* listen(said, "good", ask(said, good, good))))
        assert.isTrue(Exit.isFailure(yield* listen(said, "bad", ask(said, bad, good))))
        // whoever has a connection in hand may print it
        yield* listen(
          said,
          "connection",
          Effect.gen(function*() {
            const context = yield* Layer.build(Transport.layerTcp(good))
            const transport = Context.get(context, Transport.Transport)
            const dialed = yield* transport.connect(transport.address)
            said.add(dialed)
            said.add(yield* Queue.take(transport.accept))
          }).pipe(Effect.scoped)
        )
        const build = (options: RemotingOptions) =>
          Effect.map(
            listen(said, "build", Effect.scoped(Layer.build(Transport.layerTcp(options)))),
            (exit) => assert.isTrue(Exit.isFailure(exit))
          )
        yield* build({ ...good, tlsKey: bad.tlsKey })
        yield* build({ ...good, tlsKey: good.tlsCertificate })
        yield* build({ ...good, tlsCertificate: good.tlsKey })
        yield* build({ ...good, tlsKey: own.key })
        yield* build({ ...good, tlsAuthority: own.key })
        silentAbout(said, { ...linesOf(own), ...linesOf(stranger) })
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("settings that are refused, from code and from the environment", () =>
    Effect.gen(function*() {
      const said = new Said()
      const refused = (options: RemotingOptions) =>
        Effect.map(listen(said, "decode", Settings.decode(options)), (exit) => assert.isTrue(Exit.isFailure(exit)))
      yield* refused({ previousSecret: redacted(secrets.old) })
      yield* refused({ secret: redacted(secrets.right), port: -1 })
      yield* refused({ secret: redacted(secrets.right), tlsKey: "x" })
      // from a program without types: a plain text is no secret
      yield* refused({ secret: secrets.right } as never)
      yield* refused({ secret: { value: secrets.right } } as never)
      const environment = (values: Record<string, unknown>) =>
        listen(
          said,
          "environment",
          Settings.config.pipe(
            Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(values))
          )
        )
      yield* environment({ TROUPE_SECRET: secrets.right })
      yield* environment({ TROUPE_PREVIOUS_SECRET: secrets.old })
      yield* environment({ TROUPE_SECRET: secrets.right, TROUPE_PORT: "x" })
      yield* environment({ TROUPE_SECRET: { nested: secrets.right } })
      yield* environment({ TROUPE_SECRET: [secrets.right, 1] })
      // the value as the services read it
      said.add(yield* Settings.decode({ secret: redacted(secrets.right), previousSecret: redacted(secrets.old) }))
      silentAbout(said, secrets)
    }), 60_000)

  it.live("plain TCP off loopback is refused with a secret left out, and says none", () =>
    Effect.gen(function*() {
      const said = new Said()
      const exit = yield* listen(
        said,
        "exposed",
        Effect.scoped(Layer.build(Transport.layerTcp({
          host: "0.0.0.0",
          advertisedHost: "node-1",
          previousSecret: redacted(secrets.old)
        })))
      )
      assert.isTrue(Exit.isFailure(exit))
      silentAbout(said, secrets)
    }))

  it.live("credentials of NATS: refused, unreachable, malformed, in an address", () =>
    Effect.gen(function*() {
      const said = new Said()
      const port = yield* refusingNats
      const servers = [`127.0.0.1:${port}`]
      const [password, token, nkeySeed] = [secrets.password, secrets.token, secrets.seed].map((secret) =>
        redacted(secret)
      )
      const path = yield* folder
      const credentialsFile = Path.join(path, "app.creds")
      Fs.writeFileSync(
        credentialsFile,
        `-----BEGIN NATS USER JWT-----\n${secrets.token}\n------END NATS USER JWT------\n`
      )
      const brief = { connectTimeout: "300 millis", requestTimeout: "300 millis" } as const
      for (
        const options of [
          { servers, user: "ada", password },
          { servers: ["127.0.0.1:1"], user: "ada", password },
          { servers, token },
          { servers, nkeySeed },
          { servers, nkeySeed: password },
          { servers, credentialsFile },
          { servers: [`nats://ada:${secrets.password}@127.0.0.1:${port}`] },
          { servers: [`ada:${secrets.password}@127.0.0.1:${port}`] },
          { servers: [`nats://${secrets.token}@127.0.0.1:${port}`] },
          { servers, password: secrets.password as never }
        ] satisfies ReadonlyArray<ControlStoreNats.PartialSettings>
      ) {
        const exit = yield* listen(said, "nats", Effect.scoped(ControlStoreNats.make({ ...brief, ...options })))
        assert.isTrue(Exit.isFailure(exit))
      }
      silentAbout(said, secrets)
    }).pipe(Effect.scoped), 60_000)

  it.live("credentials of etcd: unreachable, malformed, in an address, a key as text", () =>
    Effect.gen(function*() {
      const said = new Said()
      const password = redacted(secrets.password)
      const brief = { connectTimeout: "300 millis", requestTimeout: "300 millis" } as const
      const own = certify("a", { by: authority, ...here })
      const files = yield* withTls(own)
      const endpoints = ["https://127.0.0.1:1"]
      const tls = { endpoints, tlsCertFile: files.tlsCertificate, tlsCaFile: files.tlsAuthority }
      for (
        const options of [
          { endpoints: ["127.0.0.1:1"], user: "ada", password },
          { endpoints: ["127.0.0.1:1"], password },
          { endpoints: [`http://ada:${secrets.password}@127.0.0.1:1`] },
          { endpoints: [`ada:${secrets.password}@127.0.0.1:1`] },
          { ...tls, tlsKeyFile: own.key },
          { ...tls, tlsKeyFile: files.tlsKey, tlsCertFile: files.tlsKey },
          { ...tls, tlsKeyFile: files.tlsKey }
        ] satisfies ReadonlyArray<ControlStoreEtcd.PartialSettings>
      ) {
        const made = Effect.scoped(ControlStoreEtcd.make({ ...brief, ...options }))
        assert.isTrue(Exit.isFailure(yield* listen(said, "store", made)))
        const plane = Effect.scoped(Layer.build(ControlPlaneEtcd.layer({ ...brief, ...options })))
        assert.isTrue(Exit.isFailure(yield* listen(said, "plane", plane)))
      }
      silentAbout(said, { ...secrets, ...linesOf(own) })
    }).pipe(Effect.scoped), 60_000)
})

/** Greets as NATS does, says what it got in its answer, and refuses. */
const refusingNats = Effect.acquireRelease(
  Effect.callback<{ readonly port: number; readonly server: Net.Server }>((resume) => {
    const server = Net.createServer((socket) => {
      socket.on("error", () => {})
      socket.write(
        `INFO ${
          JSON.stringify({ server_id: "x", version: "2.10.0", auth_required: true, nonce: "abc", max_payload: 1024 })
        }\r\n`
      )
      socket.once("data", () => {
        socket.write("-ERR 'Authorization Violation'\r\n")
        socket.end()
      })
    })
    server.listen(
      0,
      "127.0.0.1",
      () => resume(Effect.succeed({ port: (server.address() as Net.AddressInfo).port, server }))
    )
  }),
  ({ server }) => Effect.sync(() => server.close())
).pipe(Effect.map(({ port }) => port))

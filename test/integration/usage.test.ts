// The programs of examples/usage as their users start them: as processes of their own, on real sockets and against real servers.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as Net from "node:net"
import * as Path from "node:path"
import { startEtcd, startNats } from "../../scripts/servers/index.ts"

const project = Path.join(import.meta.dirname, "../..")

interface Program {
  readonly child: ChildProcess
  readonly output: () => string
  /** the exit code, or the signal that ended it */
  readonly exit: Effect.Effect<number | NodeJS.Signals | null>
  /** waits until the output matches; fails with the whole output when the program ends first or time is up */
  readonly until: (pattern: RegExp, timeout: number) => Effect.Effect<void>
}

/** A program of examples/usage as a process, which the end of the scope kills. */
const start = (file: string, environment: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    Effect.sync((): Program => {
      const child = spawn(process.execPath, [Path.join(project, "examples/usage", file)], {
        cwd: project,
        env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1", ...environment },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let output = ""
      const waiting = new Set<() => void>()
      const add = (text: string) => {
        output += text
        for (const look of waiting) look()
      }
      child.stdout.on("data", (chunk) => add(String(chunk)))
      child.stderr.on("data", (chunk) => add(String(chunk)))
      let ended: number | NodeJS.Signals | null | undefined
      child.on("close", (code, signal) => {
        ended = code ?? signal
        add(`(ended: ${ended})\n`)
      })
      return {
        child,
        output: () => output,
        exit: Effect.callback((resume) => {
          const look = () => {
            if (ended === undefined) return
            waiting.delete(look)
            resume(Effect.succeed(ended))
          }
          waiting.add(look)
          look()
        }),
        until: (pattern, timeout) =>
          Effect.callback<void>((resume) => {
            const look = () => {
              if (pattern.test(output)) done(Effect.void)
              else if (ended !== undefined) done(Effect.die(new Error(`${file} ended before ${pattern}:\n${output}`)))
            }
            const timer = setTimeout(
              () => done(Effect.die(new Error(`${file} did not print ${pattern} in ${timeout} ms:\n${output}`))),
              timeout
            )
            const done = (result: Effect.Effect<void>) => {
              clearTimeout(timer)
              waiting.delete(look)
              resume(result)
            }
            waiting.add(look)
            look()
          })
      }
    }),
    ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))
  )

const freePort = Effect.callback<number>((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as Net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

describe("examples/usage", () => {
  it.live("two-datacenters.ts prints what its last four lines say, and ends by itself", () =>
    Effect.gen(function*() {
      const program = yield* start("two-datacenters.ts")
      assert.strictEqual(yield* program.exit, 0, program.output())
      const lines = program.output().trimEnd().split("\n").filter((line) => !line.startsWith("(ended"))
      assert.deepStrictEqual(lines.slice(-4), [
        "after withdrawal: 12",
        "refused: missing 988",
        "no such datacenter: mars-1",
        "seen from eu-west-1: 12"
      ])
    }), 60_000)

  it.live(
    "from-environment.ts becomes ready in both of two datacenters, on real NATS and etcd, and leaves on SIGTERM with exit 0",
    () =>
      Effect.gen(function*() {
        const dataCenters = ["us-east-1", "eu-west-1"]
        const global = yield* startEtcd({ data: "memory" })
        const programs = yield* Effect.forEach(dataCenters, (dataCenter) =>
          Effect.gen(function*() {
            const nats = yield* startNats({ data: "memory" })
            return yield* start("from-environment.ts", {
              TROUPE_SYSTEM: "bank",
              TROUPE_SECRET: "a secret that only tests know, and long enough",
              TROUPE_HOST: "127.0.0.1",
              TROUPE_PORT: String(yield* freePort),
              TROUPE_DATACENTER: dataCenter,
              NATS_SERVERS: nats.servers.join(","),
              ETCD_ENDPOINTS: global.endpoints.join(",")
            })
          }))
        for (const program of programs) yield* program.until(/node is ready/, 60_000)
        for (const program of programs) {
          program.child.kill("SIGTERM")
          assert.strictEqual(yield* program.exit, 0, program.output())
        }
      }),
    150_000
  )

  it.live(
    "from-environment.ts without a secret is refused off loopback, by the name of the setting",
    () =>
      Effect.gen(function*() {
        const program = yield* start("from-environment.ts", {
          TROUPE_SYSTEM: "bank",
          TROUPE_HOST: "0.0.0.0",
          TROUPE_PORT: String(yield* freePort),
          TROUPE_DATACENTER: "us-east-1",
          NATS_SERVERS: "127.0.0.1:1",
          ETCD_ENDPOINTS: "http://127.0.0.1:1"
        })
        assert.notStrictEqual(yield* program.exit, 0)
        assert.match(program.output(), /secret/i)
      }),
    60_000
  )
})

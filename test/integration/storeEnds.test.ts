// A program that closes its store while the store's server is mute has nothing left to wait for, and ends by itself.
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { startEtcd, startNats, startProxy } from "../../scripts/servers/index.ts"

const program = fileURLToPath(new URL("support/storeClient.ts", import.meta.url))

/** Runs the program; `onReady` is called when its store is at work. What it has said, and how it ended. */
const run = (backend: string, address: string, onReady: () => void) =>
  Effect.callback<{ readonly output: string; readonly end: number | NodeJS.Signals | null }>((resume) => {
    // long enough for a client to miss its server and to try to come back
    const child = spawn(process.execPath, [program, backend, address, "3500"], {
      timeout: 15_000,
      killSignal: "SIGKILL"
    })
    let output = ""
    child.stdout.on("data", (chunk) => {
      output += String(chunk)
      if (String(chunk).includes("ready")) onReady()
    })
    child.stderr.on("data", (chunk) => output += String(chunk))
    child.once("close", (code, signal) => resume(Effect.succeed({ output, end: code ?? signal })))
  })

describe.concurrent("a program that closed its store while the server was mute ends by itself", () => {
  for (const backend of ["nats", "etcd"]) {
    it.live(backend, () =>
      Effect.gen(function*() {
        const address = backend === "nats"
          ? (yield* startNats({ data: "memory" })).servers[0]!
          : (yield* startEtcd({ data: "memory" })).endpoints[0]!.replace("http://", "")
        const proxy = yield* startProxy(address)
        const { end, output } = yield* run(backend, proxy.address, () => Effect.runSync(proxy.blackHole))
        assert.include(output, "closed")
        assert.strictEqual(end, 0)
      }).pipe(Effect.scoped), 40_000)
  }
})

/** One side's server, in a process of its own; it ends with the process that started it. */
import { asked, heapUsed, report } from "../harness.ts"
import type { Memory, Ready, ServerOptions } from "./sides.ts"

const options = asked<ServerOptions>()

const serve: Record<ServerOptions["side"], () => Promise<Ready>> = {
  raw: async () => (await import("./raw.ts")).serve(options.actors),
  troupe: async () => (await import("./troupe.ts")).serve(options),
  rpc: async () => (await import("./rpc.ts")).serve(options.actors),
  entity: async () => (await import("./entity.ts")).serve()
}

process.once("disconnect", () => process.exit(0))
process.on("message", () => {
  const memory: Memory = { bytes: heapUsed() }
  void report(memory)
})
await report(await serve[options.side]())

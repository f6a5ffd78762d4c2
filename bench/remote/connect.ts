/** Servers in processes of their own, and clients that are connected to them. */
import type { ChildProcess } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { certify } from "../../test/integration/certificates.ts"
import { troupe } from "../harness.ts"
import { start } from "../processes.ts"
import {
  type Client,
  type Memory,
  type Order,
  type Ready,
  type ServerOptions,
  type SideName,
  tlsOptions
} from "./sides.ts"

export const actors = 1000

export const names: Record<SideName, string> = {
  raw: "plain socket, msgpackr",
  troupe,
  rpc: "effect/rpc",
  entity: "Entity over sockets"
}

/** for what the processes of this run share; gone with this process */
export const folder = mkdtempSync(join(tmpdir(), "troupe-bench-"))
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

const certificates = () => {
  const authority = certify("authority")
  const node = certify("node", { by: authority, hosts: ["127.0.0.1"] })
  const files = tlsOptions(folder)
  writeFileSync(files.tlsAuthority, authority.cert)
  writeFileSync(files.tlsCertificate, node.cert)
  writeFileSync(files.tlsKey, node.key)
}

const next = <A>(child: ChildProcess): Promise<A> =>
  new Promise((resolve, reject) => {
    const ended = () => reject(new Error("a server has ended"))
    child.once("exit", ended)
    child.once("message", (message) => {
      child.off("exit", ended)
      resolve(message as A)
    })
  })

export interface Server {
  readonly options: ServerOptions
  readonly ready: Ready
  readonly ask: (order: Order) => Promise<Memory>
}

export const startServer = async (
  side: SideName,
  more: { readonly tls?: boolean; readonly bulk?: boolean } = {}
): Promise<Server> => {
  const options: ServerOptions = { side, folder, actors, tls: more.tls ?? false, bulk: more.bulk ?? false }
  if (options.tls) certificates()
  const child = start("remote/server.ts", options)
  const ready = await next<Ready>(child)
  return {
    options,
    ready,
    ask: (order) => {
      const answer = next<Memory>(child)
      child.send(order)
      return answer
    }
  }
}

/** A client of any side; what only ours can do is in `troupe.ts`. */
export const connectTo = async ({ options, ready }: Server): Promise<Client> => {
  switch (options.side) {
    case "raw":
      return (await import("./raw.ts")).connect(ready.port, actors)
    case "troupe":
      return (await import("./troupe.ts")).connect(options, ready)
    case "rpc":
      return (await import("./rpc.ts")).connect(ready.port, actors)
    case "entity":
      return (await import("./entity.ts")).connect(ready.port, actors)
  }
}

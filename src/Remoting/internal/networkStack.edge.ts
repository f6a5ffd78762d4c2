/** Which network stack a process is in, and at which of its ports somebody listens, by the books of Linux. Elsewhere nothing is known. */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs"

/**
 * A name for this boot of the machine, this network namespace, and the host under which a node is advertised. The last one because
 * machines that were cloned while they ran share the first two; they cannot be reached under one name. Undefined: not known.
 */
export const networkStack = (advertisedHost: string): Effect.Effect<string | undefined> =>
  Effect.sync(() => {
    try {
      const boot = fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
      const namespace = fs.readlinkSync("/proc/self/ns/net")
      if (boot === "" || !/^net:\[\d+\]$/.test(namespace)) return undefined
      return createHash("sha256").update(JSON.stringify([boot, namespace, advertisedHost])).digest("hex").slice(0, 32)
    } catch {
      // no such file, or not for us: then it is not known
      return undefined
    }
  })

const listenState = "0A"

/** Ports in a table of `/proc/net` at which somebody listens, whatever the address. */
export const listeningPorts = (table: string): ReadonlySet<number> => {
  const ports = new Set<number>()
  for (const line of table.split("\n").slice(1)) {
    const [, local, , state] = line.trim().split(/\s+/)
    if (local !== undefined && state === listenState) {
      ports.add(Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16))
    }
  }
  return ports
}

/** Undefined: it cannot be read. A kernel without IPv6 has no table of it, and nobody who listens there. */
const read = (path: string, mayBeAbsent: boolean) =>
  Effect.callback<string | undefined>((resume) => {
    fs.readFile(path, "utf8", (error, text) =>
      resume(Effect.succeed(error === null ? text : mayBeAbsent && error.code === "ENOENT" ? "" : undefined)))
  })

/** By the port alone: the same one at another address counts, too. */
export const isListening = ({ port }: { readonly port: number }): Effect.Effect<boolean> =>
  Effect.gen(function*() {
    const tables = [yield* read("/proc/self/net/tcp", false), yield* read("/proc/self/net/tcp6", true)]
    return tables.some((table) => table === undefined || listeningPorts(table).has(port))
  })

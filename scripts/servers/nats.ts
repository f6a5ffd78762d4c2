/** Real NATS servers with JetStream for tests, the demo and benchmarks: one, or a cluster of three. */
import { Effect, type Scope } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { binary, freePorts, retryStart, type Server, ServerFailed, start, temporaryFolder } from "./process.ts"

export interface NatsOptions {
  readonly members?: 1 | 3
  /** further lines of the server's configuration, e.g. `authorization { token: "..." }`, `tls { ... }`, `max_payload: 4096` */
  readonly config?: string
  /** memory: the data lives in RAM where the machine allows, which makes starts and writes faster; default disk */
  readonly data?: "disk" | "memory"
  /** may servers of a cluster tell clients of each other? default yes; without it a client knows only the addresses it was given */
  readonly advertise?: boolean
  /** user and password for routes and monitoring are never needed; this names the account that `healthz` must find ready */
  readonly name?: string
}

export interface NatsServers {
  /** `host:port` of each member, as `NATS_SERVERS` takes them */
  readonly servers: ReadonlyArray<string>
  readonly members: ReadonlyArray<Server>
  /** the member that leads the given stream, or undefined while there is none */
  readonly leaderOf: (stream: string) => Effect.Effect<Server | undefined>
  /** the member that makes streams and consumers, or undefined while there is none */
  readonly metaLeader: Effect.Effect<Server | undefined>
}

const json = async (url: string): Promise<unknown> => {
  const answer = await fetch(url, { signal: AbortSignal.timeout(1_000) })
  return answer.ok ? await answer.json() : undefined
}

interface JetStreamInfo {
  readonly meta_cluster?: { readonly leader?: string; readonly cluster_size?: number }
  readonly account_details?: ReadonlyArray<{
    readonly stream_detail?: ReadonlyArray<{ readonly name: string; readonly cluster?: { readonly leader?: string } }>
  }>
}

/** Starts NATS and waits until JetStream takes requests; all of it ends with the scope. */
export const startNats = (options: NatsOptions = {}): Effect.Effect<NatsServers, ServerFailed, Scope.Scope> =>
  retryStart(Effect.gen(function*() {
    const path = yield* binary("nats-server")
    const size = options.members ?? 1
    const folder = yield* temporaryFolder("nats", options.data)
    const ports = yield* freePorts(size * 3)
    const [clients, monitors, routes] = [ports.slice(0, size), ports.slice(size, 2 * size), ports.slice(2 * size)]
    const members: Array<Server> = []
    for (let i = 0; i < size; i++) {
      const name = `${options.name ?? "nats"}-${i}`
      const data = join(folder, name)
      const file = `${data}.conf`
      writeFileSync(
        file,
        [
          `server_name: ${name}`,
          `listen: 127.0.0.1:${clients[i]}`,
          `http: 127.0.0.1:${monitors[i]}`,
          `jetstream { store_dir: "${data}", max_memory_store: 256MB, max_file_store: 2GB }`,
          ...(size === 1 ? [] : [
            `cluster { name: tests, listen: 127.0.0.1:${routes[i]}, routes: [${
              routes.map((port) => `nats://127.0.0.1:${port}`).join(", ")
            }]${options.advertise === false ? ", no_advertise: true" : ""} }`
          ]),
          options.config ?? ""
        ].join("\n")
      )
      const probe = async () => {
        const health = await json(`http://127.0.0.1:${monitors[i]}/healthz`) as { readonly status?: string } | undefined
        if (health?.status !== "ok") return false
        if (size === 1) return true
        const info = await json(`http://127.0.0.1:${monitors[i]}/jsz`) as JetStreamInfo | undefined
        return (info?.meta_cluster?.leader ?? "") !== "" && info?.meta_cluster?.cluster_size === size
      }
      members.push(yield* start({ name, binary: path, args: ["-c", file], folder: data, probe }))
    }
    yield* Effect.forEach(members, (member) => member.ready, { concurrency: "unbounded", discard: true })
    const leaderOf = (stream: string) =>
      Effect.promise(async () => {
        for (const port of monitors) {
          const info = await json(`http://127.0.0.1:${port}/jsz?streams=true`).catch(() => undefined) as
            | JetStreamInfo
            | undefined
          const leader = info?.account_details?.flatMap((account) => account.stream_detail ?? [])
            .find((detail) => detail.name === stream)?.cluster?.leader
          if (leader !== undefined && leader !== "") return members.find((member) => member.name === leader)
        }
        return size === 1 ? members[0] : undefined
      })
    const metaLeader = Effect.promise(async () => {
      for (const port of monitors) {
        const info = await json(`http://127.0.0.1:${port}/jsz`).catch(() => undefined) as JetStreamInfo | undefined
        const found = members.find((member) => member.name === info?.meta_cluster?.leader)
        if (found !== undefined) return found
      }
      return size === 1 ? members[0] : undefined
    })
    return { servers: clients.map((port) => `127.0.0.1:${port}`), members, leaderOf, metaLeader }
  }))

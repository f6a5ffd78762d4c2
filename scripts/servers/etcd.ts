/** Real etcd members for tests, the demo and benchmarks: one, or a cluster of three. */
import { Effect, type Scope } from "effect"
import { join } from "node:path"
import { binary, freePorts, retryStart, type Server, ServerFailed, start, temporaryFolder } from "./process.ts"

export interface EtcdOptions {
  readonly members?: 1 | 3
  /** memory: the data lives in RAM where the machine allows, which makes starts and writes faster; default disk */
  readonly data?: "disk" | "memory"
  /** further flags, e.g. `--auto-compaction-retention=1` */
  readonly flags?: ReadonlyArray<string>
  /** PEM files; with `ca` the members ask clients for a certificate */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca?: string }
}

export interface EtcdServers {
  /** `http(s)://host:port` of each member, as `ETCD_ENDPOINTS` takes them */
  readonly endpoints: ReadonlyArray<string>
  readonly members: ReadonlyArray<Server>
  /** the member that leads, or undefined while there is none */
  readonly leader: Effect.Effect<Server | undefined>
}

const text = async (url: string): Promise<string> => {
  const answer = await fetch(url, { signal: AbortSignal.timeout(1_000) })
  return answer.ok ? await answer.text() : ""
}

/** Starts etcd and waits until it takes writes; all of it ends with the scope. */
export const startEtcd = (options: EtcdOptions = {}): Effect.Effect<EtcdServers, ServerFailed, Scope.Scope> =>
  retryStart(Effect.gen(function*() {
    const path = yield* binary("etcd")
    const size = options.members ?? 1
    const folder = yield* temporaryFolder("etcd", options.data)
    const ports = yield* freePorts(size * 3)
    const [clients, peers, metrics] = [ports.slice(0, size), ports.slice(size, 2 * size), ports.slice(2 * size)]
    const scheme = options.tls === undefined ? "http" : "https"
    const cluster = peers.map((port, i) => `etcd-${i}=http://127.0.0.1:${port}`).join(",")
    const members: Array<Server> = []
    for (let i = 0; i < size; i++) {
      const name = `etcd-${i}`
      const endpoint = `${scheme}://127.0.0.1:${clients[i]}`
      const peer = `http://127.0.0.1:${peers[i]}`
      const data = join(folder, name)
      const args = [
        `--name=${name}`,
        `--data-dir=${data}`,
        `--listen-client-urls=${endpoint}`,
        `--advertise-client-urls=${endpoint}`,
        `--listen-peer-urls=${peer}`,
        `--initial-advertise-peer-urls=${peer}`,
        `--initial-cluster=${cluster}`,
        `--initial-cluster-token=troupe-${peers[0]}`,
        "--initial-cluster-state=new",
        // health and metrics stay plain whatever the clients' port asks for
        `--listen-metrics-urls=http://127.0.0.1:${metrics[i]}`,
        "--logger=zap",
        "--log-level=warn",
        ...(options.tls === undefined ? [] : [
          `--cert-file=${options.tls.cert}`,
          `--key-file=${options.tls.key}`,
          ...(options.tls.ca === undefined ? [] : [`--trusted-ca-file=${options.tls.ca}`, "--client-cert-auth=true"])
        ]),
        ...(options.flags ?? [])
      ]
      const probe = async () => {
        const health = await text(`http://127.0.0.1:${metrics[i]}/health`)
        return health !== "" && (JSON.parse(health) as { readonly health?: string }).health === "true"
      }
      members.push(yield* start({ name, binary: path, args, folder: data, probe }))
    }
    yield* Effect.forEach(members, (member) => member.ready, { concurrency: "unbounded", discard: true })
    const leader = Effect.promise(async () => {
      for (const [i, port] of metrics.entries()) {
        const lines = await text(`http://127.0.0.1:${port}/metrics`).catch(() => "")
        if (lines.includes("\netcd_server_is_leader 1")) return members[i]
      }
      return undefined
    })
    return { endpoints: clients.map((port) => `${scheme}://127.0.0.1:${port}`), members, leader }
  }))

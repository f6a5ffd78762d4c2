/**
 * A TCP proxy that a test can break: between a client and one server it passes bytes, or makes them vanish, or hangs up. A pair
 * of connections that was black-holed once stays dead, as it does behind a router that lost its table.
 */
import { Effect, type Scope } from "effect"
import * as net from "node:net"

export interface Proxy {
  /** `127.0.0.1:port` */
  readonly address: string
  readonly port: number
  /** Bytes vanish in both directions, without a word; new connections open and stay mute. */
  readonly blackHole: Effect.Effect<void>
  /**
   * Holds bytes back in both directions until `open`, when all of them arrive: what TCP makes of a network that is away for a
   * while. So a request may arrive long after its sender gave it up.
   */
  readonly hold: Effect.Effect<void>
  /** Resets all connections; new ones pass as before. */
  readonly reset: Effect.Effect<void>
  /** Milliseconds that bytes take in each direction from now on. */
  readonly delay: (millis: number) => Effect.Effect<void>
  /** Hangs up on everyone and takes nobody new. */
  readonly refuse: Effect.Effect<void>
  /** Lets new connections through, and what was held back. */
  readonly open: Effect.Effect<void>
  /** Called for each chunk on its way to the client, before it is passed on; for cutting at a chosen moment. */
  readonly onServerData: (listener: ((chunk: Buffer) => void) | undefined) => void
}

interface Pair {
  readonly client: net.Socket
  readonly server: net.Socket
  dead: boolean
}

/** Listens on a free port and passes everything on to `target` (`host:port`) until the scope ends. */
export const startProxy = (target: string): Effect.Effect<Proxy, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<{ readonly listener: net.Server; readonly proxy: Proxy; readonly close: () => void }>(
        (resume) => {
          const [host, port] = [
            target.slice(0, target.lastIndexOf(":")),
            Number(target.slice(target.lastIndexOf(":") + 1))
          ]
          const pairs = new Set<Pair>()
          let mode: "open" | "blackHole" | "hold" | "refuse" = "open"
          let millis = 0
          let released: Promise<void> = Promise.resolve()
          let release = (): void => undefined
          let watcher: ((chunk: Buffer) => void) | undefined
          const hangUp = (pair: Pair) => {
            pairs.delete(pair)
            pair.client.destroy()
            pair.server.destroy()
          }
          const listener = net.createServer({ noDelay: true }, (client) => {
            client.on("error", () => client.destroy())
            if (mode === "refuse") return void client.destroy()
            const server = net.connect({ host, port, noDelay: true })
            const pair: Pair = { client, server, dead: mode === "blackHole" }
            pairs.add(pair)
            server.on("error", () => hangUp(pair))
            const pass = (from: net.Socket, to: net.Socket, watched: boolean) => {
              const give = (chunk: Buffer) => {
                if (pair.dead) return
                if (watched) watcher?.(chunk)
                if (pair.dead || to.destroyed) return
                if (!to.write(chunk)) {
                  from.pause()
                  to.once("drain", () => from.resume())
                }
              }
              // chunks on their way; while there are any, later ones queue behind them
              let underway = 0
              let last: Promise<void> = Promise.resolve()
              from.on("data", (chunk) => {
                if (underway === 0 && mode !== "hold" && millis === 0) return give(chunk)
                underway += 1
                const travelled = millis === 0 ? last : new Promise<void>((done) => setTimeout(done, millis).unref())
                last = Promise.all([last, travelled, released]).then(() => {
                  underway -= 1
                  give(chunk)
                })
              })
              // a dead pair does not even say goodbye
              from.on("close", () => pair.dead ? undefined : hangUp(pair))
            }
            pass(client, server, false)
            pass(server, client, true)
          })
          listener.listen(0, "127.0.0.1", () => {
            const own = (listener.address() as net.AddressInfo).port
            resume(Effect.succeed({
              listener,
              close: () => {
                for (const pair of pairs) hangUp(pair)
                listener.close()
              },
              proxy: {
                address: `127.0.0.1:${own}`,
                port: own,
                blackHole: Effect.sync(() => {
                  mode = "blackHole"
                  for (const pair of pairs) pair.dead = true
                }),
                hold: Effect.sync(() => {
                  if (mode === "hold") return
                  mode = "hold"
                  released = new Promise((done) => release = done)
                }),
                reset: Effect.sync(() => {
                  for (const pair of pairs) hangUp(pair)
                }),
                delay: (next) => Effect.sync(() => void (millis = next)),
                refuse: Effect.sync(() => {
                  mode = "refuse"
                  for (const pair of pairs) hangUp(pair)
                }),
                open: Effect.sync(() => {
                  mode = "open"
                  release()
                }),
                onServerData: (next) => void (watcher = next)
              }
            }))
          })
        }
      ),
      ({ close }) => Effect.sync(close)
    ),
    ({ proxy }) => proxy
  )

// A TCP proxy between nodes: one address, connections spread over ports, which can go black, be held back, or be cut.
import { Effect } from "effect"
import * as Net from "node:net"

interface Link {
  readonly from: Net.Socket
  readonly to: Net.Socket
  /** bytes on their way in, while they are held */
  held: Array<Buffer> | undefined
}

export interface Proxy {
  readonly host: string
  readonly port: number
  /** ports in the order in which connections went to them */
  readonly taken: ReadonlyArray<number>
  /** the next connections go to these ports in turn; none: they are closed at once, as by a balancer without a backend */
  readonly spread: (ports: ReadonlyArray<number>) => void
  /** passes nothing on in either direction, for connections there are and new ones, and closes none */
  readonly black: () => void
  /** keeps what comes in on the connections there are; new ones pass */
  readonly hold: () => void
  /** passes on what was held, and everything from now on */
  readonly release: () => void
  /** ends every connection */
  readonly cut: () => void
  /** all that came in so far, over all connections */
  readonly heard: () => Uint8Array
}

/** Lives as long as the scope. */
export const startProxy = (targets: ReadonlyArray<number> = []) =>
  Effect.acquireRelease(
    Effect.callback<Proxy & { readonly close: () => void }>((resume) => {
      const links = new Set<Link>()
      const taken: Array<number> = []
      const heard: Array<Buffer> = []
      let ports = targets
      let turn = 0
      let dark = false
      const server = Net.createServer({ pauseOnConnect: true }, (from) => {
        from.on("error", () => {})
        const port = ports.length === 0 ? undefined : ports[turn++ % ports.length]!
        if (port === undefined) return void from.destroy()
        taken.push(port)
        const to = Net.connect(port, "127.0.0.1")
        const link: Link = { from, to, held: undefined }
        links.add(link)
        to.on("error", () => {})
        from.on("data", (bytes: Buffer) => {
          heard.push(bytes)
          if (dark) return
          if (link.held === undefined) to.write(bytes)
          else link.held.push(bytes)
        })
        to.on("data", (bytes: Buffer) => {
          if (!dark) from.write(bytes)
        })
        // while bytes are held nobody learns of the other side's end
        from.on("close", () => {
          if (link.held === undefined && !dark) {
            links.delete(link)
            to.end()
          }
        })
        to.on("close", () => {
          links.delete(link)
          from.destroy()
        })
        from.resume()
      })
      const cut = () => {
        for (const { from, to } of links) {
          from.destroy()
          to.destroy()
        }
        links.clear()
      }
      server.listen(0, "127.0.0.1", () =>
        resume(Effect.succeed({
          host: "127.0.0.1",
          port: (server.address() as Net.AddressInfo).port,
          taken,
          spread: (next) => {
            ports = next
            turn = 0
          },
          black: () => {
            dark = true
          },
          hold: () => {
            for (const link of links) link.held = []
          },
          release: () => {
            dark = false
            for (const link of links) {
              for (const bytes of link.held ?? []) link.to.write(bytes)
              link.held = undefined
            }
          },
          cut,
          heard: () => Buffer.concat(heard),
          close: () => {
            cut()
            server.close()
          }
        })))
    }),
    ({ close }) => Effect.sync(close)
  )

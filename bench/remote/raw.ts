/**
 * The ceiling: a plain Node socket, frames of a length and a msgpackr value, and one write for all that a turn of the event
 * loop has gathered. No names, no deadlines, no lost connections, no limits.
 */
import { Packr } from "msgpackr"
import * as Net from "node:net"
import { body, type Client, Counter, Latencies, type Ready } from "./sides.ts"

const ask = 0
const tell = 1
const awaiting = 2
/** kind, id (or count), actor, body */
type Request = [kind: number, id: number, actor: number, body: string]
/** id, body */
type Reply = [id: number, body: string]

/** Values in frames over a socket. */
class Frames<Sent, Received> {
  private readonly packr = new Packr({ useRecords: false })
  private readonly socket: Net.Socket
  private out: Array<Uint8Array> = []
  private outBytes = 0
  private rest: Buffer = Buffer.alloc(0)

  constructor(socket: Net.Socket, onValue: (value: Received) => void) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on("data", (chunk) => {
      const data = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk])
      let at = 0
      while (data.length - at >= 4) {
        const end = at + 4 + data.readUInt32BE(at)
        if (end > data.length) break
        onValue(this.packr.unpack(data.subarray(at + 4, end)) as Received)
        at = end
      }
      this.rest = data.subarray(at)
    })
  }

  /** How many bytes wait in the socket. */
  get waiting(): number {
    return this.socket.writableLength
  }

  send(value: Sent): void {
    const packed = this.packr.pack(value)
    if (this.out.length === 0) setImmediate(this.flush)
    this.out.push(packed)
    this.outBytes += packed.length + 4
  }

  private readonly flush = (): void => {
    const bytes = Buffer.allocUnsafe(this.outBytes)
    let at = 0
    for (const packed of this.out) {
      bytes.writeUInt32BE(packed.length, at)
      bytes.set(packed, at + 4)
      at += packed.length + 4
    }
    this.out = []
    this.outBytes = 0
    this.socket.write(bytes)
  }
}

export const serve = (actors: number): Promise<Ready> =>
  new Promise((resolve) => {
    const counter = new Counter()
    const seen = new Float64Array(actors)
    const server = Net.createServer((socket) => {
      const frames = new Frames<Reply, Request>(socket, ([kind, id, actor, text]) => {
        if (kind === ask) frames.send([id, text])
        else if (kind === tell) {
          seen[actor]! += 1
          counter.arrived()
        } else counter.awaiting(id, () => frames.send([0, ""]))
      })
    })
    server.listen(0, "127.0.0.1", () => resolve({ port: (server.address() as Net.AddressInfo).port }))
  })

export const connect = (port: number, actors: number): Promise<Client> =>
  new Promise((resolve, reject) => {
    const waiting: Array<() => void> = []
    const free: Array<number> = []
    const socket = Net.connect(port, "127.0.0.1")
    const frames = new Frames<Request, Reply>(socket, ([id]) => {
      const tell = waiting[id]!
      free.push(id)
      tell()
    })
    const request = (kind: number, actor: number, id: number, done: () => void) => {
      waiting[id] = done
      frames.send([kind, id, actor, body])
    }
    socket.once("error", reject)
    socket.once("connect", () =>
      resolve({
        ask: (inFlight, count) =>
          new Promise((resolve) => {
            const latencies = new Latencies(count)
            let sent = 0
            let answered = 0
            const next = (asker: number) => {
              if (sent === count) return
              sent++
              const start = performance.now()
              request(ask, asker % actors, free.pop() ?? waiting.length, () => {
                latencies.since(start)
                if (++answered === count) resolve(latencies.times)
                else next(asker)
              })
            }
            for (let asker = 0; asker < inFlight; asker++) next(asker)
          }),
        tell: (count) =>
          new Promise((resolve) => {
            let sent = 0
            const produce = () => {
              if (frames.waiting > 1_000_000) return setImmediate(produce)
              for (let i = 0; i < 2000 && sent < count; i++) frames.send([tell, 0, sent++ % actors, body])
              if (sent < count) return setImmediate(produce)
              waiting[0] = resolve
              frames.send([awaiting, count, 0, ""])
            }
            produce()
          }),
        close: async () => {
          socket.destroy()
        }
      }))
  })

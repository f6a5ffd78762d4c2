/**
 * Connections on the platform's sockets. Thin: bytes to frames and back, one write in flight, everything else is above. An edge
 * because sockets are callbacks; time comes in as a function.
 */
import { Effect, Exit, Redacted } from "effect"
import { constants } from "node:crypto"
import * as net from "node:net"
import * as tls from "node:tls"
import { FrameTooLarge, NodeUnreachable } from "../../Actor/errors.ts"
import type { Connection } from "../Transport.ts"
import { Framer, headerBytes } from "./framer.ts"
import { Slabs } from "./memory.edge.ts"
import { certifies, hideKey, refusedCertificate, type TlsMaterial, untrusted } from "./tls.edge.ts"
import { Malformed } from "./wire.ts"

export interface SocketOptions {
  readonly maxFrameBytes: number
  readonly outboxBytes: number
  /** milliseconds in which a frame that has begun must be complete */
  readonly frameTimeout: number
  /** mutual TLS on every connection */
  readonly tls: Redacted.Redacted<TlsMaterial> | undefined
  /** milliseconds for the TLS handshake of a peer that dials */
  readonly handshakeTimeout: number
  /** milliseconds, monotonic */
  readonly now: () => number
}

/** Received bytes that may wait for a reader before the socket is no longer read. */
const inboxBytes = 1024 * 1024
/** What a frame that waits takes beside its bytes, roughly. */
const frameCost = 256
/** Writes below this are joined into one buffer, above they are handed over as they are. */
const joinBytes = 32 * 1024
/** milliseconds that a closed connection has to send what was handed over */
const lingerMillis = 5000

const pemOf = (material: Redacted.Redacted<TlsMaterial>) => {
  const { ca, cert, key } = Redacted.value(material)
  return { ca, cert, key }
}

const isLoopbackAddress = (address: string | undefined): boolean =>
  address !== undefined && (address === "::1" || /^(::ffff:)?127\./.test(address))

const writeHeader = (bytes: Uint8Array, length: number): void => {
  bytes[0] = length >>> 24
  bytes[1] = length >>> 16
  bytes[2] = length >>> 8
  bytes[3] = length
}

class SocketConnection implements Connection {
  readonly peer: string
  readonly loopback: boolean
  readonly certifies: ((host: string) => boolean) | undefined
  readonly untrusted: string | undefined
  private readonly socket: net.Socket
  private readonly options: SocketOptions
  private readonly framer: Framer
  private readonly slabs = new Slabs()
  private inbox: Array<Uint8Array> = []
  private inboxLength = 0
  private begun: number | undefined
  private over: string | undefined
  private waiter: (() => void) | undefined
  private pending: Array<Uint8Array> = []
  private pendingLength = 0
  /** bytes given to the socket, and in how many writes, of which it has not told yet that they left */
  private writing = 0
  private writes = 0
  /** frames handed over since all had left */
  private offered = 0
  private listener: (() => void) | undefined
  private readonly senders = new Set<() => void>()

  constructor(socket: net.Socket, options: SocketOptions) {
    this.socket = socket
    this.options = options
    this.peer = `${socket.remoteAddress ?? "?"}:${socket.remotePort ?? 0}`
    this.loopback = isLoopbackAddress(socket.remoteAddress)
    this.certifies = socket instanceof tls.TLSSocket ? certifies(socket) : undefined
    this.untrusted = socket instanceof tls.TLSSocket ? untrusted(socket) : undefined
    this.framer = new Framer(options.maxFrameBytes)
    socket.setNoDelay(true)
    socket.on("data", (chunk: Buffer) => this.onBytes(chunk))
    socket.on("error", (error: NodeJS.ErrnoException) => this.end(error.code ?? error.message))
    socket.on("end", () => this.end("closed by the peer"))
    socket.on("close", () => this.end("closed"))
    // nobody reads before the first receive
    socket.pause()
  }

  private failure(): NodeUnreachable {
    return new NodeUnreachable({ node: this.peer, outcome: "NotSent", reason: this.over ?? "the connection is over" })
  }

  private onBytes(chunk: Uint8Array): void {
    if (this.over !== undefined) return
    try {
      const frames = this.framer.feed(chunk)
      if (frames.length > 0 || !this.framer.partial) this.begun = undefined
      if (this.framer.partial) {
        const now = this.options.now()
        this.begun ??= now
        if (now - this.begun > this.options.frameTimeout) throw new Malformed("a frame took too long")
      }
      if (frames.length === 0) return
      this.slabs.hold(chunk, frames)
      for (const frame of frames) this.inboxLength += frame.length + frameCost
      if (this.inbox.length === 0) this.inbox = frames
      else this.inbox.push(...frames)
      if (this.inboxLength > inboxBytes) this.socket.pause()
      this.wake()
    } catch (error) {
      if (!(error instanceof Malformed)) throw error
      this.end(`protocol violation: ${error.message}`)
      this.socket.destroy()
    }
  }

  private wake(): void {
    const waiter = this.waiter
    this.waiter = undefined
    waiter?.()
  }

  private end(reason: string): void {
    if (this.over !== undefined) return
    this.over = reason
    this.wake()
    this.idle()
  }

  private idle(): void {
    if (this.senders.size > 0) {
      const senders = [...this.senders]
      this.senders.clear()
      for (const sender of senders) sender()
    }
    this.listener?.()
  }

  readonly offer = (frame: Uint8Array, front = 0): boolean => {
    const { length } = frame
    if (this.over !== undefined || length === 0 || length > this.options.maxFrameBytes) return false
    if (front >= headerBytes) {
      // the header goes in front of the frame, in the same buffer
      const framed = new Uint8Array(frame.buffer, frame.byteOffset - headerBytes, headerBytes + length)
      writeHeader(framed, length)
      this.pending.push(framed)
    } else {
      const header = new Uint8Array(headerBytes)
      writeHeader(header, length)
      this.pending.push(header, frame)
    }
    this.pendingLength += headerBytes + length
    this.offered++
    // what the kernel has taken needs no waiting for, though the platform tells of it only later
    if (this.writing === 0 || this.socket.writableLength === 0) this.write()
    return true
  }

  private write(): void {
    const { pending, pendingLength, socket } = this
    this.writing += pendingLength
    this.writes++
    this.pending = []
    this.pendingLength = 0
    if (pending.length === 1) socket.write(pending[0]!, this.written)
    else if (pendingLength <= joinBytes) socket.write(Buffer.concat(pending, pendingLength), this.written)
    else {
      socket.cork()
      for (let i = 0; i < pending.length - 1; i++) socket.write(pending[i]!)
      socket.write(pending[pending.length - 1]!, this.written)
      socket.uncork()
    }
  }

  private readonly written = (): void => {
    if (--this.writes > 0) return
    this.writing = 0
    if (this.over !== undefined) return
    if (this.pending.length > 0) return this.write()
    this.offered = 0
    this.idle()
  }

  readonly unsent = (): number => this.writing + this.pendingLength

  readonly spent = (frame: Uint8Array): void => this.slabs.spent(frame)

  readonly onIdle = (listener: () => void): void => {
    this.listener = listener
  }

  readonly limitInbound = (bytes: number): void => {
    this.framer.limit = Math.min(bytes, this.options.maxFrameBytes)
  }

  readonly send: Connection["send"] = (frame) =>
    Effect.suspend(() => {
      if (this.over !== undefined) return Effect.fail(this.failure())
      const limit = this.options.maxFrameBytes
      if (frame.length > limit) return Effect.fail(new FrameTooLarge({ bytes: frame.length, limit }))
      if (this.unsent() + this.offered * frameCost <= this.options.outboxBytes) {
        this.offer(frame)
        return Effect.void
      }
      return Effect.andThen(
        Effect.callback<void>((resume) => {
          const sender = () => resume(Exit.void)
          this.senders.add(sender)
          return Effect.sync(() => void this.senders.delete(sender))
        }),
        this.send(frame)
      )
    })

  readonly receive: Connection["receive"] = Effect.suspend(() => {
    if (this.inbox.length > 0) {
      const frames = this.inbox
      this.inbox = []
      this.inboxLength = 0
      return Effect.succeed(frames)
    }
    if (this.over !== undefined) return Effect.fail(this.failure())
    return Effect.andThen(
      Effect.callback<void>((resume) => {
        this.waiter = () => resume(Exit.void)
        this.socket.resume()
        return Effect.sync(() => {
          this.waiter = undefined
        })
      }),
      this.receive
    )
  })

  readonly close: Effect.Effect<void> = Effect.sync(() => {
    const { socket } = this
    if (socket.destroyed) return
    const first = this.over === undefined
    this.end("closed by this side")
    if (!first) {
      socket.destroy()
      return
    }
    if (this.pending.length > 0) this.write()
    socket.setTimeout(lingerMillis, () => socket.destroy())
    socket.resume()
    socket.destroySoon()
  })
}

/** Listens until `close`; each connection is handed over paused. */
export const listen = (
  options: SocketOptions & {
    readonly host: string
    readonly port: number
    readonly onConnection: (connection: Connection) => void
  }
): Effect.Effect<
  { readonly host: string; readonly port: number; readonly close: Effect.Effect<void> },
  { readonly reason: string }
> =>
  Effect.callback((resume) => {
    const sockets = new Set<net.Socket>()
    const onSocket = (socket: net.Socket) => void options.onConnection(new SocketConnection(socket, options))
    const server = options.tls === undefined ? net.createServer({ pauseOnConnect: true }, onSocket) : tls.createServer({
      ...pemOf(options.tls),
      minVersion: "TLSv1.3",
      requestCert: true,
      // A connection without a good certificate is marked `untrusted` and gets a refusal that says why, where the platform would
      // only cut it.
      rejectUnauthorized: false,
      // each connection shows its certificate anew: an old session is no proof that it is still valid
      secureOptions: constants.SSL_OP_NO_TICKET,
      handshakeTimeout: options.handshakeTimeout
    }, onSocket)
    if (server instanceof tls.Server) hideKey(server)
    // the sockets below TLS too, so that none outlives the server
    server.on("connection", (socket: net.Socket) => {
      sockets.add(socket)
      socket.on("close", () => sockets.delete(socket))
    })
    // a peer that does not speak TLS: its connection ends, nothing else happens
    server.on("tlsClientError", () => {})
    server.once("error", (error: NodeJS.ErrnoException) => resume(Effect.fail({ reason: error.message })))
    // exclusive: the port is this process's own, and shared with no worker of it
    server.listen({ port: options.port, host: options.host, exclusive: true }, () => {
      // a failed accept (too many open files) concerns that connection only
      server.on("error", () => {})
      const close = Effect.callback<void>((resume) => {
        server.close(() => resume(Exit.void))
        for (const socket of sockets) {
          socket.setTimeout(lingerMillis, () => socket.destroy())
          socket.resume()
          socket.destroySoon()
        }
      })
      const address = server.address() as net.AddressInfo
      resume(Effect.succeed({ host: address.address, port: address.port, close }))
    })
    return Effect.sync(() => server.close())
  })

/** Did all addresses that were tried say that nobody listens there? Whatever else fails a dial is no refusal. */
const isRefused = (error: NodeJS.ErrnoException): boolean => {
  const tried: unknown = "errors" in error ? error.errors : undefined
  return Array.isArray(tried) ? tried.length > 0 && tried.every(isRefused) : error.code === "ECONNREFUSED"
}

/** Dials once; no timeout of its own. */
export const connect = (
  to: { readonly host: string; readonly port: number },
  options: SocketOptions
): Effect.Effect<Connection, NodeUnreachable> =>
  Effect.callback((resume) => {
    const socket = options.tls === undefined ? net.connect({ host: to.host, port: to.port }) : tls.connect({
      secureContext: Redacted.value(options.tls).context,
      host: to.host,
      port: to.port,
      minVersion: "TLSv1.3",
      rejectUnauthorized: true,
      // names the certificate must have; an address is no server name
      ...(net.isIP(to.host) === 0 ? { servername: to.host } : {})
    })
    const failed = (error: NodeJS.ErrnoException) =>
      resume(Effect.fail(
        new NodeUnreachable({
          node: `${to.host}:${to.port}`,
          outcome: "NotSent",
          reason: refusedCertificate(error.code) ?? error.code ?? error.message,
          ...(isRefused(error) ? { refused: true } : {})
        })
      ))
    socket.once("error", failed)
    socket.once(options.tls === undefined ? "connect" : "secureConnect", () => {
      const connection = new SocketConnection(socket, options)
      socket.off("error", failed)
      resume(Effect.succeed(connection))
    })
    return Effect.sync(() => socket.destroy())
  })

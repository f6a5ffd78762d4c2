/**
 * What every side of the remote bench is: a server in a process of its own that echoes 100 bytes and counts messages, and a
 * client that asks and tells.
 */

/** What a bench process tells its server to be. */
export interface ServerOptions {
  readonly side: SideName
  /** a folder that the server and its client share */
  readonly folder: string
  readonly actors: number
  /** the certificates in the folder are to be used, by both */
  readonly tls: boolean
  /** frames of more than 10 MB are to be let through */
  readonly bulk: boolean
}

/** What a server says once it can be reached. */
export interface Ready {
  readonly port: number
  /** our own: its whole address */
  readonly node?: unknown
}

/** What a server is asked later on, and what it says. */
export type Order = "memory"
export interface Memory {
  /** bytes of live heap and of buffers outside of it */
  readonly bytes: number
}

export interface Client {
  /**
   * `count` questions with 100 bytes of payload, answered with the same, of which `inFlight` wait at any time; asker i asks
   * actor i. Gives the time of each in milliseconds, in order of the answers.
   */
  readonly ask: (inFlight: number, count: number) => Promise<Float64Array>
  /** `count` messages of 100 bytes to all actors in turn; resolves when the server has handled the last one. */
  readonly tell: (count: number) => Promise<void>
  readonly close: () => Promise<void>
}

export type SideName = "raw" | "troupe" | "rpc" | "entity"

/** 100 bytes */
export const body = "0123456789".repeat(10)

/** Counts messages and says when so many have come since it was last asked. */
export class Counter {
  private count = 0
  private expected = Infinity
  private tell = (): void => {}
  arrived(): void {
    if (++this.count === this.expected) this.reached()
  }
  awaiting(count: number, tell: () => void): void {
    this.expected = count
    this.tell = tell
    if (this.count === count) this.reached()
  }
  private reached(): void {
    this.count = 0
    this.expected = Infinity
    this.tell()
  }
}

/** Times of questions, filled in order. */
export class Latencies {
  readonly times: Float64Array
  private filled = 0
  constructor(count: number) {
    this.times = new Float64Array(count)
  }
  since(start: number): void {
    this.times[this.filled++] = performance.now() - start
  }
}

/** Files of one certificate that is signed by the authority in the same folder. */
export const tlsOptions = (folder: string) => ({
  tlsCertificate: `${folder}/node.pem`,
  tlsKey: `${folder}/node-key.pem`,
  tlsAuthority: `${folder}/authority.pem`
})

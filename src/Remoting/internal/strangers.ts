/**
 * Connections that have not proved yet who they are: how many there may be, in all and from one address, so that whoever connects and
 * says nothing keeps nobody else out.
 *
 * Not for: what is said on them (`greeting`).
 */

/** Connections in all; more are closed at once. */
const maxStrangers = 256
/** From one address, which many may share behind a balancer. */
const maxFromOne = 64

/** Of `address:port`. */
const addressOf = (peer: string): string => peer.slice(0, Math.max(0, peer.lastIndexOf(":")))

export class Strangers {
  private readonly from = new Map<string, number>()
  private all = 0

  /** Lets one in; undefined: there are too many. Else how to tell that it is none any more, which may be told often. */
  enter(peer: string): (() => void) | undefined {
    const address = addressOf(peer)
    const others = this.from.get(address) ?? 0
    if (this.all >= maxStrangers || others >= maxFromOne) return undefined
    this.from.set(address, others + 1)
    this.all++
    let counted = true
    return () => {
      if (!counted) return
      counted = false
      this.all--
      const left = this.from.get(address)! - 1
      if (left === 0) this.from.delete(address)
      else this.from.set(address, left)
    }
  }
}

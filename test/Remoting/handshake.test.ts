// The handshake as a pure core, played by hand: what may be heard, replayed, reflected or changed on the way lets nobody in.
import { assert, describe, it } from "@effect/vitest"
import * as Handshake from "../../src/Remoting/internal/handshake.ts"
import { Malformed } from "../../src/Remoting/internal/wire.ts"

const identity = (id: string, system = "bank"): Handshake.Identity => ({
  system,
  dataCenter: "dc",
  id,
  incarnation: `${id}-1`,
  host: id,
  port: 1,
  client: false,
  maxFrameBytes: 1024,
  windowBytes: 1024,
  kinds: new Map([["Account", "f1"]])
})

let nonces = 0

const config = (id: string, more: Partial<Handshake.Config> = {}): Handshake.Config => ({
  self: identity(id),
  nonce: new Uint8Array(Handshake.nonceBytes).fill(++nonces),
  secrets: ["secret"],
  insecure: false,
  peer: "somewhere",
  admit: () => undefined,
  ...more
})

const sent = (commands: ReadonlyArray<Handshake.Command>): ReadonlyArray<Uint8Array> =>
  commands.flatMap((command) => command._tag === "Send" ? [command.frame] : [])

const end = (commands: ReadonlyArray<Handshake.Command>) => commands.find((command) => command._tag !== "Send")

/** A whole conversation; `change` may alter a frame on its way. */
const play = (
  dialer: Handshake.Config,
  acceptor: Handshake.Config,
  change: (frame: Uint8Array, index: number) => Uint8Array = (frame) => frame
) => {
  const [first, commands] = Handshake.dial(dialer)
  let near = first
  let [far] = Handshake.accept()
  const frames: Array<Uint8Array> = []
  const ends: { near?: Handshake.Command | undefined; far?: Handshake.Command | undefined } = {}
  let toFar = true
  let waiting = [...sent(commands)]
  while (waiting.length > 0) {
    const frame = change(waiting.shift()!, frames.length)
    frames.push(frame)
    const [state, out] = toFar ? Handshake.step(far, acceptor, frame) : Handshake.step(near, dialer, frame)
    if (toFar) {
      far = state
      ends.far ??= end(out)
    } else {
      near = state
      ends.near ??= end(out)
    }
    toFar = !toFar
    waiting = [...sent(out)]
  }
  return { frames, near: ends.near, far: ends.far }
}

const established = (command: Handshake.Command | undefined) => command?._tag === "Established"

describe("handshake", () => {
  it("two that know the secret learn who the other is", () => {
    const { far, near } = play(config("a"), config("b"))
    assert.isTrue(near?._tag === "Established" && near.peer.id === "b" && near.peer.kinds.get("Account") === "f1")
    assert.isTrue(far?._tag === "Established" && far.peer.incarnation === "a-1")
  })

  it("frames heard before let nobody in, as the other side's nonce is new", () => {
    const { frames } = play(config("a"), config("b"))
    const acceptor = config("b")
    const [asked] = Handshake.step(Handshake.accept()[0], acceptor, frames[0]!)
    const [, commands] = Handshake.step(asked, acceptor, frames[2]!)
    const last = end(commands)
    assert.isTrue(last?._tag === "Refused" && last.refusal._tag === "Authentication" && !last.byPeer)
  })

  it("a side that sends back what it gets proves nothing: proofs carry the direction", () => {
    // an attacker without the secret dials, and uses the acceptor's own proof as its answer
    const acceptor = config("b")
    const [, hello] = Handshake.dial(config("a", { secrets: [] }))
    const [asked, welcome] = Handshake.step(Handshake.accept()[0], acceptor, sent(hello)[0]!)
    const proofOfAcceptor = sent(welcome)[0]!.slice(-32)
    const [, commands] = Handshake.step(
      asked,
      acceptor,
      Uint8Array.of(Handshake.FrameType.Proof, 32, ...proofOfAcceptor)
    )
    assert.isFalse(commands.some(established))
    // and one that poses as acceptor by echoing the hello is no handshake at all
    const dialer = config("a")
    const [waiting, mine] = Handshake.dial(dialer)
    assert.throws(() => {
      try {
        Handshake.step(waiting, dialer, sent(mine)[0]!)
      } catch (error) {
        assert.isTrue(error instanceof Malformed)
        throw new Error("refused")
      }
    }, "refused")
  })

  it("any byte changed on the way ends it, for both", () => {
    const { frames } = play(config("a"), config("b"))
    for (const index of [0, 1, 2]) {
      for (let at = 0; at < frames[index]!.length; at++) {
        let both = true
        try {
          const { far, near } = play(config("a"), config("b"), (frame, i) => {
            if (i !== index) return frame
            const changed = Uint8Array.from(frame)
            changed[at] = changed[at]! ^ 1
            return changed
          })
          both = established(near) && established(far)
        } catch (error) {
          if (!(error instanceof Malformed)) throw error
          both = false
        }
        assert.isFalse(both, `frame ${index}, byte ${at}`)
      }
    }
  })

  it("each learns what the other understands, and uses what both do", () => {
    const able = (id: string, capabilities: ReadonlyArray<string>) => ({ self: { ...identity(id), capabilities } })
    const { far, near } = play(config("a", able("a", ["x", "y"])), config("b", able("b", ["y", "z"])))
    assert.isTrue(near?._tag === "Established" && far?._tag === "Established")
    if (near?._tag !== "Established" || far?._tag !== "Established") return
    assert.deepStrictEqual([near.peer.capabilities, far.peer.capabilities], [["y", "z"], ["x", "y"]])
    assert.deepStrictEqual(["x", "y", "z"].map((name) => Handshake.share(near.peer, far.peer, name)), [
      false,
      true,
      false
    ])
  })

  it("an outsider says whom it wants to reach by way of the other", () => {
    const { far } = play(config("a", { self: { ...identity("a"), relay: "node-7:7000" } }), config("b"))
    assert.isTrue(far?._tag === "Established" && far.peer.relay === "node-7:7000")
  })

  it("a peer of version 1 is spoken to as before: it hears of no capability and needs none", () => {
    // its Hello says version 1 only and has no extensions; what this side answers then has none either
    const old = { ...config("a"), secrets: [], insecure: true }
    const [, first] = Handshake.dial({ ...old, self: { ...identity("a"), capabilities: ["x"] } })
    const hello = sent(first)[0]!
    const extensions = 1 + 1 + 1 + 1
    const plain = Uint8Array.from(hello.subarray(0, hello.length - extensions))
    plain[8] = 1
    const acceptor = config("b", { secrets: [], insecure: true, self: { ...identity("b"), capabilities: ["x"] } })
    const [asked, commands] = Handshake.step(Handshake.accept()[0], acceptor, plain)
    assert.isTrue(asked._tag === "AwaitProof" && asked.peer.capabilities === undefined)
    const welcome = sent(commands)[0]!
    assert.strictEqual(welcome[1], 1)
    // and that is a Welcome which a dialer of version 1 reads to its end
    const [waiting] = Handshake.dial(old)
    const [next] = Handshake.step(waiting, old, welcome)
    assert.isTrue(next._tag === "AwaitAccepted" && next.peer.id === "b" && next.peer.capabilities === undefined)
  })

  it("a version that is not spoken here is named on both sides", () => {
    const { far, near } = play(config("a"), config("b"), (frame, index) => {
      if (index !== 0) return frame
      const future = Uint8Array.from(frame)
      future[7] = 9
      future[8] = 9
      return future
    })
    for (const command of [near, far]) {
      assert.isTrue(command?._tag === "Refused" && command.refusal._tag === "Protocol")
    }
    assert.isTrue(near?._tag === "Refused" && near.byPeer)
  })

  it("the dialer goes on only with the incarnation that it wants", () => {
    const { far, near } = play(config("a", { expected: { id: "b", incarnation: "b-2" } }), config("b"))
    assert.isTrue(near?._tag === "Refused" && near.refusal._tag === "Elsewhere")
    assert.isFalse(established(far))
  })

  it("no secret anywhere: only where the connection itself may be trusted", () => {
    const open = { secrets: [], insecure: true }
    assert.isTrue(established(play(config("a", open), config("b", open)).near))
    const closed = { secrets: [], insecure: false }
    assert.isFalse(established(play(config("a", open), config("b", closed)).near))
    assert.isFalse(established(play(config("a", closed), config("b", open)).near))
  })
})

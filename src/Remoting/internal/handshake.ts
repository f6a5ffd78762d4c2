/**
 * Who is at the other end? A pure core: `(state, frame) -> [state, commands]`.
 *
 *     dialer                                   acceptor
 *       Hello(identity, nonce)        ----->
 *                                     <-----     Welcome(identity, nonce, proof)
 *       Proof(proof)                  ----->
 *                                     <-----     Accepted
 *
 * A proof is an HMAC with the shared secret over the Hello and the Welcome as they were on the wire, under the label of the side
 * that gives it: it cannot be replayed (nonces of both sides), reflected (labels), nor moved to another identity or version.
 * Without a secret the proofs are empty, and only a loopback connection (or one allowed by name) is let in.
 *
 * Invariant: nothing but these frames is read before `Established`, and a refusal says no more than its reason.
 */
import { AuthenticationFailed, ProtocolMismatch } from "../../Actor/errors.ts"
import { mac, sameBytes } from "./mac.edge.ts"
import { Malformed, Reader, Writer } from "./wire.ts"

/** Wire protocol versions that this code speaks. From 2 on identities end with what else a side understands. */
export const versions = { minimum: 1, maximum: 2 } as const
/** From this version on both identities carry extensions, so that later additions need no other version. */
const extended = 2
/** No handshake frame is larger, in bytes. */
export const maxHandshakeBytes = 64 * 1024
export const nonceBytes = 32
const magic = new TextEncoder().encode("TROUPE")
const maxText = 255
const maxKinds = 1000
/** Bytes of kinds in a handshake: of the rest fields are told by name. */
const kindsBytes = 32 * 1024
const maxCapabilities = 64

export const FrameType = {
  Hello: 1,
  Welcome: 2,
  Proof: 3,
  Accepted: 4,
  Refused: 5,
  Ping: 16,
  Pong: 17,
  Data: 18,
  Control: 19,
  Credit: 20,
  Kinds: 21,
  Chunk: 22,
  Deflated: 23
} as const

/** What a side says about itself. */
export interface Identity {
  readonly system: string
  readonly dataCenter: string
  readonly id: string
  readonly incarnation: string
  readonly host: string
  readonly port: number
  /** an outsider that is no node: it may call, nobody can call it */
  readonly client: boolean
  /** largest frame it takes, in bytes */
  readonly maxFrameBytes: number
  /** bytes of messages it takes before it has said that it handled some */
  readonly windowBytes: number
  readonly kinds: ReadonlyMap<string, string>
  /** what it understands beyond the version, by name; a side uses one only with a peer that named it too */
  readonly capabilities?: ReadonlyArray<string> | undefined
  /** only an outsider's Hello: `host:port` of the node that it wants to speak to by way of this one, in a handshake after this */
  readonly relay?: string | undefined
}

/** Capability of a node that is reached by an advertised address: others may be behind the same one, as behind a load balancer. */
export const sharedAddress = "shared-address"

/** Capability of a node that carries the frames of outsiders to nodes that they cannot reach. */
export const relaying = "relay"

/** Do both sides understand that? */
export const share = (a: Identity, b: Identity, capability: string): boolean =>
  (a.capabilities?.includes(capability) ?? false) && (b.capabilities?.includes(capability) ?? false)

export interface Config {
  readonly self: Identity
  readonly nonce: Uint8Array
  /** those in force, at most two; none at all is no authentication */
  readonly secrets: ReadonlyArray<string>
  /** may the peer be trusted without a secret (loopback, or allowed by name)? */
  readonly insecure: boolean
  /** why the transport does not trust the peer's certificate: it gets a refusal and nothing else */
  readonly untrusted?: string | undefined
  /** for messages */
  readonly peer: string
  /** the dialer's expectation; a different node there is not the one we want */
  readonly expected?: { readonly id?: string | undefined; readonly incarnation?: string | undefined } | undefined
  /**
   * The dialer's word on a node other than the one expected: `keep` it for what it is, or `pass` it over. Without it, or where the node
   * does not share its address with others, it is refused.
   */
  readonly stranger?: ((peer: Identity) => "keep" | "pass") | undefined
  /** the dialer's word on whether it is connected to that node already: a second connection would end the first */
  readonly connected?: ((peer: Identity) => boolean) | undefined
  /** the acceptor's word on whether that node may come in; a text is why not */
  readonly admit: (peer: Identity) => string | undefined
}

/** `Elsewhere` is a reason that is no fault of either side: wrong incarnation, shunned, closing. */
export type Refusal =
  | { readonly _tag: "Authentication"; readonly error: AuthenticationFailed }
  /** of the peer's certificate, or the peer says so of ours */
  | { readonly _tag: "Certificate"; readonly reason: string }
  | { readonly _tag: "Protocol"; readonly error: ProtocolMismatch }
  /** `another`: the node that answered is not the one wanted, and shares its address with others */
  | { readonly _tag: "Elsewhere"; readonly reason: string; readonly another?: boolean | undefined }

export type State =
  | { readonly _tag: "AwaitHello" }
  | { readonly _tag: "AwaitWelcome"; readonly hello: Uint8Array }
  | { readonly _tag: "AwaitProof"; readonly peer: Identity; readonly transcript: ReadonlyArray<Uint8Array> }
  | { readonly _tag: "AwaitAccepted"; readonly peer: Identity }
  | { readonly _tag: "Done" }

export type Command =
  | { readonly _tag: "Send"; readonly frame: Uint8Array }
  | { readonly _tag: "Established"; readonly peer: Identity }
  /** connected to that node already: this connection is not needed */
  | { readonly _tag: "Known"; readonly peer: Identity }
  /** `byPeer`: the other side said so, else we did */
  | { readonly _tag: "Refused"; readonly refusal: Refusal; readonly byPeer: boolean }

type Result = readonly [State, ReadonlyArray<Command>]

/** A blob, so that whoever knows less of it skips the rest. In a Hello a peer of version 1 passes it over as a whole. */
const writeExtensions = (writer: Writer, { capabilities = [], relay }: Identity) => {
  const extensions = new Writer().varint(capabilities.length)
  for (const capability of capabilities) extensions.text(capability)
  if (relay !== undefined) extensions.text(relay)
  writer.blob(extensions.take())
}

const readExtensions = (reader: Reader): Pick<Identity, "capabilities" | "relay"> => {
  const extensions = new Reader(reader.blob())
  const count = extensions.varint()
  if (count > maxCapabilities) throw new Malformed("too many capabilities")
  const capabilities = Array.from({ length: count }, () => extensions.text(maxText))
  return extensions.done ? { capabilities } : { capabilities, relay: extensions.text(maxText + 6) }
}

const writeIdentity = (writer: Writer, self: Identity, nonce: Uint8Array) => {
  writer.text(self.system).text(self.dataCenter).text(self.id).text(self.incarnation).text(self.host).varint(self.port)
  writer.byte(self.client ? 1 : 0).varint(self.maxFrameBytes).varint(self.windowBytes).raw(nonce)
  writeKinds(writer, self.kinds, kindsBytes)
}

/** As many as fit. */
const writeKinds = (writer: Writer, kinds: ReadonlyMap<string, string>, bytes: number) => {
  const content = new Writer()
  let count = 0
  for (const [name, fingerprint] of kinds) {
    const { length } = content
    content.text(name).text(fingerprint)
    if (count === maxKinds || content.length > bytes) {
      content.length = length
      break
    }
    count++
  }
  writer.varint(count).raw(content.take())
}

const readIdentity = (reader: Reader): Identity => {
  const identity = {
    system: reader.text(maxText),
    dataCenter: reader.text(maxText),
    id: reader.text(maxText),
    incarnation: reader.text(maxText),
    host: reader.text(maxText),
    port: reader.varint(),
    client: reader.byte() === 1,
    maxFrameBytes: reader.varint(),
    windowBytes: reader.varint()
  }
  reader.raw(nonceBytes)
  return { ...identity, kinds: readKinds(reader) }
}

/** Names and fingerprints of kinds; used in the handshake and when they change. */
export const readKinds = (reader: Reader): ReadonlyMap<string, string> => {
  const count = reader.varint()
  if (count > maxKinds) throw new Malformed("too many kinds")
  const kinds = new Map<string, string>()
  for (let i = 0; i < count; i++) kinds.set(reader.text(maxText), reader.text(maxText))
  return kinds
}

/** Of at most so many `bytes`. */
export const kindsFrame = (kinds: ReadonlyMap<string, string>, bytes: number): Uint8Array => {
  const writer = new Writer().byte(FrameType.Kinds)
  writeKinds(writer, kinds, bytes - 8)
  return writer.take()
}

const refusedFrame = (refusal: Refusal): Uint8Array => {
  const writer = new Writer().byte(FrameType.Refused)
  switch (refusal._tag) {
    // why a proof failed is nobody's business
    case "Authentication":
      return writer.byte(1).take()
    case "Protocol":
      return writer.byte(2).text(refusal.error.what).text(refusal.error.ours).text(refusal.error.theirs).take()
    case "Certificate":
      return writer.byte(4).text(refusal.reason.slice(0, maxText)).take()
    case "Elsewhere":
      return writer.byte(3).text(refusal.reason.slice(0, maxText)).take()
  }
}

/** A refusal for a reason of this side's own. */
export const refusal = (reason: string): Uint8Array => refusedFrame({ _tag: "Elsewhere", reason })

const readRefused = (reader: Reader, config: Config): Refusal => {
  switch (reader.byte()) {
    case 1:
      return { _tag: "Authentication", error: new AuthenticationFailed({ peer: config.peer }) }
    case 2: {
      const what = reader.text(maxText)
      // "ours" was said by the other side
      const theirs = reader.text(maxText)
      return { _tag: "Protocol", error: new ProtocolMismatch({ what, ours: reader.text(maxText), theirs }) }
    }
    case 4:
      return { _tag: "Certificate", reason: `refused there: ${reader.text(maxText * 4)}` }
    default:
      return { _tag: "Elsewhere", reason: reader.text(maxText * 4) }
  }
}

const refuse = (refusal: Refusal): Result => [
  { _tag: "Done" },
  [{ _tag: "Send", frame: refusedFrame(refusal) }, { _tag: "Refused", refusal, byPeer: false }]
]

const protocolMismatch = (what: string, ours: string, theirs: string): Refusal => ({
  _tag: "Protocol",
  error: new ProtocolMismatch({ what, ours, theirs })
})

const authenticationFailed = (config: Config): Refusal => ({
  _tag: "Authentication",
  error: new AuthenticationFailed({ peer: config.peer })
})

const proofBytes = 32

/** One proof for each secret in force: while secrets are exchanged, the sides have one of them in common. */
const prove = (config: Config, label: string, transcript: ReadonlyArray<Uint8Array>): Uint8Array => {
  const writer = new Writer()
  for (const secret of config.secrets) writer.raw(mac(secret, label, transcript))
  return writer.take()
}

/** Every secret is tried on every proof, so that the time does not tell which one matched. */
const proven = (config: Config, label: string, transcript: ReadonlyArray<Uint8Array>, proofs: Uint8Array): boolean => {
  if (config.secrets.length === 0) return proofs.length === 0 && config.insecure
  if (proofs.length === 0 || proofs.length > 2 * proofBytes || proofs.length % proofBytes !== 0) return false
  let matches = false
  for (const secret of config.secrets) {
    const expected = mac(secret, label, transcript)
    for (let at = 0; at < proofs.length; at += proofBytes) {
      matches = sameBytes(expected, proofs.subarray(at, at + proofBytes)) || matches
    }
  }
  return matches
}

const range = (minimum: number, maximum: number) => minimum === maximum ? `${minimum}` : `${minimum} to ${maximum}`

export const dial = (config: Config): Result => {
  const writer = new Writer().byte(FrameType.Hello).raw(magic).byte(versions.minimum).byte(versions.maximum)
  writeIdentity(writer, config.self, config.nonce)
  writeExtensions(writer, config.self)
  const hello = writer.take()
  return [{ _tag: "AwaitWelcome", hello }, [{ _tag: "Send", frame: hello }]]
}

/** Is that how an outsider begins, which claims to be no node? Whatever it says later, its proof is for these bytes. */
export const isOutsider = (frame: Uint8Array): boolean => {
  const reader = new Reader(frame)
  try {
    if (reader.byte() !== FrameType.Hello) return false
    // the magic word and two versions: whoever it is for looks at them
    reader.raw(magic.length + 2)
    return readIdentity(reader).client
  } catch (error) {
    if (!(error instanceof Malformed)) throw error
    return false
  }
}

export const accept = (): Result => [{ _tag: "AwaitHello" }, []]

/** Throws `Malformed` for bytes that are no handshake at all: those get no answer. */
export const step = (state: State, config: Config, frame: Uint8Array): Result => {
  const reader = new Reader(frame)
  const type = reader.byte()
  if (type === FrameType.Refused && state._tag !== "AwaitHello") {
    return [{ _tag: "Done" }, [{ _tag: "Refused", refusal: readRefused(reader, config), byPeer: true }]]
  }
  switch (state._tag) {
    case "AwaitHello":
      return type === FrameType.Hello ? onHello(config, reader, frame) : unexpected()
    case "AwaitWelcome":
      return type === FrameType.Welcome ? onWelcome(config, state.hello, reader, frame) : unexpected()
    case "AwaitProof": {
      if (type !== FrameType.Proof) return unexpected()
      if (!proven(config, "dialer", state.transcript, reader.blob())) return refuse(authenticationFailed(config))
      const denied = config.admit(state.peer)
      if (denied !== undefined) return refuse({ _tag: "Elsewhere", reason: denied })
      return [{ _tag: "Done" }, [
        { _tag: "Send", frame: Uint8Array.of(FrameType.Accepted) },
        { _tag: "Established", peer: state.peer }
      ]]
    }
    case "AwaitAccepted":
      return type === FrameType.Accepted
        ? [{ _tag: "Done" }, [{ _tag: "Established", peer: state.peer }]]
        : unexpected()
    case "Done":
      return unexpected()
  }
}

const unexpected = (): never => {
  throw new Malformed("unexpected frame")
}

const onHello = (config: Config, reader: Reader, hello: Uint8Array): Result => {
  for (const byte of magic) if (reader.byte() !== byte) unexpected()
  if (config.untrusted !== undefined) return refuse({ _tag: "Certificate", reason: config.untrusted })
  const minimum = reader.byte()
  const maximum = reader.byte()
  if (minimum > versions.maximum || maximum < versions.minimum) {
    return refuse(
      protocolMismatch("wire protocol", range(versions.minimum, versions.maximum), range(minimum, maximum))
    )
  }
  const version = Math.min(maximum, versions.maximum)
  const identity = readIdentity(reader)
  const peer = version < extended ? identity : { ...identity, ...readExtensions(reader) }
  // without a secret there is nothing to prove, so the connection itself must be trusted
  if (config.secrets.length === 0 && !config.insecure) return refuse(authenticationFailed(config))
  if (peer.system !== config.self.system) return refuse(protocolMismatch("system", config.self.system, peer.system))
  const writer = new Writer().byte(FrameType.Welcome).byte(version)
  writeIdentity(writer, config.self, config.nonce)
  if (version >= extended) writeExtensions(writer, config.self)
  const welcome = writer.take()
  const transcript = [hello, welcome]
  const frame = new Writer().raw(welcome).blob(prove(config, "acceptor", transcript)).take()
  return [{ _tag: "AwaitProof", peer, transcript }, [{ _tag: "Send", frame }]]
}

const onWelcome = (config: Config, hello: Uint8Array, reader: Reader, frame: Uint8Array): Result => {
  const version = reader.byte()
  if (version < versions.minimum || version > versions.maximum) {
    return refuse(protocolMismatch("wire protocol", range(versions.minimum, versions.maximum), `${version}`))
  }
  const identity = readIdentity(reader)
  const peer = version < extended ? identity : { ...identity, ...readExtensions(reader) }
  const transcript = [hello, frame.subarray(0, reader.position)]
  if (!proven(config, "acceptor", transcript, reader.blob())) return refuse(authenticationFailed(config))
  if (peer.system !== config.self.system) return refuse(protocolMismatch("system", config.self.system, peer.system))
  const { connected, expected, stranger } = config
  const another = expected?.id !== undefined && expected.id !== peer.id
  const shared = another && peer.capabilities?.includes(sharedAddress) === true
  if (another && (!shared || stranger?.(peer) !== "keep")) {
    return refuse({ _tag: "Elsewhere", reason: `node ${peer.id} answers there`, another: shared })
  }
  if (!another && expected?.incarnation !== undefined && expected.incarnation !== peer.incarnation) {
    return refuse({ _tag: "Elsewhere", reason: "another incarnation answers there" })
  }
  const denied = config.admit(peer)
  if (denied !== undefined) return refuse({ _tag: "Elsewhere", reason: denied })
  if (connected?.(peer) === true) {
    const frame = refusedFrame({ _tag: "Elsewhere", reason: "is connected already" })
    return [{ _tag: "Done" }, [{ _tag: "Send", frame }, { _tag: "Known", peer }]]
  }
  return [{ _tag: "AwaitAccepted", peer }, [{
    _tag: "Send",
    frame: new Writer().byte(FrameType.Proof).blob(prove(config, "dialer", transcript)).take()
  }]]
}

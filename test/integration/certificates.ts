// Certificates for tests, made here: no tool has to be installed. X.509 version 3 with ECDSA on P-256, as DER by hand.
import * as crypto from "node:crypto"
import * as net from "node:net"

const tlv = (tag: number, ...contents: ReadonlyArray<Uint8Array>): Buffer => {
  const content = Buffer.concat(contents)
  const length = content.length < 0x80
    ? Buffer.of(content.length)
    : content.length < 0x100
    ? Buffer.of(0x81, content.length)
    : Buffer.of(0x82, content.length >> 8, content.length & 0xff)
  return Buffer.concat([Buffer.of(tag), length, content])
}

const sequence = (...contents: ReadonlyArray<Uint8Array>) => tlv(0x30, ...contents)
const objectId = (hex: string) => tlv(0x06, Buffer.from(hex, "hex"))
const commonName = (name: string) => sequence(tlv(0x31, sequence(objectId("550403"), tlv(0x0c, Buffer.from(name)))))
const time = (at: Date) => tlv(0x18, Buffer.from(`${at.toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`))
const ecdsaWithSha256 = sequence(objectId("2a8648ce3d040302"))
const extension = (oid: string, critical: boolean, value: Uint8Array) =>
  sequence(objectId(oid), ...(critical ? [tlv(0x01, Buffer.of(0xff))] : []), tlv(0x04, value))

const pem = (label: string, der: Uint8Array) =>
  `-----BEGIN ${label}-----\n${
    Buffer.from(der).toString("base64").match(/.{1,64}/g)!.join("\n")
  }\n-----END ${label}-----\n`

export interface Certified {
  readonly name: string
  readonly cert: string
  readonly key: string
  readonly privateKey: crypto.KeyObject
}

/** A certificate by that authority (or by itself, then it is one), which names these hosts. */
export const certify = (
  name: string,
  options: {
    readonly by?: Certified | undefined
    readonly hosts?: ReadonlyArray<string> | undefined
    /** default: two days ago */
    readonly from?: Date | undefined
    /** default: in a day */
    readonly until?: Date | undefined
  } = {}
): Certified => {
  const { privateKey, publicKey } = crypto.generateKeyPairSync("ec", { namedCurve: "P-256" })
  const names = (options.hosts ?? []).map((host) =>
    net.isIPv4(host) ? tlv(0x87, Buffer.from(host.split(".").map(Number))) : tlv(0x82, Buffer.from(host))
  )
  const extensions = [
    extension("551d13", true, options.by === undefined ? sequence(tlv(0x01, Buffer.of(0xff))) : sequence()),
    ...(names.length === 0 ? [] : [extension("551d11", false, sequence(...names))])
  ]
  const hour = 3_600_000
  const body = sequence(
    tlv(0xa0, tlv(0x02, Buffer.of(2))),
    tlv(0x02, Buffer.concat([Buffer.of(1), crypto.randomBytes(8)])),
    ecdsaWithSha256,
    commonName(options.by?.name ?? name),
    sequence(
      time(options.from ?? new Date(Date.now() - 48 * hour)),
      time(options.until ?? new Date(Date.now() + 24 * hour))
    ),
    commonName(name),
    publicKey.export({ type: "spki", format: "der" }),
    tlv(0xa3, sequence(...extensions))
  )
  const signature = crypto.sign("sha256", body, options.by?.privateKey ?? privateKey)
  return {
    name,
    cert: pem("CERTIFICATE", sequence(body, ecdsaWithSha256, tlv(0x03, Buffer.of(0), signature))),
    key: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    privateKey
  }
}

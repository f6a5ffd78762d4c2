/**
 * Mutual TLS: both sides show a certificate of the same authority, and each checks that it names the other. Key material is read once,
 * while the transport is built.
 */
import { readFileSync } from "node:fs"
import * as tls from "node:tls"

export interface TlsMaterial {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca: Buffer
}

/** Reads the PEM files; a text says which could not be read. */
export const readMaterial = (
  paths: { readonly cert: string; readonly key: string; readonly ca: string }
): TlsMaterial | { readonly setting: string; readonly reason: string } => {
  const contents: Record<string, Buffer> = {}
  const settings = { cert: "tlsCertificate", key: "tlsKey", ca: "tlsAuthority" } as const
  for (const [part, setting] of Object.entries(settings)) {
    try {
      contents[part] = readFileSync(paths[part as keyof typeof paths])
    } catch (error) {
      return { setting, reason: `cannot be read: ${(error as NodeJS.ErrnoException).code ?? "unknown"}` }
    }
  }
  const material = contents as unknown as TlsMaterial
  try {
    tls.createSecureContext(material)
  } catch (error) {
    return { setting: "tlsKey", reason: `does not fit the certificate: ${(error as Error).message}` }
  }
  return material
}

/** Does the peer's certificate, which its authority has signed, name that host? */
export const certifies = (socket: tls.TLSSocket) => (host: string): boolean => {
  const certificate = socket.getPeerCertificate()
  return socket.authorized && Object.keys(certificate).length > 0 &&
    tls.checkServerIdentity(host, certificate) === undefined
}

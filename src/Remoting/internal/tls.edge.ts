/**
 * Mutual TLS: both sides show a certificate of the same authority, and each checks that it names the other. Key material is read once,
 * while the transport is built. What the platform finds wrong with a certificate is put into words here.
 */
import { readFileSync } from "node:fs"
import * as tls from "node:tls"

export interface TlsMaterial {
  readonly cert: Buffer
  readonly key: Buffer
  readonly ca: Buffer
  /** the three, as the platform holds them: unlike options, which it keeps on each socket, this shows no key when it is printed */
  readonly context: tls.SecureContext
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
  const material = contents as unknown as Omit<TlsMaterial, "context">
  try {
    return { ...material, context: tls.createSecureContext({ ...material, minVersion: "TLSv1.3" }) }
  } catch (error) {
    return { setting: "tlsKey", reason: `does not fit the certificate: ${(error as Error).message}` }
  }
}

/** Takes the key off a server that has been made: it has a context of its own by then, and its sockets lead to it. */
export const hideKey = (server: tls.Server): void => {
  Object.assign(server, { key: undefined })
}

const words: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "has expired",
  CERT_NOT_YET_VALID: "is not valid yet",
  SELF_SIGNED_CERT_IN_CHAIN: "is not signed by the authority",
  DEPTH_ZERO_SELF_SIGNED_CERT: "is not signed by the authority",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "is not signed by the authority",
  UNABLE_TO_GET_ISSUER_CERT: "is not signed by the authority",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "is not signed by the authority",
  CERT_SIGNATURE_FAILURE: "is not signed by the authority",
  CERT_REVOKED: "is revoked",
  INVALID_PURPOSE: "is not for this purpose",
  ERR_TLS_CERT_ALTNAME_INVALID: "does not name the host that was dialed"
}

/** Why a certificate is refused, by the platform's code for it; undefined where the code is about something else. */
export const refusedCertificate = (code: string | undefined): string | undefined => {
  const known = code === undefined ? undefined : words[code]
  if (known !== undefined) return `its certificate ${known} (${code})`
  return code !== undefined && /CERT|CRL|ISSUER|CHAIN|CA_MD|CA_KEY/.test(code) && !code.startsWith("ERR_SSL")
    ? `its certificate is refused (${code})`
    : undefined
}

/** Is that reason about a certificate? */
export const isCertificate = (reason: string): boolean => reason.startsWith("its certificate ")

/** Why the peer that has dialed is not trusted; undefined: it showed a certificate of the authority. */
export const untrusted = (socket: tls.TLSSocket): string | undefined => {
  if (Object.keys(socket.getPeerCertificate()).length === 0) return "it shows no certificate"
  if (socket.authorized) return undefined
  // the platform's types say that this is an error; it is the code
  const code = socket.authorizationError as unknown as string | undefined
  return refusedCertificate(code) ?? `its certificate is refused (${code ?? "unknown"})`
}

/** Does the peer's certificate, which its authority has signed, name that host? */
export const certifies = (socket: tls.TLSSocket) => (host: string): boolean => {
  const certificate = socket.getPeerCertificate()
  return socket.authorized && Object.keys(certificate).length > 0 &&
    tls.checkServerIdentity(host, certificate) === undefined
}

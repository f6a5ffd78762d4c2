/** Which hosts may be dialed? Patterns as settings give them, on the platform's own arithmetic of addresses. Pure. */
import * as net from "node:net"

const everyHost = "*"

/** `a.b.c.d/n` or `x::/n`: a range of addresses. */
const rangeOf = (
  pattern: string
): { readonly address: string; readonly bits: number; readonly family: "ipv4" | "ipv6" } | undefined => {
  const match = /^(.+)\/(\d{1,3})$/.exec(pattern)
  const version = match === null ? 0 : net.isIP(match[1]!)
  const bits = Number(match?.[2])
  return match === null || version === 0 || bits > (version === 4 ? 32 : 128)
    ? undefined
    : { address: match[1]!, bits, family: version === 4 ? "ipv4" : "ipv6" }
}

/** Why that is no pattern, if so. */
export const malformed = (pattern: string): string | undefined =>
  pattern.includes("/")
    ? rangeOf(pattern) === undefined ? `has "${pattern}", which is no range of addresses` : undefined
    : pattern !== everyHost && pattern.replace(/^\*\./, "").includes("*")
    ? `has "${pattern}": a star stands alone or in front, as in *.example.org`
    : undefined

/** A test for hosts as they are dialed; names are not looked up, so a range never allows one. */
export const allowedBy = (patterns: ReadonlyArray<string>): (host: string) => boolean => {
  if (patterns.includes(everyHost)) return () => true
  const ranges = new net.BlockList()
  const names = new Set<string>()
  const suffixes: Array<string> = []
  for (const pattern of patterns) {
    const range = rangeOf(pattern)
    if (range !== undefined) ranges.addSubnet(range.address, range.bits, range.family)
    else if (pattern.startsWith("*.")) suffixes.push(pattern.slice(1).toLowerCase())
    else names.add(pattern.toLowerCase())
  }
  return (given) => {
    const host = given.toLowerCase()
    const version = net.isIP(host)
    if (names.has(host)) return true
    return version === 0
      ? suffixes.some((suffix) => host.endsWith(suffix))
      : ranges.check(host, version === 4 ? "ipv4" : "ipv6")
  }
}

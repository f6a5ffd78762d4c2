/**
 * The walls of the house, on resolved paths: imports point one way, only backends import vendor clients, and no entry point but
 * theirs reaches one when it is loaded.
 */
import { type Finding, lineOf, type ModuleReference, references, resolve, type SourceFile } from "./sources.ts"

/** From the innermost ring to the outermost; a ring may know those before it. */
const rings = ["Actor", "Remoting", "ControlPlane", "Cluster", "DataCenter", "Layers"]

const ringOf = (path: string): string | undefined => /^src\/([^/]+)\//.exec(path)?.[1]

export const isVendor = (specifier: string): boolean => /^(@nats-io\/|@grpc\/|etcd3(\/|$))/.test(specifier)

const isBackend = (path: string): boolean =>
  /^src\/ControlPlane\/([A-Za-z]*(Nats|Etcd)|internal\/(nats|etcd)[^/]*)\.ts$/.test(path) ||
  /^src\/ControlPlane\/.*\.edge\.ts$/.test(path)

const wallBetween = (from: SourceFile, reference: ModuleReference): string | undefined => {
  const { specifier } = reference
  if (specifier === "effect-troupe" || specifier.startsWith("effect-troupe/")) {
    return "sources import each other by relative path, not by the package's own name"
  }
  if (isVendor(specifier) && !isBackend(from.path)) {
    return `only the backends in src/ControlPlane load a vendor client, not ${from.path}`
  }
  const target = resolve(from.path, specifier)
  if (target === undefined) return undefined
  if (!target.startsWith("src/")) return "sources import nothing from outside src"
  const [here, there] = [ringOf(from.path), ringOf(target)]
  if (there === undefined) return here === undefined ? undefined : "no ring imports the root entry"
  if (here === there || here === undefined || here === "Testing") {
    return here === undefined && there === "Testing" ? "nothing imports Testing" : undefined
  }
  if (there === "Testing") return "nothing imports Testing"
  const [inner, outer] = [rings.indexOf(there), rings.indexOf(here)]
  if (inner < 0 || outer < 0) return `${inner < 0 ? there : here} is no room of this house`
  return inner < outer ? undefined : `imports point one way: ${rings.join(" <- ")}; ${here} may not know ${there}`
}

/** Each import across a wall. */
export const walls = (files: ReadonlyArray<SourceFile>): ReadonlyArray<Finding> =>
  files.flatMap((file) =>
    references(file).flatMap((reference) => {
      const message = wallBetween(file, reference)
      return message === undefined
        ? []
        : [{ rule: "walls", path: file.path, line: lineOf(file, reference.node), message }]
    })
  )

/** Entry points that may load a vendor client. */
const vendorEntries = new Set(["./ControlPlane/Nats", "./ControlPlane/Etcd"])

/** Each way from a plain entry point to a vendor client, with the files on the way. */
export const vendorFree = (
  files: ReadonlyArray<SourceFile>,
  entries: Readonly<Record<string, string>>
): ReadonlyArray<Finding> => {
  const byPath = new Map(files.map((file) => [file.path, file]))
  return Object.entries(entries).filter(([name]) => !vendorEntries.has(name)).flatMap(([name, target]) => {
    const start = target.replace(/^\.\//, "")
    const cameFrom = new Map<string, string | undefined>([[start, undefined]])
    const findings: Array<Finding> = []
    for (const path of cameFrom.keys()) {
      const file = byPath.get(path)
      if (file === undefined) {
        findings.push({
          rule: "vendor-free",
          path,
          line: 1,
          message: `entry ${name} reaches ${path}, which is missing`
        })
        continue
      }
      for (const reference of references(file).filter((found) => !found.erased)) {
        if (isVendor(reference.specifier)) {
          const way = [path]
          for (let at = cameFrom.get(path); at !== undefined; at = cameFrom.get(at)) way.unshift(at)
          findings.push({
            rule: "vendor-free",
            path,
            line: lineOf(file, reference.node),
            message: `entry ${name} loads ${reference.specifier}: ${way.join(" -> ")}`
          })
        }
        const next = resolve(path, reference.specifier)
        if (next !== undefined && !cameFrom.has(next)) cameFrom.set(next, path)
      }
    }
    return findings
  })
}

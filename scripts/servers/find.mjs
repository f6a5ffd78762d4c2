/**
 * Finds `nats-server` and `etcd`, and brings them where they are missing. Plain JavaScript that an old Node runs too: the demo,
 * the tests and the bootstrap share it. `node scripts/servers/find.mjs` prints where they are.
 *
 * Looks at the environment variable, the PATH, /usr/sbin and /usr/bin, then the project's .cache/servers. What is nowhere is
 * fetched as Debian's package and unpacked into that cache: nothing is installed, no daemon is started, no root is needed.
 */
import { execFile } from "node:child_process"
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs"
import { delimiter, dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

const servers = {
  "nats-server": { variable: "TROUPE_NATS_SERVER", debianPackage: "nats-server", inPackage: "usr/sbin/nats-server" },
  etcd: { variable: "TROUPE_ETCD", debianPackage: "etcd-server", inPackage: "usr/bin/etcd" }
}

export const cacheFolder = resolve(dirname(fileURLToPath(import.meta.url)), "../../.cache/servers")

const executable = (path) => {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

const run = (command, args, options) =>
  new Promise((done, fail) =>
    execFile(
      command,
      args,
      { timeout: 180_000, maxBuffer: 1 << 24, ...options },
      (error, stdout, stderr) => error === null ? done(stdout) : fail(new Error((stderr || error.message).trim()))
    )
  )

/** The path of a server that is already on this machine, or undefined. */
export const findHere = (name) => {
  const { variable, inPackage } = servers[name]
  const given = process.env[variable]
  if (given !== undefined && given !== "") {
    if (executable(given)) return given
    throw new Error(`${variable} says ${given}, which is no executable file`)
  }
  const folders = [...(process.env.PATH ?? "").split(delimiter), "/usr/sbin", "/usr/bin"]
  return [
    ...folders.filter((folder) => folder !== "").map((folder) => join(folder, name)),
    join(cacheFolder, inPackage)
  ]
    .find(executable)
}

/** Package lists of our own, for machines whose lists are absent or old; needs no root. */
const ownLists = () => {
  const lists = join(cacheFolder, "apt/lists")
  mkdirSync(join(lists, "partial"), { recursive: true })
  return ["-o", `Dir::State::Lists=${lists}`, "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache="]
}

const downloadPackage = async (debianPackage, folder) => {
  // apt's download user may not enter our folder; what comes is checked by its hash all the same
  const options = ["-q", "-o", "APT::Sandbox::User=root"]
  try {
    await run("apt-get", [...options, "download", debianPackage], { cwd: folder })
  } catch {
    const lists = ownLists()
    await run("apt-get", [...options, ...lists, "update"], { cwd: folder })
    await run("apt-get", [...options, ...lists, "download", debianPackage], { cwd: folder })
  }
  const file = readdirSync(folder).find((entry) => entry.endsWith(".deb"))
  if (file === undefined) throw new Error(`apt-get brought no package ${debianPackage}`)
  return join(folder, file)
}

const bring = async (name) => {
  const { debianPackage, inPackage } = servers[name]
  mkdirSync(cacheFolder, { recursive: true })
  const folder = mkdtempSync(join(cacheFolder, "bring-"))
  try {
    const file = await downloadPackage(debianPackage, folder)
    await run("dpkg-deb", ["-x", file, join(folder, "content")])
    const target = join(cacheFolder, inPackage)
    mkdirSync(dirname(target), { recursive: true })
    // Two processes may do this at once; each moves a whole file into place.
    renameSync(join(folder, "content", inPackage), target)
    return target
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const underway = new Map()

/** The path of a server, which is brought if need be. Rejects with one sentence that says what to do. */
export const find = (name) => {
  const known = underway.get(name)
  if (known !== undefined) return known
  const search = (async () => {
    const here = findHere(name)
    if (here !== undefined) return here
    const { variable, debianPackage } = servers[name]
    try {
      return await bring(name)
    } catch (error) {
      throw new Error(
        `${name} was not found and Debian's package ${debianPackage} could not be fetched: install it, or set ${variable} `
          + `to its path (${String(error.message).split("\n").at(-1)})`
      )
    }
  })()
  underway.set(name, search)
  search.catch(() => underway.delete(name))
  return search
}

if (
  process.argv[1] !== undefined && existsSync(process.argv[1]) &&
  resolve(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  for (const name of Object.keys(servers)) {
    try {
      console.log(`${name}: ${await find(name)}`)
    } catch (error) {
      console.error(error.message)
      process.exitCode = 1
    }
  }
}

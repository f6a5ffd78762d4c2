/**
 * Starts a script of package.json with everything that it needs, from nothing: plain JavaScript that the host's Node 20 or newer
 * runs. `node scripts/bootstrap.mjs SCRIPT [ARGUMENTS]` installs what is missing or out of date and then starts the script by a
 * nested `npm run`: its shell finds the project's own Node 24 in node_modules/.bin, which this process's shell may have missed.
 */
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const minimum = 20

const json = (path) => JSON.parse(readFileSync(join(root, path), "utf8"))

/** What the lock asks for and is not installed in that version; platform packages of other machines are none of our business. */
const missing = () => {
  if (!existsSync(join(root, "node_modules/.package-lock.json"))) return ["node_modules"]
  const { packages: wanted } = json("package-lock.json")
  const { packages: installed } = json("node_modules/.package-lock.json")
  const { devDependencies } = json("package.json")
  const pinned = Object.entries(devDependencies).filter(([name, version]) =>
    /^\d/.test(version) && installed[`node_modules/${name}`]?.version !== version
  ).map(([name]) => `node_modules/${name}`)
  const locked = Object.entries(wanted).filter(([path, { optional, version }]) =>
    path !== "" && optional !== true && installed[path]?.version !== version
  ).map(([path]) => path)
  const gone = Object.keys(installed).filter((path) => !existsSync(join(root, path, "package.json")))
  return [...new Set([...pinned, ...locked, ...gone])]
}

/** npm as it was started, so that a path without npm on it does too. */
const npm = (args) => {
  const [command, ...before] = process.env.npm_execpath === undefined
    ? ["npm"]
    : [process.execPath, process.env.npm_execpath]
  const run = spawnSync(command, [...before, ...args], { cwd: root, stdio: "inherit" })
  if (run.error !== undefined) {
    console.error(`bootstrap: npm cannot be started: ${run.error.message}`)
    return 1
  }
  return run.status ?? 1
}

const main = () => {
  const [script, ...args] = process.argv.slice(2)
  if (script === undefined) {
    console.error("usage: node scripts/bootstrap.mjs SCRIPT [ARGUMENTS]")
    return 2
  }
  if (Number(process.versions.node.split(".")[0]) < minimum) {
    console.error(`bootstrap: Node ${minimum} or newer is needed, this is ${process.version}`)
    return 1
  }
  const absent = missing()
  if (absent.length > 0) {
    const first = absent.slice(0, 3).join(", ")
    console.error(`bootstrap: installing (missing or out of date: ${first}${absent.length > 3 ? ", ..." : ""})`)
    const status = npm(["install", "--no-audit", "--no-fund", "--loglevel=error"])
    if (status !== 0) return status
    const still = missing()
    if (still.length > 0) {
      console.error(`bootstrap: still missing after npm install: ${still.join(", ")}`)
      return 1
    }
  }
  if (!existsSync(join(root, "node_modules/.bin/node")) && !runsTypeScript()) {
    console.error("bootstrap: no Node 24 for this platform among the packages; use Node 22.19 or newer")
    return 1
  }
  return npm(["run", "--silent", script, "--", ...args])
}

const runsTypeScript = () => {
  const [major, minor] = process.versions.node.split(".").map(Number)
  return major > 22 || (major === 22 && minor >= 19)
}

process.exitCode = main()

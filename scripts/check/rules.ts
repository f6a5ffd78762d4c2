/** All house rules that the linter cannot see, on one project. */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { clock } from "./clock.ts"
import { filesUnder, type Finding, parse } from "./sources.ts"
import { vendorFree, walls } from "./walls.ts"

/** Every finding in the sources of the project at `root`. Throws where there are none: nothing would be checked. */
export const check = (root: string): { readonly files: number; readonly findings: ReadonlyArray<Finding> } => {
  const manifest = JSON.parse(Fs.readFileSync(Path.join(root, "package.json"), "utf8")) as {
    readonly exports: Readonly<Record<string, string>>
  }
  const files = filesUnder(root, "src").map((path) => parse(root, path))
  if (files.length === 0) throw new Error(`no sources under ${root}/src`)
  return { files: files.length, findings: [...walls(files), ...vendorFree(files, manifest.exports), ...clock(files)] }
}

export const show = ({ line, message, path, rule }: Finding): string => `${path}:${line}: ${rule}: ${message}`

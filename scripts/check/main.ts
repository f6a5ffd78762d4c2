/** `node scripts/check/main.ts [ROOT]`: prints each finding as `path:line: rule: message`, exits with 1 if there is one. */
import * as Path from "node:path"
import { check, show } from "./rules.ts"

const { files, findings } = check(Path.resolve(process.argv[2] ?? Path.join(import.meta.dirname, "../..")))
for (const finding of findings) console.log(show(finding))
console.log(`house rules: ${files} files, ${findings.length} findings`)
process.exitCode = findings.length === 0 ? 0 : 1

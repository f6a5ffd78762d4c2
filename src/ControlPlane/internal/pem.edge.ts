/** Edge to the file system: certificates, keys and credentials that a setting names. */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { SettingInvalid } from "../../Actor/errors.ts"

/**
 * The text of a file in PEM form, or undefined where the setting is not given. A file without a single block is refused here: TLS
 * itself would take it for an empty list and trust nobody, without a word.
 */
export const readPem = (
  group: string,
  setting: string,
  file: string | undefined
): Effect.Effect<string | undefined, SettingInvalid> =>
  file === undefined ? Effect.undefined : Effect.try({
    try: () => readFileSync(file, "utf8"),
    catch: (error) =>
      new SettingInvalid({
        setting: `${group}.${setting}`,
        // the platform's words quote the path, and somebody may have put the text of a key there
        reason: file.includes("-----BEGIN ")
          ? "is the text of a PEM file, and must be its path"
          : error instanceof Error
          ? error.message
          : String(error)
      })
  }).pipe(
    Effect.flatMap((text) =>
      text.includes("-----BEGIN ")
        ? Effect.succeed(text)
        : Effect.fail(new SettingInvalid({ setting: `${group}.${setting}`, reason: `${file} is no PEM file` }))
    )
  )

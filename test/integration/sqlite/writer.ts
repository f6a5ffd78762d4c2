/**
 * A process of its own that writes to the store of the test that started it. Says one line per outcome on its output.
 *
 *     node writer.ts FILE race NAME COUNT     tries to create race/0 ... race/COUNT, and says which it won
 *     node writer.ts FILE write NAME          creates NAME/0, NAME/1, ... for ever, and says each once it is acknowledged
 *     node writer.ts FILE open                opens and closes it
 *
 * A store that cannot be opened is one line with the error's tag, and its setting and reason where it has them.
 */
import { Effect } from "effect"
import * as ControlStoreSqlite from "../../../src/ControlPlane/ControlStoreSqlite.ts"

const [file, mode, name, count] = process.argv.slice(2)
// one write at a time, past all buffers: a line that was said was acknowledged, even if the process dies now
const say = (line: string) => Effect.sync(() => process.stdout.write(`${line}\n`))

const program = Effect.gen(function*() {
  const store = yield* ControlStoreSqlite.make({ file: file! })
  yield* say("ready")
  if (mode === "open") return
  if (mode === "race") {
    for (let i = 0; i < Number(count); i++) {
      const key = `race/${i}`
      const outcome = yield* Effect.match(store.create(key, name!), {
        onSuccess: () => "won",
        onFailure: (error) => error._tag
      })
      yield* say(`${outcome} ${key}`)
    }
    return yield* say("done")
  }
  for (let i = 0;; i++) {
    const key = `${name}/${i}`
    yield* say(
      yield* Effect.match(store.create(key, "x".repeat(200)), {
        onSuccess: () => `written ${key}`,
        onFailure: (error) => `${error._tag} ${key}`
      })
    )
  }
})

const unopened = (error: ControlStoreSqlite.OpenError) =>
  say([error._tag, error._tag === "SettingInvalid" ? error.setting : "", error.reason].join(" "))

await Effect.runPromise(
  Effect.catchTags(Effect.scoped(program), { SettingInvalid: unopened, StoreUnavailable: unopened })
)

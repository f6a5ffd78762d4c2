// The demo's processes when they are asked to leave: who goes in order, and who has to be killed.
import { assert, describe, it } from "@effect/vitest"
import { Console, Duration, Effect } from "effect"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { leave, startProcess } from "../../examples/ledger/processes.ts"
import { temporaryFolder } from "../../scripts/servers/index.ts"

/** A process that is ready, with what it does at SIGTERM. */
const started = (atTerm: string) =>
  Effect.gen(function*() {
    const program = Path.join(yield* temporaryFolder("leave"), "program.mjs")
    Fs.writeFileSync(
      program,
      `process.on("SIGTERM", () => { ${atTerm} }); setInterval(() => {}, 1e6); console.log("up")`
    )
    const one = yield* startProcess("us-east-1", "a", {}, program)
    yield* Effect.repeat(Effect.sleep("10 millis"), { until: () => one.output().includes("up") })
    return one
  })

/** How it ended, how long that took, and what was said of it. */
const left = (atTerm: string, patience: Duration.Input) =>
  Effect.scoped(Effect.gen(function*() {
    const said: Array<string> = []
    const console = { ...globalThis.console, error: (text: string) => said.push(text) } as unknown as Console.Console
    const one = yield* started(atTerm)
    const [took, end] = yield* Effect.timed(Effect.provideService(leave(one, patience), Console.Console, console))
    return { end, said, took: Duration.toMillis(took) }
  }))

describe("a process of the demo that is asked to leave", () => {
  it.live("leaves in order, and nothing is said of it", () =>
    Effect.gen(function*() {
      assert.deepInclude(yield* left("process.exit(0)", "30 seconds"), { end: 0, said: [] })
    }))

  it.live("is killed in the end where it does not, and that is said", () =>
    Effect.gen(function*() {
      const { end, said, took } = yield* left("", "300 millis")
      assert.strictEqual(end, "SIGKILL")
      assert.deepStrictEqual(said, ["us-east-1 a has not left 300ms after SIGTERM: killing it"])
      assert.isBelow(took, 5_000)
    }))
})

// The page on writing a control plane of one's own: its code keeps the public contract, and the page shows that very code.
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { ControlPlaneContract } from "effect-troupe/testing"
import { OutcomeUnknown, RevisionConflict } from "effect-troupe"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import * as Custom from "../../examples/custom-control-plane.ts"

/** A document in memory; with `doubtful` every third replacement is applied and its answer lost. */
const makeDocument = (options: { readonly doubtful?: boolean } = {}): Custom.Document => {
  let document = { etag: "0", body: "" }
  let writes = 0
  return {
    read: Effect.sync(() => document),
    replace: (etag, body) =>
      Effect.suspend((): Effect.Effect<string, RevisionConflict | OutcomeUnknown> => {
        if (etag !== document.etag) {
          return Effect.fail(new RevisionConflict({ key: Custom.documentKey, current: document.etag }))
        }
        document = { etag: String(Number(etag) + 1), body }
        writes += 1
        return options.doubtful === true && writes % 3 === 0
          ? Effect.fail(new OutcomeUnknown({ operation: "replace", reason: "the answer was lost" }))
          : Effect.succeed(document.etag)
      })
  }
}

const subject = (doubtful: boolean): ControlPlaneContract.Subject => ({
  open: (ttl) =>
    Effect.gen(function*() {
      const document = makeDocument({ doubtful })
      return {
        one: yield* Custom.make(document, { ttl, poll: "250 millis" }),
        other: yield* Custom.make(document, { ttl, poll: "250 millis" })
      }
    }),
  onStore: false,
  pass: TestClock.adjust
})

describe("a control plane on one document", () => {
  ControlPlaneContract.suite(subject(false), (name, run) => it.effect(name, () => run))
})

describe("a control plane on one document whose answers are lost now and then", () => {
  ControlPlaneContract.suite(subject(true), (name, run) => it.effect(name, () => run))
})

describe("the page", () => {
  it("shows the code that was tried", () => {
    const page = readFileSync(new URL("../../docs/custom-control-plane.md", import.meta.url), "utf8")
    const code = readFileSync(new URL("../../examples/custom-control-plane.ts", import.meta.url), "utf8")
    const blocks = Array.from(page.matchAll(/```ts\n([\s\S]*?)```/g), (match) => match[1]!)
    assert.isAbove(blocks.length, 2)
    const here = readFileSync(new URL(import.meta.url), "utf8")
    for (const block of blocks) {
      for (const part of block.split("// ...\n")) assert.include(code + here, part.trim())
    }
  })
})

// The parts of the ledger demo that need no datacenter: the file and its generator, the reader against the independent fold, and the
// account actor, whose movements must be safe to repeat.
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it, layer } from "@effect/vitest"
import { ActorSystem } from "effect-troupe"
import { Effect, Layer } from "effect"
import { spawnSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Account, AccountLive } from "../../examples/ledger/Account.ts"
import { fold } from "../../examples/ledger/fold.ts"
import * as Journal from "../../examples/ledger/Journal.ts"
import * as Ledger from "../../examples/ledger/Ledger.ts"
import { percentile, table } from "../../examples/ledger/report.ts"
import { temporaryFolder } from "../../scripts/servers/index.ts"
import { layerLocal } from "../Actor/local.ts"

const folder = Path.join(import.meta.dirname, "../../examples/ledger")
const committed = Path.join(folder, "ledger.jsonl")

/** Reads a ledger given as text. */
const read = (text: string) =>
  Effect.acquireUseRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "troupe-ledger-"))),
    (temporary) => {
      const path = Path.join(temporary, "ledger.jsonl")
      Fs.writeFileSync(path, text)
      return Ledger.read(path).pipe(Effect.provide(NodeServices.layer))
    },
    (temporary) => Effect.sync(() => Fs.rmSync(temporary, { recursive: true }))
  )

const account = (id: string, more: object = {}) =>
  JSON.stringify({ type: "account", id, holder: "H", residency: "eu", currency: "EUR", openingCents: 100, ...more })
const transfer = (id: string, more: object = {}) =>
  JSON.stringify({
    type: "transfer",
    id,
    at: "2025-01-01T00:00:00.000Z",
    from: "a",
    to: "b",
    debit: { cents: 10, currency: "EUR" },
    credit: { cents: 10, currency: "EUR" },
    memo: "",
    ...more
  })

/** Everything that can be wrong with a line, after the accounts `a` and `b`. */
const wrongLines: ReadonlyArray<readonly [what: string, line: string]> = [
  ["no JSON", "{"],
  ["no object", "7"],
  ["null", "null"],
  ["another type", JSON.stringify({ type: "note" })],
  ["an account opened twice", account("a")],
  ["an account without holder", account("c", { holder: undefined })],
  ["an account with a residency that nobody serves", account("c", { residency: "mars" })],
  ["an account that opens below nothing", account("c", { openingCents: -1 })],
  ["an account that opens with a part of a cent", account("c", { openingCents: 0.5 })],
  ["a transfer without id", transfer("", {})],
  ["a transfer without memo", transfer("t", { memo: undefined })],
  ["a transfer at no time", transfer("t", { at: "soon" })],
  ["a transfer at an impossible time", transfer("t", { at: "2025-13-01T00:00:00Z" })],
  ["a transfer of nothing", transfer("t", { debit: { cents: 0, currency: "EUR" } })],
  ["a transfer of text", transfer("t", { credit: { cents: "10", currency: "EUR" } })],
  ["a transfer of more cents than can be counted", transfer("t", { credit: { cents: 2 ** 53, currency: "EUR" } })],
  ["a transfer in another currency", transfer("t", { debit: { cents: 10, currency: "USD" } })],
  ["a transfer from an account that does not exist", transfer("t", { from: "z" })],
  ["a transfer to an account that does not exist", transfer("t", { to: "z" })],
  ["a transfer to itself", transfer("t", { to: "a" })]
]

describe("the ledger file", () => {
  it("is what its generator makes, byte for byte", () => {
    const made = spawnSync(process.execPath, [Path.join(folder, "generate.ts")], { maxBuffer: 1 << 26 })
    assert.strictEqual(made.status, 0)
    assert.isTrue(made.stdout.equals(Fs.readFileSync(committed)))
  })

  it.effect("holds 10 000 transfers and more, in which reader and fold find the same", () =>
    Effect.gen(function*() {
      const ledger = yield* Ledger.read(committed).pipe(Effect.provide(NodeServices.layer))
      const expected = fold(Fs.readFileSync(committed, "utf8"))
      assert.isAtLeast(ledger.transfers.length, 10_000)
      assert.deepStrictEqual(ledger.malformed.map(({ line }) => line), [...expected.wrong])
      assert.isAtLeast(ledger.malformed.length, 5)
      assert.strictEqual(ledger.transfers.filter(({ repeated }) => repeated).length, expected.repeated)
      assert.strictEqual(ledger.transfers.length, expected.applied + expected.refused + expected.repeated)
      assert.isAtLeast(new Set(ledger.accounts.map(({ residency }) => residency)).size, 3)
      const total = [...expected.balances.values()].every((cents) => cents >= 0)
      assert.isTrue(total, "no balance is below nothing")
    }))

  it.effect("may hold any wrong line: both report its number, and the rest goes on", () =>
    Effect.gen(function*() {
      for (const [what, line] of wrongLines) {
        const text = [account("a"), account("b"), line, "", transfer("last")].join("\n")
        const expected = fold(text)
        const ledger = yield* read(text)
        assert.deepStrictEqual([...expected.wrong], [3], `fold: ${what}`)
        assert.deepStrictEqual(ledger.malformed.map((malformed) => malformed.line), [3], `reader: ${what}`)
        assert.strictEqual(expected.balances.get("b"), 110, what)
        assert.deepStrictEqual(ledger.transfers.map(({ line }) => line), [5], what)
      }
    }))

  it.effect("may tell a transfer twice, but not in two ways", () =>
    Effect.gen(function*() {
      const again = [account("a"), account("b"), transfer("t"), transfer("t")].join("\n")
      assert.strictEqual(fold(again).balances.get("a"), 90)
      assert.strictEqual(fold(again).repeated, 1)
      assert.deepStrictEqual((yield* read(again)).transfers.map(({ repeated }) => repeated), [false, true])
      const otherwise = [account("a"), account("b"), transfer("t"), transfer("t", { from: "b", to: "a" })].join("\n")
      assert.deepStrictEqual([...fold(otherwise).wrong], [4])
      assert.deepStrictEqual((yield* read(otherwise)).malformed.map(({ line }) => line), [4])
    }))
})

layer(AccountLive.pipe(Layer.provideMerge(layerLocal)))("an account of the ledger", (it) => {
  it.effect("moves money once for each transfer id, and answers a repetition as it did at first", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const account = yield* system.spawn(Account, "a-1", { props: { openingCents: 100 } })
      assert.strictEqual(yield* account.ask.Withdraw({ transfer: "t1", cents: 30 }), 70)
      assert.strictEqual(yield* account.ask.Deposit({ transfer: "t2", cents: 5 }), 75)
      assert.strictEqual(yield* account.ask.Withdraw({ transfer: "t1", cents: 30 }), 70)
      assert.strictEqual(yield* account.ask.Deposit({ transfer: "t2", cents: 5 }), 75)
      assert.strictEqual(yield* account.ask.Balance(), 75)
    }))

  it.effect("stays refused for a transfer that was refused, even when the money comes later", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const account = yield* system.spawn(Account, "a-2", { props: { openingCents: 10 } })
      const refused = yield* Effect.flip(account.ask.Withdraw({ transfer: "t1", cents: 30 }))
      assert.strictEqual(refused._tag, "Overdrawn")
      yield* account.ask.Deposit({ transfer: "t2", cents: 100 })
      const again = yield* Effect.flip(account.ask.Withdraw({ transfer: "t1", cents: 30 }))
      assert.deepInclude(again, { _tag: "Overdrawn", account: "a-2", missingCents: 20 })
      assert.strictEqual(yield* account.ask.Balance(), 110)
    }))

  it.effect("uses an id for a withdrawal and for a deposit separately: a transfer to oneself would be both", () =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const account = yield* system.spawn(Account, "a-3", { props: { openingCents: 10 } })
      assert.strictEqual(yield* account.ask.Withdraw({ transfer: "t1", cents: 4 }), 6)
      assert.strictEqual(yield* account.ask.Deposit({ transfer: "t1", cents: 4 }), 10)
    }))
})

describe("an account with a journal", () => {
  it.effect("goes on where its journal says, whoever starts it anew: balances, refusals and repetitions", () =>
    Effect.gen(function*() {
      const file = Path.join(yield* temporaryFolder("journal"), "accounts.db")
      const node = AccountLive.pipe(Layer.provideMerge(layerLocal), Layer.provide(Journal.layerSqlite(file)))
      const account = ActorSystem.ActorSystem.use((system) =>
        system.spawn(Account, "a-1", { props: { openingCents: 100 } })
      )
      const first = Effect.gen(function*() {
        const { ask } = yield* account
        assert.strictEqual(yield* ask.Withdraw({ transfer: "t1", cents: 30 }), 70)
        assert.strictEqual((yield* Effect.flip(ask.Withdraw({ transfer: "t2", cents: 71 })))._tag, "Overdrawn")
        assert.strictEqual(yield* ask.Deposit({ transfer: "t3", cents: 5 }), 75)
      })
      const second = Effect.gen(function*() {
        const { ask } = yield* account
        assert.strictEqual(yield* ask.Balance(), 75)
        assert.strictEqual(yield* ask.Withdraw({ transfer: "t1", cents: 30 }), 70)
        assert.deepInclude(yield* Effect.flip(ask.Withdraw({ transfer: "t2", cents: 71 })), { missingCents: 1 })
        assert.strictEqual(yield* ask.Deposit({ transfer: "t3", cents: 5 }), 75)
        assert.strictEqual(yield* ask.Withdraw({ transfer: "t4", cents: 75 }), 0)
      })
      yield* Effect.provide(first, Layer.fresh(node))
      yield* Effect.provide(second, Layer.fresh(node))
    }))
})

describe("the report", () => {
  it("takes percentiles that are values of the sample", () => {
    assert.strictEqual(percentile([], 0.5), 0)
    assert.strictEqual(percentile([3], 0.99), 3)
    assert.strictEqual(percentile([4, 1, 3, 2], 0.5), 2)
    assert.strictEqual(percentile(Array.from({ length: 100 }, (_, n) => n + 1), 0.99), 99)
  })

  it("aligns a table", () => {
    assert.strictEqual(table(["name", "n"], [["a", "10"]]), "name    n\n----   --\na      10")
  })
})

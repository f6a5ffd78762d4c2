/** The contract's cases about several clients of one store: races have one winner, and all see one order. */
import { Clock, Effect, Exit, Option, Random } from "effect"
import { compareRevision, withDeadline } from "../../ControlPlane/ControlStore.ts"
import type { ControlStoreService } from "../../ControlPlane/ControlStore.ts"
import type { CaseDefinition } from "../ControlStoreContract.ts"
import { expect, expectEqual, expectFailure, expectValue, violation } from "./contractHarness.ts"
import { checkRegister } from "./linearizability.ts"
import type { RegisterOperation } from "./linearizability.ts"

const made = (name: string, run: CaseDefinition["run"]): CaseDefinition => ({ name, run })

const race = <A, E>(effects: ReadonlyArray<Effect.Effect<A, E>>) =>
  Effect.forEach(effects, (effect) => Effect.exit(effect), { concurrency: "unbounded" })

/** Exactly one of them succeeded and all others failed with a conflict. Returns the winner's place. */
const expectOneWinner = Effect.fnUntraced(function*<A, E extends { readonly _tag: string }>(
  what: string,
  exits: ReadonlyArray<Exit.Exit<A, E>>
) {
  const winners = exits.flatMap((exit, i) => Exit.isSuccess(exit) ? [i] : [])
  const tags = exits.flatMap((exit) => Option.toArray(Exit.findErrorOption(exit))).map((error) => error._tag)
  yield* expect(winners.length === 1, `${what}: one winner`, { winners, tags })
  yield* expect(
    tags.length === exits.length - 1 && tags.every((tag) => tag === "RevisionConflict"),
    `${what}: conflicts`,
    tags
  )
  return winners[0]!
})

/** Adds one by compare-and-set, as often as it takes. */
const increment = (store: ControlStoreService, key: string): Effect.Effect<void, unknown> =>
  Effect.gen(function*() {
    const found = yield* Effect.fromOption(yield* store.get(key))
    return yield* store.update(key, String(Number(found.value) + 1), found.revision)
  }).pipe(
    Effect.retry({ while: (error) => "_tag" in error && error._tag === "RevisionConflict" }),
    Effect.asVoid
  )

export const clientCases: ReadonlyArray<CaseDefinition> = [
  made("what one client wrote, another reads at once", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      let revision = yield* a.create(`${prefix}k`, "0")
      for (let i = 1; i <= 50; i++) {
        revision = yield* (i % 2 === 0 ? a : b).update(`${prefix}k`, String(i), revision)
        const seen = yield* Effect.fromOption(yield* (i % 2 === 0 ? b : a).get(`${prefix}k`))
        yield* expectEqual(`write ${i} as the other client sees it`, [seen.value, seen.revision], [String(i), revision])
      }
      yield* a.remove(`${prefix}k`, revision)
      yield* expectValue(b, `${prefix}k`, undefined)
    })),

  made("what one client wrote, another lists at once", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      for (let i = 0; i < 10; i++) {
        yield* a.create(`${prefix}${i}`, "")
        yield* expectEqual("the listing", (yield* b.list(prefix)).length, i + 1)
      }
    })),

  made(
    "of clients that race to create a key, one wins and the others have a conflict",
    ({ a, b, prefix }) =>
      Effect.gen(function*() {
        for (let round = 0; round < 20; round++) {
          const key = `${prefix}${round}`
          const exits = yield* race(Array.from({ length: 8 }, (_, i) => (i % 2 === 0 ? a : b).create(key, String(i))))
          const winner = yield* expectOneWinner(`round ${round}`, exits)
          yield* expectValue(b, key, String(winner))
        }
      })
  ),

  made("of clients that race to update at one revision, one wins", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      let revision = yield* a.create(`${prefix}k`, "start")
      for (let round = 0; round < 20; round++) {
        const at = revision
        const exits = yield* race(
          Array.from({ length: 6 }, (_, i) => (i % 2 === 0 ? a : b).update(`${prefix}k`, `${round}/${i}`, at))
        )
        const winner = yield* expectOneWinner(`round ${round}`, exits)
        yield* expectValue(a, `${prefix}k`, `${round}/${winner}`)
        revision = yield* exits[winner]!
      }
    })),

  made("of an update and a removal at one revision, one wins", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      for (let round = 0; round < 20; round++) {
        const key = `${prefix}${round}`
        const at = yield* a.create(key, "1")
        const exits = yield* race<string | void, { readonly _tag: string }>([a.update(key, "2", at), b.remove(key, at)])
        const winner = yield* expectOneWinner(`round ${round}`, exits)
        yield* expectValue(a, key, winner === 0 ? "2" : undefined)
      }
    })),

  made("of clients that race to re-create a removed key, one wins", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      for (let round = 0; round < 10; round++) {
        const at = yield* a.create(`${prefix}k`, "old")
        yield* b.remove(`${prefix}k`, at)
        const exits = yield* race(
          Array.from({ length: 6 }, (_, i) => (i % 2 === 0 ? a : b).create(`${prefix}k`, `${i}`))
        )
        const winner = yield* expectOneWinner(`round ${round}`, exits)
        yield* a.remove(`${prefix}k`, yield* exits[winner]!)
      }
    })),

  made("no increment by compare-and-set is lost", ({ a, another, b, prefix }) =>
    Effect.gen(function*() {
      const clients = [a, b, yield* another, yield* another]
      yield* a.create(`${prefix}k`, "0")
      yield* Effect.forEach(clients, (client) => Effect.repeat(increment(client, `${prefix}k`), { times: 14 }), {
        concurrency: "unbounded",
        discard: true
      })
      yield* expectValue(b, `${prefix}k`, "60")
    })),

  made("a write of one key leaves the revisions of others alone", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      const one = yield* a.create(`${prefix}1`, "")
      const two = yield* b.create(`${prefix}2`, "")
      yield* a.update(`${prefix}1`, "x", one)
      yield* b.update(`${prefix}2`, "x", two)
    })),

  made("later writes of a key have greater revisions, whoever writes", ({ a, b, prefix }) =>
    Effect.gen(function*() {
      let last = yield* a.create(`${prefix}k`, "")
      for (let i = 0; i < 20; i++) {
        const next = yield* (i % 3 === 0 ? a : b).update(`${prefix}k`, String(i), last)
        yield* expect(compareRevision(next, last) > 0, `a revision above ${last}`, next)
        last = next
      }
    })),

  made("a hundred operations in flight all end well", ({ a, prefix }) =>
    Effect.gen(function*() {
      const keys = Array.from({ length: 100 }, (_, i) => `${prefix}${i}`)
      yield* Effect.forEach(keys, (key) => Effect.flatMap(a.create(key, "1"), (at) => a.update(key, "2", at)), {
        concurrency: "unbounded",
        discard: true
      })
      yield* expect((yield* a.list(prefix)).every((entry) => entry.value === "2"), "all updated", "not all")
    })),

  made(
    "a history of racing reads and writes has one order that explains it",
    ({ a, another, b, prefix }) =>
      Effect.gen(function*() {
        const key = `${prefix}k`
        const clients = [a, b, yield* another]
        const history: Array<RegisterOperation> = []
        let ticks = 0
        const recorded = <A, E>(
          effect: Effect.Effect<A, E>,
          note: (exit: Exit.Exit<A, E>) => Omit<RegisterOperation, "start" | "end">
        ) =>
          Effect.suspend(() => {
            const start = ticks++
            return Effect.map(Effect.exit(effect), (exit) => {
              history.push({ ...note(exit), start, end: ticks++ })
              return exit
            })
          })
        yield* Effect.forEach(clients, (client, who) =>
          Effect.gen(function*() {
            for (let i = 0; i < 12; i++) {
              const seen = yield* recorded(client.get(key), (exit) => ({
                kind: "read",
                value: Exit.isSuccess(exit) && Option.isSome(exit.value) ? exit.value.value.revision : null,
                expected: null
              }))
              const at = Exit.isSuccess(seen) && Option.isSome(seen.value) ? seen.value.value.revision : null
              if ((yield* Random.next) < 0.2) continue
              yield* recorded(
                at === null ? client.create(key, `${who}.${i}`) : client.update(key, `${who}.${i}`, at),
                (exit) => ({
                  kind: Exit.isSuccess(exit) ? "written" : "refused",
                  value: Exit.isSuccess(exit) ? exit.value : null,
                  expected: at
                })
              )
            }
          }), { concurrency: "unbounded", discard: true })
        const verdict = checkRegister(history)
        yield* expect(verdict === "Linearizable", "an order that explains the history", { verdict, history })
      })
  ),

  made(
    "an operation that is interrupted ends at once and leaves the client usable",
    ({ a, elapse, prefix }) =>
      Effect.gen(function*() {
        const start = yield* Clock.currentTimeMillis
        for (let i = 0; i < 20; i++) {
          const writing = yield* Effect.forkChild(a.create(`${prefix}${i}`, ""), { startImmediately: true })
          yield* Effect.sync(() => writing.interruptUnsafe())
          yield* elapse("5 millis")
          if (writing.pollUnsafe() === undefined) yield* elapse("500 millis")
          yield* expect(
            writing.pollUnsafe() !== undefined,
            "the interrupted write to end within half a second",
            "it runs"
          )
        }
        yield* expect((yield* Clock.currentTimeMillis) - start < 5_000, "prompt interruption", "it took longer")
        yield* a.create(`${prefix}after`, "1")
        yield* expectValue(a, `${prefix}after`, "1")
      })
  ),

  made("a caller's shorter patience is kept, with a true outcome", ({ a, prefix }) =>
    Effect.gen(function*() {
      const hasty = withDeadline(a, "1 nanos")
      const exit = yield* Effect.exit(hasty.create(`${prefix}k`, "1"))
      if (Exit.isSuccess(exit)) return yield* expectValue(a, `${prefix}k`, "1")
      const error = Exit.findErrorOption(exit)
      if (Option.isNone(error) || error.value._tag !== "OutcomeUnknown") return yield* violation("OutcomeUnknown", exit)
      const patient = withDeadline(a, "1 hour")
      // whatever became of it, creating is settled by the next compare-and-set
      const settled = yield* Effect.exit(patient.create(`${prefix}k`, "2"))
      yield* expectValue(a, `${prefix}k`, Exit.isSuccess(settled) ? "2" : "1")
    })),

  made("a client that is closed takes nothing along", ({ a, another, prefix }) =>
    Effect.gen(function*() {
      const revision = yield* Effect.scoped(Effect.flatMap(another, (brief) => brief.create(`${prefix}k`, "1")))
      yield* expectValue(a, `${prefix}k`, "1")
      yield* a.update(`${prefix}k`, "2", revision)
      yield* expectFailure("a late update", a.update(`${prefix}k`, "3", revision), "RevisionConflict")
    }))
]

/** The contract's cases about a client that is cut from the store: true outcomes in time, and watches that say that they are lost. */
import { Duration, Effect, Exit } from "effect"
import type { CaseDefinition, World } from "../ControlStoreContract.ts"
import { expect, expectEqual, expectFailure, expectValue, follow, timed, violation } from "./contractHarness.ts"

const needsCut = (name: string, run: CaseDefinition["run"]): CaseDefinition => ({ name, needs: "cut", run })

/** room for a machine that is busy with other tests */
const slackMillis = 1_500
const lostWithinMillis = 5_000

const inTime = (world: World, took: number) =>
  expect(
    took <= Duration.toMillis(world.requestTimeout) + slackMillis,
    `an end within ${Duration.format(world.requestTimeout)}`,
    `${took} ms`
  )

const isSnapshot = (event: { readonly _tag: string }) => event._tag === "Snapshot"
const isLost = (event: { readonly _tag: string }) => event._tag === "Lost"

/** Tries until the client is back. */
const back = <A, E>(world: World, effect: Effect.Effect<A, E>): Effect.Effect<A, unknown> =>
  Effect.gen(function*() {
    for (let i = 0; i < 40; i++) {
      const { exit } = yield* timed(world.elapse, effect)
      if (Exit.isSuccess(exit)) return exit.value
      yield* world.elapse("250 millis")
    }
    return yield* violation("the client to be back within ten seconds", "it is not")
  })

export const faultCases: ReadonlyArray<CaseDefinition> = [
  needsCut("cut off, a write ends in time, either certainly not applied or unknown", (world) =>
    Effect.gen(function*() {
      const { client, cut } = yield* world.cuttable
      const revision = yield* client.create(`${world.prefix}k`, "1")
      yield* cut
      const writes = [
        client.create(`${world.prefix}new`, "1"),
        client.update(`${world.prefix}k`, "2", revision),
        Effect.as(client.remove(`${world.prefix}k`, revision), "")
      ]
      for (const write of writes) {
        const { exit, took } = yield* timed(world.elapse, write)
        yield* inTime(world, took)
        yield* expectFailure("the write", Effect.suspend(() => exit), "StoreUnavailable", "OutcomeUnknown")
      }
    })),

  needsCut("cut off, reads end in time as unavailable", (world) =>
    Effect.gen(function*() {
      const { client, cut } = yield* world.cuttable
      yield* cut
      const get = yield* timed(world.elapse, client.get(`${world.prefix}k`))
      yield* inTime(world, get.took)
      yield* expectFailure("get", Effect.suspend(() => get.exit), "StoreUnavailable")
      const list = yield* timed(world.elapse, client.list(world.prefix))
      yield* inTime(world, list.took)
      yield* expectFailure("list", Effect.suspend(() => list.exit), "StoreUnavailable")
    })),

  needsCut("what is certainly not applied is not there later", (world) =>
    Effect.gen(function*() {
      const { client, cut, restore } = yield* world.cuttable
      yield* cut
      const outcomes: Array<string | undefined> = []
      for (let i = 0; i < 3; i++) {
        const { exit } = yield* timed(world.elapse, Effect.flip(client.create(`${world.prefix}${i}`, "cut")))
        outcomes.push(Exit.isSuccess(exit) ? exit.value._tag : undefined)
      }
      yield* restore
      yield* back(world, client.create(`${world.prefix}probe`, ""))
      yield* world.elapse("2 seconds")
      for (const [i, outcome] of outcomes.entries()) {
        if (outcome === "StoreUnavailable") yield* expectValue(world.a, `${world.prefix}${i}`, undefined)
      }
    })),

  needsCut(
    "an unknown outcome is settled by the next compare-and-set at the same revision",
    (world) =>
      Effect.gen(function*() {
        const { client, cut, restore } = yield* world.cuttable
        const key = `${world.prefix}k`
        const revision = yield* client.create(key, "1")
        yield* cut
        const late = yield* timed(world.elapse, client.update(key, "cut", revision))
        yield* restore
        // on a store that is still slow this one's outcome may be unknown, too: then either of them may be what is there
        let unsettled = false
        const settled = yield* back(
          world,
          client.update(key, "after", revision).pipe(
            Effect.as("after"),
            Effect.tapError((error) => Effect.sync(() => unsettled ||= error._tag === "OutcomeUnknown")),
            Effect.catchTag("RevisionConflict", () => Effect.succeed("cut"))
          )
        )
        yield* world.elapse("2 seconds")
        yield* expect(Exit.isFailure(late.exit) || settled === "cut", "a success to stay one", {
          late: late.exit,
          settled
        })
        yield* expectValue(world.a, key, settled).pipe(
          Effect.catchIf(() => unsettled && Exit.isFailure(late.exit), () => expectValue(world.a, key, "after"))
        )
      })
  ),

  needsCut(
    "cut off, a watch says within seconds that it is lost, and then nothing until it is back",
    (world) =>
      Effect.gen(function*() {
        const { client, cut } = yield* world.cuttable
        const watch = yield* follow(client, world.prefix, world.elapse)
        yield* watch.until("a snapshot", isSnapshot)
        yield* cut
        yield* world.elapse(lostWithinMillis)
        yield* watch.until("the loss", isLost)
        yield* watch.drain
        const told = watch.told.length
        yield* world.a.create(`${world.prefix}k`, "1")
        yield* world.elapse("3 seconds")
        yield* watch.drain
        yield* expectEqual("events while cut off", watch.told.slice(told), [])
      })
  ),

  needsCut("back again, a watch begins with a snapshot that holds what was missed", (world) =>
    Effect.gen(function*() {
      const { client, cut, restore } = yield* world.cuttable
      const { a, prefix } = world
      const removed = yield* a.create(`${prefix}removed`, "1")
      const changed = yield* a.create(`${prefix}changed`, "1")
      const watch = yield* follow(client, prefix, world.elapse)
      yield* watch.until("a snapshot", isSnapshot)
      yield* cut
      yield* a.remove(`${prefix}removed`, removed)
      yield* a.update(`${prefix}changed`, "2", changed)
      yield* a.create(`${prefix}created`, "1")
      yield* world.elapse(lostWithinMillis)
      yield* watch.until("the loss", isLost)
      yield* restore
      yield* watch.until("a new snapshot", isSnapshot)
      yield* watch.untilHeld("what was missed", (held) =>
        held.size === 2 && held.get(`${prefix}changed`)?.value === "2" && held.has(`${prefix}created`))
    })),

  needsCut("back again, a watch goes on with changes and proofs", (world) =>
    Effect.gen(function*() {
      const { client, cut, restore } = yield* world.cuttable
      const watch = yield* follow(client, world.prefix, world.elapse)
      yield* watch.until("a snapshot", isSnapshot)
      yield* cut
      yield* world.elapse(lostWithinMillis)
      yield* watch.until("the loss", isLost)
      yield* restore
      yield* watch.until("a new snapshot", isSnapshot)
      yield* world.a.create(`${world.prefix}k`, "1")
      yield* watch.untilHeld("the change", (held) => held.has(`${world.prefix}k`))
      yield* watch.until("a proof", (event) => event._tag === "Current")
    })),

  needsCut("a watch that starts while cut off begins once it is back", (world) =>
    Effect.gen(function*() {
      const { client, cut, restore } = yield* world.cuttable
      yield* world.a.create(`${world.prefix}k`, "1")
      yield* cut
      const watch = yield* follow(client, world.prefix, world.elapse)
      yield* world.elapse("4 seconds")
      yield* restore
      yield* watch.until("a snapshot", isSnapshot)
      yield* expect(watch.held.has(`${world.prefix}k`), "the key", Array.from(watch.held.keys()))
    })),

  needsCut("a cut between two proofs costs no change", (world) =>
    Effect.gen(function*() {
      const { client, cut, restore } = yield* world.cuttable
      const watch = yield* follow(client, world.prefix, world.elapse)
      yield* watch.until("a snapshot", isSnapshot)
      for (let i = 0; i < 5; i++) {
        yield* cut
        yield* world.a.create(`${world.prefix}${i}`, "")
        yield* world.elapse("150 millis")
        yield* restore
        yield* world.elapse("150 millis")
      }
      yield* watch.untilHeld("all five", (held) => held.size === 5)
    })),

  needsCut("one client that is cut off leaves the others alone", (world) =>
    Effect.gen(function*() {
      const { cut } = yield* world.cuttable
      const watch = yield* follow(world.b, world.prefix, world.elapse)
      yield* watch.until("a snapshot", isSnapshot)
      yield* cut
      yield* world.a.create(`${world.prefix}k`, "1")
      yield* watch.untilHeld("the change", (held) => held.has(`${world.prefix}k`))
    })),

  needsCut("back again, the same client reads and writes as before", (world) =>
    Effect.gen(function*() {
      const { client, cut, restore } = yield* world.cuttable
      const revision = yield* client.create(`${world.prefix}k`, "1")
      yield* cut
      yield* world.elapse("4 seconds")
      yield* restore
      yield* back(world, client.update(`${world.prefix}k`, "2", revision))
      yield* expectValue(world.b, `${world.prefix}k`, "2")
    }))
]

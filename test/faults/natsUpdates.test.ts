// Updates of one key by clients that contend for it while three NATS servers lose their leader: each revision has one successor.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option } from "effect"
import { startNats } from "../../scripts/servers/index.ts"
import type { Server } from "../../scripts/servers/index.ts"
import type { ControlStoreService } from "../../src/ControlPlane/ControlStore.ts"
import * as ControlStoreNats from "../../src/ControlPlane/ControlStoreNats.ts"

interface Tally {
  readonly winners: Map<string, number>
  acknowledged: number
  unknown: number
}

/** Adds one at the revision that it read, for ever. */
const contend = (store: ControlStoreService, tally: Tally) =>
  Effect.gen(function*() {
    const found = yield* store.get("counter")
    if (Option.isNone(found)) return
    const { revision, value } = found.value
    const exit = yield* Effect.exit(store.update("counter", String(Number(value) + 1), revision))
    if (Exit.isSuccess(exit)) {
      tally.acknowledged += 1
      tally.winners.set(revision, (tally.winners.get(revision) ?? 0) + 1)
    } else if (Option.exists(Exit.findErrorOption(exit), (error) => error._tag === "OutcomeUnknown")) tally.unknown += 1
  }).pipe(Effect.catch(() => Effect.sleep("50 millis")), Effect.forever)

const underFaults = (fault: (leader: Server) => Effect.Effect<void, unknown>) =>
  Effect.gen(function*() {
    const { leaderOf, servers } = yield* startNats({ members: 3, data: "memory" })
    const stores = yield* Effect.forEach(servers, (server) =>
      ControlStoreNats.make({
        servers: [server, ...servers],
        bucket: "counted",
        replicas: 3,
        connectTimeout: "20 seconds"
      }))
    yield* stores[0]!.create("counter", "0")
    const tally: Tally = { winners: new Map(), acknowledged: 0, unknown: 0 }
    const working = yield* Effect.forEach([...stores, ...stores], (store) => Effect.forkScoped(contend(store, tally)))
    yield* Effect.sleep("1 second")
    const before = tally.acknowledged
    const leader = yield* leaderOf("KV_counted")
    yield* fault(leader!)
    yield* Effect.sleep("3 seconds")
    yield* Effect.sync(() => working.forEach((fiber) => fiber.interruptUnsafe()))
    // what was interrupted may still arrive
    yield* Effect.sleep("6 seconds")
    const end = Number((yield* Effect.fromOption(yield* stores[0]!.get("counter"))).value)
    assert.isAbove(tally.acknowledged, before, "writes after the fault")
    assert.deepStrictEqual(Array.from(tally.winners.values()).filter((count) => count > 1), [])
    assert.isAtLeast(end, tally.acknowledged)
    assert.isAtMost(end, tally.acknowledged + tally.unknown + working.length)
  }).pipe(Effect.scoped)

describe("updates that contend for one key on three NATS servers", () => {
  it.live(
    "have one winner a revision while the leader is killed and comes back",
    () =>
      underFaults((leader) =>
        leader.kill.pipe(Effect.andThen(Effect.sleep("5 seconds")), Effect.andThen(leader.restart))
      ),
    60_000
  )

  it.live(
    "have one winner a revision while the leader is frozen and wakes up",
    () =>
      underFaults((leader) =>
        leader.freeze.pipe(Effect.andThen(Effect.sleep("5 seconds")), Effect.andThen(leader.thaw))
      ),
    60_000
  )
})

// Routers: pools that grow and shrink, groups, streams through them, and who gets what.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, type ActorRef, ActorSystem, NodeUnreachable, Router } from "effect-troupe/Actor"
import { Effect, Fiber, Layer, Ref, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { hashRing } from "../../src/Actor/internal/hashRing.ts"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)

class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}

const Part = Actor.make("Part", {
  protocol: [
    Rpc.make("Who", { payload: { key: Schema.String }, success: Schema.String }),
    Rpc.make("Note", { payload: { n: Schema.Int } }),
    Rpc.make("Slow", { payload: { millis: Schema.Array(Schema.Int) }, success: Schema.String }),
    Rpc.make("Refuse", { success: Schema.String, error: Refused }),
    Rpc.make("Hold"),
    Rpc.make("Feed", {
      payload: { waits: Schema.Array(Schema.Int), count: Schema.Int },
      success: Schema.String,
      error: Refused,
      stream: true
    }),
    Rpc.make("a$b", { success: Schema.String })
  ]
})
type Rpcs = typeof Part extends Actor.Kind<infer R, infer _> ? R : never

/** `log` has what each was told and which streams were ended; `broken` are names that cannot be started. */
const part = (
  log: Array<string> = [],
  broken: ReadonlySet<string> = new Set(),
  options?: Actor.BehaviorOptions<never>
) =>
  Part.toLayer(
    Effect.gen(function*() {
      const { name } = yield* ActorContext.ActorContext
      if (broken.has(name)) return yield* Effect.fail("broken")
      const index = Number(name.split("-")[1]) - 1
      return Part.of({
        Who: () => Effect.succeed(name),
        Note: ({ n }) => Effect.sync(() => void log.push(`${name} ${n}`)),
        Slow: ({ millis }) =>
          Effect.andThen(
            Effect.sleep(millis[index] ?? 0),
            Effect.sync(() => {
              log.push(`${name} done`)
              return name
            })
          ),
        Refuse: () => index === 0 ? Effect.succeed(name) : Effect.fail(new Refused()),
        Hold: () => Effect.never,
        Feed: ({ count, waits }) =>
          (waits[index] ?? 0) < 0
            ? Stream.fail(new Refused())
            : Stream.range(1, count).pipe(
              Stream.rechunk(1),
              Stream.mapEffect((n) => Effect.as(Effect.sleep(waits[index] ?? 0), `${name} ${n}`)),
              Stream.ensuring(Effect.sync(() => log.push(`${name} ended`)))
            ),
        a$b: () => Effect.succeed(name)
      })
    }),
    { start: { retries: 0 }, ...options }
  )

const on =
  (kinds: Layer.Layer<never, never, ActorSystem.ActorSystem>) =>
  <A, E>(body: (system: ActorSystem.ActorSystem["Service"]) => Effect.Effect<A, E>) =>
    ActorSystem.ActorSystem.use(body).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))

const spawnAll = Effect.fnUntraced(function*(system: ActorSystem.ActorSystem["Service"], size: number) {
  const refs: Array<ActorRef.ActorRef<Rpcs>> = []
  for (let n = 1; n <= size; n++) refs.push(yield* system.spawn(Part, `e-${n}`))
  return refs as [ActorRef.ActorRef<Rpcs>, ...Array<ActorRef.ActorRef<Rpcs>>]
})

const who = (router: Router.Router<Rpcs>, key = "k") => router.ask.Who({ key })

describe("a group", () => {
  it.effect("routes to those it was given, takes others in and lets them go, without stopping any", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const [one, two, three] = yield* spawnAll(system, 3)
        const group = Router.group("g", [one, two!], { strategy: "roundRobin" })
        assert.deepStrictEqual([yield* who(group), yield* who(group), yield* who(group)], ["e-1", "e-2", "e-1"])
        yield* group.add(three!)
        yield* group.add(three!)
        assert.deepStrictEqual((yield* group.routees).map((ref) => ref.name), ["e-1", "e-2", "e-3"])
        const names = yield* Effect.forEach([1, 2, 3], () => who(group))
        assert.deepStrictEqual([...names].sort(), ["e-1", "e-2", "e-3"])
        yield* group.remove(one)
        yield* group.remove(one)
        assert.notInclude(yield* Effect.forEach([1, 2, 3, 4], () => who(group)), "e-1")
        assert.strictEqual(yield* one.ask.Who({ key: "k" }), "e-1")
        for (const ref of [two!, three!]) yield* group.remove(ref)
        const none = yield* Effect.flip(who(group))
        assert.strictEqual(none._tag === "ActorStopped" && none.name, "g")
        assert.strictEqual((yield* Effect.flip(group.tell.Note({ n: 1 })))._tag, "ActorStopped")
        assert.strictEqual(
          (yield* Effect.flip(Stream.runDrain(group.ask.Feed({ waits: [], count: 1 }))))._tag,
          "ActorStopped"
        )
      })
    ))

  it.effect("a message goes to those that are there when it is sent, not when it was made", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const [one, two] = yield* spawnAll(system, 2)
        const strategies: ReadonlyArray<Router.Strategy> = [
          "roundRobin",
          "random",
          "leastMailbox",
          { consistentHash: () => "k" },
          { tailChopping: { interval: 100 } }
        ]
        for (const strategy of strategies) {
          const group = Router.group("g", [one], { strategy })
          const asked = who(group)
          yield* group.remove(one)
          const later = who(group)
          yield* group.add(two!)
          assert.deepStrictEqual([yield* asked, yield* later], ["e-2", "e-2"])
        }
      })
    ))

  it.effect("a message may have any name, also one that looks like the runtime's own", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const group = Router.group("g", yield* spawnAll(system, 1), { strategy: "roundRobin" })
        assert.strictEqual(yield* group.ask.a$b(), "e-1")
      })
    ))
})

describe("where a message goes to several", () => {
  it.effect("a broadcast reaches those behind one that fails, and fails as that one", () => {
    const log: Array<string> = []
    return on(part(log, new Set(), { mailbox: { capacity: 1 } }))((system) =>
      Effect.gen(function*() {
        const refs = yield* spawnAll(system, 3)
        const all = Router.group("g", refs, { strategy: "broadcast" })
        yield* refs[0].tell.Hold()
        yield* settle
        yield* refs[0].tell.Note({ n: 0 })
        const error = yield* Effect.flip(all.tell.Note({ n: 1 }))
        assert.strictEqual(error._tag === "MailboxFull" && error.name, "e-1")
        yield* settle
        assert.deepStrictEqual(log, ["e-2 1", "e-3 1"])
        yield* system.stop(refs[1]!)
        yield* Effect.flip(all.tell.Note({ n: 2 }))
        yield* settle
        assert.deepStrictEqual(log.slice(2), ["e-3 2"])
        assert.deepStrictEqual((yield* all.routees).map((ref) => ref.name), ["e-1", "e-3"])
      })
    )
  })

  it.effect("once there is a reply, a broadcast is handled by all the same, and with the others the rest is taken back", () => {
    const log: Array<string> = []
    return on(part(log))((system) =>
      Effect.gen(function*() {
        const refs = yield* spawnAll(system, 3)
        for (const strategy of ["broadcast", "scatterGatherFirst", { tailChopping: { interval: 5 } }] as const) {
          const group = Router.group("g", refs, { strategy })
          const asked = yield* Effect.forkChild(group.ask.Slow({ millis: [10, 20, 30] }), { startImmediately: true })
          yield* TestClock.adjust(10)
          assert.strictEqual(yield* Fiber.join(asked), "e-1")
          yield* TestClock.adjust(100)
          const all = ["e-1 done", "e-2 done", "e-3 done"]
          assert.deepStrictEqual(log.splice(0), strategy === "broadcast" ? all : ["e-1 done"])
        }
        // One that is done at once keeps a broadcast from nobody.
        const group = Router.group("g", refs, { strategy: "broadcast" })
        yield* group.ask.Note({ n: 1 })
        yield* settle
        assert.deepStrictEqual(log, ["e-1 1", "e-2 1", "e-3 1"])
        // Whoever gives up takes all of it back.
        log.length = 0
        const givenUp = yield* Effect.forkChild(group.ask.Slow({ millis: [10, 20, 30] }), { startImmediately: true })
        yield* settle
        yield* Fiber.interrupt(givenUp)
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(log, [])
      })
    )
  })

  it.effect("one that fails or has stopped does not win; only when all have failed the ask fails, as the last of them", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const refs = yield* spawnAll(system, 3)
        for (const strategy of ["scatterGatherFirst", "broadcast", { tailChopping: { interval: 100 } }] as const) {
          const group = Router.group("g", refs, { strategy })
          const asked = yield* Effect.forkChild(group.ask.Refuse(), { startImmediately: true })
          yield* TestClock.adjust("1 second")
          assert.strictEqual(yield* Fiber.join(asked), "e-1")
        }
        yield* system.stop(refs[0])
        const rest = Router.group("g", refs, { strategy: "scatterGatherFirst" })
        assert.strictEqual((yield* Effect.flip(rest.ask.Refuse()))._tag, "Refused")
        assert.deepStrictEqual((yield* rest.routees).map((ref) => ref.name), ["e-2", "e-3"])
      })
    ))
})

describe("streaming replies through a router", () => {
  const feed = (router: Router.Router<Rpcs>, waits: ReadonlyArray<number>, count = 2) =>
    Stream.runCollect(router.ask.Feed({ waits, count }))

  it.effect("come from one whose turn it is; the next takes over only before the first reply", () => {
    const log: Array<string> = []
    return on(part(log))((system) =>
      Effect.gen(function*() {
        const refs = yield* spawnAll(system, 3)
        const group = Router.group("g", refs, { strategy: "roundRobin" })
        assert.deepStrictEqual(yield* feed(group, []), ["e-1 1", "e-1 2"])
        yield* system.stop(refs[1]!)
        assert.deepStrictEqual(yield* feed(group, []), ["e-3 1", "e-3 2"])
        assert.deepStrictEqual((yield* group.routees).map((ref) => ref.name), ["e-1", "e-3"])

        const got: Array<string> = []
        const cut = yield* group.ask.Feed({ waits: [10, 10, 10], count: 5 }).pipe(
          Stream.runForEach((line) => Effect.sync(() => void got.push(line))),
          Effect.flip,
          Effect.forkChild({ startImmediately: true })
        )
        yield* TestClock.adjust(15)
        const served = refs.find((ref) => got[0]!.startsWith(ref.name))!
        yield* system.stop(served, { now: true })
        yield* TestClock.adjust("10 seconds")
        assert.include(["ActorStopped", "HandlerFailed"], (yield* Fiber.join(cut))._tag)
        assert.strictEqual(got.length, 1)
      })
    )
  })

  it.effect("of several the first to send something is listened to, the others are ended, and one that fails does not win", () => {
    const log: Array<string> = []
    return on(part(log))((system) =>
      Effect.gen(function*() {
        const refs = yield* spawnAll(system, 3)
        const scatter = Router.group("g", refs, { strategy: "scatterGatherFirst" })
        const first = yield* Effect.forkChild(feed(scatter, [300, 20, -1]), { startImmediately: true })
        yield* TestClock.adjust(40)
        assert.deepStrictEqual(yield* Fiber.join(first), ["e-2 1", "e-2 2"])
        yield* settle
        assert.sameMembers(log.splice(0), ["e-1 ended", "e-2 ended"])

        const chopping = Router.group("g", refs, { strategy: { tailChopping: { interval: 100 } } })
        const later = yield* Effect.forkChild(feed(chopping, [1000, 1000, 10], 1), { startImmediately: true })
        yield* TestClock.adjust(209)
        assert.isUndefined(later.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* Fiber.join(later), ["e-3 1"])
      })
    )
  })

  it.effect("a stream with its own typed error is no reason to try another", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const group = Router.group("g", yield* spawnAll(system, 2), { strategy: "roundRobin" })
        assert.strictEqual((yield* Effect.flip(feed(group, [-1, 0])))._tag, "Refused")
      })
    ))
})

describe("a pool", () => {
  it.effect("of which not all can be started leaves none behind, and can be asked for again", () => {
    const broken = new Set(["e-3"])
    return on(part([], broken))((system) =>
      Effect.gen(function*() {
        const spawn = system.spawnRouter(Part, "e", { size: 4, strategy: "roundRobin" })
        assert.strictEqual((yield* Effect.flip(spawn))._tag, "StartFailed")
        assert.deepStrictEqual(yield* system.inspect, [])
        broken.clear()
        assert.strictEqual((yield* (yield* spawn).routees).length, 4)
      })
    )
  })

  it.effect("resizes one at a time, past a name that somebody else has, and on from where it failed", () => {
    const broken = new Set<string>()
    return on(part([], broken))((system) =>
      Effect.gen(function*() {
        const pool = yield* system.spawnRouter(Part, "e", { size: 1, strategy: "roundRobin" })
        yield* Effect.all([pool.resize(3), pool.resize(5), pool.resize(2)], { concurrency: "unbounded" })
        assert.deepStrictEqual((yield* pool.routees).map((ref) => ref.name), ["e-1", "e-2"])
        yield* system.spawn(Part, "e-6")
        assert.strictEqual((yield* Effect.flip(pool.resize(4)))._tag, "NameTaken")
        broken.add("e-8")
        assert.strictEqual((yield* Effect.flip(pool.resize(4)))._tag, "StartFailed")
        broken.clear()
        yield* pool.resize(4)
        assert.deepStrictEqual((yield* pool.routees).map((ref) => ref.name), ["e-1", "e-2", "e-7", "e-8"])
        yield* pool.resize(0)
        assert.deepStrictEqual((yield* pool.routees).map((ref) => ref.name), ["e-1"])
      })
    )
  })
})

describe("a routee that a pool could not stop", () => {
  it.effect("is stopped the next time the pool is resized, and gets nothing meanwhile", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        let reachable = false
        const pool = yield* Router.makePool<Rpcs>({
          name: "e",
          size: 3,
          strategy: "roundRobin",
          kind: Part.definition,
          spawn: (name) => system.spawn(Part, name),
          stop: (ref) =>
            reachable
              ? system.stop(ref)
              : Effect.fail(new NodeUnreachable({ node: "n", outcome: "NotSent", reason: "cut off" }))
        })
        const names = Effect.map(system.inspect, (all) => all.map(({ name }) => name))
        assert.strictEqual((yield* Effect.flip(pool.resize(2)))._tag, "NodeUnreachable")
        assert.strictEqual((yield* pool.routees).length, 2)
        assert.deepStrictEqual(yield* names, ["e-1", "e-2", "e-3"])
        reachable = true
        yield* pool.resize(2)
        assert.deepStrictEqual(yield* names, ["e-1", "e-2"])
      })
    ))
})

describe("fairness", () => {
  const Step = Schema.Union([
    Schema.Struct({ do: Schema.Literal("ask") }),
    Schema.Struct({ do: Schema.Literals(["add", "remove", "stop"]), who: Schema.Literals([0, 1, 2, 3, 4]) })
  ])

  it.effect.prop(
    "round-robin is exact: in each round everybody in the group is asked once, in their order, whoever comes, goes or stops",
    { steps: Schema.Array(Step).check(Schema.isMaxLength(60)) },
    ({ steps }) =>
      on(part())((system) =>
        Effect.gen(function*() {
          const refs = yield* spawnAll(system, 5)
          const group = Router.group("g", [refs[0]], { strategy: "roundRobin" })
          const stopped = new Set<string>()
          const asked = new Set<string>()
          let members = ["e-1"]
          /** The first who was not asked in this round; who has stopped is found out when it is asked. */
          const expected = (): string | undefined => {
            while (members.length > 0) {
              if (members.every((name) => asked.has(name))) asked.clear()
              const name = members.find((name) => !asked.has(name))!
              if (!stopped.has(name)) {
                asked.add(name)
                return name
              }
              members = members.filter((other) => other !== name)
            }
            return undefined
          }
          for (const step of steps) {
            if (step.do === "ask") {
              const name = expected()
              if (name !== undefined) assert.strictEqual(yield* who(group), name)
              else assert.strictEqual((yield* Effect.flip(who(group)))._tag, "ActorStopped")
              continue
            }
            const ref = refs[step.who]!
            if (step.do === "add") {
              yield* group.add(ref)
              if (!members.includes(ref.name)) members = [...members, ref.name]
            } else if (step.do === "remove") {
              yield* group.remove(ref)
              members = members.filter((name) => name !== ref.name)
              asked.delete(ref.name)
            } else {
              yield* system.stop(ref)
              stopped.add(ref.name)
            }
          }
        })
      )
  )

  it.effect.prop(
    "consistent hash: when one comes only its keys move, when one goes only its keys do, and nothing else ever",
    {
      steps: Schema.Array(Schema.Struct({ add: Schema.Boolean, who: Schema.Literals([0, 1, 2, 3, 4, 5]) })).check(
        Schema.isMaxLength(12)
      )
    },
    ({ steps }) =>
      on(part())((system) =>
        Effect.gen(function*() {
          const refs = yield* spawnAll(system, 6)
          const keys = Array.from({ length: 60 }, (_, n) => `key-${n}`)
          const group = Router.group("g", [refs[0]], {
            strategy: { consistentHash: ({ payload }) => (payload as { readonly key: string }).key }
          })
          const owners = () => Effect.forEach(keys, (key) => who(group, key))
          let members = new Set(["e-1"])
          let before = yield* owners()
          for (const { add, who: index } of steps) {
            const ref = refs[index]!
            if (!add && members.size === 1) continue
            yield* add ? group.add(ref) : group.remove(ref)
            const changed = add !== members.has(ref.name)
            members = new Set(members)
            if (add) members.add(ref.name)
            else members.delete(ref.name)
            const after = yield* owners()
            after.forEach((owner, n) => {
              assert.isTrue(members.has(owner))
              if (owner === before[n]) return
              assert.isTrue(changed)
              assert.strictEqual(add ? owner : before[n], ref.name)
            })
            before = after
          }
        })
      )
  )

  it("a hash ring is the same in whatever order its members come", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.string({ minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 8 }),
        (names) => {
          const ring = hashRing(names, (name) => name, 50)
          const other = hashRing([...names].reverse(), (name) => name, 50)
          for (let n = 0; n < 100; n++) assert.strictEqual(ring(`k${n}`), other(`k${n}`))
        }
      ),
      { numRuns: 50 }
    )
  })

  it.effect("random asks everybody about as often", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const group = Router.group("g", yield* spawnAll(system, 4), { strategy: "random" })
        const counts = new Map<string, number>()
        for (let turn = 0; turn < 2000; turn++) {
          const name = yield* who(group)
          counts.set(name, (counts.get(name) ?? 0) + 1)
        }
        // 500 each are expected; 5 standard deviations are 97.
        for (const count of counts.values()) assert.isBelow(Math.abs(count - 500), 97)
        assert.strictEqual(counts.size, 4)
      })
    ))

  it.effect("least-mailbox never chooses the longer of the two that it looks at", () =>
    on(part())((system) =>
      Effect.gen(function*() {
        const refs = yield* spawnAll(system, 3)
        const told = yield* Ref.make(0)
        yield* refs[0].tell.Hold()
        yield* refs[1]!.tell.Hold()
        for (let n = 0; n < 50; n++) yield* refs[0].tell.Note({ n })
        yield* settle
        const group = Router.group("g", refs, { strategy: "leastMailbox" })
        const depth = (index: number) => Effect.map(system.inspectActor(refs[index]!), (seen) => seen.waiting)
        while ((yield* Ref.getAndUpdate(told, (n) => n + 1)) < 60) yield* group.tell.Note({ n: 1 })
        yield* settle
        // The first has the most all along, so it is always the worse of two.
        assert.strictEqual(yield* depth(0), 50)
        assert.isAtMost(yield* depth(1), 60)
      })
    ))
})

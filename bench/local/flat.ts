/**
 * Does a message cost more where much is idle? The dense tell to 1,000 actors beside 10 and beside 100,000 of each thing that a
 * runtime might scan. A process of its own.
 */
import { Actor, ActorContext, ActorSystem } from "effect-troupe"
import { Effect, Layer, ManagedRuntime, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { asked, compete, type Contestant, cpuPer, type Options, report, type Result } from "../harness.ts"
import { Arrivals, times } from "../peers/crowd.ts"
import { Counter, layerCounter, layerSystem, spawnAll } from "../peers/troupe.ts"

const options = asked<Options>()
const few = 10
const many = options.quick ? 100 : 100_000
const size = options.quick ? 10 : 1000
const each = 16
const loops = options.quick ? 1 : 40

/** Does as it is told, and is idle from then on. */
const Idler = Actor.make("Idler", {
  protocol: [
    // never answered within the bench: who asks it waits, and holds a deadline
    Rpc.make("Wait", { success: Schema.Void }),
    Rpc.make("Children", { payload: { count: Schema.Number }, success: Schema.Void }),
    Rpc.make("Timers", { payload: { count: Schema.Number }, success: Schema.Void }),
    Rpc.make("Watch", { payload: { name: Schema.String }, success: Schema.Void })
  ]
})
const layerIdler = Idler.toLayer(Effect.gen(function*() {
  const context = yield* ActorContext.ActorContext
  const system = yield* ActorSystem.ActorSystem
  return Idler.of({
    Wait: () => context.fork(Effect.never),
    Children: ({ count }) =>
      Effect.forEach(Array.from({ length: count }), (_, i) => context.spawnChild(Counter, `child-${i}`), {
        discard: true
      }).pipe(Effect.orDie),
    Timers: ({ count }) =>
      Effect.forEach(
        Array.from({ length: count }),
        (_, i) => context.timers.once(`timer-${i}`, 3_600_000 + i, Effect.void),
        { discard: true }
      ),
    Watch: ({ name }) =>
      Effect.flatMap(system.actorOf(Counter, name), (actor) => context.watch(actor, () => Effect.void)).pipe(
        Effect.orDie
      )
  })
}))

const long = { timeout: 3_600_000 }

/** What is idle beside the actors that are told, by name: brings about `count` of it. */
const idle = {
  actors: (count: number) =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      yield* Effect.forEach(Array.from({ length: count }), (_, i) => system.spawn(Counter, `idle-${i}`), {
        discard: true
      })
    }),
  /** of one parent */
  children: (count: number) =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const parent = yield* system.spawn(Idler, "parent")
      yield* parent.ask.Children({ count }, long)
    }),
  /** of one actor, each of another duration */
  timers: (count: number) =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const actor = yield* system.spawn(Idler, "timed")
      yield* actor.ask.Timers({ count }, long)
    }),
  /** one watcher each, all of an actor that is told */
  watchers: (count: number) =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      for (let i = 0; i < count; i++) {
        const watcher = yield* system.spawn(Idler, `watcher-${i}`)
        yield* watcher.ask.Watch({ name: "actor-0" }, long)
      }
    }),
  /** asks that wait */
  deadlines: (count: number) =>
    Effect.gen(function*() {
      const system = yield* ActorSystem.ActorSystem
      const actor = yield* system.spawn(Idler, "silent")
      for (let i = 0; i < count; i++) {
        yield* Effect.forkDetach(Effect.exit(actor.ask.Wait({ timeout: 3_600_000 + i % 1000 })), {
          startImmediately: true
        })
      }
    })
}

const contestant = async (count: number, what: keyof typeof idle): Promise<Contestant> => {
  const arrivals = new Arrivals()
  const runtime = ManagedRuntime.make(
    Layer.merge(layerCounter("sync", arrivals), layerIdler).pipe(Layer.provideMerge(layerSystem))
  )
  const actors = await runtime.runPromise(spawnAll(size))
  await runtime.runPromise(idle[what](count))
  const total = size * each * loops
  return {
    name: `${count.toLocaleString("en")} idle ${what}`,
    round: () =>
      cpuPer(total, () => {
        const done = arrivals.expect(total)
        runtime.runFork(times(total, (i) => actors[Math.floor(i / each) % size]!.tell.Add({ n: 1 })))
        return done
      })
  }
}

for (const what of Object.keys(idle) as Array<keyof typeof idle>) {
  const contestants = [await contestant(few, what), await contestant(many, what)]
  const [at10, at100000] = contestants as [Contestant, Contestant]
  const result: Result = {
    title: `tell, dense, beside idle ${what}`,
    unit: "ns CPU per message",
    sides: await compete(contestants, options),
    comparisons: [{ figure: `flat_${what}`, of: at100000.name, against: at10.name }]
  }
  await report(result)
}
process.exit(0)

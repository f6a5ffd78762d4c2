/** This runtime through its public surface, with everything on that is on by default. */
import { Actor, ActorSystem, Layers } from "effect-troupe"
import { Effect, Layer, ManagedRuntime, Ref, Schema } from "effect"
import { Rpc } from "effect/rpc"
import { Arrivals, type Crowd, times } from "./crowd.ts"

/** One node by itself, as an application has it. */
export const layerSystem = Layers.singleNode({ system: "bench" })

export const Counter = Actor.make("Counter", {
  protocol: [
    Rpc.make("Add", { payload: { n: Schema.Number } }),
    Rpc.make("Total", { payload: { n: Schema.Number }, success: Schema.Number })
  ]
})

/** how the state is kept and the handler written */
export type Style = "sync" | "ref" | "gen" | "fn"

/** The handlers `gen` and `fn`, to be run alone as well. */
export const generator = {
  gen: (state: Ref.Ref<number>, arrivals: Arrivals) => ({ n }: { readonly n: number }) =>
    Effect.gen(function*() {
      yield* Ref.update(state, (total) => total + n)
      arrivals.arrived()
    }),
  fn: (state: Ref.Ref<number>, arrivals: Arrivals) =>
    Effect.fnUntraced(function*({ n }: { readonly n: number }) {
      yield* Ref.update(state, (total) => total + n)
      arrivals.arrived()
    })
}

const add = (style: Style, state: Ref.Ref<number>, arrivals: Arrivals) => {
  if (style === "gen" || style === "fn") return generator[style](state, arrivals)
  if (style === "sync") {
    let total = 0
    return ({ n }: { readonly n: number }) =>
      Effect.sync(() => {
        total += n
        arrivals.arrived()
      })
  }
  return ({ n }: { readonly n: number }) =>
    Ref.update(state, (total) => {
      arrivals.arrived()
      return total + n
    })
}

/** The behaviour, built by an Effect, as users write one. */
export const layerCounter = (style: Style, arrivals: Arrivals) =>
  Counter.toLayer(Effect.gen(function*() {
    const state = yield* Ref.make(0)
    return Counter.of({
      Add: add(style, state, arrivals),
      Total: () => Ref.get(state)
    })
  }))

export const startTroupe = (style: Style, arrivals: Arrivals) =>
  ManagedRuntime.make(layerCounter(style, arrivals).pipe(Layer.provideMerge(layerSystem)))

export const spawnAll = (size: number) =>
  Effect.gen(function*() {
    const system = yield* ActorSystem.ActorSystem
    return yield* Effect.forEach(Array.from({ length: size }), (_, i) => system.spawn(Counter, `actor-${i}`))
  })

export const makeTroupe = async (size: number, style: Style = "sync"): Promise<Crowd> => {
  const arrivals = new Arrivals()
  const runtime = startTroupe(style, arrivals)
  const actors = await runtime.runPromise(spawnAll(size))
  const asking = (
    inFlight: number,
    count: number,
    one: (actor: (typeof actors)[number]) => Effect.Effect<unknown, unknown>
  ) =>
    runtime.runPromise(Effect.forEach(
      Array.from({ length: inFlight }, (_, asker) => actors[asker % size]!),
      (actor) => times(count / inFlight, () => one(actor)),
      { concurrency: "unbounded", discard: true }
    ))
  return {
    tell: (each, loops) => {
      const total = size * each * loops
      const done = arrivals.expect(total)
      runtime.runFork(times(total, (i) => actors[Math.floor(i / each) % size]!.tell.Add({ n: 1 })))
      return done
    },
    ask: (inFlight, count) => asking(inFlight, count, (actor) => actor.ask.Total({ n: 1 })),
    askBehind: (inFlight, count) =>
      asking(inFlight, count, (actor) => Effect.andThen(actor.tell.Add({ n: 1 }), actor.ask.Total({ n: 1 }))),
    close: () => runtime.dispose()
  }
}

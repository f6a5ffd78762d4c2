/**
 * Many actors behind one reference. A pool spawns its own routees and can be resized; a group routes to actors that exist. The
 * router is no actor: a message goes straight from its sender to the routee that the strategy chooses.
 *
 * A routee that has stopped for good is left out from then on, and the message goes to another.
 */
import { Duration, Effect, Fiber, Random } from "effect"
import type { Rpc } from "effect/rpc"
import type { ActorRef, Ask, AskOptions, Tell } from "./ActorRef.ts"
import { ActorStopped, type SpawnError, type StopError } from "./errors.ts"
import { hashRing } from "./internal/hashRing.ts"
import type { Ref } from "./internal/RefRuntime.ts"
import type { Waiting } from "./Mailbox.ts"

/**
 * - `roundRobin`: each in turn
 * - `random`
 * - `leastMailbox`: of two random ones the one with fewer messages waiting
 * - `consistentHash`: the same key goes to the same routee, and few keys move when routees come or go
 * - `broadcast`: a tell goes to all; an ask goes to all, and the first success is the reply
 * - `scatterGatherFirst`: as broadcast, but a tell goes to one in turn
 * - `tailChopping`: an ask goes to one, after each `interval` to one more; the first success is the reply
 */
export type Strategy =
  | "roundRobin"
  | "random"
  | "leastMailbox"
  | "broadcast"
  | "scatterGatherFirst"
  | {
    readonly consistentHash: (message: Waiting) => string
    /** points of each routee on the ring, default 150 */
    readonly virtualNodes?: number | undefined
  }
  | { readonly tailChopping: { readonly interval: Duration.Input } }

export interface Router<in Rpcs extends Rpc.Any> {
  readonly name: string
  readonly tell: Tell<Rpcs>
  readonly ask: Ask<Rpcs>
  /** those that messages go to now */
  readonly routees: Effect.Effect<ReadonlyArray<ActorRef>>
}

export interface Pool<in Rpcs extends Rpc.Any> extends Router<Rpcs> {
  /** Spawns or stops routees until there are `size` of them (at least 1); the last ones go first. */
  readonly resize: (size: number) => Effect.Effect<void, SpawnError | StopError>
}

export interface Group<in out Rpcs extends Rpc.Any> extends Router<Rpcs> {
  /** Routes to it too; one that is there already stays once. */
  readonly add: (ref: ActorRef<Rpcs>) => Effect.Effect<void>
  readonly remove: (ref: ActorRef) => Effect.Effect<void>
}

type AnyEffect = Effect.Effect<unknown, unknown>
type Send = (ref: Ref) => AnyEffect

/** The routees, and how one is chosen. */
class Routees {
  list: Array<Ref> = []
  private turn = 0
  private ring: ((key: string) => Ref | undefined) | undefined = undefined
  private readonly strategy: Strategy

  constructor(strategy: Strategy) {
    this.strategy = strategy
  }

  set(list: Array<Ref>): void {
    this.list = list
    this.ring = undefined
  }

  drop(ref: Ref): void {
    this.set(this.list.filter((other) => other !== ref))
  }

  /** The one for this message; undefined where there is none. */
  pick(message: Waiting): Effect.Effect<Ref | undefined> {
    const { list, strategy } = this
    if (list.length <= 1) return Effect.succeed(list[0])
    if (strategy === "random") return Effect.map(Random.nextIntBetween(0, list.length - 1), (index) => list[index])
    if (strategy === "leastMailbox") {
      return Effect.map(
        Effect.all([Random.nextIntBetween(0, list.length - 1), Random.nextIntBetween(0, list.length - 2)]),
        ([a, b]) => {
          const one = list[a]!
          const other = list[b < a ? b : b + 1]!
          return depth(other) < depth(one) ? other : one
        }
      )
    }
    if (typeof strategy === "object" && "consistentHash" in strategy) {
      this.ring ??= hashRing(list, (ref) => ref.name, strategy.virtualNodes ?? 150)
      return Effect.succeed(this.ring(strategy.consistentHash(message)))
    }
    return Effect.sync(() => list[this.turn++ % list.length])
  }
}

/** Messages that wait; of an actor elsewhere nothing is known, which counts as none. */
const depth = (ref: Ref): number =>
  ref.cell === undefined ? 0 : ref.cell.depth + (ref.cell.worker === undefined ? 0 : 1)

const stopped = (error: unknown): boolean => error instanceof ActorStopped

/** Sends to the chosen one; if that has stopped for good, leaves it out and chooses again. */
const toOne = (name: string, routees: Routees, message: Waiting, send: Send): AnyEffect =>
  Effect.flatMap(routees.pick(message), (ref) =>
    ref === undefined
      ? Effect.fail(new ActorStopped({ name }))
      : Effect.catch(send(ref), (error) => {
        if (!stopped(error)) return Effect.fail(error)
        routees.drop(ref)
        return toOne(name, routees, message, send)
      }))

/** Sends to all; the first success counts, or the last failure where there is none. */
const toAllFirst = (name: string, routees: Routees, send: Send): AnyEffect =>
  Effect.suspend(() =>
    routees.list.length === 0 ? Effect.fail(new ActorStopped({ name })) : firstSuccess(routees.list.map(send))
  )

/** As `Effect.raceAllFirst`, but failures only count when all have failed. */
const firstSuccess = (effects: ReadonlyArray<AnyEffect>): AnyEffect =>
  Effect.callback((resume) => {
    let left = effects.length
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    const runFork = Effect.runForkWith(Fiber.getCurrent()!.context)
    let done = false
    for (const effect of effects) {
      if (done) break
      const fiber = runFork(effect)
      fibers.push(fiber)
      fiber.addObserver((exit) => {
        left--
        if (done || (exit._tag === "Failure" && left > 0)) return
        done = true
        resume(exit)
        for (const other of fibers) other.interruptUnsafe()
      })
    }
    return Effect.sync(() => {
      done = true
      for (const fiber of fibers) fiber.interruptUnsafe()
    })
  })

/** One, and after each interval one more, in turn. */
const tailChopping = (name: string, routees: Routees, interval: number, send: Send): AnyEffect =>
  Effect.flatMap(routees.pick({ tag: "", payload: undefined }), (first) => {
    if (first === undefined) return Effect.fail(new ActorStopped({ name }))
    const start = routees.list.indexOf(first)
    const order = routees.list.map((_, index) => routees.list[(start + index) % routees.list.length]!)
    return firstSuccess(order.map((ref, index) => Effect.delay(send(ref), Duration.millis(interval * index))))
  })

const surfaces = (name: string, tags: Iterable<string>, strategy: Strategy, routees: Routees) => {
  const tell: Record<string, (payload: unknown) => AnyEffect> = {}
  const ask: Record<string, (payload: unknown, options?: AskOptions) => AnyEffect> = {}
  for (const tag of tags) {
    if (tag.includes("$")) continue
    const method = (surface: object) => surface as Record<string, (...args: ReadonlyArray<unknown>) => AnyEffect>
    tell[tag] = (payload) => {
      const send: Send = (ref) => method(ref.tell)[tag]!(payload)
      return strategy === "broadcast"
        ? Effect.suspend(() =>
          routees.list.length === 0 ? Effect.fail(new ActorStopped({ name })) : Effect.forEach(
            [...routees.list],
            (ref) =>
              Effect.catch(send(ref), (error) => {
                if (!stopped(error)) return Effect.fail(error)
                routees.drop(ref)
                return Effect.void
              }),
            { discard: true }
          )
        )
        : toOne(name, routees, { tag, payload }, send)
    }
    // Options come second, or first where there is no payload; either way they are passed on as they came.
    ask[tag] = (...args: ReadonlyArray<unknown>) => {
      const send: Send = (ref) => method(ref.ask)[tag]!(...args)
      return strategy === "broadcast" || strategy === "scatterGatherFirst"
        ? toAllFirst(name, routees, send)
        : typeof strategy === "object" && "tailChopping" in strategy
        ? tailChopping(name, routees, Duration.toMillis(strategy.tailChopping.interval), send)
        : toOne(name, routees, { tag, payload: args[0] }, send)
    }
  }
  return { tell, ask }
}

/** Routes to the given actors, all of one kind. Messages with streaming replies are not routed. */
export const group = <Rpcs extends Rpc.Any>(
  name: string,
  refs: readonly [ActorRef<Rpcs>, ...Array<ActorRef<Rpcs>>],
  options: { readonly strategy: Strategy }
): Group<Rpcs> => {
  const routees = new Routees(options.strategy)
  const same = (a: ActorRef, b: ActorRef) => a.name === b.name && a.kind.name === b.kind.name
  routees.set([...refs] as unknown as Array<Ref>)
  return {
    name,
    ...surfaces(name, refs[0].kind.messages.keys(), options.strategy, routees) as unknown as Pick<
      Router<Rpcs>,
      "tell" | "ask"
    >,
    routees: Effect.sync(() => [...routees.list]),
    add: (ref) =>
      Effect.sync(() => {
        if (!routees.list.some((other) => same(other, ref))) routees.set([...routees.list, ref as unknown as Ref])
      }),
    remove: (ref) => Effect.sync(() => routees.set(routees.list.filter((other) => !same(other, ref))))
  }
}

/** Used by `ActorSystem.spawnRouter`: a pool whose routees `spawn` makes. */
export const makePool = <Rpcs extends Rpc.Any>(options: {
  readonly name: string
  readonly size: number
  readonly strategy: Strategy
  readonly tags: Iterable<string>
  readonly spawn: (name: string) => Effect.Effect<ActorRef<Rpcs>, SpawnError>
  readonly stop: (ref: ActorRef) => Effect.Effect<void, StopError>
}): Effect.Effect<Pool<Rpcs>, SpawnError> =>
  Effect.gen(function*() {
    const routees = new Routees(options.strategy)
    let spawned = 0
    const grow = Effect.suspend(() => options.spawn(`${options.name}-${++spawned}`)).pipe(
      Effect.tap((ref) => Effect.sync(() => routees.set([...routees.list, ref as unknown as Ref])))
    )
    const shrink = Effect.suspend(() => {
      const last = routees.list[routees.list.length - 1]!
      routees.drop(last)
      return options.stop(last)
    })
    const resize = (size: number) =>
      Effect.gen(function*() {
        while (routees.list.length < Math.max(1, size)) yield* grow
        while (routees.list.length > Math.max(1, size)) yield* shrink
      })
    yield* Effect.repeat(grow, { times: Math.max(0, options.size - 1) })
    return {
      name: options.name,
      ...surfaces(options.name, options.tags, options.strategy, routees) as unknown as Pick<
        Router<Rpcs>,
        "tell" | "ask"
      >,
      routees: Effect.sync(() => [...routees.list]),
      resize
    }
  })

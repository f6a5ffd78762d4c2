/**
 * Many actors behind one reference. A pool spawns its own routees and can be resized; a group routes to actors that exist. The
 * router is no actor: it is a value of this node, and a message goes straight from its sender to the routee that the strategy
 * chooses. So two senders that share a router share its turns, and two nodes that route to the same actors do not.
 *
 * A routee that has stopped for good (`ActorStopped`) is left out from then on, and the message goes to another; with none left
 * a call fails `ActorStopped` with the router's name. No other failure is repeated: it may have been handled. A pool's routees are
 * ordinary actors: they are supervised by their kind, relocate by themselves, and live on when the program forgets the router.
 */
import { Duration, Effect, Fiber, Random, Semaphore, Stream } from "effect"
import type { Rpc } from "effect/rpc"
import type { ActorRef, Ask, AskOptions, Tell } from "./ActorRef.ts"
import { ActorStopped, type SpawnError, type StopError } from "./errors.ts"
import { hashRing } from "./internal/hashRing.ts"
import type { Ref } from "./internal/Ref.ts"
import { ownMessages } from "./internal/streams.ts"
import type { KindDefinition } from "./Kind.ts"
import type { Waiting } from "./Mailbox.ts"

/**
 * - `roundRobin`: each in turn
 * - `random`: any, all as likely
 * - `leastMailbox`: of two random ones the one with fewer messages waiting; of actors on other nodes that is not known and counts
 *   as none
 * - `consistentHash`: the same key goes to the same routee, and few keys move when routees come or go
 * - `broadcast`: a tell goes to all, also past one that fails, and then fails as the first of those did; an ask goes to all, and the
 *   first success is the reply
 * - `scatterGatherFirst`: as broadcast, but a tell goes to one in turn
 * - `tailChopping`: an ask goes to one in turn, after each `interval` to one more; the first success is the reply. A tell goes to one
 *
 * Where an ask goes to several, it fails as the last of them when all have failed. Once there is a reply, with `scatterGatherFirst` and
 * `tailChopping` the others' questions are taken back, as an interrupted ask's are; with `broadcast` all handle the message, reply
 * or not. A message with streaming replies goes where an ask would go: of several, the first to send
 * something is listened to and the others are ended; another routee takes over only before the first reply.
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
  /** those that messages go to now, in the order of their turns */
  readonly routees: Effect.Effect<ReadonlyArray<ActorRef>>
}

export interface Pool<in Rpcs extends Rpc.Any> extends Router<Rpcs> {
  /**
   * Spawns or stops routees until there are `size` of them (at least 1); the last ones go first, and what waits in their mailboxes
   * becomes dead letters. One resizing at a time. Where it fails it has gone part of the way; asked again it goes on from there.
   */
  readonly resize: (size: number) => Effect.Effect<void, SpawnError | StopError>
}

export interface Group<in out Rpcs extends Rpc.Any> extends Router<Rpcs> {
  /** Routes to it too; one that is there already stays once. */
  readonly add: (ref: ActorRef<Rpcs>) => Effect.Effect<void>
  readonly remove: (ref: ActorRef) => Effect.Effect<void>
}

type AnyEffect = Effect.Effect<unknown, unknown>
type AnyStream = Stream.Stream<unknown, unknown>
type Send = (ref: Ref) => AnyEffect
type SendStream = (ref: Ref) => AnyStream

/** The routees, and how one is chosen. */
class Routees {
  list: ReadonlyArray<Ref> = []
  /** whose turn it is: the place of the next one */
  private turn = 0
  private ring: ((key: string) => Ref | undefined) | undefined = undefined
  private readonly strategy: Strategy

  constructor(strategy: Strategy) {
    this.strategy = strategy
  }

  add(ref: Ref): void {
    this.list = [...this.list, ref]
    this.ring = undefined
  }

  drop(ref: Ref): void {
    const index = this.list.indexOf(ref)
    if (index < 0) return
    // Nobody's turn is skipped because another one left.
    if (index < this.turn) this.turn--
    this.list = this.list.filter((other) => other !== ref)
    this.ring = undefined
  }

  /** The one for this message, of those that there are when this runs; undefined where there is none. */
  pick(message: Waiting): Effect.Effect<Ref | undefined> {
    return Effect.suspend(() => this.choose(message))
  }

  private choose(message: Waiting): Effect.Effect<Ref | undefined> {
    const { list, strategy } = this
    if (list.length === 0) return Effect.succeed(undefined)
    if (strategy === "random") return Effect.map(Random.nextIntBetween(0, list.length - 1), (index) => list[index])
    if (strategy === "leastMailbox" && list.length > 1) {
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
    if (this.turn >= list.length) this.turn = 0
    return Effect.succeed(list[this.turn++])
  }
}

/** Messages that wait; of an actor elsewhere nothing is known, which counts as none. */
const depth = (ref: Ref): number =>
  ref.cell === undefined ? 0 : ref.cell.depth + (ref.cell.worker === undefined ? 0 : 1)

/** Has this very routee stopped? That of another actor is how a forwarded ask ends: it was handled. */
const stopped = (error: unknown, { name }: Ref): boolean => error instanceof ActorStopped && error.name === name

/** Sends to the chosen one; if that has stopped for good, leaves it out and chooses again. */
const toOne = (name: string, routees: Routees, message: Waiting, send: Send): AnyEffect =>
  Effect.flatMap(routees.pick(message), (ref) =>
    ref === undefined
      ? Effect.fail(new ActorStopped({ name }))
      : Effect.catch(send(ref), (error) => {
        if (!stopped(error, ref)) return Effect.fail(error)
        routees.drop(ref)
        return toOne(name, routees, message, send)
      }))

/** Asks all; the first success counts, or the last failure where there is none. */
const toAllFirst = (name: string, routees: Routees, send: Send, others: Others): AnyEffect =>
  Effect.suspend(() =>
    routees.list.length === 0
      ? Effect.fail(new ActorStopped({ name }))
      : firstSuccess(routees.list.map((ref) => dropping(routees, ref, send)), others)
  )

/** One that has stopped is left out the next time. */
const dropping = (routees: Routees, ref: Ref, send: Send): AnyEffect =>
  Effect.tapError(send(ref), (error) => Effect.sync(() => stopped(error, ref) && routees.drop(ref)))

/** Tells all, also past one that fails. */
const toAll = (name: string, routees: Routees, send: Send): AnyEffect =>
  Effect.suspend(() => {
    if (routees.list.length === 0) return Effect.fail(new ActorStopped({ name }))
    let failed: AnyEffect = Effect.void
    const tell = (ref: Ref) =>
      Effect.catch(dropping(routees, ref, send), (error) =>
        Effect.sync(() => {
          if (failed === Effect.void && !stopped(error, ref)) failed = Effect.fail(error)
        }))
    return Effect.andThen(Effect.forEach([...routees.list], tell, { discard: true }), Effect.suspend(() => failed))
  })

/** What becomes of the others once one has succeeded. */
type Others = "go on" | "are interrupted"

/** As `Effect.raceAllFirst`, but failures only count when all have failed. */
const firstSuccess = (effects: ReadonlyArray<AnyEffect>, others: Others): AnyEffect =>
  Effect.callback((resume) => {
    let left = effects.length
    const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
    const runFork = Effect.runForkWith(Fiber.getCurrent()!.context)
    let done = false
    for (const effect of effects) {
      if (done && others === "are interrupted") break
      const fiber = runFork(effect)
      fibers.push(fiber)
      fiber.addObserver((exit) => {
        left--
        if (done || (exit._tag === "Failure" && left > 0)) return
        done = true
        resume(exit)
        if (others === "are interrupted") { for (const other of fibers) other.interruptUnsafe() }
      })
    }
    return Effect.sync(() => {
      done = true
      for (const fiber of fibers) fiber.interruptUnsafe()
    })
  })

/** All of them, beginning with the one whose turn it is. */
const inTurn = (routees: Routees): Effect.Effect<ReadonlyArray<Ref>> =>
  Effect.map(routees.pick({ tag: "", payload: undefined }), (first) => {
    const start = first === undefined ? 0 : routees.list.indexOf(first)
    return routees.list.map((_, index) => routees.list[(start + index) % routees.list.length]!)
  })

/** One, and after each interval one more, in turn. */
const tailChopping = (name: string, routees: Routees, interval: number, send: Send): AnyEffect =>
  Effect.flatMap(inTurn(routees), (order) =>
    order.length === 0
      ? Effect.fail(new ActorStopped({ name }))
      : firstSuccess(
        order.map((ref, index) => Effect.delay(dropping(routees, ref, send), Duration.millis(interval * index))),
        "are interrupted"
      ))

// ---- streaming replies -------------------------------------------------------------------------------------------------------

/** From the chosen one; if that has stopped for good before it replied anything, from the next. */
const streamFromOne = (name: string, routees: Routees, message: Waiting, send: SendStream): AnyStream =>
  Stream.unwrap(Effect.map(routees.pick(message), (ref) => {
    if (ref === undefined) return Stream.fail(new ActorStopped({ name }))
    let begun = false
    return send(ref).pipe(
      Stream.tap(() => Effect.sync(() => void (begun = true))),
      Stream.catch((error) => {
        if (!stopped(error, ref)) return Stream.fail(error)
        routees.drop(ref)
        return begun ? Stream.fail(error) : streamFromOne(name, routees, message, send)
      })
    )
  }))

/** From whichever of them sends something first, each asked `interval` milliseconds after the one before it. */
const streamFromFirst = (name: string, routees: Routees, interval: number, send: SendStream): AnyStream =>
  Stream.unwrap(Effect.map(inTurn(routees), (order) =>
    order.length === 0
      ? Stream.fail(new ActorStopped({ name }))
      : Stream.raceAll(...order.map((ref, index) => {
        const stream = Stream.tapError(
          send(ref),
          (error) => Effect.sync(() => stopped(error, ref) && routees.drop(ref))
        )
        return interval * index === 0
          ? stream
          : Stream.unwrap(Effect.delay(Effect.succeed(stream), Duration.millis(interval * index)))
      }))))

// ---- the surface ---------------------------------------------------------------------------------------------------------------

const surfaces = (name: string, kind: KindDefinition, strategy: Strategy, routees: Routees) => {
  const tell: Record<string, (payload: unknown) => AnyEffect> = {}
  const ask: Record<string, (payload: unknown, options?: AskOptions) => AnyEffect | AnyStream> = {}
  const chopping = typeof strategy === "object" && "tailChopping" in strategy
    ? Duration.toMillis(strategy.tailChopping.interval)
    : undefined
  const all = strategy === "broadcast" || strategy === "scatterGatherFirst"
  for (const { stream, tag } of ownMessages(kind)) {
    const call = <A>(surface: object, args: ReadonlyArray<unknown>): A =>
      (surface as Record<string, (...args: ReadonlyArray<unknown>) => A>)[tag]!(...args)
    tell[tag] = (payload) => {
      const send: Send = (ref) => call(ref.tell, [payload])
      return strategy === "broadcast" ? toAll(name, routees, send) : toOne(name, routees, { tag, payload }, send)
    }
    // Options come second, or first where there is no payload; either way they are passed on as they came.
    ask[tag] = (...args: ReadonlyArray<unknown>) => {
      const message: Waiting = { tag, payload: args[0] }
      if (stream) {
        const send: SendStream = (ref) => call(ref.ask, args)
        return all || chopping !== undefined
          ? streamFromFirst(name, routees, chopping ?? 0, send)
          : streamFromOne(name, routees, message, send)
      }
      const send: Send = (ref) => call(ref.ask, args)
      return all
        ? toAllFirst(name, routees, send, strategy === "broadcast" ? "go on" : "are interrupted")
        : chopping !== undefined
        ? tailChopping(name, routees, chopping, send)
        : toOne(name, routees, message, send)
    }
  }
  return { tell, ask }
}

/** Routes to the given actors, all of one kind, wherever they are. It never stops any of them. */
export const group = <Rpcs extends Rpc.Any>(
  name: string,
  refs: readonly [ActorRef<Rpcs>, ...Array<ActorRef<Rpcs>>],
  options: { readonly strategy: Strategy }
): Group<Rpcs> => {
  const routees = new Routees(options.strategy)
  const same = (a: ActorRef, b: ActorRef) => a.name === b.name && a.kind.name === b.kind.name
  const add = (ref: ActorRef<Rpcs>) => {
    if (!routees.list.some((other) => same(other, ref))) routees.add(ref as unknown as Ref)
  }
  for (const ref of refs) add(ref)
  return {
    name,
    ...surfaces(name, refs[0].kind, options.strategy, routees) as unknown as Pick<
      Router<Rpcs>,
      "tell" | "ask"
    >,
    routees: Effect.sync(() => [...routees.list]),
    add: (ref) => Effect.sync(() => add(ref)),
    remove: (ref) =>
      Effect.sync(() => {
        for (const other of routees.list) if (same(other, ref)) routees.drop(other)
      })
  }
}

/** Used by `ActorSystem.spawnRouter`: a pool whose routees `spawn` makes. */
export const makePool = <Rpcs extends Rpc.Any>(options: {
  readonly name: string
  readonly size: number
  readonly strategy: Strategy
  readonly kind: KindDefinition
  readonly spawn: (name: string) => Effect.Effect<ActorRef<Rpcs>, SpawnError>
  readonly stop: (ref: ActorRef) => Effect.Effect<void, StopError>
}): Effect.Effect<Pool<Rpcs>, SpawnError> =>
  Effect.gen(function*() {
    const routees = new Routees(options.strategy)
    const turns = yield* Semaphore.make(1)
    let spawned = 0
    // Of one routee the same effect until it has succeeded: then a repetition of it is the same spawn.
    let next: Effect.Effect<ActorRef<Rpcs>, SpawnError> | undefined = undefined
    const grow = Effect.suspend(() => next ??= options.spawn(`${options.name}-${++spawned}`)).pipe(
      Effect.tap((ref) =>
        Effect.sync(() => {
          next = undefined
          routees.add(ref as unknown as Ref)
        })
      ),
      // Somebody else's actor: the next one gets another name.
      Effect.tapError((error) => Effect.sync(() => error._tag === "NameTaken" && (next = undefined)))
    )
    // They get nothing any more; those that could not be stopped are left for the next time.
    const leaving: Array<Ref> = []
    const shrink = Effect.suspend(() => Effect.tap(options.stop(leaving[0]!), () => Effect.sync(() => leaving.shift())))
    const resize = (size: number) =>
      Effect.gen(function*() {
        while (routees.list.length < Math.max(1, size)) yield* grow
        for (const ref of routees.list.slice(Math.max(1, size)).reverse()) {
          routees.drop(ref)
          leaving.push(ref)
        }
        while (leaving.length > 0) yield* shrink
      }).pipe(turns.withPermits(1))
    // Where not all could be spawned nobody gets the others, so that they must not stay and keep their names.
    const undo = Effect.suspend(() =>
      Effect.forEach(routees.list, (ref) => Effect.ignore(options.stop(ref)), { discard: true })
    )
    yield* Effect.onError(Effect.repeat(grow, { times: Math.max(0, options.size - 1) }), () => undo)
    return {
      name: options.name,
      ...surfaces(options.name, options.kind, options.strategy, routees) as unknown as Pick<
        Router<Rpcs>,
        "tell" | "ask"
      >,
      routees: Effect.sync(() => [...routees.list]),
      resize
    }
  })

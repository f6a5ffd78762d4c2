/**
 * This member as a host: takes orders of partition owners, refuses those of owners that have a successor, and tells owners of
 * every end until they have taken note.
 *
 * Invariant: once a `Report` at an epoch was answered (or a view with it seen), no order of a lower epoch is taken for that
 * partition; an end that no owner has acknowledged is never forgotten while this node runs.
 */
import { Effect, Fiber, FiberSet, Queue } from "effect"
import type { ActorHost, Termination } from "../../Actor/ActorHost.ts"
import type { ActorAddress } from "../../Actor/Address.ts"
import type { StartError } from "../../Actor/errors.ts"
import type { SpawnSpec } from "../../Actor/Placement.ts"
import type { StopReason } from "../../Actor/SystemEvents.ts"
import type { Calls, Handlers } from "./calls.ts"
import { NotServing, pageOf, Superseded } from "./ClusterRpcs.ts"
import * as Crew from "./crew.ts"
import { partitionOf } from "./hash.ts"
import type { Membership } from "./membership.ts"

interface Starting {
  readonly spec: SpawnSpec
  readonly placement: number
  readonly epoch: number
  readonly fiber: Fiber.Fiber<ActorAddress, StartError>
}

interface Ending {
  readonly name: string
  readonly placement: number
  readonly reason: StopReason
}

export interface MemberHost {
  readonly handlers: Pick<Handlers, "Start" | "Revoke" | "Report">
  /** stops all actors here so that they move: their ends are told as `Withdrawn` */
  readonly withdraw: Effect.Effect<void>
  /** stops all actors here because another incarnation may act for them: nobody is told */
  readonly abandon: Effect.Effect<void>
  /** ends that no owner has acknowledged yet */
  readonly unacknowledged: () => number
}

/** Ends told at once. */
const tellingAtOnce = 64
/** Names whose last placement is remembered, to refuse a late order; those not heard of for longest are forgotten first. */
const rememberedNames = 100_000
/** Actors stopped at once. */
const stoppingAtOnce = 64

export const make = Effect.fnUntraced(
  function*(membership: Membership, host: ActorHost["Service"], calls: () => Calls, isLeaving: () => boolean) {
    const fork = yield* FiberSet.makeRuntime<never, ActorAddress, StartError>()
    const { partitionCount } = membership.settings
    const floors = Array.from({ length: partitionCount }, () => 0)
    const starting = new Map<string, Starting>()
    /** the newest placement of a name that was taken, or forbidden, here: that one and lower ones start no more */
    const taken = new Map<string, number>()
    const ending = new Map<string, Ending>()

    membership.onChange((now) => {
      now.view?.partitions.forEach((partition, index) => {
        if (partition.epoch > floors[index]!) floors[index] = partition.epoch
      })
    })
    /** Is that the newest owner's order? Raises the epoch where it is newer than what is known. */
    const admit = (partition: number, epoch: number): Superseded | undefined => {
      const floor = floors[partition] ?? Number.POSITIVE_INFINITY
      if (epoch < floor) return new Superseded({ partition, epoch: floor })
      floors[partition] = epoch
      return undefined
    }
    const remember = (name: string, placement: number) => {
      const highest = Math.max(placement, taken.get(name) ?? -1)
      taken.delete(name)
      taken.set(name, highest)
      if (taken.size > rememberedNames) taken.delete(taken.keys().next().value!)
    }
    /** The actor of an earlier placement may still be here, on its way out: it must not be taken for the new one. */
    const replace = (spec: SpawnSpec, placement: number, epoch: number) =>
      Effect.andThen(
        host.stop(spec.name, { placement: placement - 1, reason: "Replaced" }),
        host.start(spec, { placement, epoch })
      )

    type StartResult = ReturnType<Handlers["Start"]>
    const start: Handlers["Start"] = ({ epoch, partition, placement, spec }) =>
      Effect.suspend((): StartResult => {
        const refused = admit(partition, epoch)
        if (refused !== undefined) return Effect.fail(refused)
        const running = starting.get(spec.name)
        // Asked again about the same start: an order once taken goes on, whatever became of whoever asked.
        if (running !== undefined && running.placement === placement) return Fiber.join(running.fiber)
        const found = host.find(spec.name)
        // somebody's child of that name may have the same number
        const present = found?.spec.id === spec.id ? found.address : undefined
        if (present?.placement === placement && present.epoch === epoch) return Effect.succeed(present)
        // That placement has been here and has ended, or was forbidden: a late order does not bring it back.
        const isLate = placement <= (taken.get(spec.name) ?? -1)
        if (isLate || isLeaving() || !membership.mayAct()) {
          return Effect.fail(new NotServing({ node: membership.key, reason: "leaves, lapsed, or was told not to" }))
        }
        remember(spec.name, placement)
        // Known to `Report` from the very turn in which the epoch was checked: nothing may come in between.
        const fiber = fork(replace(spec, placement, epoch))
        const entry = { spec, placement, epoch, fiber }
        starting.set(spec.name, entry)
        fiber.addObserver(() => {
          if (starting.get(spec.name) === entry) starting.delete(spec.name)
        })
        return Fiber.join(fiber)
      })

    const revoke: Handlers["Revoke"] = ({ epoch, name, partition, placement, reason }) =>
      Effect.suspend(() => {
        const refused = admit(partition, epoch)
        if (refused !== undefined) return Effect.fail(refused)
        remember(name, placement)
        const running = starting.get(name)
        return (running !== undefined && running.placement <= placement ? Fiber.await(running.fiber) : Effect.void)
          .pipe(
            Effect.andThen(host.stop(name, { placement, reason }))
          )
      })

    const report: Handlers["Report"] = ({ after, partitions }) =>
      Effect.suspend(() => {
        const asked = new Set<number>()
        for (const { epoch, partition } of partitions) {
          const refused = admit(partition, epoch)
          if (refused !== undefined) return Effect.fail(refused)
          asked.add(partition)
        }
        const isAsked = (name: string) => asked.has(partitionOf(name, partitionCount))
        const found = new Map<
          string,
          { readonly spec: SpawnSpec; readonly placement: number; readonly epoch: number }
        >()
        for (const { address, spec } of host.actors()) {
          if (address.placement > 0 && isAsked(spec.name)) {
            found.set(spec.name, { spec, placement: address.placement, epoch: address.epoch })
          }
        }
        for (const { epoch, placement, spec } of starting.values()) {
          if (isAsked(spec.name) && placement >= (found.get(spec.name)?.placement ?? 0)) {
            found.set(spec.name, { spec, placement, epoch })
          }
        }
        const ended = new Map<string, Array<Ending>>()
        for (const entry of ending.values()) {
          if (isAsked(entry.name)) ended.set(entry.name, [...(ended.get(entry.name) ?? []), entry])
        }
        const { more, page } = pageOf(
          [...new Set([...found.keys(), ...ended.keys()])],
          after,
          (name) => found.get(name)?.spec
        )
        return Effect.succeed({
          running: page.flatMap((name) => found.get(name) ?? []),
          ended: page.flatMap((name) => ended.get(name) ?? []),
          ...(more ? { more: page.at(-1)! } : {})
        })
      })

    // ---- ends
    const background = yield* FiberSet.makeRuntime<never>()
    const tell = (entry: Ending) => {
      const partition = partitionOf(entry.name, partitionCount)
      const once = Effect.suspend(() =>
        calls().toOwner(partition, 10_000, (route) =>
          route.peer.Release({
            partition,
            epoch: route.epoch,
            name: entry.name,
            placement: entry.placement,
            reason: entry.reason
          }))
      )
      return once.pipe(
        Effect.matchEffect({
          onSuccess: () =>
            Effect.sync(() => {
              const key = `${entry.name}#${entry.placement}`
              if (ending.get(key) === entry) ending.delete(key)
            }),
          onFailure: () => Effect.sync(() => void background(later(entry)))
        })
      )
    }
    const later = (entry: Ending) => Effect.sleep("1 second").pipe(Effect.andThen(Effect.sync(() => tellLater(entry))))
    const tellLater = yield* Crew.make(tellingAtOnce, tell)
    const onEnd = ({ actor, reason }: Termination) => {
      const { name, placement } = actor.address
      if (placement === 0 || reason === "Replaced" || membership.isOver()) return Effect.void
      const entry: Ending = { name, placement, reason }
      ending.set(`${name}#${placement}`, entry)
      tellLater(entry)
      return Effect.void
    }
    const terminations = yield* host.terminations
    yield* Queue.take(terminations).pipe(Effect.flatMap(onEnd), Effect.forever, Effect.forkScoped)

    const stopAll = (reason: StopReason) =>
      Effect.suspend(() =>
        Effect.forEach(
          host.actors(),
          ({ address }) => host.stop(address.name, { placement: address.placement, reason }),
          { concurrency: stoppingAtOnce, discard: true }
        )
      )

    return {
      handlers: { Start: start, Revoke: revoke, Report: report },
      withdraw: stopAll("Withdrawn"),
      abandon: stopAll("Replaced"),
      unacknowledged: () => ending.size
    } satisfies MemberHost
  }
)

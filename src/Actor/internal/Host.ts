/**
 * The state behind the `ActorHost` service: cells by name, registered kinds, the run queue and the deadlines. Other modules of
 * this ring reach it through `hostOf`, so that a message to an actor of this node passes no port.
 */
import { Cause, type Clock, type Context, Effect, Exit, type Fiber, Queue, SubscriptionRef } from "effect"
import type { Termination } from "../ActorHost.ts"
import type { ActorAddress, NodeAddress } from "../Address.ts"
import { sameNode } from "../Address.ts"
import { InvalidData, KindNotRegistered, NameTaken, type StartError } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import type { SpawnSpec } from "../Placement.ts"
import type { DeadLetterReason, StopReason, SystemEvent } from "../SystemEvents.ts"
import { Cell, Worker } from "./Cell.ts"
import { propsCodec } from "./codecs.ts"
import type { RefRuntime } from "./RefRuntime.ts"
import { RunQueue } from "./RunQueue.ts"
import { Timeouts } from "./Timeouts.ts"

/** What a kind's Layer decides about its actors here. Milliseconds. */
export interface CellOptions {
  readonly startTimeout: number
  readonly startRetries: number
  readonly startDelay: (attempt: number) => number
  readonly stopGrace: number
  readonly restartLimit: number
  readonly restartWindow: number
}

/** A kind with its behaviour and the services that its Layer was given. */
export interface Registration {
  readonly host: Host
  readonly definition: KindDefinition
  readonly build: Effect.Effect<unknown, unknown, unknown>
  readonly context: Context.Context<never>
  readonly options: CellOptions
}

/** Workers kept for reuse. One is enough while no handler suspends. */
const sparesKept = 256

export class Host {
  readonly node: NodeAddress
  readonly queue: RunQueue
  readonly timeouts: Timeouts
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly cells = new Map<string, Cell>()
  readonly registrations = new Map<string, Registration>()
  readonly kindNames: SubscriptionRef.SubscriptionRef<ReadonlyArray<string>>
  readonly listeners = new Set<Queue.Queue<Termination>>()
  /** set once by the actor system: what refs made here are bound to */
  refs: RefRuntime | undefined = undefined
  private readonly workers: Array<Worker> = []
  private readonly publish: (event: SystemEvent) => void

  constructor(options: {
    readonly node: NodeAddress
    readonly clock: Clock.Clock
    readonly context: Context.Context<never>
    readonly kindNames: SubscriptionRef.SubscriptionRef<ReadonlyArray<string>>
    readonly publish: (event: SystemEvent) => void
  }) {
    this.node = options.node
    this.queue = new RunQueue(options.context)
    this.timeouts = new Timeouts(options.clock, options.context)
    this.runFork = Effect.runForkWith(options.context)
    this.kindNames = options.kindNames
    this.publish = options.publish
  }

  // ---- kinds -----------------------------------------------------------------------------------------------------------

  /** Registers the kind for as long as the scope lives; then its actors here end as `Withdrawn`. */
  register(behavior: Omit<Registration, "host">) {
    const registration: Registration = { ...behavior, host: this }
    const { name } = registration.definition
    const changed = Effect.suspend(() => SubscriptionRef.set(this.kindNames, [...this.registrations.keys()]))
    return Effect.acquireRelease(
      Effect.suspend(() => {
        if (this.registrations.has(name)) {
          return Effect.die(new Error(`the kind ${name} is registered twice on one node`))
        }
        this.registrations.set(name, registration)
        return changed
      }),
      () =>
        Effect.suspend(() => {
          this.registrations.delete(name)
          const cells = [...this.cells.values()].filter((cell) => cell.registration === registration)
          return Effect.andThen(changed, this.stopAll(cells, "Withdrawn", true))
        })
    )
  }

  // ---- actors ----------------------------------------------------------------------------------------------------------

  start(spec: SpawnSpec, placed: { readonly placement: number; readonly epoch: number }): Effect.Effect<
    ActorAddress,
    StartError
  > {
    return Effect.suspend((): Effect.Effect<ActorAddress, StartError> => {
      const present = this.cells.get(spec.name)
      if (present !== undefined) {
        if (present.spec.id === spec.id) return this.joinStart(present)
        if (placed.placement <= present.placement) {
          return Effect.fail(new NameTaken({ name: spec.name, kind: present.spec.kind }))
        }
        return Effect.andThen(this.stopAll([present], "Replaced", true), this.start(spec, placed))
      }
      const registration = this.registrations.get(spec.kind)
      if (registration === undefined) return Effect.fail(new KindNotRegistered({ kind: spec.kind }))
      const props = propsCodec(registration.definition).decode(spec.props)
      if (props._tag === "Failure") {
        return Effect.fail(
          new InvalidData({ what: `props of ${spec.kind}`, reason: String(Cause.squash(props.cause)) })
        )
      }
      const cell = new Cell(registration, spec, placed.placement, placed.epoch)
      this.cells.set(spec.name, cell)
      cell.start()
      return this.joinStart(cell)
    })
  }

  private joinStart(cell: Cell): Effect.Effect<ActorAddress, StartError> {
    return cell.isStarting
      ? Effect.callback((resume) => cell.whenStarted(resume))
      : cell.failure === undefined
      ? Exit.succeed(cell.address)
      : Exit.fail(cell.failure)
  }

  stop(name: string, options: { readonly placement: number; readonly reason: StopReason }): Effect.Effect<void> {
    return Effect.suspend(() => {
      const cell = this.cells.get(name)
      return cell === undefined || cell.placement > options.placement
        ? Effect.void
        : this.stopAll([cell], options.reason, options.reason === "Replaced")
    })
  }

  private stopAll(cells: ReadonlyArray<Cell>, reason: StopReason, now: boolean): Effect.Effect<void> {
    if (cells.length === 0) return Effect.void
    return Effect.callback<void>((resume) => {
      let left = cells.length
      for (const cell of cells) {
        cell.stop(reason, now)
        cell.whenStopped(() => {
          if (--left === 0) resume(Effect.void)
        })
      }
    })
  }

  /** The cell that a message to this address goes to; a later placement of the name here serves as well. */
  cellAt(address: ActorAddress): Cell | undefined {
    if (!sameNode(address.node, this.node)) return undefined
    const cell = this.cells.get(address.name)
    return cell !== undefined && cell.spec.kind === address.kind && cell.placement >= address.placement
      ? cell
      : undefined
  }

  /** Stops what still runs here, at once, and forgets all deadlines. */
  readonly close: Effect.Effect<void> = Effect.suspend(() =>
    Effect.ensuring(this.stopAll([...this.cells.values()], "Withdrawn", true), Effect.sync(() => this.timeouts.close()))
  )

  // ---- workers ---------------------------------------------------------------------------------------------------------

  lend(): Worker {
    return this.workers.pop() ?? new Worker()
  }

  giveBack(worker: Worker): void {
    worker.cell = undefined
    if (this.workers.length < sparesKept) this.workers.push(worker)
  }

  // ---- told by cells ---------------------------------------------------------------------------------------------------

  started(cell: Cell): void {
    this.publish({ _tag: "ActorStarted", actor: cell.address })
  }

  restarted(cell: Cell, reason: string): void {
    this.publish({ _tag: "ActorRestarted", actor: cell.address, reason })
  }

  stopped(cell: Cell, reason: StopReason): void {
    if (this.cells.get(cell.spec.name) === cell) this.cells.delete(cell.spec.name)
    // One that never started is no actor that ended: its starter knows.
    if (cell.failure !== undefined) return
    this.publish({ _tag: "ActorStopped", actor: cell.address, reason })
    for (const queue of this.listeners) Queue.offerUnsafe(queue, { actor: cell, reason })
  }

  deadLetter(cell: Cell, message: string, reason: DeadLetterReason): void {
    this.publish({ _tag: "DeadLetter", to: cell.spec.name, kind: cell.spec.kind, message, reason })
  }

  log(level: "Debug" | "Warn" | "Error", message: string, cause: Cause.Cause<unknown>): void {
    this.runFork(
      level === "Error"
        ? Effect.logError(message, cause)
        : level === "Warn"
        ? Effect.logWarning(message, cause)
        : Effect.logDebug(message, cause)
    )
  }
}

const hosts = new WeakMap<object, Host>()

/** Ties the host to the service object that stands for it. */
export const attach = (service: object, host: Host): void => void hosts.set(service, host)

/** The host behind an `ActorHost` service that this ring made. */
export const hostOf = (service: object): Host => {
  const host = hosts.get(service)
  if (host === undefined) throw new Error("this ActorHost was not made by ActorHost.layer")
  return host
}

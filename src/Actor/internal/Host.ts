/**
 * The state behind the `ActorHost` service: cells by name, registered kinds, the run queue and the deadlines. Other modules of
 * this ring reach it through `hostOf`, so that a message to an actor of this node passes no port.
 */
import { Cause, type Clock, Context, Effect, Exit, type Fiber, Queue, References, SubscriptionRef } from "effect"
import type { Termination } from "../ActorHost.ts"
import type { ActorAddress, NodeAddress } from "../Address.ts"
import { sameNode } from "../Address.ts"
import { InvalidData, KindNotRegistered, NameTaken, type StartError, StartFailed } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import type { MessageQueue, Overflow } from "../Mailbox.ts"
import type { SpawnSpec } from "../Placement.ts"
import type { Supervision } from "../Supervision.ts"
import type { DeadLetterReason, StopReason, SystemEvent, SystemEvents } from "../SystemEvents.ts"
import { Cell } from "./Cell.ts"
import { noProps, propsCodec } from "./codecs.ts"
import { Names } from "./Names.ts"
import type { Envelope } from "./Envelope.ts"
import type { Passivation } from "./Idleness.ts"
import { nameTrouble } from "./nameRules.ts"
import { report } from "./report.ts"
import type { RefRuntime } from "./RefRuntime.ts"
import { RunQueue } from "./RunQueue.ts"
import { Timeouts } from "./Timeouts.ts"
import { Worker } from "./Worker.ts"

/** What a kind's Layer decides about its actors here. Milliseconds. */
export interface CellOptions {
  readonly startTimeout: number
  readonly startRetries: number
  readonly startDelay: (attempt: number) => number
  readonly stopGrace: number
  readonly supervision: Supervision
  /** undefined: unbounded, in order of arrival */
  readonly mailbox: {
    readonly capacity: number
    readonly overflow: Overflow
    readonly control: ReadonlySet<string>
    readonly makeQueue: () => MessageQueue<Envelope>
  } | undefined
  readonly stashCapacity: number
  readonly reentrancy: {
    readonly applies: (tag: string) => boolean
    readonly maxInFlight: number
    readonly timeout: number
  } | undefined
  readonly passivation: Passivation | undefined
  /** tags of messages with streaming replies */
  readonly streams: ReadonlyArray<string> | undefined
  readonly annotateLogs: boolean
  /** a span for each message */
  readonly trace: boolean
  /** the time of each handler */
  readonly measure: boolean
  /** payloads checked on this node too */
  readonly validate: boolean
}

/** Plain numbers, because they change with each message; metrics are made of them now and then. */
export interface Counts {
  handled: number
  failures: number
  restarts: number
  started: number
  stopped: number
  deadLetters: number
  /** in mailboxes */
  waiting: number
  /** brought to the metrics at the end of the present run */
  dirty: boolean
}

export const noCounts = (): Counts => ({
  handled: 0,
  failures: 0,
  restarts: 0,
  started: 0,
  stopped: 0,
  deadLetters: 0,
  waiting: 0,
  dirty: false
})

/** A kind with its behaviour and the services that its Layer was given. */
export interface Registration {
  readonly host: Host
  readonly definition: KindDefinition
  readonly build: Effect.Effect<unknown, unknown, unknown>
  readonly context: Context.Context<never>
  readonly options: CellOptions
  readonly counts: Counts
  /** its actors have no props */
  readonly plain: boolean
  /** on what the Layer itself logs; undefined: none */
  readonly annotations: Readonly<Record<string, unknown>> | undefined
}

/** What `ActorSystem.register` is given; the rest is the host's. */
export type Behavior = Omit<Registration, "host" | "counts" | "plain" | "annotations">

/** Generations of children below an actor without parent. A behaviour that spawns itself ends here, not in the stack. */
export const maxDepth = 64

/** Workers kept for reuse. One is enough while no handler suspends. */
const sparesKept = 256

export class Host {
  readonly node: NodeAddress
  readonly queue: RunQueue
  readonly timeouts: Timeouts
  readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly cells: Names<Cell>
  readonly registrations = new Map<string, Registration>()
  /** the same by their definitions; another map after each change, since each message from afar is looked up here */
  kinds: ReadonlyMap<string, KindDefinition> = new Map()
  readonly kindNames: SubscriptionRef.SubscriptionRef<ReadonlyArray<string>>
  readonly listeners = new Set<Queue.Queue<Termination>>()
  /** set once by the actor system: what refs made here are bound to */
  refs: RefRuntime | undefined = undefined
  private readonly followers = new Set<Fiber.Fiber<unknown, unknown>>()
  private closing = false
  private latest: Cell | undefined = undefined
  private placements = 0
  private readonly dirty: Array<Registration> = []
  private readonly workers: Array<Worker> = []
  private readonly events: SystemEvents["Service"]

  constructor(options: {
    readonly node: NodeAddress
    readonly clock: Clock.Clock
    readonly context: Context.Context<never>
    readonly kindNames: SubscriptionRef.SubscriptionRef<ReadonlyArray<string>>
    readonly events: SystemEvents["Service"]
  }) {
    this.node = options.node
    this.cells = new Names<Cell>()
    this.timeouts = new Timeouts(options.clock, options.context)
    this.queue = new RunQueue(options.context, () => this.timeouts.now(), () => this.flush())
    this.runFork = Effect.runForkWith(options.context)
    this.kindNames = options.kindNames
    this.events = options.events
  }

  // ---- kinds -----------------------------------------------------------------------------------------------------------

  /** Registers the kind for as long as the scope lives; then its actors here end as `Withdrawn`. */
  register(behavior: Behavior) {
    const annotations = Context.get(behavior.context, References.CurrentLogAnnotations)
    const registration: Registration = {
      ...behavior,
      host: this,
      counts: noCounts(),
      plain: propsCodec(behavior.definition) === noProps,
      annotations: Object.keys(annotations).length === 0 ? undefined : annotations
    }
    const { name } = registration.definition
    const changed = Effect.suspend(() => SubscriptionRef.set(this.kindNames, [...this.registrations.keys()]))
    return Effect.acquireRelease(
      Effect.suspend(() => {
        if (this.registrations.has(name)) {
          return Effect.die(new Error(`the kind ${name} is registered twice on one node`))
        }
        this.registrations.set(name, registration)
        this.kinds = new Map(this.kinds).set(name, registration.definition)
        return changed
      }),
      () =>
        Effect.suspend(() => {
          this.registrations.delete(name)
          this.kinds = new Map([...this.kinds].filter(([other]) => other !== name))
          const cells = this.cells.all().filter((cell) => cell.registration === registration)
          return Effect.andThen(changed, this.stopAll(cells, "Withdrawn", { now: true }))
        })
    )
  }

  // ---- actors ----------------------------------------------------------------------------------------------------------

  /** `placed` undefined: the name is free or it fails, and the host numbers the placement itself. */
  start(
    spec: SpawnSpec,
    placed: { readonly placement: number; readonly epoch: number } | undefined
  ): Effect.Effect<ActorAddress, StartError> {
    const present = this.cells.get(spec.name)
    if (present !== undefined) {
      if (present.spec.id === spec.id) return this.joinStart(present)
      // A child's name is its parent's to give: no directory's numbers say anything about it.
      if (placed === undefined || placed.placement <= present.placement || present.isChild) {
        return Effect.fail(new NameTaken({ name: spec.name, kind: present.kind }))
      }
      return Effect.andThen(
        this.stopAll([present], "Replaced", { now: true }),
        Effect.suspend(() => this.start(spec, placed))
      )
    }
    const registration = this.registrations.get(spec.kind)
    if (registration === undefined) return Effect.fail(new KindNotRegistered({ kind: spec.kind }))
    const props = propsCodec(registration.definition).decode(spec.props)
    if (props._tag === "Failure") {
      return Effect.fail(new InvalidData({ what: `props of ${spec.kind}`, reason: String(Cause.squash(props.cause)) }))
    }
    const cell = new Cell(registration, spec.name, spec, placed?.placement ?? ++this.placements, placed?.epoch ?? 0)
    this.cells.add(cell)
    this.latest = cell
    cell.start()
    return this.joinStart(cell)
  }

  /** Starts an actor of which there is no more to say than kind and name; undefined: `start` knows why not. */
  startPlain(kind: KindDefinition, name: string): Cell | undefined {
    const registration = this.registrations.get(kind.name)
    if (registration === undefined || !registration.plain || registration.definition !== kind) return undefined
    if (nameTrouble(name) !== undefined) return undefined
    const cell = new Cell(registration, name, undefined, this.placements + 1, 0)
    if (this.cells.add(cell) !== undefined) return undefined
    this.placements++
    this.latest = cell
    cell.start()
    return cell
  }

  /** Starts an actor that belongs to another: no directory knows it, and it ends with its parent. */
  spawnChild(parent: Cell, kind: KindDefinition, name: string, props: unknown): Effect.Effect<Cell, StartError> {
    return Effect.suspend((): Effect.Effect<Cell, StartError> => {
      const fullName = `${parent.name}/${name}`
      const registration = this.registrations.get(kind.name)
      if (registration === undefined) return Effect.fail(new KindNotRegistered({ kind: kind.name }))
      const present = this.cells.get(fullName)
      if (present !== undefined) return Effect.fail(new NameTaken({ name: fullName, kind: present.kind }))
      const trouble = name === "" ? "is empty" : nameTrouble(fullName)
      if (trouble !== undefined) return Effect.fail(new InvalidData({ what: `name of ${kind.name}`, reason: trouble }))
      const encoded = propsCodec(kind).encode(props)
      if (encoded._tag === "Failure") {
        return Effect.fail(
          new InvalidData({ what: `props of ${kind.name}`, reason: String(Cause.squash(encoded.cause)) })
        )
      }
      if (parent.generation >= maxDepth || !parent.accepts) {
        const cause = parent.accepts ? `more than ${maxDepth} generations of children` : "its parent is stopping"
        return Effect.fail(new StartFailed({ name: fullName, kind: kind.name, cause }))
      }
      const spec: SpawnSpec = {
        id: `${parent.spec.id}/${name}`,
        kind: kind.name,
        name: fullName,
        props: encoded.value,
        relocatable: false
      }
      const cell = new Cell(registration, fullName, spec, parent.placement, parent.epoch)
      cell.more.parent = parent
      ;(parent.more.children ??= new Map()).set(fullName, cell)
      this.cells.add(cell)
      cell.start()
      return Effect.as(this.joinStart(cell), cell)
    })
  }

  joinStart(cell: Cell): Effect.Effect<ActorAddress, StartError> {
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
        : this.stopAll([cell], options.reason, { now: options.reason === "Replaced" })
    })
  }

  stopAll(
    cells: ReadonlyArray<Cell>,
    reason: StopReason,
    how: { readonly now?: boolean }
  ): Effect.Effect<void> {
    if (cells.length === 0) return Effect.void
    return Effect.callback<void>((resume) => {
      let left = cells.length
      for (const cell of cells) {
        cell.stop(reason, how)
        cell.whenStopped(() => {
          if (--left === 0) resume(Effect.void)
        })
      }
    })
  }

  /** The cell that a message to this address goes to; a later placement of the name here serves as well. */
  cellAt(address: ActorAddress): Cell | undefined {
    if (!sameNode(address.node, this.node)) return undefined
    // A reference is mostly made for what has just been started, and a look at a big map is a miss of the cache.
    const cell = this.latest?.name === address.name ? this.latest : this.cells.get(address.name)
    return cell !== undefined && cell.kind === address.kind && cell.placement >= address.placement
      ? cell
      : undefined
  }

  /** Stops what still runs here, at once, and forgets all deadlines. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.closing = true
    for (const fiber of this.followers) fiber.interruptUnsafe()
    return Effect.ensuring(
      this.stopAll(this.cells.all(), "Withdrawn", { now: true }),
      Effect.sync(() => this.timeouts.close())
    )
  })

  /** Runs what sends messages after their actor, for no longer than the host lives; then `ended`, however it went. */
  follow(effect: Effect.Effect<unknown, unknown>, ended: () => void): void {
    if (this.closing) return ended()
    const fiber = this.runFork(effect)
    this.followers.add(fiber)
    fiber.addObserver(() => {
      this.followers.delete(fiber)
      ended()
    })
  }

  // ---- metrics ---------------------------------------------------------------------------------------------------------

  /** The registration's counts have changed. */
  counted(registration: Registration): void {
    if (registration.counts.dirty) return
    registration.counts.dirty = true
    this.dirty.push(registration)
    if (!this.queue.running) this.queue.kick()
  }

  private flush(): void {
    for (const registration of this.dirty) report(registration)
    this.dirty.length = 0
  }

  // ---- workers ---------------------------------------------------------------------------------------------------------

  lend(): Worker {
    return this.workers.pop() ?? new Worker()
  }

  giveBack(worker: Worker): void {
    worker.cell = undefined
    if (this.workers.length < sparesKept) this.workers.push(worker)
  }

  /** An event with its address is dear to make, and most of the time nobody listens. */
  private publish(event: () => SystemEvent): void {
    if (this.observed) this.events.publish(event())
  }

  private get observed(): boolean {
    return this.events.observed === undefined || this.events.observed()
  }

  // ---- told by cells ---------------------------------------------------------------------------------------------------

  started(cell: Cell): void {
    cell.registration.counts.started++
    this.counted(cell.registration)
    if (this.observed) this.events.publish({ _tag: "ActorStarted", actor: cell.address })
  }

  restarted(cell: Cell, reason: string): void {
    this.publish(() => ({ _tag: "ActorRestarted", actor: cell.address, reason }))
  }

  suspendedBy(cell: Cell, reason: string): void {
    this.publish(() => ({ _tag: "ActorSuspended", actor: cell.address, reason }))
  }

  reinstated(cell: Cell): void {
    this.publish(() => ({ _tag: "ActorReinstated", actor: cell.address }))
  }

  passivated(cell: Cell): void {
    this.publish(() => ({ _tag: "ActorPassivated", actor: cell.address }))
  }

  stopped(cell: Cell, reason: StopReason): void {
    if (this.latest === cell) this.latest = undefined
    this.cells.delete(cell)
    // One that never started is no actor that ended: its starter knows.
    if (cell.failure !== undefined) return
    cell.registration.counts.stopped++
    this.counted(cell.registration)
    this.publish(() => ({ _tag: "ActorStopped", actor: cell.address, reason }))
    // Children are nobody's business but their parent's.
    if (cell.extras?.parent !== undefined) return
    for (const queue of this.listeners) Queue.offerUnsafe(queue, { actor: cell, reason })
  }

  deadLetter(cell: Cell, message: string, reason: DeadLetterReason): void {
    cell.registration.counts.deadLetters++
    this.counted(cell.registration)
    this.publish(() => ({ _tag: "DeadLetter", to: cell.name, kind: cell.kind, message, reason }))
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

const placers = new WeakMap<object, Host>()

/** Notes that this `Placement` starts on that host whatever it is asked for, and does no more than that. */
export const placeOn = (placement: object, host: Host): void => void placers.set(placement, host)

/** The host that a `Placement` has noted so. */
export const placesOn = (placement: object): Host | undefined => placers.get(placement)

const hosts = new WeakMap<object, Host>()

/** Ties the host to the service object that stands for it. */
export const attach = (service: object, host: Host): void => void hosts.set(service, host)

/** The host behind an `ActorHost` service that this ring made. */
export const hostOf = (service: object): Host => {
  const host = hosts.get(service)
  if (host === undefined) throw new Error("this ActorHost was not made by ActorHost.layer")
  return host
}

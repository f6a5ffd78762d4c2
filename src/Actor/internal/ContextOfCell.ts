/** What a behaviour can do to its own cell: the `ActorContext` service, one small object an actor. */
import { Cause, type Context, Duration, Effect, type Exit, type Fiber, type Schema, type Scope } from "effect"
import type { Rpc } from "effect/rpc"
import type { Kind } from "../Actor.ts"
import type { ActorContext, BecomeOptions, Terminated, Timers } from "../ActorContext.ts"
import type { ActorRef } from "../ActorRef.ts"
import type { OptionsArgument, PropsOption } from "../ActorSystem.ts"
import { type AskError, HandlerFailed, MailboxFull, NodeUnreachable, type StartError, StartFailed } from "../errors.ts"
import type { Cell, HandlerTable } from "./Cell.ts"
import { propsCodec } from "./codecs.ts"
import { Forwarded } from "./Envelope.ts"
import { Alarm } from "./Extras.ts"
import type { Ref } from "./Ref.ts"
import { Ring } from "./Ring.ts"
import { Status } from "./Status.ts"
import { followEnd, watchHere } from "./watching.ts"

type Api = ActorContext["Service"]

/** An effect with the services of the code that gave it, to be run as a message of the cell later. */
const bound = <R>(effect: Effect.Effect<unknown, unknown, R>, context: Context.Context<R>) =>
  Effect.provideContext(effect, context)

export class ContextOfCell implements Api {
  private readonly cell: Cell
  private readonly scope: Scope.Scope | undefined

  constructor(cell: Cell) {
    this.cell = cell
    this.scope = cell.scope
  }

  /** Is the behaviour that has this at its end, or past it? What it sets up now (in a finalizer, or from outside) is of no actor. */
  private get over(): boolean {
    return this.cell.scope !== this.scope
  }

  get name() {
    return this.cell.name
  }
  get kind() {
    return this.cell.kind
  }
  get address() {
    return this.cell.address
  }
  get self(): ActorRef {
    return this.refTo(this.cell)
  }
  get stop(): Effect.Effect<void> {
    return Effect.sync(() => this.cell.stop("Stopped"))
  }
  propsOf(kind: string): Effect.Effect<unknown> {
    return Effect.suspend(() => {
      if (kind !== this.cell.kind) {
        return Effect.die(new Error(`props of ${kind} were read inside an actor of kind ${this.cell.kind}`))
      }
      // The host decoded the same value before it made the cell.
      const props = propsCodec(this.cell.registration.definition).decode(this.cell.spec.props)
      return props._tag === "Success" ? Effect.succeed(props.value) : Effect.die(Cause.squash(props.cause))
    })
  }

  // ---- family ----------------------------------------------------------------------------------------------------------

  get parent(): ActorRef | undefined {
    const parent = this.cell.extras?.parent
    return parent === undefined ? undefined : this.refTo(parent)
  }

  get children(): Effect.Effect<ReadonlyArray<ActorRef>> {
    return Effect.sync(() => [...this.cell.extras?.children?.values() ?? []].map((child) => this.refTo(child)))
  }

  spawnChild<Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    ...rest: OptionsArgument<PropsOption<Props>>
  ): Effect.Effect<ActorRef<Rpcs>, StartError> {
    const options = rest[0] as { readonly props?: unknown } | undefined
    return Effect.suspend((): Effect.Effect<ActorRef, StartError> =>
      this.over
        ? Effect.fail(
          new StartFailed({
            name: `${this.name}/${name}`,
            kind: kind.definition.name,
            cause: "its parent's behaviour has ended"
          })
        )
        : Effect.map(
          this.cell.host.spawnChild(this.cell, kind.definition, name, options?.props ?? {}),
          (child) => this.refTo(child)
        )
    ) as never
  }

  stopChild(ref: ActorRef): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const child = this.cell.extras?.children?.get(ref.name)
      if (child === undefined) return resume(Effect.void)
      child.whenStopped(() => resume(Effect.void))
      child.stop("Stopped")
    })
  }

  private refTo(cell: Cell): ActorRef {
    return cell.host.refs!.refTo(cell)
  }

  // ---- watching --------------------------------------------------------------------------------------------------------

  watch<R>(target: ActorRef, onTerminated: (terminated: Terminated) => Effect.Effect<unknown, unknown, R>) {
    return Effect.contextWith((context: Context.Context<R>) =>
      Effect.sync(() => {
        if (this.over) return
        const cell = this.cell
        const ref = target as Ref
        const key = `${ref.kind.name}/${ref.name}`
        const watches = cell.more.watching ??= new Map<string, () => void>()
        watches.get(key)?.()
        let release = () => {}
        const forget = () => {
          release()
          watches.delete(key)
          cell.more.undo.delete(forget)
        }
        watches.set(key, forget)
        cell.more.undo.add(forget)
        const end = () => {
          // Unwatched on the way.
          if (watches.get(key) !== forget) return
          forget()
          const terminated = { kind: ref.kind.name, name: ref.name, address: ref.address }
          cell.signal(bound(Effect.suspend(() => onTerminated(terminated)), context))
        }
        const follow = () => {
          release = followEnd(cell, ref, end)
        }
        const here = watchHere(cell.host, ref, (reason) => {
          // Withdrawn or replaced here, it may live on elsewhere.
          if (reason === "Withdrawn" || reason === "Replaced") follow()
          else end()
        })
        if (here === undefined) follow()
        else release = here
      })
    )
  }

  unwatch(target: ActorRef): Effect.Effect<void> {
    return Effect.sync(() => {
      if (!this.over) this.cell.extras?.watching?.get(`${target.kind.name}/${target.name}`)?.()
    })
  }

  // ---- the message in hand ---------------------------------------------------------------------------------------------

  get stash(): Effect.Effect<never> {
    return Effect.withFiber<never>((fiber) => {
      const worker = this.cell.workerOf(fiber)
      const envelope = worker?.current
      if (worker === undefined || envelope === undefined) return Effect.die(new Error("there is no message to stash"))
      const stash = this.cell.more.stash ??= new Ring()
      const { stashCapacity } = this.cell.registration.options
      worker.current = undefined
      if (stash.size < stashCapacity) stash.push(envelope)
      else {
        this.cell.host.deadLetter(this.cell, envelope.tag, "MailboxOverflow")
        envelope.refuse(new MailboxFull({ name: this.name, capacity: stashCapacity }))
      }
      // The handler ends here; nobody waits for its result any more.
      return Effect.interrupt
    })
  }

  get unstash(): Effect.Effect<void> {
    return Effect.sync(() => {
      const { cell } = this
      const stash = cell.extras?.stash
      if (stash === undefined || stash.size === 0) return
      cell.requeue(stash)
      // Beside the mailbox nobody else would look at it.
      cell.rouse()
    })
  }

  get stashed(): number {
    return this.cell.extras?.stash?.size ?? 0
  }

  fork<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.withFiber<A, E, R>((fiber: Fiber.Fiber<unknown, unknown>) => {
      const worker = this.cell.workerOf(fiber)
      if (worker !== undefined) this.cell.detach(worker)
      return effect
    })
  }

  forward<A, E, R>(ask: Effect.Effect<A, E | AskError, R>): Effect.Effect<A, Exclude<E, AskError>, R> {
    const relayed = Effect.catch(
      ask,
      (error) =>
        isAskError(error)
          // Before the fiber ends: its worker has the message still.
          ? Effect.withFiber<never>((fiber) =>
            Effect.die(new Forwarded(asHandled(error, this.name, this.cell.workerOf(fiber)?.current?.tag ?? "")))
          )
          : Effect.fail(error as Exclude<E, AskError>)
    )
    return this.fork(relayed)
  }

  pipeTo<A, E, R, R2>(
    effect: Effect.Effect<A, E, R>,
    then: (exit: Exit.Exit<A, E>) => Effect.Effect<unknown, unknown, R2>
  ): Effect.Effect<void, never, R | R2> {
    return Effect.contextWith((context: Context.Context<R | R2>) =>
      Effect.suspend(() => {
        const cell = this.cell
        if (this.over) return Effect.void
        const { more } = cell
        more.awake++
        const piped = Effect.flatMap(Effect.exit(effect), (exit) =>
          Effect.sync(() => {
            if (this.over) return
            more.awake--
            cell.signal(bound(Effect.suspend(() => then(exit)), context))
          }))
        return Effect.asVoid(Effect.forkIn(bound(piped, context), cell.scope!, { startImmediately: true }))
      })
    )
  }

  // ---- behaviour -------------------------------------------------------------------------------------------------------

  becomeTable(handlers: HandlerTable, options?: BecomeOptions): Effect.Effect<void> {
    return Effect.sync(() => {
      const cell = this.cell
      if (cell.handlers === undefined || this.over) return
      const { behaviors } = cell.more
      if (options?.replace === true) behaviors.splice(1)
      if (options?.replace !== true || behaviors.length === 0) behaviors.push(cell.handlers)
      cell.handlers = { ...(options?.replace === true ? behaviors[0] : cell.handlers), ...cell.dressed(handlers) }
    })
  }

  get unbecome(): Effect.Effect<void> {
    return Effect.sync(() => {
      const before = this.over ? undefined : this.cell.extras?.behaviors.pop()
      if (before !== undefined) this.cell.handlers = before
    })
  }

  // ---- time ------------------------------------------------------------------------------------------------------------

  get timers(): Timers {
    return {
      once: (name, delay, effect) => this.timer(name, delay, effect, false),
      every: (name, interval, effect) => this.timer(name, interval, effect, true),
      cancel: (name) => Effect.sync(() => this.cancelTimer(name)),
      active: Effect.sync(() => [...this.cell.extras?.timers?.keys() ?? []])
    }
  }

  private cancelTimer(name: string): void {
    if (this.over) return
    const timers = this.cell.extras?.timers
    const alarm = timers?.get(name)
    if (alarm === undefined) return
    timers!.delete(name)
    this.cell.host.timeouts.cancel(alarm)
  }

  private timer<R>(
    name: string,
    delay: Duration.Input,
    effect: Effect.Effect<unknown, unknown, R>,
    again: boolean
  ): Effect.Effect<void, never, R> {
    return Effect.contextWith((context: Context.Context<R>) =>
      Effect.sync(() => {
        if (this.over) return
        const cell = this.cell
        // An interval of nothing would never let the clock go on.
        const millis = again ? Math.max(1, Duration.toMillis(delay)) : Duration.toMillis(delay)
        const task = bound(effect, context)
        this.cancelTimer(name)
        const timers = cell.more.timers ??= new Map()
        let waits = false
        const tick = again
          ? Effect.suspend(() => {
            waits = false
            return task
          })
          : task
        const alarm = new Alarm(() => {
          if (again) cell.host.timeouts.add(millis, alarm)
          else timers.delete(name)
          // An actor that is suspended, or slower than its timer, finds one tick, not all that it missed.
          if (waits) return
          waits = again
          cell.signal(tick)
        })
        timers.set(name, alarm)
        cell.host.timeouts.add(millis, alarm)
      })
    )
  }

  receiveTimeout<R>(after: Duration.Input, effect: Effect.Effect<unknown, unknown, R>): Effect.Effect<void, never, R> {
    return Effect.contextWith((context: Context.Context<R>) =>
      Effect.andThen(
        this.noReceiveTimeout,
        Effect.sync(() => {
          if (this.over) return
          const cell = this.cell
          const task = bound(effect, context)
          const extras = cell.more
          const millis = Math.max(1, Duration.toMillis(after))
          extras.receiveTimeout = { millis, alarm: new Alarm(() => cell.signal(task)) }
          cell.armReceiveTimeout(extras)
        })
      )
    )
  }

  get noReceiveTimeout(): Effect.Effect<void> {
    return Effect.sync(() => {
      const extras = this.cell.extras
      if (extras?.receiveTimeout === undefined || this.over) return
      this.cell.host.timeouts.cancel(extras.receiveTimeout.alarm)
      extras.receiveTimeout = undefined
    })
  }

  // ---- passivation -----------------------------------------------------------------------------------------------------

  get passivate(): Effect.Effect<void> {
    return Effect.sync(() => {
      const { cell } = this
      if (this.over) return
      cell.more.passivateSoon = true
      if (cell.status === Status.Idle) cell.rest(cell.more)
    })
  }

  get keepAwake(): Effect.Effect<void, never, Scope.Scope> {
    return Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => {
        if (!this.over) this.cell.more.awake++
      }),
      // One that has ended counts no more.
      () =>
        Effect.sync(() => {
          if (!this.over) this.cell.more.awake--
        })
    ))
  }
}

/** This actor has handled the message: its asker must not take it for one that went astray, and repeat it. */
const asHandled = (error: AskError, name: string, request: string): AskError =>
  error._tag === "NodeUnreachable" && error.outcome === "NotSent"
    ? new NodeUnreachable({ node: error.node, outcome: "Unknown", reason: error.reason })
    : error._tag === "ActorStopped" && error.name === name
    ? new HandlerFailed({ name, request, reason: "the actor of its own name that it forwarded to has stopped" })
    : error

const askErrors = new Set([
  "ActorStopped",
  "MailboxFull",
  "NodeUnreachable",
  "InvalidData",
  "FrameTooLarge",
  "ProtocolMismatch",
  "AskTimeout",
  "HandlerFailed"
])

const isAskError = (error: unknown): error is AskError =>
  typeof error === "object" && error !== null && "_tag" in error && askErrors.has(String(error._tag)) &&
  "retryable" in error

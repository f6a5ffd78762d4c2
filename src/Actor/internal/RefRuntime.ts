/** References at work where a message does not go straight into a mailbox of this node: ordinary Effect code over the ports. */
import { Cause, Duration, Effect, Exit, Schedule } from "effect"
import type { ActorAddress } from "../Address.ts"
import type { Delivery, Message } from "../Delivery.ts"
import { type AskError, AskTimeout, type LookupError, type TellError } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import type { Placement } from "../Placement.ts"
import type { Cell } from "./Cell.ts"
import type { Host } from "./Host.ts"
import { ask, type RefAsker } from "./messageEffects.ts"
import { Ref } from "./Ref.ts"
import { type SurfaceClasses, surfaceClasses } from "./surfaces.ts"

/** times that a tell looks for its actor anew */
const tellAttempts = 3

/** between attempts of an ask that certainly did not arrive: 50 ms doubling to 1 s */
const askBackoff = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.jittered
)

/**
 * Did a message to that name certainly not reach it because of where it was sent? Another's end is what an actor forwarded to, and a
 * node without room says nothing about where its actors are: to look them up would add to the load.
 */
const strayed = (error: TellError | AskError, name: string): boolean =>
  (error._tag === "ActorStopped" && error.name === name) ||
  (error._tag === "NodeUnreachable" && error.outcome === "NotSent" && error.overloaded !== true)

/** `Delivery` fails with typed errors only. */
const failureOf = <E>(exit: Exit.Failure<unknown, E>): E => Cause.squash(exit.cause) as E

export class RefRuntime {
  readonly host: Host
  private readonly placement: Placement["Service"]
  private readonly delivery: Delivery["Service"]
  private readonly surfaces = new WeakMap<KindDefinition, SurfaceClasses>()
  private latest: SurfaceClasses | undefined = undefined

  constructor(host: Host, placement: Placement["Service"], delivery: Delivery["Service"]) {
    this.host = host
    this.placement = placement
    this.delivery = delivery
  }

  ref(kind: KindDefinition, name: string, address: ActorAddress, dataCenter?: string): Ref {
    return new Ref(this.surfacesOf(kind), name, this.host.cellAt(address), address, dataCenter)
  }

  /** To an actor of this node. */
  refTo(cell: Cell): Ref {
    return new Ref(this.surfacesOf(cell.registration.definition), cell.name, cell, undefined, undefined)
  }

  private surfacesOf(kind: KindDefinition): SurfaceClasses {
    if (this.latest?.kind === kind) return this.latest
    let classes = this.surfaces.get(kind)
    if (classes === undefined) this.surfaces.set(kind, classes = surfaceClasses(this, kind))
    return this.latest = classes
  }

  /**
   * The name's present address, after this one has failed. Compared by what they say: a directory that is behind gives the failed
   * one again, as another object, and must be asked again.
   */
  private again(ref: Ref, failed: ActorAddress): Effect.Effect<ActorAddress, LookupError> {
    const known = ref.address
    return samePlacement(known, failed)
      ? Effect.tap(
        this.placement.lookup(ref.kind.name, ref.name, { dataCenter: ref.dataCenter, not: failed }),
        (address) =>
          Effect.sync(() => {
            if (!samePlacement(address, failed)) ref.moveTo(address)
          })
      )
      : Effect.succeed(known)
  }

  /** A tell whose cached cell, if any, no longer takes messages. */
  tell(ref: Ref, message: Message): Effect.Effect<void, TellError> {
    const attempt = (left: number): Effect.Effect<void, TellError> => {
      const address = ref.address
      return Effect.catch(
        this.delivery.tell(address, message),
        (error) =>
          left === 0 || !strayed(error, ref.name) ? Effect.fail(error) : Effect.matchEffect(this.again(ref, address), {
            onFailure: () => Effect.fail(error),
            onSuccess: (next) => samePlacement(next, address) ? Effect.fail(error) : attempt(left - 1)
          })
      )
    }
    return attempt(tellAttempts)
  }

  /** A tell to another node in its simplest case; undefined where it is not that simple, and nothing has happened. */
  tryTell(ref: Ref, message: Message): Exit.Exit<void, TellError> | undefined {
    const exit = this.delivery.tryTell?.(ref, message)
    return exit === undefined || (Exit.isFailure(exit) && strayed(failureOf(exit), ref.name)) ? undefined : exit
  }

  /** An ask to another node in its simplest case; false where it is not that simple, and nothing has happened. */
  tryAsk(asker: RefAsker): boolean {
    return this.delivery.tryAsk?.(asker.ref, asker) ?? false
  }

  /** What to do with an ask that was refused: to look for its actor anew, where that may help. */
  refused(asker: RefAsker, address: ActorAddress, error: AskError): Effect.Effect<unknown, unknown> {
    if (!strayed(error, asker.ref.name)) return Exit.fail(error)
    // where it was refused at once, its time has not begun to run
    const deadline = asker.due === 0 ? this.host.timeouts.now() + asker.timeout : asker.due
    return Effect.flatten(this.askAgain(asker.ref, asker, asker.timeout, deadline, address, error))
  }

  /** An ask that could not go straight to a cell. Its time begins, and its way is looked up, when it is run. */
  ask(ref: Ref, message: Message, timeout: number): Effect.Effect<unknown, unknown> {
    return Effect.suspend(() => {
      const deadline = this.host.timeouts.now() + timeout
      const address = ref.address
      return this.delivery.ask(address, message, timeout).pipe(
        Effect.catch((error) =>
          strayed(error, ref.name) ? this.askAgain(ref, message, timeout, deadline, address, error) : Effect.fail(error)
        ),
        Effect.flatMap((exit) => exit)
      )
    })
  }

  /** A message of the runtime's own, without payload. */
  signal(ref: Ref, tag: string, timeout: number): Effect.Effect<unknown, unknown> {
    return ask(ref, tag, undefined, { timeout })
  }

  /** Is the name known to be nowhere? False also where nobody can tell. */
  isNowhere(ref: Ref): Effect.Effect<boolean> {
    return Effect.suspend(() => {
      const address = ref.address
      return Effect.matchEffect(
        this.placement.lookup(ref.kind.name, ref.name, { dataCenter: ref.dataCenter, not: address }),
        {
          onFailure: (error) => Effect.succeed(error._tag === "ActorNotFound" || error._tag === "KindMismatch"),
          onSuccess: (next) =>
            Effect.sync(() => {
              if (!samePlacement(next, address)) ref.moveTo(next)
              return false
            })
        }
      )
    })
  }

  /** Looks the actor up anew and repeats what certainly did not arrive, for as long as the asker waits. */
  private askAgain(
    ref: Ref,
    message: Message,
    timeout: number,
    deadline: number,
    address: ActorAddress,
    error: AskError
  ): Effect.Effect<Exit.Exit<unknown, unknown>, AskError> {
    const left = () => deadline - this.host.timeouts.now()
    let failed = address
    let last = error
    let inFlight = false
    const attempt: Effect.Effect<Exit.Exit<unknown, unknown>, AskError | typeof pause> = Effect.suspend(() =>
      Effect.matchEffect(this.again(ref, failed), {
        onFailure: (why) => Effect.fail(why.retryable ? pause : last),
        onSuccess: (next) => {
          // At a new address at once, at the same one only after a pause.
          if (samePlacement(next, failed)) return Effect.fail(pause)
          failed = next
          inFlight = true
          return Effect.catch(this.delivery.ask(next, message, left()), (error) => {
            last = error
            inFlight = false
            return strayed(error, ref.name) ? attempt : Effect.fail(error)
          })
        }
      })
    )
    return Effect.retry(attempt, { schedule: askBackoff, while: (error) => error === pause }).pipe(
      Effect.catch((error) => Effect.fail(error === pause ? last : error)),
      // What certainly was not handled says so, rather than that it took too long.
      Effect.timeoutOrElse({
        duration: Math.max(0, left()),
        orElse: () =>
          Effect.fail(
            inFlight
              ? new AskTimeout({ name: ref.name, request: message.tag, timeout: Duration.millis(timeout) })
              : last
          )
      })
    )
  }
}

/** Certainly not delivered, and worth another try after a pause. */
const pause: unique symbol = Symbol("pause")

const samePlacement = (a: ActorAddress, b: ActorAddress): boolean =>
  a.placement === b.placement && a.epoch === b.epoch && a.node.id === b.node.id &&
  a.node.incarnation === b.node.incarnation

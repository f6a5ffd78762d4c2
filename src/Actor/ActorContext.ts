/**
 * What a behaviour knows of the actor that it is, and can do to it. Given to the start of a behaviour and to each of its
 * handlers; nobody else has it, so that one actor cannot act as another.
 *
 * Effects handed over here to be run later (a timer's, a watch's) run as messages of the actor: one at a time with all others,
 * ahead of those that wait. A typed failure of such an effect is logged; a defect is a failure of the actor. All of it ends with
 * the incarnation that set it up.
 */
import { Context } from "effect"
import type { Duration, Effect, Exit, Schema, Scope } from "effect"
import type { Rpc } from "effect/rpc"
import type { Kind } from "./Actor.ts"
import type { ActorRef } from "./ActorRef.ts"
import type { OptionsArgument, PropsOption } from "./ActorSystem.ts"
import type { ActorAddress } from "./Address.ts"
import type { AskError, StartError } from "./errors.ts"
import type { HandlerTable } from "./internal/Cell.ts"

/** A watched actor has ended, or cannot be found any more. */
export interface Terminated {
  readonly kind: string
  readonly name: string
  /** where it was last found */
  readonly address: ActorAddress
}

export interface BecomeOptions {
  /**
   * Instead of what the actor has become before, not on top of it: for states that follow one another without end, which would pile
   * up otherwise. `unbecome` then goes back to the handlers that it was built with. Default false.
   */
  readonly replace?: boolean | undefined
}

/** An actor's own alarms. They run as its messages, ahead of those that wait, and end with the behaviour that set them. */
export interface Timers {
  /** Runs the effect once after the delay. A timer of the same name is replaced. */
  readonly once: <R>(
    name: string,
    delay: Duration.Input,
    effect: Effect.Effect<unknown, unknown, R>
  ) => Effect.Effect<void, never, R>
  /**
   * Runs the effect each interval (at least 1 ms), the first time after one. A tick that finds the actor busy or suspended waits its
   * turn, and those that fall due meanwhile are left out.
   */
  readonly every: <R>(
    name: string,
    interval: Duration.Input,
    effect: Effect.Effect<unknown, unknown, R>
  ) => Effect.Effect<void, never, R>
  /** No such timer is success. */
  readonly cancel: (name: string) => Effect.Effect<void>
  /** names of those that have not run out */
  readonly active: Effect.Effect<ReadonlyArray<string>>
}

export class ActorContext extends Context.Service<ActorContext, {
  readonly name: string
  readonly kind: string
  readonly address: ActorAddress
  /** a reference to this actor, without its protocol; `Kind.self` is the typed one */
  readonly self: ActorRef
  /** Ends this actor (reason `Stopped`) once the message in hand is handled; what waits becomes dead letters. */
  readonly stop: Effect.Effect<void>
  /** This actor's props, given the name of its own kind; used by `Kind.props`. */
  readonly propsOf: (kind: string) => Effect.Effect<unknown>

  // ---- family
  /** the actor whose child this one is; undefined: it is nobody's */
  readonly parent: ActorRef | undefined
  /** those that live now, in the order in which they were started */
  readonly children: Effect.Effect<ReadonlyArray<ActorRef>>
  /**
   * Starts an actor that lives on this node as long as this one: it stops when this one stops or restarts, before this one's
   * finalizers run. Its full name is this one's, a slash, and `name`, which is unique among the children (`NameTaken`). Fails
   * `KindNotRegistered` where the kind has no Layer on this node, `StartFailed` where it cannot be built, and where this one is
   * stopping or has 64 generations above it. It does not relocate, and is found by name on this node only.
   */
  readonly spawnChild: <Rpcs extends Rpc.Any, Props extends Schema.Struct.Fields>(
    kind: Kind<Rpcs, Props>,
    name: string,
    ...options: OptionsArgument<PropsOption<Props>>
  ) => Effect.Effect<ActorRef<Rpcs>, StartError>
  /** Stops a child within its kind's `stopGrace` and waits for its end. One that is no child, or no more, is success. */
  readonly stopChild: (child: ActorRef) => Effect.Effect<void>
  /**
   * Runs the effect when that actor has stopped, its node is dead, or its name is nowhere to be found; once, and never after
   * `unwatch`. Relocation and restart are no end: the watch follows. Watching again replaces the effect. One that is gone already
   * is Terminated at once; of one on another node word comes with the next of its answers, of a dead node when that is certain.
   */
  readonly watch: <R>(
    target: ActorRef,
    onTerminated: (terminated: Terminated) => Effect.Effect<unknown, unknown, R>
  ) => Effect.Effect<void, never, R>
  readonly unwatch: (target: ActorRef) => Effect.Effect<void>

  // ---- the message in hand
  /**
   * Puts the message in hand aside and ends its handler; its asker goes on waiting. More than the kind's `stash` capacity
   * (default 1000) are refused as `MailboxFull`. Restart keeps them and puts them back before the mailbox.
   */
  readonly stash: Effect.Effect<never>
  /** Puts all stashed messages before those that wait, in the order of their arrival. */
  readonly unstash: Effect.Effect<void>
  /** messages in the stash */
  readonly stashed: number
  /**
   * From here on this handler does not hold the mailbox: the actor handles other messages while the effect lasts, and the asker
   * gets the effect's result. Where the kind's `reentrancy.maxInFlight` is reached, it holds the mailbox after all. Handlers interleave
   * where they suspend, so what was read before may have changed after. It ends with the behaviour: interrupted, and its asker
   * gets `HandlerFailed`. Inside of a race or a timeout it holds the mailbox after all while others go on beside it: put the
   * timeout inside, `fork(Effect.timeout(...))`.
   */
  readonly fork: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /**
   * Lets another actor answer this message's asker: `context.forward(other.ask.Get())`. Ways in which that ask fails reach the
   * asker as such: `ActorStopped` with the other's name, and `NodeUnreachable` as `Unknown`, because this actor has handled the message.
   * Does not hold the mailbox; limited by `reentrancy.maxInFlight` as `fork` is.
   */
  readonly forward: <A, E, R>(
    ask: Effect.Effect<A, E | AskError, R>
  ) => Effect.Effect<A, Exclude<E, AskError>, R>
  /**
   * Runs the effect in the background, then `then` of its exit (a failure or a defect, too) as a message of this actor, ahead of those
   * that wait. Nothing limits how many run at a time. Restart and stop interrupt it, and then `then` is not run.
   */
  readonly pipeTo: <A, E, R, R2>(
    effect: Effect.Effect<A, E, R>,
    then: (exit: Exit.Exit<A, E>) => Effect.Effect<unknown, unknown, R2>
  ) => Effect.Effect<void, never, R | R2>

  // ---- behaviour
  /** Lays these handlers over the present ones, or over the first ones; `Kind.become` is the typed way to call it. */
  readonly becomeTable: (handlers: HandlerTable, options?: BecomeOptions) => Effect.Effect<void>
  /** Goes back to the behaviour before the last `become` that was stacked; without one it does nothing. */
  readonly unbecome: Effect.Effect<void>

  // ---- time
  readonly timers: Timers
  /** Runs the effect whenever no message was handled for that long; it counts from each message anew. */
  readonly receiveTimeout: <R>(
    after: Duration.Input,
    effect: Effect.Effect<unknown, unknown, R>
  ) => Effect.Effect<void, never, R>
  readonly noReceiveTimeout: Effect.Effect<void>

  // ---- passivation
  /**
   * Gives up the behaviour once the mailbox is empty; the next message builds it anew. Name and props stay; state, timers and watches
   * do not. It waits for messages beside the mailbox; else it is without effect where it has something going, as
   * `BehaviorOptions.passivation` says. Idempotent.
   */
  readonly passivate: Effect.Effect<void>
  /** Keeps this actor from being passivated for as long as the scope lives: in a handler, until its behaviour ends. */
  readonly keepAwake: Effect.Effect<void, never, Scope.Scope>
}>()("effect-troupe/Actor/ActorContext") {}

/**
 * Pure core of one name at its partition's owner: commit, then start, then acknowledge. The shell (`directory.ts`) feeds events
 * and performs commands; nothing here knows of stores, calls or time.
 *
 * Invariants: a placement is committed before its start is ordered; the name goes elsewhere only when its host has certainly
 * refused or is gone for good; a name is free only after its removal is committed; an event of an older placement changes nothing.
 */
import type { ActorAddress } from "../../Actor/Address.ts"
import { type GrantError, NotServing } from "./ClusterRpcs.ts"
import type { Placed } from "./ClusterRpcs.ts"
import { type InvalidData, NameTaken, NodeUnreachable, StartFailed, StoreUnavailable } from "../../Actor/errors.ts"
import type { SpawnSpec } from "../../Actor/Placement.ts"
import type { StopReason } from "../../Actor/SystemEvents.ts"

/** Whoever waits for an answer; the shell knows whom it means. */
export type Waiter = number

interface Waiting extends Placed {
  /** waiting for the address */
  readonly grants: ReadonlyArray<Waiter>
  /** waiting for the end */
  readonly stops: ReadonlyArray<Waiter>
  /** members to try next, best first */
  readonly rest: ReadonlyArray<string>
  /** the member that it ran on before, where this is a relocation */
  readonly from: string | undefined
}

export type NameState =
  /** its placement is being written */
  | Waiting & { readonly _tag: "Committing" }
  /** its start is ordered; nobody knows yet */
  | Waiting & { readonly _tag: "Starting" }
  | Placed & { readonly _tag: "Running"; readonly address: ActorAddress }
  /** its stop is ordered */
  | Waiting & { readonly _tag: "Stopping" }
  /** it has ended; the removal is being written. `answer` is what grants hear. */
  | Waiting & { readonly _tag: "Removing"; readonly answer: GrantError }
  /** it has lost its host and wants another */
  | Waiting & { readonly _tag: "Homeless" }

export type NameEvent =
  | {
    readonly _tag: "Grant"
    readonly waiter: Waiter
    readonly spec: SpawnSpec
    readonly candidates: ReadonlyArray<string>
  }
  | { readonly _tag: "Committed"; readonly placement: number }
  /** certainly not written */
  | { readonly _tag: "CommitFailed"; readonly placement: number; readonly error: StoreUnavailable | InvalidData }
  | { readonly _tag: "Started"; readonly placement: number; readonly address: ActorAddress }
  /** certainly not started. `elsewhere`: another member may take it */
  | {
    readonly _tag: "Refused"
    readonly placement: number
    readonly error: GrantError
    readonly elsewhere: boolean
  }
  | { readonly _tag: "Stopped"; readonly placement: number }
  | { readonly _tag: "RemovalCommitted"; readonly placement: number }
  | { readonly _tag: "RemovalFailed"; readonly placement: number; readonly reason: string }
  /** that member's lease is closed: it never acts again */
  | { readonly _tag: "HostGone"; readonly host: string }
  /** members that a homeless name may go to, best first */
  | { readonly _tag: "Homes"; readonly candidates: ReadonlyArray<string> }
  | { readonly _tag: "StopAsked"; readonly waiter: Waiter; readonly placement: number }
  | { readonly _tag: "Ended"; readonly waiter: Waiter; readonly placement: number; readonly reason: StopReason }

export type NameCommand =
  | { readonly _tag: "Commit"; readonly placed: Placed }
  | { readonly _tag: "CommitRemoval"; readonly spec: SpawnSpec; readonly placement: number }
  | { readonly _tag: "Start"; readonly placed: Placed }
  /** until it is certain: it has stopped, or its host is gone */
  | { readonly _tag: "Stop"; readonly placed: Placed }
  /** a stray placement that must not run */
  | { readonly _tag: "Revoke"; readonly name: string; readonly placement: number; readonly host: string }
  | { readonly _tag: "FindHome"; readonly spec: SpawnSpec; readonly not: string }
  | { readonly _tag: "AnswerGrant"; readonly waiters: ReadonlyArray<Waiter>; readonly address: ActorAddress }
  | { readonly _tag: "RefuseGrant"; readonly waiters: ReadonlyArray<Waiter>; readonly error: GrantError }
  | { readonly _tag: "AnswerStop"; readonly waiters: ReadonlyArray<Waiter>; readonly error?: StoreUnavailable }
  | { readonly _tag: "Relocated"; readonly address: ActorAddress; readonly from: string }
  | { readonly _tag: "RelocationFailed"; readonly placed: Placed; readonly from: string; readonly reason: string }

export interface NameContext {
  /** the next placement number of the partition; higher than any before it */
  readonly nextPlacement: () => number
  /** are actors moved at all? */
  readonly relocation: boolean
}

type Step = readonly [NameState | undefined, ReadonlyArray<NameCommand>]
const none: ReadonlyArray<NameCommand> = []

const placedOf = (state: Placed): Placed => ({
  spec: state.spec,
  first: state.first,
  placement: state.placement,
  host: state.host
})

/** Only entries of actors that survive their host are written; the others are rebuilt by asking members. */
const isDurable = (spec: SpawnSpec): boolean => spec.relocatable

const busy = (reason: string) => new NotServing({ node: "", reason })

const answerGrants = (waiters: ReadonlyArray<Waiter>, address: ActorAddress): ReadonlyArray<NameCommand> =>
  waiters.length === 0 ? none : [{ _tag: "AnswerGrant", waiters, address }]
const refuseGrants = (waiters: ReadonlyArray<Waiter>, error: GrantError): ReadonlyArray<NameCommand> =>
  waiters.length === 0 ? none : [{ _tag: "RefuseGrant", waiters, error }]
const answerStops = (waiters: ReadonlyArray<Waiter>): ReadonlyArray<NameCommand> =>
  waiters.length === 0 ? none : [{ _tag: "AnswerStop", waiters }]

const waiting = (state: NameState): Waiting =>
  state._tag === "Running"
    ? { ...placedOf(state), grants: [], stops: [], rest: [], from: undefined }
    : { ...placedOf(state), grants: state.grants, stops: state.stops, rest: state.rest, from: state.from }

/** The next placement, on the first of the candidates. */
const place = (
  base: Omit<Waiting, "placement" | "host" | "first"> & { readonly first: number | undefined },
  candidates: ReadonlyArray<string>,
  context: NameContext
): Step => {
  const placement = context.nextPlacement()
  const [host, ...rest] = candidates
  const next: Waiting = { ...base, first: base.first ?? placement, placement, host: host!, rest }
  return isDurable(next.spec)
    ? [{ ...next, _tag: "Committing" }, [{ _tag: "Commit", placed: placedOf(next) }]]
    : [{ ...next, _tag: "Starting" }, [{ _tag: "Start", placed: placedOf(next) }]]
}

/** It has ended (or never began): the name is free once that is written. */
const remove = (state: Waiting, answer: GrantError): Step => {
  if (isDurable(state.spec)) {
    return [{ ...state, _tag: "Removing", answer }, [{
      _tag: "CommitRemoval",
      spec: state.spec,
      placement: state.placement
    }]]
  }
  return [undefined, [...refuseGrants(state.grants, answer), ...answerStops(state.stops)]]
}

const homeless = (state: Waiting, from: string): Step => [
  { ...state, _tag: "Homeless", from: state.from ?? from, rest: [] },
  [{ _tag: "FindHome", spec: state.spec, not: from }]
]

/** This placement will never run. Another candidate, another home, or the end of the name. */
const lost = (state: Waiting, error: GrantError, elsewhere: boolean, context: NameContext): Step => {
  if (state.stops.length > 0) return remove(state, error)
  if (elsewhere && state.rest.length > 0) return place(state, state.rest, context)
  if (state.from !== undefined) {
    // A relocation: the actor was acknowledged once, so its name stays until it has a home or is stopped.
    const [next, commands] = homeless(state, state.host)
    return [next, [
      { _tag: "RelocationFailed", placed: placedOf(state), from: state.from, reason: error._tag },
      ...(elsewhere ? commands : none)
    ]]
  }
  return remove(state, error)
}

export const step = (state: NameState | undefined, event: NameEvent, context: NameContext): Step => {
  if (state === undefined) {
    switch (event._tag) {
      case "Grant":
        return place(
          { spec: event.spec, first: undefined, grants: [event.waiter], stops: [], from: undefined, rest: [] },
          event.candidates,
          context
        )
      case "StopAsked":
      case "Ended":
        return [undefined, answerStops([event.waiter])]
      default:
        return [undefined, none]
    }
  }
  switch (event._tag) {
    case "Grant": {
      const ends = state._tag === "Stopping" || state._tag === "Removing" ||
        (state._tag !== "Running" && state.stops.length > 0)
      if (ends) return [state, refuseGrants([event.waiter], busy(`${state.spec.name} is being stopped`))]
      if (state.spec.id !== event.spec.id) {
        return [
          state,
          refuseGrants([event.waiter], new NameTaken({ name: state.spec.name, kind: state.spec.kind }))
        ]
      }
      if (state._tag === "Running") return [state, answerGrants([event.waiter], state.address)]
      return [{ ...state, grants: [...state.grants, event.waiter] }, none]
    }
    case "Committed": {
      if (state._tag !== "Committing" || state.placement !== event.placement) return [state, none]
      if (state.stops.length > 0) return remove(waiting(state), busy(`${state.spec.name} was stopped`))
      return [{ ...waiting(state), _tag: "Starting" }, [{ _tag: "Start", placed: placedOf(state) }]]
    }
    case "CommitFailed": {
      if (state._tag !== "Committing" || state.placement !== event.placement) return [state, none]
      const { error } = event
      // Nothing of this placement is anywhere. An earlier one may still be written: then it must be removed.
      if (state.from !== undefined) return lost({ ...waiting(state), rest: [] }, error, true, context)
      if (state.first !== state.placement) return remove(waiting(state), error)
      return [undefined, [...refuseGrants(state.grants, error), ...answerStops(state.stops)]]
    }
    case "Started": {
      if (state._tag !== "Starting" || state.placement !== event.placement) return [state, none]
      if (state.stops.length > 0) {
        return [{ ...waiting(state), _tag: "Stopping" }, [{ _tag: "Stop", placed: placedOf(state) }]]
      }
      return [
        { ...placedOf(state), _tag: "Running", address: event.address },
        [
          ...answerGrants(state.grants, event.address),
          ...(state.from === undefined
            ? none
            : [{ _tag: "Relocated", address: event.address, from: state.from } as const])
        ]
      ]
    }
    case "Refused":
      return state._tag === "Starting" && state.placement === event.placement
        ? lost(waiting(state), event.error, event.elsewhere, context)
        : [state, none]
    case "Stopped":
      return state._tag === "Stopping" && state.placement === event.placement
        ? remove(waiting(state), busy(`${state.spec.name} was stopped`))
        : [state, none]
    case "RemovalCommitted":
      return state._tag === "Removing" && state.placement === event.placement
        ? [undefined, [...refuseGrants(state.grants, state.answer), ...answerStops(state.stops)]]
        : [state, none]
    case "RemovalFailed": {
      if (state._tag !== "Removing" || state.placement !== event.placement) return [state, none]
      const error = new StoreUnavailable({ operation: `journal of ${state.spec.name}`, reason: event.reason })
      // Whoever waits hears that it is not certain yet; the removal is tried on.
      return [{ ...state, grants: [], stops: [] }, [
        ...refuseGrants(state.grants, state.answer),
        ...(state.stops.length === 0 ? none : [{ _tag: "AnswerStop", waiters: state.stops, error } as const]),
        { _tag: "CommitRemoval", spec: state.spec, placement: state.placement }
      ]]
    }
    case "HostGone": {
      if (state.host !== event.host) return [state, none]
      switch (state._tag) {
        case "Running":
          return state.spec.relocatable && context.relocation
            ? homeless(waiting(state), event.host)
            : remove(waiting(state), unreachable(event.host))
        case "Starting":
          // An answer may have been on its way: for the caller this is still a spawn that goes on elsewhere.
          return state.spec.relocatable && context.relocation && state.rest.length === 0 && state.stops.length === 0
            ? homeless(waiting(state), event.host)
            : lost(waiting(state), unreachable(event.host), true, context)
        case "Stopping":
          return remove(waiting(state), unreachable(event.host))
        default:
          return [state, none]
      }
    }
    case "Homes":
      return state._tag === "Homeless" && event.candidates.length > 0
        ? place(state, event.candidates, context)
        : [state, none]
    case "StopAsked": {
      if (event.placement < state.first) return [state, answerStops([event.waiter])]
      switch (state._tag) {
        case "Running":
          return [
            { ...waiting(state), _tag: "Stopping", stops: [event.waiter] },
            [{ _tag: "Stop", placed: placedOf(state) }]
          ]
        case "Homeless":
          return remove({ ...state, stops: [event.waiter] }, busy(`${state.spec.name} was stopped`))
        default:
          return [{ ...state, stops: [...state.stops, event.waiter] }, none]
      }
    }
    case "Ended": {
      if (event.placement !== state.placement || state._tag === "Homeless" || state._tag === "Committing") {
        return [state, answerStops([event.waiter])]
      }
      if (state._tag === "Removing") return [{ ...state, stops: [...state.stops, event.waiter] }, none]
      if (event.reason === "Replaced") return [state, answerStops([event.waiter])]
      const current = waiting(state)
      const moves = event.reason === "Withdrawn" && state.spec.relocatable && context.relocation &&
        state._tag !== "Stopping" && current.stops.length === 0
      if (moves) {
        const [next, commands] = homeless(current, state.host)
        return [next, [...answerStops([event.waiter]), ...commands]]
      }
      return remove(
        { ...current, stops: [...current.stops, event.waiter] },
        new StartFailed({
          name: state.spec.name,
          kind: state.spec.kind,
          cause: "the actor ended while its start was being acknowledged"
        })
      )
    }
  }
}

const unreachable = (host: string) =>
  new NodeUnreachable({ node: host, outcome: "NotSent", reason: "the member has departed" })

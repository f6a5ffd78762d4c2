/**
 * What this node knows of its cluster, as the store tells it: view, records, kinds. Follows the watch of the state prefix.
 *
 * Invariants: the view only moves forward (`View.accepts`), and only along the same cluster; nobody hears of a change before all
 * listeners of this node have. A store that shows less than what is known freezes this member until it is settled (`reseed.ts`).
 */
import { Effect, Option, PubSub, Queue } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import type { InvalidData, StoreUnavailable } from "../../Actor/errors.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { ControlStoreService, Entry, WatchEvent } from "../../ControlPlane/ControlStore.ts"
import type { Keys } from "./keys.ts"
import { decodeKinds, decodeMember, type MemberRecord } from "./records.ts"
import { emptySnapshot, type Snapshot } from "./snapshot.ts"
import * as View from "./view.ts"

export interface Known {
  readonly current: () => Snapshot
  /** revision of the known view in the store */
  readonly revision: () => string | undefined
  readonly hub: PubSub.PubSub<Snapshot>
  /** called at the very moment of each change, before anything else of this node can run */
  readonly onChange: (listener: (now: Snapshot, before: Snapshot) => void) => void
  /** a view that this node has just written */
  readonly written: (view: View.View, revision: string) => void
  /** this node's own record, before the store tells it */
  readonly remember: (record: MemberRecord) => void
  readonly onEvent: (event: WatchEvent) => Effect.Effect<void>
  readonly read: Effect.Effect<void, StoreUnavailable | InvalidData>
  /** each time when the store shows less than this node knows */
  readonly doubts: Queue.Dequeue<void>
  /** why nothing may be granted: the store shows another cluster, or none, or an older one */
  readonly frozen: () => string | undefined
  readonly freeze: (reason: string) => void
}

export const make = Effect.fnUntraced(function*(store: ControlStoreService, keys: Keys) {
  const events = yield* SystemEvents
  let snapshot: Snapshot = emptySnapshot
  let revision: string | undefined
  /** why nothing may be granted: the store shows another cluster, or none */
  let frozen: string | undefined
  const doubts = yield* Queue.sliding<void>(1)
  const hub = yield* PubSub.sliding<Snapshot>({ capacity: 1, replay: 1 })
  const listeners: Array<(now: Snapshot, before: Snapshot) => void> = []
  const tell = (next: Snapshot) => {
    if (next === snapshot) return
    const before = snapshot
    snapshot = next
    for (const listener of listeners) listener(next, before)
    PubSub.publishUnsafe(hub, next)
  }
  const applyView = (view: View.View, at: string): Snapshot => {
    const known = snapshot.view
    if (known !== undefined && view.cluster !== known.cluster) {
      frozen = "the store holds another cluster"
      return snapshot
    }
    if (known !== undefined && view.number < known.number) {
      // A stale answer, or a store that forgot what it acknowledged: a later look will tell.
      Queue.offerUnsafe(doubts, void 0)
      return snapshot
    }
    frozen = undefined
    if (!View.accepts(known, view)) return snapshot
    revision = at
    return { ...snapshot, view }
  }
  const decodeEntry = (entry: Entry): Effect.Effect<(base: Snapshot) => Snapshot> => {
    if (entry.key === keys.view) {
      return View.decode(entry.value).pipe(Effect.flatMap((decoded) =>
        Option.isSome(decoded)
          ? Effect.succeed((base: Snapshot) => {
            const applied = applyView(decoded.value, entry.revision)
            return { ...base, view: applied.view }
          })
          : Effect.as(trouble("the view in the store cannot be read"), (base: Snapshot) => base)
      ))
    }
    if (entry.key.startsWith(keys.memberPrefix)) {
      return decodeMember(entry.value).pipe(Effect.map((decoded) => (base: Snapshot) => {
        if (Option.isNone(decoded)) return base
        const records = new Map(base.records).set(nodeKey(decoded.value.node), decoded.value)
        return { ...base, records }
      }))
    }
    if (entry.key.startsWith(keys.kindsPrefix)) {
      return decodeKinds(entry.value).pipe(
        Effect.map((decoded) => (base: Snapshot) =>
          Option.isNone(decoded) ? base : { ...base, kinds: new Map(base.kinds).set(entry.key, decoded.value) }
        )
      )
    }
    return Effect.succeed((base) => base)
  }
  const trouble = (reason: string) =>
    Effect.sync(() => events.publish({ _tag: "StoreTrouble", store: "cluster", reason })).pipe(
      Effect.andThen(Effect.logWarning(`cluster store: ${reason}`))
    )

  /** A listing without the view may be older than the view that we know: only a read that was begun after it says that it is gone. */
  const viewMissing = Effect.suspend(() =>
    snapshot.view === undefined ? Effect.void : store.get(keys.view).pipe(
      Effect.flatMap((entry) => {
        if (Option.isSome(entry)) return Effect.map(decodeEntry(entry.value), (step) => tell(step(snapshot)))
        if (frozen !== undefined) return Effect.void
        frozen = "the store has lost the view"
        Queue.offerUnsafe(doubts, void 0)
        return trouble(frozen)
      }),
      // the watch will say so again
      Effect.catch((error) => Effect.logDebug(`cluster store: ${error._tag}`))
    )
  )
  const onEvent = (event: WatchEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Snapshot":
        return Effect.forEach(event.entries, decodeEntry).pipe(Effect.flatMap((steps) => {
          // Records never change, so those of departed members may stay known; kinds are what the store says now.
          const base: Snapshot = { ...snapshot, kinds: new Map() }
          const next = steps.reduce((current, step) => step(current), base)
          const hasView = event.entries.some((entry) => entry.key === keys.view)
          // A store that is not ours (any more) says nothing about what our members can do.
          tell(frozen === undefined && hasView ? next : { ...snapshot, records: next.records })
          return hasView ? Effect.void : viewMissing
        }))
      case "Put":
        return Effect.map(decodeEntry(event.entry), (step) => tell(step(snapshot)))
      case "Removed":
        if (event.key === keys.view) return viewMissing
        if (event.key.startsWith(keys.memberPrefix)) {
          return Effect.sync(() => {
            const records = new Map(snapshot.records)
            for (const known of snapshot.records.keys()) if (keys.member(known) === event.key) records.delete(known)
            tell({ ...snapshot, records })
          })
        }
        if (event.key.startsWith(keys.kindsPrefix)) {
          return Effect.sync(() => {
            const kinds = new Map(snapshot.kinds)
            kinds.delete(event.key)
            tell({ ...snapshot, kinds })
          })
        }
        return Effect.void
      case "Lost":
        return Effect.logDebug(`cluster store: watch lost: ${event.reason}`)
      case "Current":
        return Effect.void
    }
  }

  const readView = store.get(keys.view).pipe(Effect.flatMap((entry) =>
    Option.isNone(entry)
      ? Effect.void
      : Effect.map(decodeEntry(entry.value), (step) => tell(step(snapshot)))
  ))

  return {
    current: () => snapshot,
    revision: () => revision,
    hub,
    onChange: (listener) => void listeners.push(listener),
    written: (view, at) => tell(applyView(view, at)),
    remember: (record) => {
      snapshot = { ...snapshot, records: new Map(snapshot.records).set(nodeKey(record.node), record) }
    },
    onEvent,
    read: readView,
    doubts,
    frozen: () => frozen,
    freeze: (reason) => {
      frozen = reason
    }
  } satisfies Known
})

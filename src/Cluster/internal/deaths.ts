/**
 * Who is dead, and the step that says so. A member is dead when its lease is closed; whoever sees that a lease has expired may
 * close it. Every member may take each step; the oldest goes first and the others wait a little longer each, so that as a rule one
 * writes. A death that is certain needs no waiting: a port that refuses (`refusals.ts`), an earlier start whose port this member has
 * now, the word of an operator or the platform. Whoever knows of it takes both steps at once.
 *
 * Invariant: before it acts on a death, the closer renews its own lease; a member that is over closes nobody.
 */
import { Clock, Duration, Effect, FiberMap, Random, Schedule, Stream } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import { StoreUnavailable } from "../../Actor/errors.ts"
import type * as Lease from "../../ControlPlane/Lease.ts"
import type { Remoting } from "../../Remoting/Remoting.ts"
import { DownRefused } from "../errors.ts"
import type { Calls } from "./calls.ts"
import type { ChangeError, Membership } from "./membership.ts"
import * as Refusals from "./refusals.ts"
import { addressOf, listeningOf } from "./snapshot.ts"
import * as View from "./view.ts"

/** Who declares a member dead, and why. */
export interface Word {
  readonly by: string
  readonly reason: string
}

export interface Deaths {
  /** It did not answer: is its port refused, too? Returns at once. */
  readonly silent: (key: string) => void
  /** It answered. */
  readonly heard: (key: string) => void
  readonly down: (
    node: { readonly id: string; readonly incarnation: string },
    word: Word
  ) => Effect.Effect<void, DownRefused | ChangeError>
}

/** How much longer each younger member waits before it takes a step that the oldest should have taken, in milliseconds. */
const stagger = 400
/** Statuses are looked at again at least this often, in case a change went by while the store was away. */
const lookAgain = Duration.seconds(1)

/** How long a member that is declared dead gets to hear of it first: if it lives after all, it stops acting. */
const farewell = Duration.seconds(1)

export const follow = Effect.fnUntraced(function*(parts: {
  readonly membership: Membership
  readonly remoting: Remoting["Service"]
  readonly calls: Calls
}) {
  const { calls, membership, remoting } = parts
  const { keys, lease, observer } = membership
  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
  const settling = yield* FiberMap.make<string>()

  /**
   * A member without any lease in the store: one that was lost with the store, and that its owner does not take again. After the time
   * that an unchanged lease is given, it counts as expired; closing it writes a tombstone, which its owner cannot pass.
   */
  const absentSince = new Map<string, number>()
  const statusOf = (key: string): Lease.ObservedLease => {
    const status = observer.status(keys.lease(key))
    if (status !== "Absent" || !observer.isCurrent() || membership.isFrozen()) {
      absentSince.delete(key)
      return status
    }
    const since = absentSince.get(key) ?? now()
    absentSince.set(key, since)
    return now() - since > 1.5 * Duration.toMillis(lease.duration) + 1_000 ? "Expired" : status
  }

  const settle = (key: string) =>
    Effect.gen(function*() {
      const rank = View.up(membership.current().view!).findIndex((entry) => nodeKey(entry) === membership.key)
      const jitter = yield* Random.next
      if (rank !== 0) yield* Effect.sleep(Duration.millis(stagger * (rank < 0 ? 8 : rank) * (1 + 0.2 * jitter)))
      const view = membership.current().view!
      if (!View.isMember(view, key) || membership.isOver()) return
      const status = statusOf(key)
      if (status !== "Expired" && status !== "Closed") return
      yield* lease.renew
      if (status === "Expired") {
        const outcome = yield* observer.close(keys.lease(key), {
          word: { by: membership.key, reason: "it has not renewed its lease" }
        })
        if (outcome === "Alive") return
        yield* Effect.logWarning(`member ${key} has not renewed its lease: closed`)
        yield* lease.renew
      }
      yield* membership.change((current) => View.dead(current, [key]))
    }).pipe(
      Effect.catch((error) => Effect.logDebug(`the death of ${key} is not settled yet: ${error._tag}`)),
      Effect.asVoid
    )

  /**
   * Closes a member of whose death somebody is certain and takes it out of the view; nothing where it has left the view already, or has
   * renewed its lease where that denies it. The own lease comes first, and again before the view: a closed member closes nobody.
   */
  const close = (key: string, options: Lease.CloseOptions & { readonly word: Word }) =>
    Effect.gen(function*() {
      if (!View.isMember(membership.current().view!, key)) return
      yield* lease.renew
      if (!membership.mayAct()) {
        return yield* new StoreUnavailable({ operation: `close ${key}`, reason: "this member may not act for now" })
      }
      if ((yield* observer.close(keys.lease(key), options)) === "Alive") return
      yield* Effect.logWarning(`member ${key} is dead: ${options.word.reason} (says ${options.word.by})`)
      yield* lease.renew
      yield* membership.change((current) => View.dead(current, [key]))
    })

  // ---- ports that refuse
  const refused = new Map<string, Refusals.Refused>()
  const rules = {
    refusalIsDeath: membership.settings.refusalIsDeath,
    lease: Duration.toMillis(lease.duration)
  }
  const probe = (key: string) =>
    Effect.gen(function*() {
      const snapshot = membership.current()
      const address = addressOf(snapshot, key)
      const listening = listeningOf(snapshot, key)
      if (address === undefined) return
      if (!rules.refusalIsDeath && !Refusals.sameStack(listening, membership.listening)) return
      const found = yield* remoting.probe({ host: address.host, port: address.port, listening })
      const [seen, verdict] = Refusals.judge(refused.get(key), found, now(), rules)
      if (seen === undefined) refused.delete(key)
      else refused.set(key, seen)
      if (verdict === "Perhaps") return
      refused.delete(key)
      yield* verdict === "Dead"
        ? close(key, { certain: true, word: { by: membership.key, reason: "nobody listens at its port on this host" } })
        : close(key, { share: Refusals.quietShare, word: { by: membership.key, reason: "its port refuses" } })
    }).pipe(
      Effect.catch((error) => Effect.logDebug(`the death of ${key} is not settled yet: ${error._tag}`)),
      Effect.asVoid
    )
  const probing = yield* FiberMap.make<string>()
  const probeNow = yield* FiberMap.runtime(probing)<never>()
  const silent = (key: string) => {
    const view = membership.current().view
    if (key === membership.key || view === undefined || membership.isOver() || !View.isMember(view, key)) return
    probeNow(key, probe(key), { onlyIfMissing: true })
  }

  /** Earlier starts at the very port that this member has: a port is one process's own. */
  const succeed = Effect.suspend(() => {
    const snapshot = membership.current()
    const gone = View.members(snapshot.view!).map(nodeKey).filter((key) =>
      key !== membership.key && Refusals.samePort(listeningOf(snapshot, key), membership.listening)
    )
    return Effect.forEach(gone, (key) =>
      FiberMap.run(
        settling,
        key,
        Effect.catch(
          close(key, { certain: true, word: { by: membership.key, reason: "its port is another member's now" } }),
          (error) => Effect.logDebug(`the death of ${key} is not settled yet: ${error._tag}`)
        ),
        { onlyIfMissing: true }
      ), { discard: true })
  })

  // ---- the word of an operator, or of the platform
  const down: Deaths["down"] = Effect.fnUntraced(function*(node, word) {
    const key = nodeKey(node)
    const refuse = (reason: string) => new DownRefused({ node: key, reason })
    if (key === membership.key) return yield* refuse("it is this very member: close its Layer")
    const { view } = membership.current()
    if (view === undefined || View.find(view, key) === undefined) {
      if (observer.status(keys.lease(key)) === "Closed") return
      return yield* refuse("it is no member")
    }
    if (!View.isMember(view, key)) return
    yield* lease.renew
    const address = addressOf(membership.current(), key)
    if (address !== undefined) {
      // If it lives in spite of that word, it stops by itself before anybody acts in its place.
      yield* Effect.ignore(
        calls.peer(address, farewell).Ping({ from: membership.key, view: view.number, closed: true })
      )
    }
    yield* close(key, { certain: true, word })
  })

  const look = Effect.suspend(() => {
    const view = membership.current().view
    if (view === undefined || membership.isOver()) return Effect.void
    const suspects = View.members(view).map(nodeKey).filter((key) => {
      const status = key === membership.key ? "Live" : statusOf(key)
      return status === "Expired" || status === "Closed"
    })
    return Effect.andThen(
      succeed,
      Effect.forEach(suspects, (key) => FiberMap.run(settling, key, settle(key), { onlyIfMissing: true }), {
        discard: true
      })
    )
  })

  yield* observer.changes.pipe(Stream.runForEach(() => look), Effect.forkScoped)
  yield* Effect.repeat(look, Schedule.spaced(lookAgain).pipe(Schedule.jittered)).pipe(Effect.forkScoped)
  return { silent, heard: (key) => void refused.delete(key), down } satisfies Deaths
})

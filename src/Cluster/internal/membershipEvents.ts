/**
 * What a node tells about members, from the difference of two snapshots; and what it tells those that are gone for good: that their
 * lease is closed. They may live, cut from the store alone, and know of nobody who could tell them but us.
 */
import { Duration, Effect, FiberSet, Schedule } from "effect"
import { type Member, nodeKey } from "../../Actor/Address.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { Remoting } from "../../Remoting/Remoting.ts"
import type { Calls } from "./calls.ts"
import type { Membership } from "./membership.ts"
import { isAlive, membersOf } from "./snapshot.ts"

export const follow = Effect.fnUntraced(
  function*(membership: Membership, calls: Calls, events: SystemEvents["Service"], remoting: Remoting["Service"]) {
    const fork = yield* FiberSet.makeRuntime<never>()
    const lease = membership.settings.memberLease
    /** Its messages count no more from this moment. Told until it has understood, or for two leases; then its connections are cut and it is let in no more. */
    const dismiss = (member: Member) =>
      Effect.gen(function*() {
        yield* remoting.mute(member.node)
        yield* calls.peer(member.node, Duration.seconds(1)).Ping({
          from: membership.key,
          view: membership.current().view?.number ?? 0,
          closed: true
        }).pipe(
          Effect.retry(Schedule.max([
            Schedule.spaced("500 millis").pipe(Schedule.jittered),
            Schedule.during(Duration.times(lease, 2))
          ])),
          Effect.ignore
        )
        yield* remoting.shun(member.node)
      })
    /** members that were told as Up and not yet as left */
    const told = new Map<string, Member>()
    let leader: string | undefined

    membership.onChange((now) => {
      const members = membersOf(now, membership.keys.kinds)
      // Departures first: a restarted node is left, then up again.
      for (const [key, member] of told) {
        if (isAlive(now, key)) continue
        told.delete(key)
        events.publish({ _tag: "MemberLeft", member: { ...member, status: "Dead" } })
        if (key !== membership.key) fork(dismiss(member))
      }
      for (const member of members) {
        const key = nodeKey(member.node)
        if (member.status !== "Up" || told.has(key)) continue
        told.set(key, member)
        events.publish({ _tag: "MemberUp", member })
      }
      const oldest = members.find((member) => member.status === "Up")
      const key = oldest === undefined ? undefined : nodeKey(oldest.node)
      if (key === leader) return
      leader = key
      events.publish({ _tag: "LeaderChanged", ...(oldest === undefined ? {} : { leader: oldest.node }) })
    })
  }
)

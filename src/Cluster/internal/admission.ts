/**
 * The last question before a node becomes a member: does any member let it in? The store cannot know. One whose secret, certificate or
 * protocol all of them refuse would own names that nobody can ask it for, for as long as it renews its lease.
 *
 * Only refusals by every Up member keep it out. Whoever cannot be asked in a moment has refused nothing: members may be dead or cut off, and a
 * cluster must be able to start again after that. So two that start at the very same time may both join; that is in the log.
 */
import { Duration, Effect } from "effect"
import { endpoint, nodeKey } from "../../Actor/Address.ts"
import { type NodeUnreachable, ProtocolMismatch, SettingInvalid } from "../../Actor/errors.ts"
import type { Calls } from "./calls.ts"
import type { Membership } from "./membership.ts"
import { addressOf } from "./snapshot.ts"
import * as View from "./view.ts"

/** Joining waits that long for an answer at most. */
const patience = Duration.seconds(1)
/** Members that are asked at a time. */
const atOnce = 4

const refusedBy = (membership: Membership, member: string, { barred, reason }: NodeUnreachable) =>
  barred === "Protocol"
    ? new ProtocolMismatch({ what: `handshake with ${member}`, ours: membership.key, theirs: reason })
    : new SettingInvalid({
      setting: barred === "Certificate" ? "remoting.tlsCertificate" : "remoting.secret",
      reason: `is not that of the cluster: every member and this node refuse each other, as ${member} (${reason})`
    })

/** Fails where every Up member and this node refuse each other, with the setting that the oldest one's refusal is about. */
export const check = (membership: Membership, calls: Calls): Effect.Effect<void, SettingInvalid | ProtocolMismatch> =>
  Effect.gen(function*() {
    const snapshot = membership.current()
    if (snapshot.view === undefined) return
    const others = View.up(snapshot.view).map(nodeKey).filter((key) => key !== membership.key)
    if (others.length === 0) return
    const ask = (key: string): Effect.Effect<SettingInvalid | ProtocolMismatch, "admitted"> =>
      Effect.suspend(() => {
        const address = addressOf(snapshot, key)
        if (address === undefined) return Effect.fail("admitted" as const)
        const question = { from: membership.key, view: snapshot.view?.number ?? 0, closed: false }
        return calls.peer(address, patience).Ping(question).pipe(
          Effect.flip,
          Effect.mapError(() => "admitted" as const),
          Effect.flatMap((error) =>
            error._tag === "NodeUnreachable" && error.barred !== undefined
              ? Effect.succeed(refusedBy(membership, `${key} at ${endpoint(address)}`, error))
              : Effect.fail("admitted" as const)
          )
        )
      })
    const refusals = yield* Effect.forEach(others, ask, { concurrency: atOnce }).pipe(
      Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.fail("admitted" as const) }),
      Effect.catch(() => Effect.succeed([]))
    )
    if (refusals[0] !== undefined) return yield* Effect.fail(refusals[0])
  })

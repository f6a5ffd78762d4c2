/**
 * What this node knows of its cluster at one moment: the view, and the records that say who its members are. Pure readers.
 */
import type { Member, NodeAddress } from "../../Actor/Address.ts"
import { nodeKey } from "../../Actor/Address.ts"
import type { Listening } from "../../Remoting/Transport.ts"
import type { MemberRecord } from "./records.ts"
import * as View from "./view.ts"

export interface Snapshot {
  readonly view: View.View | undefined
  /** by member key; records never change */
  readonly records: ReadonlyMap<string, MemberRecord>
  /** by store key */
  readonly kinds: ReadonlyMap<string, ReadonlyArray<string>>
}

export const emptySnapshot: Snapshot = { view: undefined, records: new Map(), kinds: new Map() }

/** Living members oldest first. One whose record has not arrived yet is left out: nobody could reach it. */
export const membersOf = (
  snapshot: Snapshot,
  kindsKey: (nodeKey: string) => string
): ReadonlyArray<Member> => {
  if (snapshot.view === undefined) return []
  return View.members(snapshot.view).flatMap((entry) => {
    const key = nodeKey(entry)
    const record = snapshot.records.get(key)
    return record === undefined ? [] : [{
      node: record.node,
      status: entry.status,
      age: entry.age,
      roles: record.roles,
      kinds: snapshot.kinds.get(kindsKey(key)) ?? []
    }]
  })
}

/** Does that incarnation live, as far as this node knows? */
export const isAlive = (snapshot: Snapshot, key: string): boolean =>
  snapshot.view !== undefined && View.isMember(snapshot.view, key)

/** Where a member listens, as far as its record tells. */
export const listeningOf = (snapshot: Snapshot, key: string): Listening | undefined =>
  snapshot.records.get(key)?.listening

/** Address of a member, dead ones included while they are remembered. */
export const addressOf = (snapshot: Snapshot, key: string): NodeAddress | undefined => snapshot.records.get(key)?.node

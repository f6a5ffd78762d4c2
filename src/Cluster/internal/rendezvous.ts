/**
 * Which member should own which partition: rendezvous hashing (highest score wins) with a bound on each member's load, so that
 * shares are even and as few partitions as possible move. Pure, and the same on every member.
 *
 * Not for deciding whether a partition *may* move (`view.ts`).
 */
import { hash32 } from "./hash.ts"

/** How much a member wants a partition; the highest wins. */
export const score = (member: string, partition: number): number => hash32(`${member}#${partition}`)

/** No member owns more than this. */
export const fairShare = (partitionCount: number, members: number): number =>
  members === 0 ? 0 : Math.ceil(partitionCount / members)

const count = (owners: ReadonlyArray<string | undefined>, members: ReadonlyArray<string>): Map<string, number> => {
  const loads = new Map(members.map((member) => [member, 0]))
  for (const owner of owners) {
    const load = owner === undefined ? undefined : loads.get(owner)
    if (load !== undefined) loads.set(owner!, load + 1)
  }
  return loads
}

/**
 * Owners for the partitions that have none, the others left where they are: each goes to the member that wants it most among
 * those below their fair share. Where nobody had too much before, shares are even within one afterwards.
 */
export const fill = (
  owners: ReadonlyArray<string | undefined>,
  members: ReadonlyArray<string>
): ReadonlyArray<string | undefined> => {
  if (members.length === 0) return owners
  const loads = count(owners, members)
  const low = Math.floor(owners.length / members.length)
  // So many members may have one more than the others; those that have more already use that up.
  let extra = owners.length - low * members.length
  for (const load of loads.values()) extra -= Math.max(0, load - low)
  return owners.map((owner, partition) => {
    if (owner !== undefined) return owner
    let best: string | undefined
    let bestScore = -1
    for (const member of members) {
      const load = loads.get(member)!
      if (load > low || (load === low && extra <= 0)) continue
      const candidate = score(member, partition)
      if (candidate > bestScore || (candidate === bestScore && member < best!)) {
        best = member
        bestScore = candidate
      }
    }
    // There is one: the shares sum up to all partitions.
    best ??= members[0]!
    if (loads.get(best)! >= low) extra--
    loads.set(best, loads.get(best)! + 1)
    return best
  })
}

/**
 * What `self` should give away so that nobody lacks a fair share: only what it has above its own share, to those below theirs,
 * and of its partitions those that the receiver wants most. Nothing where shares are even within one.
 */
export const surplus = (
  owners: ReadonlyArray<string | undefined>,
  members: ReadonlyArray<string>,
  self: string
): ReadonlyArray<{ readonly partition: number; readonly to: string }> => {
  if (!members.includes(self)) return []
  const loads = count(owners, members)
  const low = Math.floor(owners.length / members.length)
  let mine = loads.get(self)!
  const given = new Set<number>()
  const moves: Array<{ readonly partition: number; readonly to: string }> = []
  // Fills the emptiest first; members agree on the order, and each gives only what is its own.
  const receivers = members.filter((member) => loads.get(member)! < low)
    .sort((a, b) => loads.get(a)! - loads.get(b)! || (a < b ? -1 : 1))
  for (const to of receivers) {
    const wanted = owners
      .map((owner, partition) => ({ owner, partition, score: score(to, partition) }))
      .filter((entry) => entry.owner === self && !given.has(entry.partition))
      .sort((a, b) => b.score - a.score)
    for (const { partition } of wanted) {
      if (mine <= low || loads.get(to)! >= low) break
      given.add(partition)
      moves.push({ partition, to })
      mine--
      loads.set(to, loads.get(to)! + 1)
    }
  }
  return moves
}

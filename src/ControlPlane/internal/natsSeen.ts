/**
 * What one client has seen of its bucket. A stream's sequence only rises; where it falls, acknowledged writes are gone. Writes
 * notice it by the sequence of their answer, watches by what the leader says; whoever notices first lets the others know.
 */

export interface Seen {
  /** highest sequence that was acknowledged or told; 0 before the first, and from the last loss on */
  highest: number
  /** losses that were noticed */
  losses: number
  /** what the last one was */
  reason: string
}

export const makeSeen = (): Seen => ({ highest: 0, losses: 0, reason: "" })

export const see = (seen: Seen, sequence: number): void => {
  if (sequence > seen.highest) seen.highest = sequence
}

/** Notes a loss; the count begins anew at `now`. */
export const noteLoss = (seen: Seen, reason: string, now: number): void => {
  seen.losses += 1
  seen.reason = reason
  seen.highest = now
}

/** How a fallen sequence is told. */
export const fallen = (bucket: string, last: number, highest: number): string =>
  `bucket ${bucket} lost acknowledged writes: its last is ${last}, ${highest} was seen`

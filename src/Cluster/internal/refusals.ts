/**
 * What a port that refuses says about a member that does not answer. Pure but for the dial.
 *
 * In the same network stack (machine, boot, network namespace, advertised host) nobody but this machine answers the dial, and its kernel's
 * books say whether anybody listens. A member listens from before its record is written until after its actors have ended, on a port that it
 * shares with nobody, and never again after that: so one vacant port is death for certain, and no later moment takes it back. A paused or slow
 * member listens all the same, and one whose port somebody else has taken since is not vacant.
 *
 * Elsewhere somebody else may have answered for a living member: a refusal is suspicion. Where the settings exclude that, a member is dead
 * that has refused `leastRefusals` times in a row, with nothing else in between, over a time in which it must have renewed its lease; and it
 * is closed only if it has not. docs/decisions/a-port-that-refuses.md has each case.
 */
import type { Listening } from "../../Remoting/Transport.ts"
import type { Probe } from "../../Remoting/Remoting.ts"

/** Refusals of one member, elsewhere than here, with nothing else in between. */
export interface Refused {
  readonly times: number
  /** milliseconds, monotonic: the first of them */
  readonly since: number
}

const leastRefusals = 3
/** Part of a lease without a renewal, and with refusals only: more than the third that lies at most between two renewals. */
export const quietShare = 0.4

/** `Dead`: nobody can act for it any more. `DeadUnlessRenewed`: so, if it has not renewed its lease for `quietShare` of it. */
export type Verdict = "Dead" | "DeadUnlessRenewed" | "Perhaps"

/** What one more dial makes of those before. `lease` in milliseconds. */
export const judge = (
  before: Refused | undefined,
  probe: Probe,
  now: number,
  settings: { readonly refusalIsDeath: boolean; readonly lease: number }
): readonly [Refused | undefined, Verdict] => {
  if (probe === "Vacant") return [undefined, "Dead"]
  if (probe === "Open" || !settings.refusalIsDeath) return [undefined, "Perhaps"]
  const refused = { times: (before?.times ?? 0) + 1, since: before?.since ?? now }
  const isEnough = refused.times >= leastRefusals && now - refused.since >= quietShare * settings.lease
  return [refused, isEnough ? "DeadUnlessRenewed" : "Perhaps"]
}

export const sameStack = (a: Listening | undefined, b: Listening | undefined): boolean =>
  a !== undefined && a.stack === b?.stack

/** Is it the very port that the other has? A port is one member's, so the later one to have it says that the earlier one is gone. */
export const samePort = (a: Listening | undefined, b: Listening | undefined): boolean =>
  sameStack(a, b) && a?.host === b?.host && a?.port === b?.port

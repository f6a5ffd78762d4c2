/**
 * Which members may take an actor, and in which order they are tried. Pure.
 */
import type { Member } from "../../Actor/Address.ts"
import { nodeKey } from "../../Actor/Address.ts"
import type { SpawnSpec, Target } from "../../Actor/Placement.ts"

export interface Wanted {
  readonly kind: string
  readonly role: string | undefined
  readonly on: string | undefined
}

export const wantedBy = (spec: SpawnSpec, target?: Target): Wanted => ({
  kind: spec.kind,
  role: target?.role ?? spec.role,
  on: target?.on
})

/** Up, with kind and role, and the named one where one is named. */
export const isEligible = (member: Member, wanted: Wanted): boolean =>
  member.status === "Up" &&
  (wanted.role === undefined || member.roles.includes(wanted.role)) &&
  (wanted.on === undefined || member.node.id === wanted.on) &&
  member.kinds.includes(wanted.kind)

/** Keys of eligible members, those that are heard first; never empty because nobody is heard. */
export const eligible = (
  members: ReadonlyArray<Member>,
  wanted: Wanted,
  isHeard: (key: string) => boolean
): ReadonlyArray<string> => {
  const keys = members.filter((member) => isEligible(member, wanted)).map((member) => nodeKey(member.node))
  const heard = keys.filter(isHeard)
  return heard.length > 0 ? heard : keys
}

/** From that position on, and around. */
export const rotate = <A>(values: ReadonlyArray<A>, by: number): ReadonlyArray<A> =>
  values.length === 0 ? values : [...values.slice(by % values.length), ...values.slice(0, by % values.length)]

/** Consistent hashing: a key goes to the member whose point follows it on a ring. */

/** FNV-1a with a final mix, so that near keys do not stay near. */
export const hash = (text: string): number => {
  let value = 0x811c9dc5
  for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193)
  value = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  value = Math.imul(value ^ (value >>> 13), 0xc2b2ae35)
  return (value ^ (value >>> 16)) >>> 0
}

/** Made anew when the members change; what a member's points are depends on its own name alone. */
export const hashRing = <A>(
  members: ReadonlyArray<A>,
  nameOf: (member: A) => string,
  points: number
): (key: string) => A | undefined => {
  const ring = members.flatMap((member) =>
    Array.from({ length: points }, (_, point) => ({ at: hash(`${nameOf(member)}#${point}`), member }))
  ).sort((a, b) => a.at - b.at || (nameOf(a.member) < nameOf(b.member) ? -1 : 1))
  return (key) => {
    const at = hash(key)
    let low = 0
    let high = ring.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (ring[middle]!.at < at) low = middle + 1
      else high = middle
    }
    return (ring[low] ?? ring[0])?.member
  }
}

/**
 * The one hash of the cluster ring. All members must agree on it for ever: a change of it is a change of every name's partition.
 */

/** FNV-1a over UTF-16 units, then murmur3's finaliser, so that names that differ in one digit land far apart. 32 bits. */
export const hash32 = (text: string): number => {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) {
    hash ^= text.charCodeAt(index)
    hash = Math.imul(hash, 0x01000193)
  }
  hash ^= hash >>> 16
  hash = Math.imul(hash, 0x85ebca6b)
  hash ^= hash >>> 13
  hash = Math.imul(hash, 0xc2b2ae35)
  hash ^= hash >>> 16
  return hash >>> 0
}

/** The partition of a name. Names of all kinds share one space: a name is unique in its cluster whatever its kind. */
export const partitionOf = (name: string, partitionCount: number): number => hash32(name) % partitionCount

/** Which names an actor may have: what every node, every connection and every control store can carry. */

/** UTF-8 bytes; a child's name counts with its parents' */
export const maxNameBytes = 1024

/** No character takes more than three bytes for each of its UTF-16 units. */
const surelyFits = Math.floor(maxNameBytes / 3)

const encoder = new TextEncoder()

/** Why nobody can have that name; undefined: it is a good one. */
export const nameTrouble = (name: string): string | undefined => {
  if (name.length > 0 && name.length <= surelyFits) return undefined
  if (name.length === 0) return "is empty"
  return name.length <= maxNameBytes && encoder.encode(name).length <= maxNameBytes
    ? undefined
    : `takes more than ${maxNameBytes} bytes`
}

/** A cell as it is seen from outside, its children beneath it. */
import type { Inspected } from "../Inspected.ts"
import type { Cell } from "./Cell.ts"
import { statusNames } from "./Status.ts"

export const inspect = (cell: Cell): Inspected => {
  const { extras } = cell
  return {
    name: cell.name,
    kind: cell.kind,
    status: statusNames[cell.status],
    waiting: cell.depth,
    stashed: extras?.stash?.size ?? 0,
    detached: extras?.detached.size ?? 0,
    restarts: extras?.restartCount ?? 0,
    timers: [...extras?.timers?.keys() ?? []],
    children: [...extras?.children?.values() ?? []].map(inspect)
  }
}

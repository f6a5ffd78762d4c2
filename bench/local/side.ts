/**
 * One side of the local bench in a process of its own, so that no side pays for another's heap or for what another's types have
 * done to shared code. It makes crowds of actors when they are first asked for, and measures a round of work on one.
 */
import { Effect, Ref } from "effect"
import { asked, cpuPer, report } from "../harness.ts"
import { Arrivals, type Crowd, times } from "../peers/crowd.ts"
import type { Style } from "../peers/troupe.ts"

export type SideName = "floor" | "troupe" | "queue" | "nact" | "entity" | "alone"

/** A round of work; answered with CPU nanoseconds of the main thread for each message. */
export interface Order {
  readonly what: "tell" | "ask" | "behind"
  /** actors */
  readonly size: number
  readonly style?: Style | undefined
  /** messages in a row to each */
  readonly each?: number | undefined
  readonly inFlight?: number | undefined
  readonly count: number
}

const { side } = asked<{ readonly side: SideName }>()

/** A handler that is a generator, run by nobody but one fiber: a crowd of one. */
const makeAlone = async (style: Style | undefined): Promise<Crowd> => {
  const { generator } = await import("../peers/troupe.ts")
  const handle = generator[style === "fn" ? "fn" : "gen"](Ref.makeUnsafe(0), new Arrivals())
  return { tell: (each, loops) => Effect.runPromise(times(each * loops, () => handle({ n: 1 }))) }
}

/** Each loads what it needs and no more. */
const makers: Record<SideName, (size: number, style: Style | undefined) => Promise<Crowd>> = {
  floor: async (size) => (await import("../peers/floor.ts")).makeFloor(size),
  troupe: async (size, style) => (await import("../peers/troupe.ts")).makeTroupe(size, style),
  queue: async (size) => (await import("../peers/queue.ts")).makeQueues(size),
  nact: async (size) => (await import("../peers/nact.ts")).makeNact(size),
  entity: async (size) => (await import("../peers/entity.ts")).makeEntities(size),
  alone: (_, style) => makeAlone(style)
}

const crowds = new Map<string, Crowd>()

const run = async ({ count, each = 1, inFlight = 1, size, style, what }: Order): Promise<number> => {
  const key = `${size} ${style}`
  let crowd = crowds.get(key)
  if (crowd === undefined) crowds.set(key, crowd = await makers[side](size, style))
  if (what === "tell") {
    const loops = Math.max(1, Math.round(count / size / each))
    return cpuPer(size * each * loops, () => crowd.tell(each, loops))
  }
  const asks = Math.max(1, Math.round(count / inFlight)) * inFlight
  return cpuPer(asks, () => what === "ask" ? crowd.ask!(inFlight, asks) : crowd.askBehind!(inFlight, asks))
}

process.on("message", (order: Order) => {
  void run(order).then(report, (error: unknown) => {
    console.error(error)
    process.exit(1)
  })
})
process.once("disconnect", () => process.exit(0))

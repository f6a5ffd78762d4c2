/** Messages, and questions with a timeout, on one node: every side in a process of its own, in turn. */
import { compete, type Contestant, type Options, type Result, troupe } from "../harness.ts"
import { type Partner, startPartner } from "../processes.ts"
import type { Order, SideName } from "./side.ts"

const queueSide = "Queue and fiber"

/** The sides of one figure, each made when it is first asked. */
class Sides {
  private readonly partners = new Map<SideName, Partner<Order, number>>()
  private readonly scale: number
  constructor(options: Options) {
    this.scale = options.quick ? 0.01 : 1
  }
  /** `order.count` and `size` are those of a real run. */
  contestant(name: string, side: SideName, order: Order, note?: string): Contestant {
    const scaled = {
      ...order,
      size: Math.max(1, Math.round(order.size * this.scale)),
      count: Math.max(1, Math.round(order.count * this.scale))
    }
    return { name, note, round: () => this.partner(side).ask(scaled) }
  }
  end(): void {
    for (const partner of this.partners.values()) partner.end()
  }
  private partner(side: SideName): Partner<Order, number> {
    let partner = this.partners.get(side)
    if (partner === undefined) this.partners.set(side, partner = startPartner("local/side.ts", { side }))
    return partner
  }
}

const dense = { what: "tell", size: 1000, each: 16 } as const

const tellDense = async (sides: Sides, options: Options): Promise<Result> => {
  const one = `${troupe}, one message at a time`
  const ref = `${troupe}, Ref.update`
  return {
    title: "tell, dense: 1 producer, 1,000 actors, 16 messages in a row to each",
    unit: "ns CPU per message",
    sides: await compete([
      sides.contestant("floor", "floor", { ...dense, count: 4_000_000 }),
      sides.contestant(troupe, "troupe", { ...dense, style: "sync", count: 1_000_000 }, "Effect.sync"),
      sides.contestant(ref, "troupe", { ...dense, style: "ref", count: 1_000_000 }),
      sides.contestant(one, "troupe", { ...dense, style: "sync", each: 1, count: 1_000_000 }, "in turn to each"),
      sides.contestant(queueSide, "queue", { ...dense, count: 200_000 }),
      sides.contestant("nact", "nact", { ...dense, count: 100_000 }),
      sides.contestant("Entity", "entity", { ...dense, count: 16_000 })
    ], options),
    comparisons: [
      { figure: "tell_dense", against: "floor", goal: { most: 5 } },
      { figure: "tell_dense_ref", against: "floor", of: ref, goal: { most: 5 } },
      { figure: "tell_in_turn", against: "floor", of: one },
      { figure: "tell_dense_queue", against: queueSide },
      { figure: "tell_dense_nact", against: "nact" },
      { figure: "tell_dense_entity", against: "Entity" }
    ]
  }
}

const tellSparse = async (sides: Sides, options: Options): Promise<Result> => {
  const sparse = { what: "tell", size: 100_000, each: 1 } as const
  return {
    title: "tell, sparse: one message each over 100,000 actors",
    unit: "ns CPU per message",
    sides: await compete([
      sides.contestant("floor", "floor", { ...sparse, count: 2_000_000 }, "100,000 rings"),
      sides.contestant(troupe, "troupe", { ...sparse, style: "sync", count: 1_000_000 }),
      sides.contestant(queueSide, "queue", { ...sparse, count: 100_000 }),
      sides.contestant("nact", "nact", { ...sparse, count: 100_000 }),
      sides.contestant("Entity", "entity", { ...sparse, size: 5_000, count: 5_000 }, "5,000 entities only")
    ], options),
    comparisons: [
      { figure: "tell_sparse", against: "floor", goal: { most: 3 } },
      { figure: "tell_sparse_queue", against: queueSide },
      { figure: "tell_sparse_nact", against: "nact" },
      { figure: "tell_sparse_entity", against: "Entity" }
    ]
  }
}

/** A generator handler run by an actor, and the same one run alone: as many of them in one fiber. */
const tellGenerators = async (sides: Sides, options: Options): Promise<Result> => {
  const count = 200_000
  const fn = `${troupe}, Effect.fnUntraced`
  return {
    title: "tell to handlers that are generators, as dense",
    unit: "ns CPU per message",
    sides: await compete([
      sides.contestant("Effect.gen alone", "alone", { ...dense, size: 1, style: "gen", count }),
      sides.contestant(troupe, "troupe", { ...dense, style: "gen", count }, "Effect.gen"),
      sides.contestant("Effect.fnUntraced alone", "alone", { ...dense, size: 1, style: "fn", count }),
      sides.contestant(fn, "troupe", { ...dense, style: "fn", count })
    ], options),
    comparisons: [
      { figure: "tell_gen", against: "Effect.gen alone", goal: { most: 1.3 } },
      { figure: "tell_gen_fn", of: fn, against: "Effect.fnUntraced alone" }
    ]
  }
}

const asks = async (sides: Sides, options: Options, inFlight: number, goal: number): Promise<Result> => {
  const floor = "floor's dense tell"
  const behind = `${troupe}, each behind a tell`
  const order = { what: "ask", size: 1000, inFlight } as const
  const rate = { unit: "asks/s", per: 1e9 }
  const figure = `ask_${inFlight}`
  return {
    title: `ask, ${inFlight.toLocaleString("en")} in flight, with a timeout`,
    unit: "ns CPU per ask",
    sides: await compete([
      sides.contestant(floor, "floor", { ...dense, count: 4_000_000 }),
      sides.contestant(troupe, "troupe", { ...order, style: "sync", count: 400_000 }),
      sides.contestant(behind, "troupe", { ...order, what: "behind", style: "sync", count: 200_000 }, "tell included"),
      sides.contestant("Queue, fiber and Deferred", "queue", { ...order, count: 50_000 }),
      sides.contestant("nact", "nact", { ...order, count: 50_000 }),
      sides.contestant("Entity", "entity", { ...order, count: 10_000 }, "without a timeout")
    ], options),
    comparisons: [
      { figure, against: floor, goal: { most: goal } },
      { figure: `${figure}_behind_tell`, of: behind, against: floor },
      { figure: `${figure}_queue`, against: "Queue, fiber and Deferred" },
      { figure: `${figure}_nact`, against: "nact" },
      { figure: inFlight === 1 ? "ask_entity" : `ask_entity_${inFlight}`, against: "Entity", rate, goal: { least: 25 } }
    ]
  }
}

type Figure = (sides: Sides, options: Options) => Promise<Result>

const inTurn = (figures: ReadonlyArray<Figure>) =>
  async function*(options: Options): AsyncGenerator<Result> {
    const sides = new Sides(options)
    try {
      for (const figure of figures) yield await figure(sides, options)
    } finally {
      sides.end()
    }
  }

export const tell = inTurn([tellDense, tellSparse, tellGenerators])
export const ask = inTurn([
  (sides, options) => asks(sides, options, 1, 15),
  (sides, options) => asks(sides, options, 1000, 20)
])

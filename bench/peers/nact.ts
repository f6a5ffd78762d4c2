/** `nact`, actors for JavaScript without Effect. */
import { dispatch, query, type Ref, spawn, start, stop } from "nact"
import { Arrivals, type Crowd } from "./crowd.ts"

type Message = { readonly n: number; readonly reply?: Ref<number> | undefined }

/** messages between two turns of the event loop; nact itself handles one message of an actor a turn */
const burst = 16_000

export const makeNact = (size: number): Crowd => {
  const arrivals = new Arrivals()
  const system = start()
  const actors = Array.from({ length: size }, (_, i) =>
    spawn(
      system,
      (total: number = 0, { n, reply }: Message) => {
        if (reply !== undefined) dispatch(reply, total)
        else arrivals.arrived()
        return total + n
      },
      `actor-${i}`
    ))
  return {
    tell: (each, loops) => {
      const total = size * each * loops
      const done = arrivals.expect(total)
      let sent = 0
      const produce = () => {
        for (let i = 0; i < burst && sent < total; i++) {
          dispatch(actors[Math.floor(sent++ / each) % size]!, { n: 1 })
        }
        if (sent < total) setImmediate(produce)
      }
      produce()
      return done
    },
    ask: async (inFlight, count) => {
      await Promise.all(Array.from({ length: inFlight }, async (_, asker) => {
        const actor = actors[asker % size]!
        for (let i = 0; i < count / inFlight; i++) {
          await query(actor, (reply: Ref<number>): Message => ({ n: 1, reply }), 5000)
        }
      }))
    },
    close: async () => stop(system)
  }
}

/** As many idle ones as asked for; what keeps them alive. */
export const spawnNact = (count: number): unknown => {
  const system = start()
  for (let i = 0; i < count; i++) {
    spawn(system, (total: number = 0, { n }: Message) => total + n, `actor-${i}`)
  }
  return system
}

/** Questions and messages over loopback: every side's server in a process of its own, all clients in this one. */
import { asked, compete, type Contestant, type Options, percentile, report, type Result, wallPer } from "../harness.ts"
import { connectTo, names, startServer } from "./connect.ts"
import type { Client, SideName } from "./sides.ts"

const options = asked<Options>()

const tls = `${names.troupe}, mutual TLS`

interface Side {
  readonly name: string
  readonly client: Client
  /** how much of the work it gets, so that rounds take about as long */
  readonly share: number
}

const open = async (side: SideName, share: number, name = names[side]): Promise<Side> => ({
  name,
  share,
  client: await connectTo(await startServer(side, { tls: name === tls }))
})

const sides: ReadonlyArray<Side> = [
  await open("raw", 1),
  await open("troupe", 1),
  await open("troupe", 1, tls),
  await open("rpc", 0.2),
  await open("entity", 0.05)
]

const contestants = (round: (client: Client, share: number) => Promise<number>): ReadonlyArray<Contestant> =>
  sides.map(({ client, name, share }) => ({ name, round: () => round(client, share) }))

const thousands = (count: number): number => Math.max(1, Math.round(count / 1000 * (options.quick ? 0.01 : 1))) * 1000

const latency: Result = {
  title: "ask, 1 in flight, 100 bytes there and back: median time",
  unit: "us",
  sides: await compete(
    contestants(async (client, share) => {
      const count = options.quick ? 100 : Math.round(500 + 3500 * share)
      return percentile(await client.ask(1, count), 0.5) * 1000
    }),
    options
  ),
  comparisons: [
    { figure: "ask_1", against: names.raw, goal: { most: 1.3 } },
    { figure: "ask_1_tls", of: tls, against: names.troupe },
    { figure: "ask_1_rpc", against: names.rpc },
    { figure: "ask_1_entity", against: names.entity }
  ]
}
await report(latency)

const rate = { unit: "asks/s", per: 1e9 }
const asks: Result = {
  title: "ask, 1,000 in flight, 100 bytes there and back",
  unit: "ns wall clock per ask",
  sides: await compete(
    contestants((client, share) => {
      const count = thousands(200_000 * share)
      return wallPer(count, async () => {
        await client.ask(1000, count)
      })
    }),
    options
  ),
  comparisons: [
    { figure: "ask_1000", against: names.raw, rate, goal: { least: 0.55 } },
    { figure: "ask_1000_tls", of: tls, against: names.troupe, rate, goal: { least: 0.6 } },
    { figure: "ask_1000_rpc", against: names.rpc, rate, goal: { least: 4 } },
    { figure: "ask_1000_entity", against: names.entity, rate, goal: { least: 20 } }
  ]
}
await report(asks)

const tellRate = { unit: "tells/s", per: 1e9 }
const tells: Result = {
  title: "tell, one way to 1,000 actors, 100 bytes",
  unit: "ns wall clock per message",
  sides: await compete(
    contestants((client, share) => {
      const count = thousands(400_000 * share)
      return wallPer(count, () => client.tell(count))
    }),
    options
  ),
  comparisons: [
    { figure: "tell", against: names.raw, rate: tellRate, goal: { least: 0.5 } },
    { figure: "tell_tls", of: tls, against: names.troupe, rate: tellRate, goal: { least: 0.6 } },
    { figure: "tell_rpc", against: names.rpc, rate: tellRate },
    { figure: "tell_entity", against: names.entity, rate: tellRate }
  ]
}
await report(tells)
process.exit(0)

/** Small questions while 10 MB are in flight on the same connection, one after another, and without. */
import { asked, compete, type Options, percentile, report, type Result, troupe } from "../harness.ts"
import { startServer } from "./connect.ts"
import { connect } from "./troupe.ts"

const options = asked<Options>()
const inFlight = 10
// made once: what it takes to make ten megabytes is none of the wire's
const payload = new Uint8Array(10_000_000).fill(7)
// long enough for several of the payloads, and of the collections that they bring about, in each round
const asks = options.quick ? 100 : 20_000

const server = await startServer("troupe", { bulk: true })
const client = await connect(server.options, server.ready)

const alone = async () => percentile(await client.ask(inFlight, asks), 0.99) * 1000

const beside = async () => {
  let going = true
  const bulk = (async () => {
    while (going) await client.bulk(payload)
  })()
  const p99 = percentile(await client.ask(inFlight, asks), 0.99) * 1000
  going = false
  await bulk
  return p99
}

// the compilers are busy for the first seconds, on processors that both sides need: that is not what is asked here
for (let round = 0; !options.quick && round < 5; round++) {
  await beside()
  await alone()
}

const result: Result = {
  title: `small asks, ${inFlight} in flight: 99 % are answered within`,
  unit: "us",
  sides: await compete([
    { name: troupe, round: beside, note: "10 MB always in flight beside them" },
    { name: "without the 10 MB", round: alone }
  ], options),
  comparisons: [{ figure: "mixed", against: "without the 10 MB", goal: { most: 5 } }]
}
await report(result)
process.exit(0)

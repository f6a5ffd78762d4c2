/** A thousand peers that are connected and quiet: what they hold of a node's memory, and whether messages become dearer. */
import { asked, compete, type Options, report, troupe, wallPer } from "../harness.ts"
import { startServer } from "./connect.ts"
import { connect, connectIdle } from "./troupe.ts"

const options = asked<Options>()
const few = 10
const many = options.quick ? 20 : 1000
const asks = options.quick ? 1000 : 100_000

const crowded = await startServer("troupe")
const quiet = await startServer("troupe")
const clients = {
  crowded: await connect(crowded.options, crowded.ready),
  quiet: await connect(quiet.options, quiet.ready)
}
const before = (await crowded.ask("memory")).bytes
await connectIdle(few, quiet.options, quiet.ready)
await connectIdle(many, crowded.options, crowded.ready)
const bytes = ((await crowded.ask("memory")).bytes - before) / many

await report({
  title: `idle peers: memory of each on the node that ${many.toLocaleString("en")} of them are connected to`,
  unit: "bytes",
  sides: [{ name: troupe, values: [bytes] }, { name: "64 KiB", values: [64 * 1024] }],
  comparisons: [{ figure: "idle_peer_bytes", against: "64 KiB", goal: { most: 1 } }]
})

const beside = (count: number) => `beside ${count.toLocaleString("en")} idle peers`
await report({
  title: "ask, 1,000 in flight, to a node with idle peers",
  unit: "ns wall clock per ask",
  sides: await compete([
    { name: beside(many), round: () => wallPer(asks, async () => void await clients.crowded.ask(1000, asks)) },
    { name: beside(few), round: () => wallPer(asks, async () => void await clients.quiet.ask(1000, asks)) }
  ], options),
  comparisons: [{ figure: "idle_peers_ask", of: beside(many), against: beside(few) }]
})
process.exit(0)

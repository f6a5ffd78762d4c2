/**
 * The whole main job on real input: two datacenters, a ledger, every account where its residency asks for, every transfer driven
 * from its sender's datacenter, and the balances compared with an independent fold of the file.
 *
 *   npm run demo [-- --input FILE] [-- --control-plane memory|sqlite|nats|etcd] [-- --processes]
 *
 * With `--processes` each node is a process of its own, SQLite files are the default control store, and one of the processes is
 * killed in the middle of the transfers.
 *
 * Exits with 1 if a balance differs, a refusal that was provoked did not come, or an account of the killed process is not back.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Actor, type ActorSystem, type Address } from "effect-troupe"
import { Clock, Console, Data, Deferred, Effect, Fiber, FileSystem, Option, Schedule } from "effect"
import { Command, Flag } from "effect/cli"
import { Rpc } from "effect/rpc"
import * as Path from "node:path"
import { Account } from "./Account.ts"
import { fold } from "./fold.ts"
import * as Ledger from "./Ledger.ts"
import * as Processes from "./processes.ts"
import { count, milliseconds, money, percentile, seconds, table } from "./report.ts"
import { type ControlPlaneChoice, controlPlanes, nodesEach, type Site, start } from "./sites.ts"
import { balances, openAccounts, perform, type Tally } from "./transfers.ts"

/** The demo did not show what it says. */
class DemoFailed extends Data.TaggedError("DemoFailed")<{ readonly message: string }> {}

/** Prints how far it is, each second until the effect ends. */
const withProgress = <A, E, R>(
  what: string,
  total: number,
  done: () => number,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const begun = yield* Clock.monotonicTimeNanos
    const line = Effect.gen(function*() {
      const elapsed = (yield* Clock.monotonicTimeNanos) - begun
      const rate = elapsed === 0n ? 0 : Math.round(done() / (Number(elapsed) / 1e9))
      const share = total === 0 ? 100 : Math.floor(100 * done() / total)
      yield* Console.log(
        `${what.padEnd(12)} ${count(done()).padStart(7)} of ${count(total)}  ${String(share).padStart(3)} %  ${
          seconds(elapsed)
        }  ${count(rate)}/s`
      )
    })
    const ticking = line.pipe(Effect.delay("1 second"), Effect.repeat(Schedule.forever))
    const result = yield* Effect.raceFirst(effect, ticking as Effect.Effect<never>)
    yield* line
    return result
  })

/** A kind that no node has registered. */
const Vault = Actor.make("Vault", { protocol: [Rpc.make("Open")] })

/** What a call was refused with, in words; a success here is the failure. */
const refusal = <A, E extends { readonly _tag: string }, R>(
  expected: E["_tag"],
  effect: Effect.Effect<A, E, R>
): Effect.Effect<string, DemoFailed, R> =>
  effect.pipe(
    Effect.flip,
    Effect.mapError(() => new DemoFailed({ message: `${expected} was expected, and the call succeeded` })),
    Effect.flatMap((error) => {
      const { _tag, ...fields } = error
      return _tag === expected
        ? Effect.succeed(`${_tag} ${JSON.stringify(fields)}`)
        : Effect.fail(new DemoFailed({ message: `${expected} was expected, and ${_tag} came` }))
    })
  )

/** Every refusal that the demo provokes, with what was tried. */
const provoke = Effect.fnUntraced(function*(system: ActorSystem.ActorSystem["Service"], account: string | undefined) {
  const tried: Array<readonly [string, string]> = [
    [
      "an account in a datacenter that does not exist",
      yield* refusal(
        "RecordNotFound",
        system.spawnOn(Account, "nobody-1", { dataCenter: "mars-1", props: { openingCents: 0 } })
      )
    ],
    [
      "an actor of a kind that nobody registered",
      yield* refusal("KindNotRegistered", system.spawnOn(Vault, "vault-1", { dataCenter: "eu-west-1" }))
    ]
  ]
  if (account !== undefined) {
    const ref = yield* system.actorOf(Account, account)
    tried.push([
      `a withdrawal of ten billion from ${account}`,
      yield* refusal("Overdrawn", ref.ask.Withdraw({ transfer: "provoked-1", cents: 1_000_000_000_000 }))
    ])
  }
  return tried
})

/** Where some of the accounts are, and how many are on each node. */
const showPlaces = Effect.fnUntraced(function*(
  ledger: Ledger.Ledger,
  homes: ReadonlyMap<string, Address.NodeAddress>
) {
  const onNode = new Map<string, number>()
  for (const { dataCenter, id } of homes.values()) {
    const key = `${dataCenter} ${id}`
    onNode.set(key, (onNode.get(key) ?? 0) + 1)
  }
  for (const [node, accounts] of [...onNode].sort()) yield* Console.log(`  ${node}: ${count(accounts)} accounts`)
  const first = ledger.transfers.find(({ from, to }) => homes.get(from)?.dataCenter !== homes.get(to)?.dataCenter)
  if (first === undefined) return
  const [sender, receiver] = [homes.get(first.from)!, homes.get(first.to)!]
  yield* Console.log(`  the first transfer between datacenters: ${first.memo}, ${money(first.debit)} from`)
  yield* Console.log(`    ${first.from} on ${sender.dataCenter} ${sender.id} (${sender.host}:${sender.port}) to`)
  yield* Console.log(`    ${first.to} on ${receiver.dataCenter} ${receiver.id} (${receiver.host}:${receiver.port})`)
})

/** Kills the process that hosts most accounts once that many transfers are done; what became of it. */
const killAfter = Effect.fnUntraced(function*(
  { kill, processes }: Processes.Processes,
  reached: Effect.Effect<void>,
  homes: ReadonlyMap<string, Address.NodeAddress>
) {
  yield* reached
  const accountsOn = (id: string) => [...homes.values()].filter((node) => node.id === id).length
  const victim = processes.reduce((most, one) => accountsOn(one.id) > accountsOn(most.id) ? one : most)
  yield* Console.log(
    `killing ${victim.dataCenter} ${victim.id} (process ${victim.child.pid}, ${count(accountsOn(victim.id))} accounts)`
  )
  const killed = yield* kill(victim, homes)
  yield* Console.log(
    `${victim.dataCenter} ${victim.id} was no member any more after ${
      seconds(killed.noticed)
    }, and all of its accounts ` +
      `answered from other nodes after ${seconds(killed.relocated)}`
  )
  return killed
})

const run = Effect.fnUntraced(function*(path: string, choice: ControlPlaneChoice, processes: boolean) {
  const begun = yield* Clock.monotonicTimeNanos
  const ledger = yield* Ledger.read(path)
  yield* Console.log(
    `${path}: ${count(ledger.accounts.length)} accounts, ${count(ledger.transfers.length)} transfers, ${
      count(ledger.malformed.length)
    } malformed lines`
  )

  yield* Console.log(
    `starting two datacenters${processes ? " of three processes each" : ""}, control plane ${choice} ...`
  )
  const apart = processes && choice !== "memory" ? yield* Processes.start(choice) : undefined
  const sites: ReadonlyArray<Site> = apart?.sites ?? (yield* start(choice))
  const tallies = new Map<string, Tally>()
  for (const site of sites) {
    const members = (yield* site.systems[0]!.members).filter(({ roles }) => roles.includes("ledger"))
    const pid = (id: string) => apart?.processes.find((one) => one.id === id)?.child.pid
    yield* Console.log(
      `${site.dataCenter}: ${
        members.map(({ node }) =>
          `${node.id} at ${node.host}:${node.port}${apart === undefined ? "" : ` (process ${pid(node.id)})`}`
        ).join(", ")
      }`
    )
    tallies.set(site.dataCenter, {
      dataCenter: site.dataCenter,
      nodes: members.length,
      accounts: 0,
      transfers: 0,
      refused: 0,
      crossDataCenterCalls: 0,
      repeatedAsks: 0,
      latencies: [],
      begun: undefined,
      ended: 0n
    })
  }

  const homes = new Map<string, Address.NodeAddress>()
  yield* withProgress(
    "accounts",
    ledger.accounts.length,
    () => homes.size,
    openAccounts(sites, ledger.accounts, (account, node) => {
      homes.set(account, node)
      tallies.get(node.dataCenter)!.accounts++
    })
  )
  yield* showPlaces(ledger, homes)
  let done = 0
  const half = Math.ceil(ledger.transfers.length / 2)
  const halfway = Deferred.makeUnsafe<void>()
  const killing = apart === undefined
    ? undefined
    : yield* Effect.forkScoped(killAfter(apart, Deferred.await(halfway), homes))
  yield* withProgress(
    "transfers",
    ledger.transfers.length,
    () => done,
    perform(sites, ledger, tallies, () => {
      if (++done === half) Deferred.doneUnsafe(halfway, Effect.void)
    })
  )
  const killed = killing === undefined ? undefined : yield* Fiber.join(killing)

  const found = yield* balances(sites, ledger.accounts)
  const refusals = yield* provoke(sites[0]!.systems[0]!, ledger.accounts[0]?.id)

  yield* Console.log("")
  yield* Console.log(table(
    ["datacenter", "nodes", "accounts", "transfers", "refused", "cross-DC calls", "p50", "p99", "time", "asked again"],
    [...tallies.values()].map((tally) => [
      tally.dataCenter,
      count(tally.nodes),
      count(tally.accounts),
      count(tally.transfers),
      count(tally.refused),
      count(tally.crossDataCenterCalls),
      milliseconds(percentile(tally.latencies, 0.5)),
      milliseconds(percentile(tally.latencies, 0.99)),
      seconds(tally.ended - (tally.begun ?? tally.ended)),
      count(tally.repeatedAsks)
    ])
  ))
  yield* Console.log("\nrefused, as it should be")
  for (const [what, how] of refusals) yield* Console.log(`  ${what}: ${how}`)
  for (const { line, reason } of ledger.malformed) yield* Console.log(`  line ${line}: MalformedLine ${reason}`)

  const expected = fold(yield* FileSystem.FileSystem.use((files) => files.readFileString(path)))
  const ends = apart === undefined ? undefined : yield* apart.leave
  if (killed !== undefined && ends !== undefined) yield* showKilled(killed, ends, half, [...tallies.values()])
  for (const [index, { dataCenter, id, output }] of (apart?.processes ?? []).entries()) {
    if (ends![index] === 0 || id === killed?.process.id) continue
    yield* Console.error(
      `\n${dataCenter} ${id} ended with ${ends![index]}:\n${output().split("\n").slice(-20).join("\n")}`
    )
  }
  const orderly = ends?.filter((end) => end === 0).length ?? 0
  yield* compare(
    ledger,
    [...tallies.values()],
    found,
    expected,
    killed === undefined ? [] : [
      [
        `${count(killed.accounts.length)} accounts of the killed process run elsewhere`,
        [...killed.now.values()].reduce((sum, here) => sum + here, 0) === killed.accounts.length
      ],
      ["5 processes left in order, 1 was killed", orderly === 2 * nodesEach - 1 && ends!.includes("SIGKILL")]
    ]
  )
  yield* Console.log(`\ndone in ${seconds((yield* Clock.monotonicTimeNanos) - begun)}`)
})

/** What the death of one process has cost. */
const showKilled = Effect.fnUntraced(function*(
  { accounts, noticed, now, process: { dataCenter, id }, relocated }: Processes.Killed,
  ends: ReadonlyArray<number | NodeJS.Signals | null>,
  after: number,
  tallies: ReadonlyArray<Tally>
) {
  const repeated = tallies.reduce((total, tally) => total + tally.repeatedAsks, 0)
  const places = [...now].sort().map(([node, here]) => `${count(here)} on ${node}`).join(", ")
  yield* Console.log(`\n${dataCenter} ${id} was killed after ${count(after)} transfers`)
  yield* Console.log(`  ${seconds(noticed)} until its cluster had removed it`)
  yield* Console.log(
    `  ${seconds(relocated)} until the last of its ${count(accounts.length)} accounts answered elsewhere: ${places}`
  )
  yield* Console.log(`  ${count(repeated)} asks failed meanwhile and were asked again, no transfer was lost`)
  yield* Console.log(`  the processes ended with ${ends.join(", ")}`)
})

/** Everything that the actors did, against what the fold says. */
const compare = Effect.fnUntraced(function*(
  ledger: Ledger.Ledger,
  tallies: ReadonlyArray<Tally>,
  found: ReadonlyMap<string, number>,
  expected: ReturnType<typeof fold>,
  more: ReadonlyArray<readonly [string, boolean]>
) {
  const sum = (of: (tally: Tally) => number) => tallies.reduce((total, tally) => total + of(tally), 0)
  const differing = [...expected.balances].filter(([account, cents]) => found.get(account) !== cents)
  for (const [account, cents] of differing.slice(0, 10)) {
    yield* Console.error(`  ${account}: ${found.get(account)} cents, and the file says ${cents}`)
  }
  const wrong = ledger.malformed.map(({ line }) => line).join(",")
  const ledgerChecks: ReadonlyArray<readonly [string, boolean]> = [
    [
      `balances of ${count(expected.balances.size)} accounts`,
      differing.length === 0 && found.size === expected.balances.size
    ],
    [`${count(expected.applied)} transfers performed`, sum((tally) => tally.transfers) === expected.applied],
    [`${count(expected.refused)} transfers refused as overdrawn`, sum((tally) => tally.refused) === expected.refused],
    [
      `${count(expected.repeated)} transfers told twice and performed once`,
      ledger.transfers.filter(({ repeated }) => repeated).length === expected.repeated
    ],
    [`${count(expected.wrong.length)} malformed lines`, wrong === expected.wrong.join(",")]
  ]
  yield* Console.log("\nagainst an independent fold of the file")
  for (const [what, holds] of ledgerChecks) yield* Console.log(`  ${holds ? "equal" : "DIFFERS"}: ${what}`)
  for (const [what, holds] of more) yield* Console.log(`  ${holds ? "yes" : "NO"}: ${what}`)
  const failed = [...ledgerChecks, ...more].filter(([, holds]) => !holds)
  if (failed.length > 0) {
    return yield* new DemoFailed({ message: `not as it should be: ${failed.map(([what]) => what).join("; ")}` })
  }
})

const demo = Command.make("demo", {
  input: Flag.File("input", { mustExist: true }).pipe(
    Flag.withDescription("a ledger as JSON lines; examples/ledger/README.md describes the fields"),
    Flag.withDefault(Path.relative(process.cwd(), Path.join(import.meta.dirname, "ledger.jsonl")))
  ),
  controlPlane: Flag.Literals("control-plane", controlPlanes).pipe(
    Flag.withDescription(
      "what the datacenters and their clusters coordinate through (default: memory, and sqlite with --processes)"
    ),
    Flag.optional
  ),
  processes: Flag.Boolean("processes").pipe(
    Flag.withDescription("each node is a process of its own, and one of them is killed in the middle"),
    Flag.withDefault(false)
  )
}, ({ controlPlane, input, processes }) => {
  const choice = Option.getOrElse(controlPlane, () => processes ? "sqlite" as const : "memory" as const)
  return processes && choice === "memory"
    ? Effect.fail(new DemoFailed({ message: "processes share no memory: take sqlite, nats or etcd" }))
    : Effect.scoped(run(input, choice, processes))
}).pipe(
  Command.withDescription("Runs a ledger of transfers through actors in two datacenters")
)

demo.pipe(
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)

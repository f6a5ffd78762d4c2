/**
 * The two datacenters as operating system processes of this machine: three nodes each that host accounts, and in this process one more
 * node each that hosts none and drives the transfers. One of the six can be killed in the middle of the run.
 */
import { ActorSystem, type Address, Layers } from "effect-troupe"
import { Clock, Console, Context, Data, Duration, Effect, Layer, ManagedRuntime, References, Schedule } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as Path from "node:path"
import { temporaryFolder } from "../../scripts/servers/index.ts"
import { Account } from "./Account.ts"
import { dataCenters, labelsOf, nodesEach, type Site } from "./sites.ts"

export const processStores = ["sqlite", "nats", "etcd"] as const
export type ProcessStore = typeof processStores[number]

export class ProcessTrouble extends Data.TaggedError("ProcessTrouble")<{ readonly message: string }> {}

export interface NodeProcess {
  readonly dataCenter: string
  /** the node's id */
  readonly id: string
  readonly child: ChildProcess
  /** the exit code, or the signal that ended it */
  readonly exit: Effect.Effect<number | NodeJS.Signals | null>
  /** everything that it has said */
  readonly output: () => string
}

export interface Killed {
  readonly process: NodeProcess
  readonly accounts: ReadonlyArray<string>
  /** monotonic nanoseconds from the signal on: it was no member any more, the last of its accounts had answered elsewhere */
  readonly noticed: bigint
  readonly relocated: bigint
  /** accounts by the node that has them now */
  readonly now: ReadonlyMap<string, number>
}

export interface Processes {
  readonly sites: ReadonlyArray<Site>
  readonly processes: ReadonlyArray<NodeProcess>
  /** Kills a node by SIGKILL, and returns when each of its accounts has answered from another one. */
  readonly kill: (
    process: NodeProcess,
    homes: ReadonlyMap<string, Address.NodeAddress>
  ) => Effect.Effect<Killed, ProcessTrouble>
  /** Asks all that still run to leave (SIGTERM), and kills who does not within 20 s; how each of them ended. */
  readonly leave: Effect.Effect<ReadonlyArray<number | NodeJS.Signals | null>>
}

const system = "ledger"

/**
 * What differs from the defaults, the same for all members: the machine starts eight nodes at once, and where a refused port says nothing
 * (other systems than Linux) a dead one is to be missed after 4 s instead of 10 (its lease).
 */
const cluster = {
  minimumMembers: nodesEach,
  memberLease: "4 seconds",
  bootstrapTimeout: "40 seconds",
  shutdownTimeout: "3 seconds"
} as const

/** For each datacenter the variables of its stores, and for this process's own nodes the same as Layers. */
const stores = Effect.fnUntraced(function*(choice: ProcessStore, folder: string) {
  switch (choice) {
    case "sqlite": {
      const { ControlPlaneSqlite, ControlStoreSqlite } = yield* Effect.promise(() =>
        import("effect-troupe/ControlPlane/Sqlite")
      )
      const plane = Path.join(folder, "datacenters.db")
      return (dataCenter: string) => {
        const file = Path.join(folder, `${dataCenter}.db`)
        return Effect.succeed({
          variables: { SQLITE_FILE: file, CONTROL_PLANE_SQLITE_FILE: plane },
          layer: Layer.mergeAll(ControlStoreSqlite.layer({ file }), ControlPlaneSqlite.layer({ file: plane }))
        })
      }
    }
    case "nats": {
      const { ControlPlaneNats, ControlStoreNats } = yield* Effect.promise(() =>
        import("effect-troupe/ControlPlane/Nats")
      )
      const { startNats } = yield* Effect.promise(() => import("../../scripts/servers/index.ts"))
      const plane = yield* startNats({ data: "memory" })
      return () =>
        Effect.map(startNats({ data: "memory" }), ({ servers }) => ({
          variables: { NATS_SERVERS: servers.join(","), CONTROL_PLANE_NATS_SERVERS: plane.servers.join(",") },
          layer: Layer.mergeAll(ControlStoreNats.layer({ servers }), ControlPlaneNats.layer({ servers: plane.servers }))
        }))
    }
    case "etcd": {
      const { ControlPlaneEtcd, ControlStoreEtcd } = yield* Effect.promise(() =>
        import("effect-troupe/ControlPlane/Etcd")
      )
      const { startEtcd } = yield* Effect.promise(() => import("../../scripts/servers/index.ts"))
      const plane = yield* startEtcd({ data: "memory" })
      return () =>
        Effect.map(startEtcd({ data: "memory" }), ({ endpoints }) => ({
          variables: { ETCD_ENDPOINTS: endpoints.join(","), CONTROL_PLANE_ETCD_ENDPOINTS: plane.endpoints.join(",") },
          layer: Layer.mergeAll(
            ControlStoreEtcd.layer({ endpoints }),
            ControlPlaneEtcd.layer({ endpoints: plane.endpoints })
          )
        }))
    }
  }
})

/** how long a process may take to leave; it promises to be done within `shutdownTimeout`, on a machine that has the time for it */
const leavePatience = "20 seconds"

/** A program as a process, which the end of the scope kills. */
export const startProcess = (
  dataCenter: string,
  id: string,
  variables: Readonly<Record<string, string>>,
  program: string = Path.join(import.meta.dirname, "node.ts")
) =>
  Effect.acquireRelease(
    Effect.sync((): NodeProcess => {
      const child = spawn(process.execPath, [program], {
        env: { ...process.env, NO_COLOR: "1", ...variables },
        // its input is never written to: it ends when this process does
        stdio: ["pipe", "pipe", "pipe"]
      })
      let output = ""
      child.stdout!.on("data", (chunk) => output += String(chunk))
      child.stderr!.on("data", (chunk) => output += String(chunk))
      let ended: number | NodeJS.Signals | null | undefined
      child.once("close", (code, signal) => ended = code ?? signal)
      return {
        dataCenter,
        id,
        child,
        output: () => output,
        exit: Effect.callback((resume) => {
          if (ended !== undefined) return resume(Effect.succeed(ended))
          child.once("close", (code, signal) => resume(Effect.succeed(code ?? signal)))
        })
      }
    }),
    ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))
  )

/** Asks it to leave by SIGTERM, and kills it where it does not in time: one that hangs must not keep the others' end waiting. */
export const leave = ({ child, dataCenter, exit, id }: NodeProcess, patience: Duration.Input = leavePatience) =>
  Effect.suspend(() => {
    child.kill("SIGTERM")
    return Effect.timeoutOrElse(exit, {
      duration: patience,
      orElse: () =>
        Console.error(
          `${dataCenter} ${id} has not left ${
            Duration.format(Duration.fromInputUnsafe(patience))
          } after SIGTERM: killing it`
        ).pipe(
          Effect.andThen(Effect.sync(() => child.kill("SIGKILL"))),
          Effect.andThen(exit)
        )
    })
  })

const soon = Schedule.spaced("25 millis")

/** Starts everything, and waits until each datacenter has its nodes and sees the other one. */
export const start = Effect.fnUntraced(function*(choice: ProcessStore) {
  const folder = yield* temporaryFolder("ledger")
  const storesOf = yield* stores(choice, folder)
  const started = yield* Effect.forEach(dataCenters, ({ name, serves }, site) =>
    Effect.gen(function*() {
      const { layer, variables } = yield* storesOf(name)
      const ids = Array.from({ length: nodesEach }, (_, node) => String.fromCharCode(97 + site * nodesEach + node))
      const processes = yield* Effect.forEach(ids, (id) =>
        startProcess(name, id, {
          TROUPE_SYSTEM: system,
          TROUPE_DATACENTER: name,
          TROUPE_NODE_ID: id,
          TROUPE_LABELS: Object.entries(labelsOf(serves)).map(([label, value]) => `${label}=${value}`).join(","),
          TROUPE_ROLES: "ledger",
          TROUPE_MINIMUM_MEMBERS: String(cluster.minimumMembers),
          TROUPE_MEMBER_LEASE: cluster.memberLease,
          TROUPE_BOOTSTRAP_TIMEOUT: cluster.bootstrapTimeout,
          TROUPE_SHUTDOWN_TIMEOUT: cluster.shutdownTimeout,
          LEDGER_STORE: choice,
          LEDGER_JOURNAL: Path.join(folder, `${name}-accounts.db`),
          ...variables
        }))
      const runtime = yield* Effect.acquireRelease(
        Effect.sync(() =>
          ManagedRuntime.make(
            Layers.multiDataCenter({
              system,
              id: "driver",
              cluster,
              dataCenter: { name, labels: labelsOf(serves) }
            }).pipe(Layer.provide(layer), Layer.provide(Layer.succeed(References.MinimumLogLevel)("Error")))
          )
        ),
        (runtime) => runtime.disposeEffect
      )
      const driver = Context.get(yield* runtime.contextEffect, ActorSystem.ActorSystem)
      return { site: { dataCenter: name, systems: [driver] } satisfies Site, processes }
    }), { concurrency: "unbounded" })
  const sites = started.map(({ site }) => site)
  const processes = started.flatMap((one) => one.processes)

  const hosts = (driver: ActorSystem.ActorSystem["Service"]) =>
    Effect.map(driver.members, (members) => members.filter(({ kinds }) => kinds.includes(Account.definition.name)))
  yield* Effect.forEach(sites, ({ systems: [driver] }) =>
    Effect.andThen(
      Effect.repeat(hosts(driver!), { schedule: soon, until: ({ length }) => length === nodesEach }),
      Effect.forEach(dataCenters, ({ name }) => driver!.awaitDataCenter(name))
    ), { concurrency: "unbounded", discard: true }).pipe(
      Effect.raceFirst(
        Effect.raceAll(
          processes.map(({ dataCenter, exit, id, output }) =>
            Effect.flatMap(
              exit,
              (code) => new ProcessTrouble({ message: `node ${id} of ${dataCenter} ended with ${code}:\n${output()}` })
            )
          )
        )
      )
    )

  const kill = Effect.fnUntraced(function*(victim: NodeProcess, homes: ReadonlyMap<string, Address.NodeAddress>) {
    const driver = sites.find(({ dataCenter }) => dataCenter === victim.dataCenter)!.systems[0]!
    const accounts = [...homes].filter(([, node]) => node.id === victim.id).map(([account]) => account)
    const begun = yield* Clock.monotonicTimeNanos
    const since = Effect.map(Clock.monotonicTimeNanos, (now) => now - begun)
    victim.child.kill("SIGKILL")
    const noticing = Effect.repeat(hosts(driver), {
      schedule: soon,
      until: (members) => !members.some(({ node }) => node.id === victim.id)
    }).pipe(Effect.andThen(since))
    const now = new Map<string, number>()
    const answering = Effect.forEach(accounts, (account) =>
      Effect.gen(function*() {
        const ref = yield* driver.actorOf(Account, account)
        yield* ref.ask.Balance({ timeout: "1 second" })
        return ref.address.node.id
      }).pipe(
        Effect.orElseSucceed(() => victim.id), // not back yet
        Effect.repeat({ schedule: soon, until: (id) => id !== victim.id }),
        Effect.tap((id) => Effect.sync(() => void now.set(id, (now.get(id) ?? 0) + 1)))
      ), { concurrency: 16, discard: true }).pipe(Effect.andThen(since))
    const [noticed, relocated] = yield* Effect.all([noticing, answering], { concurrency: "unbounded" }).pipe(
      Effect.timeoutOrElse({
        duration: "30 seconds",
        orElse: () =>
          Effect.fail(
            new ProcessTrouble({ message: `30 s after ${victim.id} was killed its accounts are not all back` })
          )
      })
    )
    return { process: victim, accounts, noticed, relocated, now } satisfies Killed
  })

  return {
    sites,
    processes,
    kill,
    leave: Effect.forEach(processes, (one) => leave(one), { concurrency: "unbounded" })
  } satisfies Processes
})

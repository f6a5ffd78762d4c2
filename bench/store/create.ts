/**
 * Creating keys by compare-and-set, and how soon a watch tells of it: each backend beside a bare loop over its own client, on
 * the same server. The server has a process of its own; wall clock.
 */
import { ControlStoreEtcd } from "effect-troupe/ControlPlane/Etcd"
import { ControlStoreNats } from "effect-troupe/ControlPlane/Nats"
import { ControlStoreSqlite } from "effect-troupe/ControlPlane/Sqlite"
import type { ControlStore } from "effect-troupe"
import { jetstream, jetstreamManager } from "@nats-io/jetstream"
import { connect } from "@nats-io/transport-node"
import { Effect, Fiber, type Scope, Stream } from "effect"
import { Etcd3 } from "etcd3"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { startEtcd, startNats, temporaryFolder } from "../../scripts/servers/index.ts"
import { asked, compete, type Options, percentile, report, type Result, troupe, wallPer } from "../harness.ts"

const options = asked<Options>()
const value = "0123456789".repeat(10)
const bare = "bare client"

/** One side of one backend. */
interface Loop {
  /** Creates keys under that prefix, so many at a time. */
  readonly create: (prefix: string, count: number, inFlight: number) => Promise<void>
  /** Creates keys one after the other; the time until the watch has told of each, in milliseconds. */
  readonly watch: (prefix: string, count: number) => Promise<Float64Array>
}

/** `count` calls of `one`, of which `inFlight` are under way at any time. */
const inParallel = async (count: number, inFlight: number, one: (index: number) => Promise<unknown>): Promise<void> => {
  let next = 0
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (next < count) await one(next++)
  }))
}

/** Times from a create to the word of it, one after the other. */
class Told {
  readonly times: Float64Array
  private tell = (): void => {}
  constructor(count: number) {
    this.times = new Float64Array(count)
  }
  readonly told = (): void => this.tell()
  async each(create: (index: number) => Promise<unknown>): Promise<Float64Array> {
    for (let i = 0; i < this.times.length; i++) {
      const word = new Promise<void>((resolve) => this.tell = resolve)
      const start = performance.now()
      await Promise.all([word, create(i)])
      this.times[i] = performance.now() - start
    }
    return this.times
  }
}

/** Ours: writes and watches through two clients, as two nodes do. */
const ours = (writer: ControlStore.ControlStoreService, watcher: ControlStore.ControlStoreService): Loop => ({
  create: (prefix, count, inFlight) =>
    Effect.runPromise(
      Effect.forEach(Array.from({ length: count }), (_, i) => writer.create(`${prefix}/${i}`, value), {
        concurrency: inFlight,
        discard: true
      })
    ),
  watch: async (prefix, count) => {
    const told = new Told(count)
    let begun = (): void => {}
    const snapshot = new Promise<void>((resolve) => begun = resolve)
    const fiber = Effect.runFork(Stream.runForEach(watcher.watch(`${prefix}/`), (event) =>
      Effect.sync(() => {
        if (event._tag === "Put") told.told()
        else if (event._tag === "Snapshot") begun()
      })))
    await snapshot
    const times = await told.each((i) => Effect.runPromise(writer.create(`${prefix}/${i}`, value)))
    await Effect.runPromise(Fiber.interrupt(fiber))
    return times
  }
})

interface Backend {
  readonly name: string
  readonly ours: Loop
  readonly bare: Loop
}

const nats: Effect.Effect<Backend, unknown, Scope.Scope> = Effect.gen(function*() {
  const { servers } = yield* startNats()
  const writer = yield* ControlStoreNats.make({ servers })
  const watcher = yield* ControlStoreNats.make({ servers })
  // a bucket with the same settings for the bare client
  yield* Effect.scoped(ControlStoreNats.make({ servers, bucket: "bare" }))
  const open = Effect.acquireRelease(
    Effect.promise(() => connect({ servers: [...servers] })),
    (connection) => Effect.promise(() => connection.close())
  )
  const writing = jetstream(yield* open)
  const watchingOn = yield* open
  const watching = jetstream(watchingOn)
  const manager = yield* Effect.promise(() => jetstreamManager(watchingOn))
  const create = (key: string) => writing.publish(`$KV.bare.${key}`, value, { expect: { lastSubjectSequence: 0 } })
  return {
    name: "nats",
    ours: ours(writer, watcher),
    bare: {
      create: (prefix, count, inFlight) => inParallel(count, inFlight, (i) => create(`${prefix}.${i}`)),
      watch: async (prefix, count) => {
        const told = new Told(count)
        const { name } = await manager.consumers.add("KV_bare", {
          filter_subject: `$KV.bare.${prefix}.>`,
          ack_policy: "none",
          deliver_policy: "all",
          mem_storage: true
        })
        const consumer = await watching.consumers.get("KV_bare", name)
        const messages = await consumer.consume({ callback: () => told.told() })
        const times = await told.each((i) => create(`${prefix}.${i}`))
        await messages.close()
        return times
      }
    }
  }
})

const etcd: Effect.Effect<Backend, unknown, Scope.Scope> = Effect.gen(function*() {
  const { endpoints } = yield* startEtcd()
  const writer = yield* ControlStoreEtcd.make({ endpoints })
  const watcher = yield* ControlStoreEtcd.make({ endpoints })
  const open = Effect.acquireRelease(
    Effect.sync(() => new Etcd3({ hosts: [...endpoints] })),
    (client) => Effect.sync(() => client.close())
  )
  const writing = yield* open
  const watching = yield* open
  const create = (key: string) => writing.if(key, "Create", "==", 0).then(writing.put(key).value(value)).commit()
  return {
    name: "etcd",
    ours: ours(writer, watcher),
    bare: {
      create: (prefix, count, inFlight) => inParallel(count, inFlight, (i) => create(`/bare/${prefix}/${i}`)),
      watch: async (prefix, count) => {
        const told = new Told(count)
        const watch = await watching.watch().prefix(`/bare/${prefix}/`).create()
        watch.on("put", told.told)
        const times = await told.each((i) => create(`/bare/${prefix}/${i}`))
        await watch.cancel()
        return times
      }
    }
  }
})

/** The file is in this process: bare is a loop of statements, each a transaction that is synced, and polls like ours. */
const sqlite: Effect.Effect<Backend, unknown, Scope.Scope> = Effect.gen(function*() {
  const folder = yield* temporaryFolder("sqlite")
  const file = join(folder, "store.sqlite")
  const writer = yield* ControlStoreSqlite.make({ file })
  const watcher = yield* ControlStoreSqlite.make({ file })
  const database = new DatabaseSync(join(folder, "bare.sqlite"))
  database.exec("PRAGMA journal_mode = WAL")
  database.exec("PRAGMA synchronous = FULL")
  database.exec("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT, revision INTEGER)")
  const insert = database.prepare("INSERT INTO entries VALUES (?, ?, 1) ON CONFLICT DO NOTHING")
  return {
    name: "sqlite",
    ours: ours(writer, watcher),
    bare: {
      create: async (prefix, count) => {
        for (let i = 0; i < count; i++) insert.run(`${prefix}/${i}`, value)
      },
      watch: async () => new Float64Array(0)
    }
  }
})

let prefixes = 0
const fresh = () => `p${++prefixes}`

const measure = async ({ bare: theirs, name, ours }: Backend): Promise<void> => {
  for (const inFlight of [1, 100]) {
    const count = options.quick ? 100 : (inFlight === 1 ? 1000 : 3000)
    const side = (loop: Loop) => () => wallPer(count, () => loop.create(fresh(), count, inFlight))
    const result: Result = {
      title: `${name}: create by compare-and-set, ${inFlight} in flight`,
      unit: "ns wall clock per create",
      sides: await compete([{ name: troupe, round: side(ours) }, { name: bare, round: side(theirs) }], options),
      comparisons: [{
        figure: `${name}_create_${inFlight}`,
        against: bare,
        rate: { unit: "creates/s", per: 1e9 },
        goal: { least: 0.7 }
      }]
    }
    await report(result)
  }
  // enough that one pause of the machine is not the 99th percentile
  const creates = options.quick ? 20 : 1000
  for (const [share, what] of [[0.5, "p50"], [0.99, "p99"]] as const) {
    const side = (loop: Loop) => async () => percentile(await loop.watch(fresh(), creates), share) * 1000
    const peer = name === "sqlite" ? [] : [{ name: bare, round: side(theirs) }]
    const result: Result = {
      title: `${name}: from a create to the word of it by a watch, ${what}`,
      unit: "us",
      sides: await compete([{ name: troupe, round: side(ours) }, ...peer], options),
      comparisons: [{ figure: `${name}_watch_${what}`, against: peer.length === 0 ? troupe : bare }]
    }
    await report(result)
  }
}

await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
  for (const backend of [nats, etcd, sqlite]) {
    yield* Effect.scoped(Effect.flatMap(backend, (opened) => Effect.promise(() => measure(opened))))
  }
})))
process.exit(0)

/**
 * What every `ControlPlane` must do, as cases that need no test framework: whoever writes a control plane of their own gives
 * two views of it and a way to pass time, and runs each case with whatever they run tests with.
 *
 *     for (const { name, run } of ControlPlaneContract.cases(subject)) it.live(name, () => run)      // or:
 *     ControlPlaneContract.suite(subject, (name, run) => it.live(name, () => run))
 *
 * Not for: performance, and faults of one particular backend.
 */
import { Data, Duration, Effect, Equal, Fiber, type Scope, Stream } from "effect"
import {
  type ControlPlane,
  type ControlPlaneEvent,
  dataCenterId,
  type DataCenterRecord,
  type DataCenterState,
  type Registration
} from "../ControlPlane/ControlPlane.ts"
import type { ControlStoreService } from "../ControlPlane/ControlStore.ts"
import { keyPrefix } from "../ControlPlane/ControlPlaneStore.ts"

type Plane = ControlPlane["Service"]

/** The control plane to be tried. */
export interface Subject {
  /** Two independent views of one fresh, empty control plane with that TTL; both end with the scope. */
  readonly open: (ttl: Duration.Duration) => Effect.Effect<
    {
      readonly one: Plane
      readonly other: Plane
      /** the store beneath, where there is one: then foreign values are put into it */
      readonly store?: ControlStoreService | undefined
    },
    unknown,
    Scope.Scope
  >
  /** does it live on a control store, so that `open` gives it too? Default true; false leaves out what is only about that */
  readonly onStore?: boolean | undefined
  /** Lets time pass: `Effect.sleep` with a real plane, `TestClock.adjust` in virtual time. */
  readonly pass: (duration: Duration.Duration) => Effect.Effect<void>
  /** TTL of the leases in the cases; default 1 s, the shortest allowed. A slow plane may want more. */
  readonly ttl?: Duration.Input | undefined
  /** how long after a change another view may take to know it; default 3 s */
  readonly patience?: Duration.Input | undefined
}

export interface Case {
  readonly name: string
  readonly run: Effect.Effect<void, unknown>
}

/** A control plane did not do what it must. */
export class ContractViolation extends Data.TaggedError("ContractViolation")<{
  readonly what: string
  readonly actual?: unknown
  readonly expected?: unknown
}> {
  override get message(): string {
    return this.expected === undefined
      ? this.what
      : `${this.what}: expected ${JSON.stringify(this.expected)}, got ${JSON.stringify(this.actual)}`
  }
}

const same = (what: string, actual: unknown, expected: unknown): Effect.Effect<void, ContractViolation> =>
  Equal.equals(actual, expected) ? Effect.void : Effect.fail(new ContractViolation({ what, actual, expected }))

const holds = (what: string, condition: boolean): Effect.Effect<void, ContractViolation> =>
  condition ? Effect.void : Effect.fail(new ContractViolation({ what }))

/** The tag of the failure, or `Success`. */
const tagOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.match(effect, { onFailure: (error) => error._tag, onSuccess: () => "Success" })

const registration = (
  name: string,
  more: Partial<Omit<Registration, "id" | "dataCenter">> & Partial<Registration["dataCenter"]> = {}
): Registration => {
  const { endpoints = ["10.0.0.1:3321"], state = "ACTIVE", writer = "w1", ...identity } = more
  const dataCenter = { labels: {}, ...identity, name }
  return { id: dataCenterId(dataCenter), dataCenter, endpoints, state, writer }
}

const idOf = (name: string) => registration(name).id
const find = (records: ReadonlyArray<DataCenterRecord>, name: string) =>
  records.find((record) => record.dataCenter.name === name)
const names = (records: ReadonlyArray<DataCenterRecord>) => records.map((record) => record.dataCenter.name)

interface Open {
  readonly one: Plane
  readonly other: Plane
  readonly store?: ControlStoreService | undefined
}

interface Tools {
  readonly ttl: Duration.Duration
  readonly pass: (duration: Duration.Input) => Effect.Effect<void>
  /** repeats until it is true, at most for the subject's patience */
  readonly eventually: <E>(
    what: string,
    condition: Effect.Effect<boolean, E>
  ) => Effect.Effect<void, E | ContractViolation>
  /** everything that a watch tells from now on */
  readonly watching: (plane: Plane) => Effect.Effect<ReadonlyArray<ControlPlaneEvent>, never, Scope.Scope>
  /** keeps a datacenter alive for as long as the scope lives */
  readonly beating: (plane: Plane, id: string) => Effect.Effect<void, never, Scope.Scope>
}

/** What a consumer knows after those events, if it does as the watch says: replace at `Snapshot`. */
const replay = (events: ReadonlyArray<ControlPlaneEvent>): ReadonlyMap<string, DataCenterRecord> => {
  const known = new Map<string, DataCenterRecord>()
  for (const event of events) {
    if (event._tag === "Snapshot") {
      known.clear()
      for (const record of event.records) known.set(record.id, record)
    } else if (event._tag === "Upsert") known.set(event.record.id, event.record)
    else if (event._tag === "Removed") known.delete(event.id)
  }
  return known
}

type Body = (open: Open, tools: Tools) => Effect.Effect<void, unknown, Scope.Scope>

const bodies: ReadonlyArray<readonly [string, Body]> = [
  // ---- register
  ["a registered datacenter is listed as it was registered", ({ one }) =>
    Effect.gen(function*() {
      const given = registration("us-east-1", {
        region: "us",
        zone: "a",
        labels: { residency: "us", tier: "gold" },
        endpoints: ["b:2", "a:1"]
      })
      const version = yield* one.register(given)
      const [record] = yield* one.list
      yield* holds("one record is listed", record !== undefined)
      const { lease: _, version: listed, ...rest } = record!
      yield* same("the record", rest, given)
      yield* same("its version", listed, version)
    })],
  ["an empty plane lists nothing", ({ one }) =>
    Effect.gen(function*() {
      yield* same("all", yield* one.list, [])
      yield* same("active", yield* one.listActive, [])
    })],
  ["registering an id that exists conflicts", ({ one, other }) =>
    Effect.gen(function*() {
      yield* one.register(registration("us"))
      yield* same("the second", yield* tagOf(other.register(registration("us", { writer: "w2" }))), "RevisionConflict")
      yield* same("the writer", find(yield* one.list, "us")?.writer, "w1")
    })],
  ["registering at its version replaces the record and moves the version", ({ one, other }) =>
    Effect.gen(function*() {
      const first = yield* one.register(registration("us"))
      const second = yield* other.register(registration("us", { endpoints: ["c:3"], writer: "w2" }), first)
      yield* holds("the version has moved", first !== second)
      const record = find(yield* one.list, "us")
      yield* same("endpoints", record?.endpoints, ["c:3"])
      yield* same("version", record?.version, second)
    })],
  ["registering at an older version conflicts and changes nothing", ({ one }) =>
    Effect.gen(function*() {
      const first = yield* one.register(registration("us"))
      const second = yield* one.register(registration("us", { endpoints: ["c:3"] }), first)
      yield* same(
        "the late one",
        yield* tagOf(one.register(registration("us", { endpoints: ["d:4"] }), first)),
        "RevisionConflict"
      )
      const record = find(yield* one.list, "us")
      yield* same("endpoints", record?.endpoints, ["c:3"])
      yield* same("version", record?.version, second)
    })],
  ["registering at a version where there is no record is RecordNotFound", ({ one }) =>
    Effect.gen(function*() {
      const version = yield* one.register(registration("us"))
      yield* one.deregister(idOf("us"), version)
      yield* same("the outcome", yield* tagOf(one.register(registration("us"), version)), "RecordNotFound")
    })],
  [
    "a refused registration leaves nothing that a heartbeat could renew",
    ({ one, other }, { pass }) =>
      Effect.gen(function*() {
        const version = yield* one.register(registration("us"))
        yield* one.deregister(idOf("us"), version)
        yield* same("the outcome", yield* tagOf(one.register(registration("us"), version)), "RecordNotFound")
        // long enough for each view to have heard of whatever was left
        yield* pass("1 second")
        for (const plane of [one, other]) {
          yield* same("a heartbeat", yield* tagOf(plane.heartbeat(idOf("us"), "w1")), "RecordNotFound")
        }
        yield* same("listed", yield* one.list, [])
      })
  ],
  ["of many that register one id at once exactly one wins", ({ one, other }) =>
    Effect.gen(function*() {
      const outcomes = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, index) => index),
        (index) => tagOf((index % 2 === 0 ? one : other).register(registration("us", { writer: `w${index}` }))),
        { concurrency: "unbounded" }
      )
      yield* same("winners", outcomes.filter((outcome) => outcome === "Success").length, 1)
      yield* same("the rest", outcomes.filter((outcome) => outcome === "RevisionConflict").length, 7)
      const writer = find(yield* one.list, "us")?.writer
      yield* same("the winner's record stands", writer, `w${outcomes.indexOf("Success")}`)
    })],
  ["of many that replace one version at once exactly one wins", ({ one, other }) =>
    Effect.gen(function*() {
      const version = yield* one.register(registration("us"))
      const outcomes = yield* Effect.forEach(
        Array.from({ length: 8 }, (_, index) => index),
        (index) =>
          tagOf((index % 2 === 0 ? one : other).register(registration("us", { writer: `w${index}` }), version)),
        { concurrency: "unbounded" }
      )
      yield* same("winners", outcomes.filter((outcome) => outcome === "Success").length, 1)
    })],
  ["an id that is not its datacenter's is refused", ({ one }) =>
    Effect.gen(function*() {
      const outcome = yield* tagOf(one.register({ ...registration("us"), id: "another" }))
      yield* same("the outcome", outcome, "InvalidData")
      yield* same("nothing is listed", yield* one.list, [])
    })],

  // ---- heartbeat and lease
  ["a heartbeat for an unknown id is RecordNotFound", ({ one }) =>
    Effect.gen(function*() {
      yield* same("the outcome", yield* tagOf(one.heartbeat(idOf("us"), "w1")), "RecordNotFound")
    })],
  ["a heartbeat leaves version and state alone", ({ one }) =>
    Effect.gen(function*() {
      const version = yield* one.register(registration("us", { state: "REGISTERED" }))
      for (let i = 0; i < 5; i++) yield* one.heartbeat(idOf("us"), "w1")
      const record = find(yield* one.list, "us")
      yield* same("version", record?.version, version)
      yield* same("state", record?.state, "REGISTERED")
    })],
  ["a fresh lease has something left and never more than the TTL", ({ one, other }, { ttl }) =>
    Effect.gen(function*() {
      yield* one.register(registration("us"))
      for (const plane of [one, other]) {
        const lease = find(yield* plane.list, "us")!.lease
        yield* same("duration", Duration.toMillis(lease.duration), Duration.toMillis(ttl))
        const left = Duration.toMillis(lease.remaining)
        yield* holds(`remaining ${left} is within the TTL`, left > 0 && left <= Duration.toMillis(ttl))
      }
    })],
  [
    "heartbeats keep a lease alive far beyond its TTL",
    ({ one, other }, { ttl, pass, beating }) =>
      Effect.gen(function*() {
        yield* one.register(registration("us"))
        yield* beating(one, idOf("us"))
        for (let i = 0; i < 8; i++) {
          yield* pass(Duration.toMillis(ttl) / 2)
          yield* same("active for the writer's view", names(yield* one.listActive), ["us"])
          yield* same("active for another view", names(yield* other.listActive), ["us"])
        }
      })
  ],
  ["a heartbeat of another writer renews as well", ({ one, other }, { ttl, pass }) =>
    Effect.gen(function*() {
      yield* one.register(registration("us"))
      for (let i = 0; i < 12; i++) {
        yield* pass(Duration.toMillis(ttl) / 4)
        yield* other.heartbeat(idOf("us"), "w2")
      }
      yield* same("active", names(yield* one.listActive), ["us"])
    })],
  ["a lease runs out: the datacenter is listed no more as active, and still listed", (
    { one, other },
    { ttl, pass, eventually }
  ) =>
    Effect.gen(function*() {
      yield* one.register(registration("us"))
      yield* pass(Duration.toMillis(ttl) / 2)
      yield* same("still active at half of it", names(yield* other.listActive), ["us"])
      yield* pass(Duration.toMillis(ttl) / 2)
      for (const plane of [one, other]) {
        yield* eventually("it is not active", Effect.map(plane.listActive, (records) => records.length === 0))
        const record = find(yield* plane.list, "us")
        yield* same("its state is untouched", record?.state, "ACTIVE")
        yield* same("nothing remains", Duration.toMillis(record!.lease.remaining), 0)
      }
    })],
  [
    "what has run out stays so for as long as nobody renews it",
    ({ one, other }, { ttl, pass, eventually }) =>
      Effect.gen(function*() {
        yield* one.register(registration("us"))
        yield* pass(ttl)
        yield* eventually("it is not active", Effect.map(other.listActive, (records) => records.length === 0))
        for (let i = 0; i < 6; i++) {
          yield* pass(Duration.toMillis(ttl) / 2)
          yield* same("active", yield* other.listActive, [])
        }
      })
  ],
  ["a heartbeat brings back what had run out", ({ one, other }, { ttl, pass, eventually }) =>
    Effect.gen(function*() {
      yield* one.register(registration("us"))
      yield* pass(ttl)
      yield* eventually("it is not active", Effect.map(other.listActive, (records) => records.length === 0))
      yield* one.heartbeat(idOf("us"), "w1")
      yield* same("active again", names(yield* other.listActive), ["us"])
    })],
  [
    "leases run out one by one: a neighbour's heartbeats do not help",
    ({ one, other }, { ttl, pass, beating, eventually }) =>
      Effect.gen(function*() {
        yield* one.register(registration("eu"))
        yield* one.register(registration("us"))
        yield* beating(one, idOf("eu"))
        yield* pass(ttl)
        yield* eventually("only eu is active", Effect.map(other.listActive, (all) => Equal.equals(names(all), ["eu"])))
      })
  ],

  // ---- state
  ["setState changes the state and the version, nothing else", ({ one, other }) =>
    Effect.gen(function*() {
      const given = registration("us", { labels: { a: "b" }, region: "r" })
      const first = yield* one.register(given)
      const second = yield* other.setState(given.id, "DRAINING", first)
      yield* holds("the version has moved", first !== second)
      const record = find(yield* one.list, "us")!
      const { lease: _, version, ...rest } = record
      yield* same("the record", rest, { ...given, state: "DRAINING" as const })
      yield* same("the version", version, second)
    })],
  ["setState at an older version conflicts and changes nothing", ({ one }) =>
    Effect.gen(function*() {
      const first = yield* one.register(registration("us"))
      yield* one.setState(idOf("us"), "DRAINING", first)
      yield* same("the outcome", yield* tagOf(one.setState(idOf("us"), "ACTIVE", first)), "RevisionConflict")
      yield* same("the state", find(yield* one.list, "us")?.state, "DRAINING")
    })],
  ["setState for an unknown id is RecordNotFound", ({ one }) =>
    Effect.gen(function*() {
      yield* same("the outcome", yield* tagOf(one.setState(idOf("us"), "ACTIVE", "1")), "RecordNotFound")
    })],
  ["only ACTIVE ones with a live lease are listed as active", ({ one }) =>
    Effect.gen(function*() {
      const states: ReadonlyArray<DataCenterState> = ["REGISTERED", "ACTIVE", "DRAINING", "INACTIVE"]
      for (const state of states) yield* one.register(registration(`in-${state}`, { state }))
      yield* same("active", names(yield* one.listActive), ["in-ACTIVE"])
      yield* same("all", (yield* one.list).length, 4)
    })],
  ["no heartbeat un-drains", ({ one, other }, { pass, ttl }) =>
    Effect.gen(function*() {
      const version = yield* one.register(registration("us"))
      yield* other.setState(idOf("us"), "DRAINING", version)
      for (let i = 0; i < 4; i++) {
        yield* one.heartbeat(idOf("us"), "w1")
        yield* pass(Duration.toMillis(ttl) / 4)
      }
      yield* same("the state", find(yield* one.list, "us")?.state, "DRAINING")
      yield* same("active", yield* one.listActive, [])
    })],

  // ---- identity
  ["lists are sorted by id", ({ one }) =>
    Effect.gen(function*() {
      for (const name of ["m", "z", "a", "k"]) yield* one.register(registration(name))
      const ids = (yield* one.list).map((record) => record.id)
      yield* same("order", ids, [...ids].sort())
      yield* same("order of the active", (yield* one.listActive).map((record) => record.id), ids)
    })],
  ["no two identities fall together", ({ one }) =>
    Effect.gen(function*() {
      yield* one.register(registration("n", { zone: "a", region: "bc" }))
      yield* one.register(registration("n", { zone: "ab", region: "c" }))
      yield* one.register(registration("n|a", { region: "bc" }))
      yield* one.register(registration("n"))
      yield* same("records", (yield* one.list).length, 4)
    })],
  ["names with separators, wildcards and other scripts stay themselves", ({ one, other }) =>
    Effect.gen(function*() {
      const odd = ["a/b", "a.b", "*", ">", "a b", "Zürich", "東京", "..", "%7C|", "a=b"]
      for (const name of odd) yield* one.register(registration(name))
      yield* same("names", [...names(yield* other.list)].sort(), [...odd].sort())
      for (const name of odd) yield* one.heartbeat(idOf(name), "w1")
    })],
  ["fifty datacenters are no trouble", ({ one, other }) =>
    Effect.gen(function*() {
      yield* Effect.forEach(
        Array.from({ length: 50 }, (_, index) => index),
        (index) => one.register(registration(`dc-${index}`)),
        { concurrency: 10 }
      )
      yield* same("listed", (yield* other.list).length, 50)
    })],

  // ---- deregister
  ["deregister removes the record", ({ one, other }) =>
    Effect.gen(function*() {
      const version = yield* one.register(registration("us"))
      yield* one.deregister(idOf("us"), version)
      yield* same("listed", yield* other.list, [])
    })],
  ["deregister is idempotent", ({ one, other }) =>
    Effect.gen(function*() {
      const version = yield* one.register(registration("us"))
      yield* one.deregister(idOf("us"), version)
      yield* one.deregister(idOf("us"), version)
      yield* other.deregister(idOf("us"), version)
      yield* other.deregister(idOf("never"), "1")
    })],
  ["deregister at an older version conflicts and removes nothing", ({ one, other }) =>
    Effect.gen(function*() {
      const first = yield* one.register(registration("us"))
      yield* other.setState(idOf("us"), "DRAINING", first)
      yield* same("the outcome", yield* tagOf(one.deregister(idOf("us"), first)), "RevisionConflict")
      yield* same("listed", names(yield* one.list), ["us"])
    })],
  [
    "a heartbeat after deregister is RecordNotFound and brings nothing back",
    ({ one, other }) =>
      Effect.gen(function*() {
        const version = yield* one.register(registration("us"))
        yield* other.deregister(idOf("us"), version)
        yield* same("the outcome", yield* tagOf(one.heartbeat(idOf("us"), "w1")), "RecordNotFound")
        yield* same("listed", yield* one.list, [])
      })
  ],
  ["what was deregistered can be registered anew, under another version", ({ one }) =>
    Effect.gen(function*() {
      const first = yield* one.register(registration("us"))
      yield* one.deregister(idOf("us"), first)
      const second = yield* one.register(registration("us"))
      yield* holds("another version", first !== second)
      yield* same(
        "the old version is worthless",
        yield* tagOf(one.setState(idOf("us"), "DRAINING", first)),
        "RevisionConflict"
      )
      yield* same("active", names(yield* one.listActive), ["us"])
    })],

  // ---- watch
  [
    "a watch begins with a snapshot, of nothing if there is nothing",
    ({ one }, { watching, eventually }) =>
      Effect.gen(function*() {
        const events = yield* watching(one)
        yield* eventually("something is told", Effect.sync(() => events.length > 0))
        yield* same("the first event", events[0], { _tag: "Snapshot", records: [] })
      })
  ],
  [
    "a watch's snapshot holds what is there already",
    ({ one, other }, { watching, eventually }) =>
      Effect.gen(function*() {
        yield* one.register(registration("us"))
        const version = yield* one.register(registration("eu", { state: "DRAINING" }))
        const events = yield* watching(other)
        yield* eventually("both are known", Effect.sync(() => replay(events).size === 2))
        yield* same("the first event", events[0]?._tag, "Snapshot")
        yield* same("version", replay(events).get(idOf("eu"))?.version, version)
        yield* same("state", replay(events).get(idOf("eu"))?.state, "DRAINING")
      })
  ],
  [
    "a watch tells registrations, changes of state and removals",
    ({ one, other }, { watching, eventually }) =>
      Effect.gen(function*() {
        const events = yield* watching(other)
        const known = () => replay(events).get(idOf("us"))
        const first = yield* one.register(registration("us"))
        yield* eventually("the registration is told", Effect.sync(() => known()?.version === first))
        const second = yield* one.setState(idOf("us"), "DRAINING", first)
        yield* eventually("the state is told", Effect.sync(() => known()?.state === "DRAINING"))
        yield* same("version", known()?.version, second)
        yield* one.deregister(idOf("us"), second)
        yield* eventually("the removal is told", Effect.sync(() => replay(events).size === 0))
      })
  ],
  [
    "a watch tells a renewal, with the same version",
    ({ one, other }, { watching, eventually, pass, ttl }) =>
      Effect.gen(function*() {
        const version = yield* one.register(registration("us"))
        const events = yield* watching(other)
        yield* eventually("it is known", Effect.sync(() => replay(events).size === 1))
        yield* pass(Duration.toMillis(ttl) / 2)
        const before = events.length
        yield* one.heartbeat(idOf("us"), "w1")
        yield* eventually(
          "a renewal is told",
          Effect.sync(() =>
            events.slice(before).some((event) =>
              event._tag === "Upsert" && event.record.version === version &&
              Duration.toMillis(event.record.lease.remaining) > Duration.toMillis(ttl) * 0.75
            )
          )
        )
      })
  ],
  ["a watch proves now and then that it is current", ({ one }, { watching, eventually }) =>
    Effect.gen(function*() {
      const events = yield* watching(one)
      yield* eventually("Current is told", Effect.sync(() => events.some((event) => event._tag === "Current")))
    })],
  ["a second watch on one view gets its own snapshot", ({ one }, { watching, eventually }) =>
    Effect.gen(function*() {
      const first = yield* watching(one)
      yield* one.register(registration("us"))
      yield* eventually("the first knows", Effect.sync(() => replay(first).size === 1))
      const second = yield* watching(one)
      yield* eventually("the second knows", Effect.sync(() => replay(second).size === 1))
      yield* same("it begins with a snapshot", second[0]?._tag, "Snapshot")
    })],
  [
    "versions told by a watch never go back while writers race",
    ({ one, other }, { watching, eventually }) =>
      Effect.gen(function*() {
        const events = yield* watching(other)
        let version = yield* one.register(registration("us"))
        const order = [version]
        for (let i = 0; i < 20; i++) {
          version = yield* (i % 2 === 0 ? one : other).setState(
            idOf("us"),
            i % 2 === 0 ? "DRAINING" : "ACTIVE",
            version
          )
          order.push(version)
        }
        yield* eventually("the last is told", Effect.sync(() => replay(events).get(idOf("us"))?.version === version))
        const told = events.flatMap((event) => event._tag === "Upsert" ? [order.indexOf(event.record.version)] : [])
        yield* same("told in order", told, [...told].sort((a, b) => a - b))
      })
  ],
  ["two views agree on records and versions", ({ one, other }) =>
    Effect.gen(function*() {
      let version = yield* one.register(registration("us"))
      version = yield* other.setState(idOf("us"), "DRAINING", version)
      yield* other.register(registration("eu"))
      const bare = (records: ReadonlyArray<DataCenterRecord>) =>
        records.map(({ lease: _, ...record }) => JSON.stringify(record))
      yield* same("both", bare(yield* one.list), bare(yield* other.list))
      yield* same("the version", find(yield* one.list, "us")?.version, version)
    })]
]

/** Only for planes that live on a control store: what others leave there. */
const storeBodies: ReadonlyArray<
  readonly [
    string,
    (open: Open & { readonly store: ControlStoreService }, tools: Tools) => Effect.Effect<void, unknown, Scope.Scope>
  ]
> = [
  [
    "deregister leaves nothing of it behind",
    ({ one, store }) =>
      Effect.gen(function*() {
        const version = yield* one.register(registration("us"))
        yield* one.heartbeat(idOf("us"), "w1")
        yield* one.deregister(idOf("us"), version)
        yield* same("keys", yield* store.list(keyPrefix), [])
      })
  ],
  [
    "foreign and undecodable values are passed over and spoil nothing",
    ({ one, other, store }, { watching, eventually }) =>
      Effect.gen(function*() {
        const events = yield* watching(other)
        yield* store.create(`${keyPrefix}records/garbage`, "not even JSON")
        yield* store.create(`${keyPrefix}records/older`, "{\"id\":\"older\",\"schema\":1}")
        yield* store.create(`${keyPrefix}leases/garbage`, "{}")
        yield* store.create(`${keyPrefix}something/else`, "of a later version")
        yield* one.register(registration("us"))
        yield* same("listed", names(yield* other.list), ["us"])
        yield* same("active", names(yield* other.listActive), ["us"])
        yield* eventually("the watch goes on", Effect.sync(() => replay(events).has(idOf("us"))))
        yield* same("and tells only that", replay(events).size, 1)
      })
  ],
  ["a record under another record's key is not believed", ({ one, store }) =>
    Effect.gen(function*() {
      yield* one.register(registration("us"))
      const [entry] = yield* store.list(`${keyPrefix}records/`)
      yield* store.create(`${keyPrefix}records/elsewhere`, entry!.value)
      yield* same("listed", names(yield* one.list), ["us"])
    })],
  ["a record that is overwritten with rubbish disappears, and its neighbours stay", (
    { one, other, store },
    { watching, eventually }
  ) =>
    Effect.gen(function*() {
      yield* one.register(registration("eu"))
      const version = yield* one.register(registration("us"))
      const events = yield* watching(other)
      yield* eventually("both are known", Effect.sync(() => replay(events).size === 2))
      const entries = yield* store.list(`${keyPrefix}records/`)
      yield* store.update(entries.find((entry) => entry.revision === version)!.key, "{{{", version)
      yield* eventually("us is gone", Effect.sync(() => !replay(events).has(idOf("us"))))
      yield* same("listed", names(yield* one.list), ["eu"])
      yield* same(
        "a change of state is refused",
        yield* tagOf(one.setState(idOf("us"), "ACTIVE", version)),
        "RevisionConflict"
      )
    })]
]

const tools = (subject: Subject, ttl: Duration.Duration): Tools => {
  const patience = Duration.toMillis(Duration.fromInputUnsafe(subject.patience ?? "3 seconds"))
  const pass = (duration: Duration.Input) => subject.pass(Duration.fromInputUnsafe(duration))
  return {
    ttl,
    pass,
    eventually: (what, condition) =>
      Effect.gen(function*() {
        for (let waited = 0; waited <= patience; waited += 50) {
          if (yield* condition) return
          yield* pass(50)
        }
        return yield* new ContractViolation({ what: `${what}, within ${patience} ms` })
      }),
    watching: (plane) =>
      Effect.gen(function*() {
        const events: Array<ControlPlaneEvent> = []
        yield* plane.watch.pipe(
          Stream.runForEach((event) => Effect.sync(() => void events.push(event))),
          Effect.forkScoped({ startImmediately: true })
        )
        return events
      }),
    beating: (plane, id) =>
      Effect.gen(function*() {
        const fiber = yield* plane.heartbeat(id, "w1").pipe(
          Effect.ignore,
          Effect.andThen(Effect.sleep(Duration.toMillis(ttl) / 4)),
          Effect.forever,
          Effect.forkScoped
        )
        yield* Effect.addFinalizer(() => Fiber.interrupt(fiber))
      })
  }
}

/** Every case, ready to run. */
export const cases = (subject: Subject): ReadonlyArray<Case> => {
  const ttl = Duration.fromInputUnsafe(subject.ttl ?? "1 second")
  const own = tools(subject, ttl)
  return [
    ...bodies.map(([name, body]) => ({
      name,
      run: Effect.scoped(Effect.flatMap(subject.open(ttl), (open) => body(open, own)))
    })),
    ...(subject.onStore === false ? [] : storeBodies).map(([name, body]) => ({
      name,
      run: Effect.scoped(
        Effect.flatMap(subject.open(ttl), (open): Effect.Effect<void, unknown, Scope.Scope> =>
          open.store === undefined
            ? Effect.fail(
              new ContractViolation({ what: "the subject gives no store, and does not say onStore: false" })
            )
            : body({ ...open, store: open.store }, own))
      )
    }))
  ]
}

/** Hands each case to a test framework. */
export const suite = (subject: Subject, test: (name: string, run: Effect.Effect<void, unknown>) => void): void => {
  for (const { name, run } of cases(subject)) test(name, run)
}

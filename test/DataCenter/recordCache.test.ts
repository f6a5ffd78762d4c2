// The pure cores: what a node knows of datacenters from two sources that overtake each other, and what a leader writes.
import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import type { ControlPlaneEvent, DataCenterRecord, DataCenterState } from "../../src/ControlPlane/ControlPlane.ts"
import * as Own from "../../src/DataCenter/internal/ownRecord.ts"
import * as Cache from "../../src/DataCenter/internal/recordCache.ts"
import { describe as describeSelector, matches, peersOf } from "../../src/DataCenter/internal/selection.ts"

const record = (name: string, version: string, more: Partial<DataCenterRecord> = {}): DataCenterRecord => ({
  id: name,
  dataCenter: { name, labels: {} },
  endpoints: ["a:1"],
  state: "ACTIVE",
  writer: "w@1",
  version,
  lease: { duration: Duration.seconds(30), remaining: Duration.seconds(30) },
  ...more
})
const snapshot = (...records: ReadonlyArray<DataCenterRecord>): ControlPlaneEvent => ({ _tag: "Snapshot", records })
const upsert = (it: DataCenterRecord): ControlPlaneEvent => ({ _tag: "Upsert", record: it })
const removed = (id: string): ControlPlaneEvent => ({ _tag: "Removed", id })
const current: ControlPlaneEvent = { _tag: "Current" }

/** Feeds events of a watch, one each second from the given second on. */
const feed = (cache: Cache.Cache, from: number, ...events: ReadonlyArray<ControlPlaneEvent>) =>
  events.reduce((next, event, index) => Cache.watched(next, event, (from + index) * 1_000), cache)
const versions = (cache: Cache.Cache) =>
  Array.from(cache.records.values(), ({ record }) => `${record.id}:${record.version}`)
const seconds = (count: number) => Array.from({ length: count }, () => current)

describe("the cache", () => {
  it("is never current before its first snapshot or read", () => {
    assert.isUndefined(Cache.age(feed(Cache.initial, 0, current, current), 2_000))
    assert.strictEqual(Cache.age(feed(Cache.initial, 0, snapshot()), 2_000), 2_000)
  })

  it("M7: a read that was sent before a removal does not bring the record back", () => {
    const before = feed(Cache.initial, 0, snapshot(record("eu", "9")))
    const read = { after: before.sequence, sentAt: 500 }
    const after = Cache.refreshed(feed(before, 1, removed("eu")), [record("eu", "9")], read)
    assert.deepStrictEqual(versions(after), [])
    assert.deepStrictEqual(versions(Cache.refreshed(after, [], { after: after.sequence, sentAt: 2_000 })), [])
  })

  it("a read that was sent before a change does not undo it, and brings what the watch had not told", () => {
    const before = feed(Cache.initial, 0, snapshot(record("eu", "1")))
    const read = { after: before.sequence, sentAt: 500 }
    const changed = feed(before, 1, upsert(record("eu", "2", { state: "DRAINING" })))
    const after = Cache.refreshed(changed, [record("eu", "1"), record("us", "3")], read)
    assert.deepStrictEqual(versions(after), ["eu:2", "us:3"])
  })

  it("a read that was overtaken by a snapshot changes nothing", () => {
    const before = feed(Cache.initial, 0, snapshot(record("eu", "1")))
    const read = { after: before.sequence, sentAt: 500 }
    const after = Cache.refreshed(feed(before, 1, snapshot(record("us", "5"))), [record("eu", "1")], read)
    assert.deepStrictEqual(versions(after), ["us:5"])
  })

  it("M6: a read removes what is gone, though no watch told", () => {
    const before = feed(Cache.initial, 0, snapshot(record("eu", "1"), record("us", "2")))
    const after = Cache.refreshed(before, [record("us", "2")], { after: before.sequence, sentAt: 500 })
    assert.deepStrictEqual(versions(after), ["us:2"])
  })

  it("I22: versions never go back: not by a watch that lags behind a read, not by a stale read", () => {
    const before = feed(Cache.initial, 0, snapshot(record("eu", "4")))
    const read = Cache.refreshed(before, [record("eu", "6")], { after: before.sequence, sentAt: 500 })
    const late = feed(read, 1, upsert(record("eu", "5")))
    assert.deepStrictEqual(versions(late), ["eu:6"])
    const stale = Cache.refreshed(late, [record("eu", "4")], { after: late.sequence, sentAt: 2_000 })
    assert.deepStrictEqual(versions(stale), ["eu:6"])
  })

  it("M29: lower versions of a store that was emptied are believed, by snapshot, and by reading where nobody watches", () => {
    const watched = feed(Cache.initial, 0, snapshot(record("eu", "900")))
    assert.deepStrictEqual(versions(feed(watched, 1, { _tag: "Lost", reason: "" }, snapshot(record("eu", "1")))), [
      "eu:1"
    ])
    const read = Cache.refreshed(Cache.initial, [record("eu", "900")], { after: 0, sentAt: 0 })
    assert.deepStrictEqual(versions(Cache.refreshed(read, [record("eu", "1")], { after: 0, sentAt: 1 })), ["eu:1"])
  })

  it("opaque versions of somebody's own control plane are taken as they come", () => {
    const cache = feed(Cache.initial, 0, snapshot(record("eu", "b-2")), upsert(record("eu", "a-1")))
    assert.deepStrictEqual(versions(cache), ["eu:a-1"])
  })

  it("M9: a lease runs out over time that the watch proved, whatever else is told", () => {
    let cache = feed(Cache.initial, 0, snapshot(record("eu", "1"), record("us", "2")))
    cache = feed(cache, 1, ...seconds(28), upsert(record("us", "3")))
    assert.strictEqual(Cache.statusOf(cache, "eu"), "ACTIVE")
    cache = feed(cache, 30, current)
    assert.strictEqual(Cache.statusOf(cache, "eu"), "EXPIRED")
    assert.strictEqual(Cache.statusOf(cache, "us"), "ACTIVE")
  })

  it("rule 24: a lease does not run out over time that nobody proved", () => {
    const cache = feed(Cache.initial, 0, snapshot(record("eu", "1")), { _tag: "Lost", reason: "" })
    assert.strictEqual(Cache.statusOf(feed(cache, 600, current, current), "eu"), "ACTIVE")
    assert.strictEqual(Cache.age(cache, 600_000), 600_000)
  })

  it("a pause of this very process counts neither for nor against anybody", () => {
    const paused = feed(feed(Cache.initial, 0, snapshot(record("eu", "1")), ...seconds(20)), 80, ...seconds(5))
    assert.strictEqual(Cache.statusOf(paused, "eu"), "ACTIVE")
    assert.strictEqual(Cache.statusOf(feed(paused, 85, ...seconds(7)), "eu"), "EXPIRED")
  })

  it("what expired stays so through a loss of the watch, until it is renewed", () => {
    let cache = feed(Cache.initial, 0, snapshot(record("eu", "1")), ...seconds(31))
    cache = feed(cache, 32, { _tag: "Lost", reason: "" }, current, current)
    assert.strictEqual(Cache.statusOf(cache, "eu"), "EXPIRED")
    assert.strictEqual(Cache.statusOf(feed(cache, 36, upsert(record("eu", "1"))), "eu"), "ACTIVE")
  })

  it("remembers of removed datacenters no more than it needs (M33)", () => {
    let cache = feed(Cache.initial, 0, snapshot())
    for (let i = 0; i < 100; i++) cache = feed(cache, 1, upsert(record(`dc-${i}`, "1")), removed(`dc-${i}`))
    cache = Cache.refreshed(cache, [], { after: cache.sequence, sentAt: 2_000 })
    assert.strictEqual(cache.touched.size, 0)
  })
})

describe("what the leader writes", () => {
  const base = {
    id: "eu",
    dataCenter: { name: "eu", labels: {} },
    endpoints: ["a:1"],
    formed: true,
    wish: undefined,
    record: undefined,
    writer: "w@2"
  } satisfies Own.OwnInput
  const wanted = (input: Partial<Own.OwnInput>): string => {
    const command = Own.plan({ ...base, ...input })
    return command._tag === "Nothing" ? "nothing" : `${command._tag} ${command.registration.state}`
  }
  const at = (state: DataCenterState, writer = "w@1") => record("eu", "1", { state, writer })

  const table: ReadonlyArray<readonly [string, Partial<Own.OwnInput>, string]> = [
    ["no record, cluster formed", {}, "Register ACTIVE"],
    ["no record, cluster not formed", { formed: false }, "Register REGISTERED"],
    ["no record, but drained", { wish: "DRAINED" }, "Register DRAINING"],
    ["REGISTERED, formed", { record: at("REGISTERED") }, "Replace ACTIVE"],
    ["REGISTERED, not formed", { record: at("REGISTERED"), formed: false }, "nothing"],
    ["ACTIVE", { record: at("ACTIVE") }, "nothing"],
    ["ACTIVE, new leader not formed yet", { record: at("ACTIVE"), formed: false }, "nothing"],
    ["ACTIVE, drained", { record: at("ACTIVE"), wish: "DRAINED" }, "Replace DRAINING"],
    ["DRAINING, drained", { record: at("DRAINING"), wish: "DRAINED" }, "nothing"],
    ["DRAINING by hand", { record: at("DRAINING") }, "nothing"],
    ["DRAINING, activated", { record: at("DRAINING"), wish: "ACTIVE" }, "Replace ACTIVE"],
    ["DRAINING left by a last member", { record: at("DRAINING", Own.leavingWriter("w@1")) }, "Replace ACTIVE"],
    ["INACTIVE left by a last member", { record: at("INACTIVE", Own.leavingWriter("w@1")) }, "Replace ACTIVE"],
    [
      "INACTIVE left, not formed",
      { record: at("INACTIVE", Own.leavingWriter("w@1")), formed: false },
      "Replace REGISTERED"
    ],
    ["INACTIVE by hand", { record: at("INACTIVE") }, "nothing"],
    [
      "INACTIVE left, drained",
      { record: at("INACTIVE", Own.leavingWriter("w@1")), wish: "DRAINED" },
      "Replace DRAINING"
    ],
    ["INACTIVE by hand, activated", { record: at("INACTIVE"), wish: "ACTIVE" }, "Replace ACTIVE"],
    ["other endpoints", { record: at("ACTIVE"), endpoints: ["a:1", "b:2"] }, "Replace ACTIVE"],
    ["other endpoints while DRAINING (M17)", { record: at("DRAINING"), endpoints: ["b:2"] }, "Replace DRAINING"],
    ["no endpoints known", { record: at("ACTIVE"), endpoints: [] }, "nothing"],
    ["other labels", { record: at("ACTIVE"), dataCenter: { name: "eu", labels: { a: "b" } } }, "Replace ACTIVE"]
  ]
  for (const [name, input, expected] of table) {
    it(`${name} => ${expected}`, () => assert.strictEqual(wanted(input), expected))
  }

  it("keeps the endpoints of the record where it knows none", () => {
    const command = Own.plan({ ...base, record: at("ACTIVE"), endpoints: [], wish: "DRAINED" })
    assert.deepStrictEqual(command._tag === "Replace" && command.registration.endpoints, ["a:1"])
  })

  it("sorts endpoints, each once", () => {
    assert.deepStrictEqual(Own.sortedEndpoints(["b:2", "a:1", "b:2"]), ["a:1", "b:2"])
  })
})

describe("selectors", () => {
  const eu = { name: "eu", region: "europe", labels: { tier: "gold" } }
  it("match where every given part does", () => {
    assert.isTrue(matches("eu", eu))
    assert.isTrue(matches({}, eu))
    assert.isTrue(matches({ name: "eu", region: "europe", labels: { tier: "gold" } }, eu))
    assert.isFalse(matches({ zone: "a" }, eu))
    assert.isFalse(matches({ labels: { tier: "iron" } }, eu))
  })
  it("are not fooled by names that every object has", () => {
    assert.isFalse(matches({ labels: { constructor: "x", toString: "y" } }, eu))
  })
  it("are told by name, or part by part", () => {
    assert.strictEqual(describeSelector("eu"), "eu")
    assert.strictEqual(describeSelector({ region: "europe", labels: { tier: "gold" } }), "region=europe,tier=gold")
  })
  it("pass over endpoints that cannot be dialed", () => {
    assert.deepStrictEqual(
      peersOf({ endpoints: ["10.0.0.1:3321", "nonsense", "host:0", "host:70000", ":1", "[::1]:4000", "h:1x"] }),
      [{ host: "10.0.0.1", port: 3_321 }, { host: "::1", port: 4_000 }]
    )
  })
})

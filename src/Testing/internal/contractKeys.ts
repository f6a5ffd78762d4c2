/** The contract's cases about single keys: what one client may rely on when nobody else writes. */
import { Effect, Option } from "effect"
import { compareRevision, maxKeyBytes } from "../../ControlPlane/ControlStore.ts"
import type { CaseDefinition } from "../ControlStoreContract.ts"
import { expect, expectEqual, expectFailure, expectValue, valuesOf } from "./contractHarness.ts"

const made = (name: string, run: CaseDefinition["run"]): CaseDefinition => ({ name, run })

const badKeys = ["", "/a", "a/", "a//b", "a b", "a\nb", "a*", "a>b", "a:b", "ä", "a\u0000", "x".repeat(maxKeyBytes + 1)]

export const keyCases: ReadonlyArray<CaseDefinition> = [
  made(
    "a key that was never written is absent",
    ({ a, prefix }) =>
      Effect.flatMap(a.get(`${prefix}k`), (found) => expectEqual("the key", Option.isNone(found), true))
  ),

  made("a created key reads back with its value and revision", ({ a, prefix }) =>
    Effect.gen(function*() {
      const revision = yield* a.create(`${prefix}k`, "v")
      const found = yield* Effect.fromOption(yield* a.get(`${prefix}k`))
      yield* expectEqual("the entry", { ...found }, { key: `${prefix}k`, value: "v", revision })
    })),

  made("creating a key that exists is a conflict and changes nothing", ({ a, prefix }) =>
    Effect.gen(function*() {
      const revision = yield* a.create(`${prefix}k`, "first")
      yield* expectFailure("the second create", a.create(`${prefix}k`, "second"), "RevisionConflict")
      const found = yield* Effect.fromOption(yield* a.get(`${prefix}k`))
      yield* expectEqual("the entry", [found.value, found.revision], ["first", revision])
    })),

  made("an update at the key's revision changes value and revision", ({ a, prefix }) =>
    Effect.gen(function*() {
      const first = yield* a.create(`${prefix}k`, "1")
      const second = yield* a.update(`${prefix}k`, "2", first)
      yield* expect(compareRevision(second, first) > 0, "a greater revision", { first, second })
      yield* expectValue(a, `${prefix}k`, "2")
    })),

  made("an update at an older revision is a conflict and changes nothing", ({ a, prefix }) =>
    Effect.gen(function*() {
      const first = yield* a.create(`${prefix}k`, "1")
      yield* a.update(`${prefix}k`, "2", first)
      yield* expectFailure("the late update", a.update(`${prefix}k`, "3", first), "RevisionConflict")
      yield* expectValue(a, `${prefix}k`, "2")
    })),

  made("an update of an absent key is a conflict and creates nothing", ({ a, prefix }) =>
    Effect.gen(function*() {
      const elsewhere = yield* a.create(`${prefix}other`, "1")
      yield* expectFailure("the update", a.update(`${prefix}k`, "1", elsewhere), "RevisionConflict")
      yield* expectValue(a, `${prefix}k`, undefined)
    })),

  made("an update with the same value is a new version all the same", ({ a, prefix }) =>
    Effect.gen(function*() {
      const first = yield* a.create(`${prefix}k`, "same")
      const second = yield* a.update(`${prefix}k`, "same", first)
      yield* expect(compareRevision(second, first) > 0, "a greater revision", { first, second })
      yield* expectFailure("the late update", a.update(`${prefix}k`, "same", first), "RevisionConflict")
    })),

  made("a revision that no store gives out is a conflict, never a match", ({ a, prefix }) =>
    Effect.gen(function*() {
      yield* a.create(`${prefix}k`, "1")
      for (const revision of ["", "0", "-1", "abc", "1e9", "99999999999999999999"]) {
        yield* expectFailure(`update at "${revision}"`, a.update(`${prefix}k`, "2", revision), "RevisionConflict")
        yield* expectFailure(`remove at "${revision}"`, a.remove(`${prefix}k`, revision), "RevisionConflict")
      }
      yield* expectValue(a, `${prefix}k`, "1")
    })),

  made("revision zero of an absent key is no way to create it", ({ a, prefix }) =>
    Effect.gen(function*() {
      yield* expectFailure("update at 0", a.update(`${prefix}k`, "1", "0"), "RevisionConflict")
      yield* expectFailure("remove at 0", a.remove(`${prefix}k`, "0"), "RevisionConflict")
      yield* expectValue(a, `${prefix}k`, undefined)
    })),

  made("a removed key is absent", ({ a, prefix }) =>
    Effect.gen(function*() {
      const revision = yield* a.create(`${prefix}k`, "1")
      yield* a.remove(`${prefix}k`, revision)
      yield* expectValue(a, `${prefix}k`, undefined)
      yield* expectEqual("the listing", yield* a.list(prefix), [])
    })),

  made("a removal at an older revision is a conflict and removes nothing", ({ a, prefix }) =>
    Effect.gen(function*() {
      const first = yield* a.create(`${prefix}k`, "1")
      yield* a.update(`${prefix}k`, "2", first)
      yield* expectFailure("the late removal", a.remove(`${prefix}k`, first), "RevisionConflict")
      yield* expectValue(a, `${prefix}k`, "2")
    })),

  made("removing twice, or removing what never was, is a conflict", ({ a, prefix }) =>
    Effect.gen(function*() {
      const revision = yield* a.create(`${prefix}k`, "1")
      yield* a.remove(`${prefix}k`, revision)
      yield* expectFailure("the second removal", a.remove(`${prefix}k`, revision), "RevisionConflict")
      yield* expectFailure("removing another key", a.remove(`${prefix}other`, revision), "RevisionConflict")
    })),

  made("a removed key can be created again, with a greater revision", ({ a, prefix }) =>
    Effect.gen(function*() {
      const first = yield* a.create(`${prefix}k`, "1")
      yield* a.remove(`${prefix}k`, first)
      const second = yield* a.create(`${prefix}k`, "2")
      yield* expect(compareRevision(second, first) > 0, "a greater revision", { first, second })
      yield* expectValue(a, `${prefix}k`, "2")
      yield* expectFailure("a third create", a.create(`${prefix}k`, "3"), "RevisionConflict")
    })),

  made("a revision from before a removal never matches the key's next life", ({ a, prefix }) =>
    Effect.gen(function*() {
      const first = yield* a.create(`${prefix}k`, "1")
      yield* a.remove(`${prefix}k`, first)
      yield* a.create(`${prefix}k`, "2")
      yield* expectFailure("the late update", a.update(`${prefix}k`, "3", first), "RevisionConflict")
      yield* expectFailure("the late removal", a.remove(`${prefix}k`, first), "RevisionConflict")
      yield* expectValue(a, `${prefix}k`, "2")
    })),

  made("a key lives through ten lives, one after the other", ({ a, prefix }) =>
    Effect.gen(function*() {
      let last = "0"
      for (let life = 0; life < 10; life++) {
        const born = yield* a.create(`${prefix}k`, `life ${life}`)
        yield* expect(compareRevision(born, last) > 0, `a revision above ${last}`, born)
        last = yield* a.update(`${prefix}k`, `age ${life}`, born)
        yield* a.remove(`${prefix}k`, last)
      }
      yield* expectValue(a, `${prefix}k`, undefined)
    })),

  made("values keep every character, and may be empty", ({ a, prefix }) =>
    Effect.gen(function*() {
      const values = [
        "",
        " ",
        "\n\r\t\u0000",
        "\"'\\{}",
        "äß€𝄞\u{1F600}",
        "{\"a\":1}",
        "x".repeat(10_000),
        "\uFEFFstart"
      ]
      for (const [i, value] of values.entries()) yield* a.create(`${prefix}${i}`, value)
      yield* expectEqual(
        "the values",
        (yield* a.list(prefix)).map((entry) => entry.value),
        values
      )
    })),

  made(
    "a value at the cap is stored whole, one byte more is refused by name",
    ({ a, prefix }) =>
      Effect.gen(function*() {
        const cap = a.capabilities.maxValueBytes
        const value = `${"ä".repeat(Math.floor(cap / 2))}${cap % 2 === 1 ? "." : ""}`
        const revision = yield* a.create(`${prefix}k`, value)
        const found = yield* Effect.fromOption(yield* a.get(`${prefix}k`))
        yield* expect(found.value === value, "the whole value", found.value.length)
        const error = yield* expectFailure("create", a.create(`${prefix}big`, `${value}.`), "InvalidData")
        yield* expect(String(error._tag === "InvalidData" && error.what).includes("big"), "the key's name", error)
        yield* expectFailure("update", a.update(`${prefix}k`, `${value}.`, revision), "InvalidData")
        yield* expectValue(a, `${prefix}big`, undefined)
      })
  ),

  made(
    "half a surrogate pair is no text",
    ({ a, prefix }) => Effect.asVoid(expectFailure("create", a.create(`${prefix}k`, "a\uD800b"), "InvalidData"))
  ),

  made(
    "a malformed key is refused by every operation",
    ({ a }) =>
      Effect.forEach(badKeys, (key) =>
        Effect.gen(function*() {
          yield* expectFailure(`get ${JSON.stringify(key)}`, a.get(key), "InvalidData")
          yield* expectFailure(`create ${JSON.stringify(key)}`, a.create(key, ""), "InvalidData")
          yield* expectFailure(`update ${JSON.stringify(key)}`, a.update(key, "", "1"), "InvalidData")
          yield* expectFailure(`remove ${JSON.stringify(key)}`, a.remove(key, "1"), "InvalidData")
        }), { discard: true })
  ),

  made(
    "a malformed prefix is refused",
    ({ a }) =>
      Effect.forEach(
        ["/", "a//b", "a b", "*", "ä"],
        (prefix) => expectFailure(`list ${JSON.stringify(prefix)}`, a.list(prefix), "InvalidData"),
        { discard: true }
      )
  ),

  made("the longest key works", ({ a, prefix }) =>
    Effect.gen(function*() {
      const key = prefix + "k".repeat(maxKeyBytes - prefix.length)
      yield* a.create(key, "1")
      yield* expectValue(a, key, "1")
      yield* expectEqual("the listing", valuesOf(yield* a.list(prefix)), [`${key}=1`])
    })),

  made("every allowed character works in a key, and each key is its own", ({ a, prefix }) =>
    Effect.gen(function*() {
      const keys = [
        "A.b",
        "A/b",
        "A@b",
        "A=b",
        "A=2eb",
        "A=40b",
        "A-b",
        "A_b",
        "a.b",
        ".",
        "..",
        "-",
        "=",
        "@",
        "_",
        "0",
        "a/d",
        "a/a"
      ]
      for (const key of keys) yield* a.create(prefix + key, key)
      for (const key of keys) yield* expectValue(a, prefix + key, key)
      yield* expectEqual("the listing", (yield* a.list(prefix)).map((entry) => entry.value), keys.toSorted())
    })),

  made("names of an object's own members are ordinary keys", ({ a, prefix }) =>
    Effect.gen(function*() {
      const keys = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"]
      for (const key of keys) yield* expectValue(a, prefix + key, undefined)
      for (const key of keys) yield* a.create(prefix + key, "1")
      yield* expectEqual(
        "the listing",
        (yield* a.list(prefix)).map((entry) => entry.key),
        keys.map((key) => prefix + key).toSorted()
      )
    })),

  made("a listing is sorted by key and holds values and revisions", ({ a, prefix }) =>
    Effect.gen(function*() {
      const revisions = new Map<string, string>()
      for (const key of ["b", "a/2", "a", "a/10", "B", "a.x", "a-x"]) {
        revisions.set(prefix + key, yield* a.create(prefix + key, `v${key}`))
      }
      const listing = yield* a.list(prefix)
      yield* expectEqual("the order", listing.map((entry) => entry.key), Array.from(revisions.keys()).toSorted())
      for (const entry of listing) {
        yield* expectEqual(`revision of ${entry.key}`, entry.revision, revisions.get(entry.key))
      }
    })),

  made(
    "a listing holds exactly the keys with the prefix, also one that ends within a part",
    ({ a, prefix }) =>
      Effect.gen(function*() {
        for (const key of ["ab/c", "ab/cd/e", "ab", "abc", "ac", "b/ab"]) yield* a.create(prefix + key, "")
        const list = (end: string) =>
          Effect.map(a.list(prefix + end), (entries) => entries.map((entry) => entry.key.slice(prefix.length)))
        yield* expectEqual("under ab/", yield* list("ab/"), ["ab/c", "ab/cd/e"])
        yield* expectEqual("under ab", yield* list("ab"), ["ab", "ab/c", "ab/cd/e", "abc"])
        yield* expectEqual("under ab/c", yield* list("ab/c"), ["ab/c", "ab/cd/e"])
        yield* expectEqual("under ab/cd/", yield* list("ab/cd/"), ["ab/cd/e"])
        yield* expectEqual("under zz", yield* list("zz"), [])
      })
  ),

  made("a listing of a thousand entries is complete", ({ a, prefix }) =>
    Effect.gen(function*() {
      const keys = Array.from({ length: 1_000 }, (_, i) => `${prefix}${String(i).padStart(4, "0")}`)
      yield* Effect.forEach(keys, (key) => a.create(key, "x".repeat(50)), { concurrency: 50, discard: true })
      yield* expectEqual("the keys", (yield* a.list(prefix)).map((entry) => entry.key), keys)
    })),

  made("a listing of more than five megabytes is complete", ({ a, prefix }) =>
    Effect.gen(function*() {
      const size = Math.min(400_000, a.capabilities.maxValueBytes)
      const count = Math.ceil(5_500_000 / size)
      yield* Effect.forEach(
        Array.from({ length: count }, (_, i) => i),
        (i) => a.create(`${prefix}${String(i).padStart(4, "0")}`, String(i % 10).repeat(size)),
        { concurrency: 4, discard: true }
      )
      const listing = yield* a.list(prefix)
      yield* expectEqual("the number of entries", listing.length, count)
      yield* expect(
        listing.every((entry) => entry.value.length === size),
        "whole values",
        listing.map((e) => e.value.length)
      )
    })),

  made("it says what it can do", ({ a }) =>
    Effect.gen(function*() {
      const { backend, failoverMillis, maxValueBytes, watchOrder } = a.capabilities
      yield* expect(backend.length > 0, "a name", backend)
      yield* expect(maxValueBytes >= 1_024, "room for at least 1 KiB in a value", maxValueBytes)
      yield* expect(failoverMillis >= 0, "a time", failoverMillis)
      yield* expect(watchOrder === "revision" || watchOrder === "key", "an order of its watches", watchOrder)
    }))
]

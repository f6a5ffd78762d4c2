// Settings from programs whose types nobody has checked: a bad one is named, and what it holds is not shown.
import { assert, describe, it } from "@effect/vitest"
import { Settings } from "effect-troupe/Actor"
import { Effect, Redacted } from "effect"

const { decode } = Settings.group("store", {
  password: Settings.optionalSecret({ env: "PASSWORD" }),
  user: Settings.text({ env: "USER", default: "nobody" }),
  keyFile: Settings.optionalText({ env: "KEY_FILE" }),
  open: Settings.boolean({ env: "OPEN", default: false }),
  hosts: Settings.texts({ env: "HOSTS", default: [] })
})

const refused = (given: Record<string, unknown>) =>
  Effect.map(Effect.flip(decode(given as never)), ({ reason, setting }) => `${setting} ${reason}`)

describe("a setting of another type than it says", () => {
  it.effect("is named where it is a secret in plain text, or holds none, and its value is not shown", () =>
    Effect.gen(function*() {
      const plain = yield* refused({ password: "hunter2" })
      assert.strictEqual(plain, "store.password is not redacted: give Redacted.make(...)")
      for (const secret of [42, null, {}, Redacted.make(42), Redacted.make(undefined)]) {
        assert.match(yield* refused({ password: secret }), /^store\.password is (not redacted|no text)/)
      }
      const wiped = Redacted.make("hunter2")
      Redacted.wipeUnsafe(wiped)
      assert.strictEqual(yield* refused({ password: wiped }), "store.password is no text")
      assert.strictEqual(yield* refused({ password: Redacted.make("") }), "store.password is empty")
    }))

  it.effect("is named where it is a text, a list of texts, or yes or no", () =>
    Effect.gen(function*() {
      const key = Buffer.from("-----BEGIN PRIVATE KEY-----")
      for (const bad of [key, 42, null, Redacted.make("x")]) {
        assert.strictEqual(yield* refused({ user: bad }), "store.user is no text")
        assert.strictEqual(yield* refused({ keyFile: bad }), "store.keyFile is no text")
      }
      assert.strictEqual(yield* refused({ hosts: "a,b" }), "store.hosts is no list of texts")
      assert.strictEqual(yield* refused({ hosts: ["a", 1] }), "store.hosts is no list of texts")
      assert.strictEqual(yield* refused({ open: "false" }), "store.open is neither true nor false")
    }))

  it.effect("is as good as its type says it is where the type is right", () =>
    Effect.gen(function*() {
      const values = yield* decode({ password: Redacted.make("x"), user: "u", open: true, hosts: ["a"] })
      assert.deepStrictEqual([values.user, values.open, values.hosts], ["u", true, ["a"]])
      assert.strictEqual(Redacted.value(values.password!), "x")
    }))
})

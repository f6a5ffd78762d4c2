/**
 * A process that holds a lease in a SQLite file and says every few milliseconds whether it may act: `NANOSECONDS true|false`, by
 * the machine's monotonic clock, taken before it is asked.
 *
 *     node owner.ts FILE KEY MILLISECONDS
 */
import { Effect } from "effect"
import * as ControlStoreSqlite from "../../../src/ControlPlane/ControlStoreSqlite.ts"
import * as Lease from "../../../src/ControlPlane/Lease.ts"

const [file, key, duration] = process.argv.slice(2)

const program = Effect.gen(function*() {
  const store = yield* ControlStoreSqlite.make({ file: file! })
  const lease = yield* Lease.hold(store, { key: key!, duration: Number(duration) })
  while (true) {
    const asked = process.hrtime.bigint()
    process.stdout.write(`${asked} ${lease.isValid()} ${yield* lease.state}\n`)
    yield* Effect.sleep("5 millis")
  }
})

await Effect.runPromise(Effect.scoped(program))

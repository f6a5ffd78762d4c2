// A program that opens a store, watches, writes, closes it and has nothing else to do: it must end by itself. Arguments: backend, address, and for
// how many milliseconds it stays open once it has said "ready".
import { Effect, Stream } from "effect"

const [backend, address, millis] = process.argv.slice(2)
const open = backend === "nats"
  ? Effect.flatMap(
    Effect.promise(() => import("../../../src/ControlPlane/ControlStoreNats.ts")),
    (store) => store.make({ servers: [address!] })
  )
  : Effect.flatMap(
    Effect.promise(() => import("../../../src/ControlPlane/ControlStoreEtcd.ts")),
    (store) => store.make({ endpoints: [address!] })
  )

await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
  const store = yield* open
  yield* Effect.forkScoped(Stream.runDrain(store.watch("")))
  yield* store.create("program/key", "1")
  console.log("ready")
  yield* Effect.sleep(Number(millis ?? 200))
})))
console.log("closed")

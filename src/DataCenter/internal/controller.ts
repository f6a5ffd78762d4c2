/**
 * The controller of a datacenter: what this node knows (`knowledge.ts`), who writes the own record (`registrar.ts`), and the
 * service that callers see. Its loops are fibers of the Layer's scope.
 */
import { Duration, Effect, Option, Queue, Stream } from "effect"
import { nodeKey } from "../../Actor/Address.ts"
import {
  AmbiguousDataCenter,
  DataCenterNotReady,
  RecordNotFound,
  SettingInvalid,
  StaleRecords,
  StoreUnavailable
} from "../../Actor/errors.ts"
import { Node } from "../../Actor/Node.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import { Cluster } from "../../Cluster/Cluster.ts"
import { ControlPlane, dataCenterId, type DataCenterRecord } from "../../ControlPlane/ControlPlane.ts"
import { keyPrefix } from "../../ControlPlane/ControlPlaneStore.ts"
import { GlobalStore, keyPart, maxKeyBytes } from "../../ControlPlane/ControlStore.ts"
import type { DataCenters } from "../DataCenters.ts"
import type { DataCenterSettings } from "../DataCenterSettings.ts"
import { write as writeWish } from "./desired.ts"
import * as Knowledge from "./knowledge.ts"
import * as Registrar from "./registrar.ts"
import { describe, matches, type Selector } from "./selection.ts"

/** what stands before the id in the longest of its keys */
const longestPrefix = `${keyPrefix}records/`.length

/** Settings that contradict what they meet. */
const checked = (settings: DataCenterSettings, id: string, plane: ControlPlane["Service"], node: Node["Service"]) => {
  const refuse = (setting: string, reason: string) =>
    Effect.fail(new SettingInvalid({ setting: `dataCenter.${setting}`, reason }))
  const { heartbeatInterval, name } = settings
  const room = maxKeyBytes - longestPrefix
  return keyPart(id).length > room
    ? refuse("name", `with region and zone takes ${keyPart(id).length} bytes of a key, which has room for ${room}`)
    : node.address.dataCenter !== name
    ? refuse("name", `is ${name}, but this node's address says ${node.address.dataCenter}`)
    : Duration.toMillis(heartbeatInterval) * 3 > Duration.toMillis(plane.ttl)
    ? refuse(
      "heartbeatInterval",
      `${Duration.format(heartbeatInterval)} is more than a third of the control plane's TTL, ${
        Duration.format(plane.ttl)
      }`
    )
    : Effect.void
}

export const make = Effect.fnUntraced(function*(settings: DataCenterSettings) {
  const plane = yield* ControlPlane
  const store = yield* Effect.serviceOption(GlobalStore)
  const cluster = yield* Cluster
  const node = yield* Node
  const events = yield* SystemEvents
  const dataCenter = {
    name: settings.name,
    ...(settings.region === undefined ? {} : { region: settings.region }),
    ...(settings.zone === undefined ? {} : { zone: settings.zone }),
    labels: settings.labels
  }
  const id = dataCenterId(dataCenter)
  yield* checked(settings, id, plane, node)
  const writer = nodeKey(node.address)
  const kick = yield* Queue.sliding<void>(1)
  const moved = (changed: string | undefined) => {
    if (changed === undefined || changed === id) Queue.offerUnsafe(kick, void 0)
  }
  const knowledge = yield* Knowledge.make({ settings, plane, store, events, moved })
  const registrar = Registrar.make({ settings, id, dataCenter, writer, plane, cluster, events, knowledge, kick })
  // said after all loops have ended
  yield* Effect.addFinalizer(() => registrar.goodbye)
  yield* knowledge.follow
  yield* registrar.keep

  // ---- what callers ask

  const usable = Effect.suspend((): Effect.Effect<void, DataCenterNotReady | StaleRecords> => {
    const age = knowledge.age()
    if (age === undefined) return Effect.fail(new DataCenterNotReady({}))
    if (!knowledge.isStale()) return Effect.void
    return settings.failOnStaleCache
      ? Effect.fail(new StaleRecords({ age: Duration.millis(age), limit: settings.maxCacheStaleness }))
      : Effect.logWarning(`datacenter records are ${Math.round(age)} ms old, and used all the same`)
  })
  const oneOf = (selector: Selector, candidates: () => ReadonlyArray<DataCenterRecord>) =>
    Effect.andThen(
      usable,
      Effect.suspend((): Effect.Effect<DataCenterRecord, RecordNotFound | AmbiguousDataCenter> => {
        const matching = candidates().filter((record) => matches(selector, record.dataCenter))
        if (matching.length === 1) return Effect.succeed(matching[0]!)
        return matching.length === 0
          ? Effect.fail(new RecordNotFound({ dataCenter: describe(selector) }))
          : Effect.fail(
            new AmbiguousDataCenter({ selector: describe(selector), matches: matching.map((record) => record.id) })
          )
      })
    )

  type Why = { readonly by?: string | undefined; readonly reason?: string | undefined }
  const wish = (operation: string, state: "DRAINED" | "ACTIVE") => (selector: Selector, why: Why = {}) =>
    Effect.gen(function*() {
      if (Option.isNone(store)) {
        return yield* new StoreUnavailable({ operation, reason: "this control plane provides no global store" })
      }
      const record = yield* oneOf(selector, knowledge.all)
      yield* writeWish(
        store.value,
        { id: record.id, state, by: why.by ?? writer, reason: why.reason ?? "" },
        knowledge.wish(record.id)?.counter ?? 0
      )
    })

  return {
    self: { ...dataCenter, id },
    ready: Effect.sync(() => knowledge.age() !== undefined),
    lastRefresh: Effect.sync(() => knowledge.known().age),
    known: Effect.sync(knowledge.known),
    changes: Stream.map(knowledge.changes, knowledge.known),
    refresh: knowledge.refresh,
    select: (selector) => oneOf(selector, knowledge.routable),
    reach: (selector) => oneOf(selector, knowledge.reachable),
    reachable: Effect.andThen(usable, Effect.sync(knowledge.reachable)),
    drain: wish("drain", "DRAINED"),
    activate: wish("activate", "ACTIVE"),
    await: (name, options) =>
      knowledge.changes.pipe(
        Stream.filter(() =>
          !knowledge.isStale() && knowledge.routable().some((record) => record.dataCenter.name === name)
        ),
        Stream.runHead,
        Effect.timeoutOrElse({
          duration: options?.timeout ?? "30 seconds",
          orElse: () => Effect.fail(new DataCenterNotReady({ dataCenter: name }))
        }),
        Effect.asVoid
      )
  } satisfies DataCenters["Service"]
})

/**
 * The writer of this datacenter's own record: performs what the plan (`ownRecord.ts`) says, renews the lease, says goodbye.
 *
 * Invariant: one fiber writes the record; everything else only kicks it. Only the leader writes; any Up member may renew.
 */
import { Duration, Effect, Queue, Result, Stream } from "effect"
import { endpoint, nodeKey } from "../../Actor/Address.ts"
import { OutcomeUnknown } from "../../Actor/errors.ts"
import type { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { Cluster } from "../../Cluster/Cluster.ts"
import type {
  ControlPlane,
  ControlPlaneWriteError,
  DataCenter,
  DataCenterRecord
} from "../../ControlPlane/ControlPlane.ts"
import type { DataCenterSettings } from "../DataCenterSettings.ts"
import type { Knowledge } from "./knowledge.ts"
import { backoff, every, type Pace } from "./loops.ts"
import * as Own from "./ownRecord.ts"

/** Tries of one write of the own record that lost a race and read again. */
const maxAttempts = 5

export const make = (options: {
  readonly settings: DataCenterSettings
  readonly id: string
  readonly dataCenter: DataCenter
  /** this start of this node */
  readonly writer: string
  readonly plane: ControlPlane["Service"]
  readonly cluster: Cluster["Service"]
  readonly events: SystemEvents["Service"]
  readonly knowledge: Knowledge
  /** what asks the writer to look again */
  readonly kick: Queue.Queue<void>
}) => {
  const { cluster, dataCenter, events, id, kick, knowledge, plane, settings, writer } = options
  let formed = false
  let led = false
  let closing = false
  /** is what the cache says of the own record not to be trusted: a write of ours met another version, or none */
  let doubtful = true
  let written: string | undefined

  const kicked = Effect.sync(() => void Queue.offerUnsafe(kick, void 0))
  const within = <A, E>(operation: string, effect: Effect.Effect<A, E>) =>
    Effect.timeoutOrElse(effect, {
      duration: settings.requestTimeout,
      orElse: () => Effect.fail(new OutcomeUnknown({ operation, reason: "no answer in time" }))
    })
  const upMembers = Effect.map(cluster.view, (view) => view.members.filter((member) => member.status === "Up"))
  const endpoints = settings.endpoints.length > 0
    ? Effect.succeed(Own.sortedEndpoints(settings.endpoints))
    : Effect.map(upMembers, (members) => Own.sortedEndpoints(members.map((member) => endpoint(member.node))))
  const heartbeat = within("heartbeat", plane.heartbeat(id, writer))

  /** Another cluster that believes to be the same datacenter would fight with us for ever: say so. */
  const tellForeign = (record: DataCenterRecord) =>
    Effect.gen(function*() {
      const members = (yield* cluster.view).members.map((member) => nodeKey(member.node))
      const ours = members.includes(record.writer) || record.writer.startsWith(Own.leavingWriter(""))
      if (written === undefined || record.version === written || ours) return
      const reason = `the record of ${settings.name} was written by ${record.writer}, which is no member here`
      events.publish({ _tag: "StoreTrouble", store: "control plane", reason })
      yield* Effect.logWarning(reason)
    })

  /** Performs what the plan says; was there anything to do? */
  const perform = (command: Own.OwnCommand): Effect.Effect<boolean, ControlPlaneWriteError> => {
    if (command._tag === "Nothing") return Effect.succeed(false)
    const version = command._tag === "Replace" ? command.version : undefined
    return within("registration", plane.register(command.registration, version)).pipe(
      Effect.tap((next) => {
        written = next
        const lease = { duration: plane.ttl, remaining: plane.ttl }
        return knowledge.wrote({ ...command.registration, version: next, lease })
      }),
      Effect.as(true)
    )
  }

  /** Makes the record say what it should; reads it again wherever a write met something else than it knew. */
  const asLeader = Effect.gen(function*() {
    // A datacenter that was drained before this start must not be routable for a moment.
    yield* knowledge.awaitWishes
    yield* knowledge.reassert(id)
    for (let attempt = 1;; attempt++) {
      if (doubtful) yield* knowledge.refresh
      const record = knowledge.find(id)?.record
      if (record !== undefined) yield* tellForeign(record)
      const own = yield* endpoints
      const wish = knowledge.wish(id)?.state
      const command = Own.plan({ id, dataCenter, endpoints: own, formed, wish, record, writer })
      // A leader whose own lease has lapsed may have a successor already: it renews, and changes nothing.
      if (command._tag === "Replace" && !cluster.mayAct()) {
        yield* heartbeat
        led = true
        return
      }
      const performed = yield* Effect.result(perform(command))
      if (Result.isSuccess(performed)) {
        doubtful = false
        // a new leader renews at once, whatever time its predecessor left
        if (!performed.success && !led) yield* heartbeat
        led = true
        return
      }
      doubtful = true
      const again = performed.failure._tag === "RevisionConflict" || performed.failure._tag === "RecordNotFound" ||
        performed.failure._tag === "OutcomeUnknown"
      if (!again || attempt >= maxAttempts) return yield* performed.failure
    }
  })

  /** Any Up member may renew a lease that its leader let grow older than half of it. */
  const asMember = Effect.gen(function*() {
    led = false
    doubtful = true
    const own = knowledge.find(id)
    const up = (yield* upMembers).some((member) => nodeKey(member.node) === writer)
    if (own === undefined || !up) return
    if (own.remaining < Duration.toMillis(own.record.lease.duration) / 2) yield* heartbeat
  })

  let troubled = false
  const reconcile = Effect.suspend(() =>
    closing
      ? Effect.void
      : Effect.flatMap(
        cluster.isLeader,
        (leader): Effect.Effect<void, ControlPlaneWriteError> => leader ? asLeader : asMember
      )
  ).pipe(
    Effect.tap(() =>
      Effect.sync(() => {
        troubled = false
      })
    ),
    Effect.tapError((error) => {
      if (troubled) return Effect.void
      troubled = true // once until it succeeds again, not once a try
      const reason = `the record of ${settings.name} cannot be kept: ${error._tag}`
      events.publish({ _tag: "StoreTrouble", store: "control plane", reason })
      return Effect.logWarning(reason, error)
    })
  )

  const beat = Effect.suspend(() =>
    closing || !led ? Effect.void : Effect.catchTag(heartbeat, "RecordNotFound", () => {
      doubtful = true
      return kicked
    })
  )

  /**
   * The last member says so, and only the last: a datacenter whose leader restarts has other members, and its record is theirs
   * as much. DRAINING first, so that nobody places anything here while the rest shuts down; INACTIVE says that it is over.
   */
  const goodbye: Effect.Effect<void> = within(
    "goodbye",
    Effect.gen(function*() {
      closing = true
      const { members } = yield* cluster.view
      if (members.some((member) => nodeKey(member.node) !== writer && member.status !== "Dead")) return
      yield* knowledge.refresh
      const record = knowledge.find(id)?.record
      // drained by an operator: that stays for the next start to find
      if (record === undefined || Own.isDrained(record, knowledge.wish(id)?.state)) return
      const { lease: _, version, ...registration } = record
      const draining = yield* plane.register(
        { ...registration, state: "DRAINING", writer: Own.leavingWriter(writer) },
        version
      )
      yield* plane.setState(id, "INACTIVE", draining)
    })
  ).pipe(
    Effect.catch((error) => Effect.logWarning(`the datacenter's record could not be made inactive: ${error._tag}`))
  )

  // While renewals fail they are tried at least each heartbeat interval, so that a plane that is back finds the lease alive.
  const renewing: Pace = {
    jitterRatio: settings.jitterRatio,
    maxBackoff: Duration.min(settings.maxBackoff, settings.heartbeatInterval)
  }

  return {
    goodbye,
    /** Keeps the record for as long as the scope lives. */
    keep: Effect.gen(function*() {
      yield* cluster.changes.pipe(Stream.runForEach(() => kicked), Effect.forkScoped)
      yield* every(kicked, settings.leaderCheckInterval, settings).pipe(Effect.forkScoped)
      yield* Effect.retry(cluster.awaitFormed, backoff(settings)).pipe(
        Effect.andThen(Effect.suspend(() => {
          formed = true
          return kicked
        })),
        Effect.ignore,
        Effect.forkScoped
      )
      yield* Queue.take(kick).pipe(
        Effect.andThen(Effect.ignore(Effect.retry(reconcile, backoff(renewing)))),
        Effect.forever,
        Effect.forkScoped
      )
      yield* every(beat, settings.heartbeatInterval, renewing).pipe(Effect.forkScoped)
    })
  }
}

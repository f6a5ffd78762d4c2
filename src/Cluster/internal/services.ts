/**
 * A member put together: each part is a file of this folder; here is who knows whom, and the order of starting.
 */
import { Clock, Deferred, Duration, Effect, FiberSet, Option, Stream } from "effect"
import { ActorHost } from "../../Actor/ActorHost.ts"
import { ClusterNotFormed, DataCenterNotReady, RecordNotFound, type SettingInvalid } from "../../Actor/errors.ts"
import type { Placement } from "../../Actor/Placement.ts"
import { SystemEvents } from "../../Actor/SystemEvents.ts"
import type { Topology } from "../../Actor/Topology.ts"
import { type Caller, Remoting } from "../../Remoting/Remoting.ts"
import type { Cluster, ClusterView } from "../Cluster.ts"
import type { ClusterSettings } from "../ClusterSettings.ts"
import * as Admission from "./admission.ts"
import * as Balance from "./balance.ts"
import * as Calls from "./calls.ts"
import { ClusterRpcs } from "./ClusterRpcs.ts"
import * as Deaths from "./deaths.ts"
import * as Directory from "./directory.ts"
import * as Heartbeat from "./heartbeat.ts"
import * as Journal from "./journal.ts"
import * as Leave from "./leave.ts"
import * as MemberHost from "./memberHost.ts"
import * as Membership from "./membership.ts"
import * as MembershipEvents from "./membershipEvents.ts"
import * as ClusterPlacement from "./placement.ts"
import * as Rebuild from "./rebuild.ts"
import * as Relocation from "./relocation.ts"
import { membersOf, type Snapshot } from "./snapshot.ts"
import * as Reseed from "./reseed.ts"
import * as Sweep from "./sweep.ts"
import * as View from "./view.ts"

export const makeServices = Effect.fnUntraced(
  function*(given: Effect.Effect<ClusterSettings, SettingInvalid>) {
    const settings = yield* given
    const host = yield* ActorHost
    const remoting = yield* Remoting
    const events = yield* SystemEvents
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
    const fork = yield* FiberSet.makeRuntime<never>()

    // ---- parts. Some know each other in a circle: what closes it is set below, before the join.
    const late: {
      handlers?: Calls.Handlers
      rebuild?: Rebuild.Rebuild
      directory?: Directory.Directory
      deaths?: Deaths.Deaths
    } = {}
    let leaving = false
    const isLeaving = () => leaving

    const membership = yield* Membership.make(settings, host, remoting.listening)
    const calls: Calls.Calls = yield* Calls.make(membership, remoting, () => late.handlers!)
    const heartbeat = yield* Heartbeat.make(membership, calls, host, {
      heard: (key) => late.deaths?.heard(key),
      silent: (key) => late.deaths?.silent(key)
    })
    const journal = yield* Journal.make(membership, {
      isNeeded: (partition, epoch) => late.directory!.isNeeded(partition, epoch),
      maySettle: () =>
        membership.current().view?.partitions.every((partition) =>
          partition.owner !== membership.key || partition.state === "Owned"
        ) === true
    })
    const relocation = yield* Relocation.make(membership, heartbeat.isHeard)
    // Hosts see a view before owners do: epochs rise before anything is ordered by them.
    const memberHost = yield* MemberHost.make(membership, host, () => calls, isLeaving)
    const directory = yield* Directory.make({
      membership,
      journal,
      relocation,
      calls: () => calls,
      rebuild: (tables) => void fork(late.rebuild!.run(tables))
    })
    late.directory = directory
    late.rebuild = Rebuild.make({ membership, journal, calls, relocation, directory })
    const balance = Balance.make(membership, directory)
    const members = () => membersOf(membership.current(), membership.keys.kinds)
    const handlers: Calls.Handlers = {
      ...directory.handlers,
      ...memberHost.handlers,
      KnownView: () =>
        Effect.sync(() => {
          const { view } = membership.current()
          return { view: view === undefined ? "" : View.encode(view) }
        }),
      Ping: ({ closed, from }) =>
        Effect.gen(function*() {
          if (closed) yield* membership.lease.fence
          const { view } = membership.current()
          const dead = view !== undefined && View.find(view, from)?.status === "Dead"
          return {
            alive: !dead && membership.observer.status(membership.keys.lease(from)) !== "Closed",
            view: view?.number ?? 0,
            load: host.load()
          }
        })
    }
    late.handlers = handlers
    yield* MembershipEvents.follow(membership, calls, events, remoting)

    // ---- the end of this incarnation
    const fenced = Effect.gen(function*() {
      const reason = yield* Deferred.await(membership.over)
      if (leaving) return
      yield* Effect.logError(
        `this node is no member any more and never will be again: ${reason}; its actors are stopped`
      )
      yield* host.suspend(true)
      events.publish({ _tag: "MemberFenced", node: membership.self, reason })
      yield* memberHost.abandon
    })
    yield* Effect.forkScoped(fenced)

    // ---- serve, then join: whoever sees this member in a view may ask it at once
    const served = yield* ClusterRpcs.toHandlers(handlers)
    // no outsider and no other datacenter: those have calls of their own, which check what they may start
    const ofThisCluster = (caller: Caller) =>
      caller.client || caller.dataCenter !== membership.self.dataCenter ? "only members are served" : undefined
    yield* remoting.serve(ClusterRpcs, { admit: ofThisCluster }).pipe(Effect.provideContext(served))
    const startedAt = now()
    yield* Admission.check(membership, calls)
    yield* membership.join
    const deaths = yield* Deaths.follow({ membership, remoting, calls })
    late.deaths = deaths
    yield* Sweep.follow(membership)
    yield* Reseed.follow({ membership, calls, journal, isHeard: heartbeat.isHeard })
    yield* balance.follow

    // ---- the faces
    let wasFormed = false
    const upCount = (snapshot: Snapshot) => snapshot.view === undefined ? 0 : View.up(snapshot.view).length
    const isFormed = () => wasFormed ||= upCount(membership.current()) >= settings.minimumMembers
    const awaitFormed = Effect.suspend(() => {
      if (isFormed()) return Effect.void
      const left = Math.max(0, Duration.toMillis(settings.bootstrapTimeout) - (now() - startedAt))
      return membership.changes.pipe(
        Stream.takeUntil(isFormed),
        Stream.runDrain,
        Effect.timeoutOrElse({
          duration: Duration.millis(left),
          orElse: () =>
            Effect.fail(
              new ClusterNotFormed({ members: upCount(membership.current()), minimum: settings.minimumMembers })
            )
        })
      )
    })
    const placing = yield* ClusterPlacement.make({ membership, calls, host, isHeard: heartbeat.isHeard, awaitFormed })

    const toView = (snapshot: Snapshot): ClusterView => ({
      number: snapshot.view?.number ?? 0,
      members: membersOf(snapshot, membership.keys.kinds)
    })
    const leader = Effect.sync(() => Option.fromUndefinedOr(members().find((member) => member.status === "Up")))
    const isLeader = Effect.sync(() => {
      const { view } = membership.current()
      const oldest = view === undefined ? undefined : View.leader(view)
      return oldest?.incarnation === membership.self.incarnation && oldest.id === membership.self.id
    })
    const cluster: Cluster["Service"] = {
      self: membership.self,
      view: Effect.sync(() => toView(membership.current())),
      changes: Stream.map(membership.changes, toView),
      leader,
      isLeader,
      mayAct: membership.mayAct,
      awaitFormed,
      down: deaths.down,
      over: Deferred.await(membership.over)
    }
    /** Alone a cluster knows one datacenter, its own. */
    const isHere = (dataCenter: string | undefined) =>
      dataCenter === undefined || dataCenter === membership.self.dataCenter
    const nameOf = (target: { readonly dataCenter?: string | { readonly name?: string } }) =>
      typeof target.dataCenter === "string" ? target.dataCenter : target.dataCenter?.name
    const placement: Placement["Service"] = {
      spawn: (spec, target) => {
        const name = nameOf(target)
        return isHere(name) ? placing.spawn(spec, target) : Effect.fail(new RecordNotFound({ dataCenter: name! }))
      },
      lookup: (kind, name, options) =>
        isHere(options.dataCenter)
          ? placing.lookup(kind, name, options.not)
          : Effect.fail(new RecordNotFound({ dataCenter: options.dataCenter! })),
      stop: placing.stop
    }
    const topology: Topology["Service"] = {
      members: Effect.sync(members),
      isLeader,
      dataCenterReady: Effect.succeed(true),
      dataCenterLastRefresh: Effect.succeed(Option.none()),
      awaitDataCenter: (name) => isHere(name) ? Effect.void : Effect.fail(new DataCenterNotReady({ dataCenter: name }))
    }

    // The last finalizer to be added is the first to run: everything of this member still works while it leaves.
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        leaving = true
        return Leave.leave({ membership, memberHost, directory, balance })
      })
    )
    yield* Effect.logDebug(`member ${membership.key} is up in view ${membership.current().view?.number}`)
    return { cluster, placement, topology }
  }
)

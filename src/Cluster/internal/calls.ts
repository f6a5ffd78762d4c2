/**
 * Calls between members as plain functions: to this very node without a detour, to others over remoting. And the one loop that
 * finds a partition's owner, however far behind this node or the one it asks may be.
 */
import { Clock, Duration, Effect, Random } from "effect"
import type { Rpc, RpcGroup } from "effect/rpc"
import type { NodeAddress } from "../../Actor/Address.ts"
import { nodeKey } from "../../Actor/Address.ts"
import { type DirectoryRebuilding, NodeUnreachable } from "../../Actor/errors.ts"
import type { Remoting } from "../../Remoting/Remoting.ts"
import { ClusterRpcs, type Moved, NotServing } from "./ClusterRpcs.ts"
import type { Membership } from "./membership.ts"
import { addressOf } from "./snapshot.ts"

type Rpcs = RpcGroup.Rpcs<typeof ClusterRpcs>
type Tagged<Tag extends Rpcs["_tag"]> = Rpc.ExtractTag<Rpcs, Tag>

/** What a member answers, by the tag of the call. */
export type Handlers = {
  readonly [Tag in Rpcs["_tag"]]: (
    payload: Rpc.Payload<Tagged<Tag>>
  ) => Effect.Effect<Rpc.Success<Tagged<Tag>>, Rpc.Error<Tagged<Tag>>>
}
/** The same, asked of a member that may be far away. */
export type Peer = {
  readonly [Tag in Rpcs["_tag"]]: (
    payload: Rpc.Payload<Tagged<Tag>>
  ) => Effect.Effect<Rpc.Success<Tagged<Tag>>, Rpc.Error<Tagged<Tag>> | NodeUnreachable>
}

/** Where a partition is, as far as this node knows. */
export interface Route {
  readonly partition: number
  readonly epoch: number
  readonly peer: Peer
}

/** No final answer within the deadline: `last` is what stood in the way, `unknown` whether some call may have had an effect. */
export interface GaveUp {
  readonly _tag: "GaveUp"
  readonly last: NodeUnreachable | DirectoryRebuilding | NotServing | Moved
  readonly unknown: boolean
}

type Passing = NodeUnreachable | DirectoryRebuilding | NotServing | Moved
const isPassing = (error: { readonly _tag: string }): error is Passing =>
  error._tag === "NodeUnreachable" || error._tag === "DirectoryRebuilding" || error._tag === "NotServing" ||
  error._tag === "Moved"

export interface Calls {
  readonly peer: (to: NodeAddress, timeout?: Duration.Input) => Peer
  /**
   * Asks the partition's owner until it answers for good, at most `timeout` milliseconds. `finalWhenUnreachable`: an unreachable
   * owner ends it at once. Every call made must be idempotent.
   */
  readonly toOwner: <A, E extends { readonly _tag: string }>(
    partition: number,
    timeout: number,
    send: (route: Route) => Effect.Effect<A, E>
  ) => Effect.Effect<A, Exclude<E, Passing> | GaveUp>
}

const late = (owner: NodeAddress) =>
  new NodeUnreachable({ node: nodeKey(owner), outcome: "Unknown", reason: "no answer in time" })

/** First wait between two tries, and the longest one, in milliseconds. */
const retryFrom = 25
const retryUpTo = 400

export const make = Effect.fnUntraced(
  function*(membership: Membership, remoting: Remoting["Service"], local: () => Handlers) {
    const clock = yield* Clock.Clock
    const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
    const requestTimeout = membership.settings.requestTimeout
    /** owners that others told us of, where they are ahead of our view */
    const hints = new Map<number, { readonly epoch: number; readonly owner: NodeAddress | undefined }>()

    const tags = Array.from(ClusterRpcs.requests.keys()) as ReadonlyArray<Rpcs["_tag"]>
    const peer = (to: NodeAddress, timeout: Duration.Input = requestTimeout): Peer => {
      if (nodeKey(to) === membership.key) return local()
      const calls: Record<string, (payload: never) => unknown> = {}
      for (const tag of tags) {
        calls[tag] = (payload: never) => remoting.call(to, ClusterRpcs, tag, payload, { timeout })
      }
      return calls as unknown as Peer
    }

    const ownerOf = (partition: number): { readonly epoch: number; readonly owner: NodeAddress | undefined } => {
      const snapshot = membership.current()
      const known = snapshot.view?.partitions[partition]
      const hint = hints.get(partition)
      if (hint !== undefined && hint.epoch > (known?.epoch ?? 0)) return hint
      if (hint !== undefined) hints.delete(partition)
      return {
        epoch: known?.epoch ?? 0,
        owner: known?.owner === undefined ? undefined : addressOf(snapshot, known.owner)
      }
    }

    const toOwner: Calls["toOwner"] = (partition, timeout, send) =>
      Effect.gen(function*() {
        const deadline = now() + timeout
        let wait = retryFrom
        let unknown = false
        let last: Passing = new NotServing({ node: membership.key, reason: "the partition has no owner yet" })
        while (true) {
          const left = deadline - now()
          if (left <= 0) return yield* Effect.fail({ _tag: "GaveUp", last, unknown } satisfies GaveUp)
          const { epoch, owner } = ownerOf(partition)
          if (owner !== undefined) {
            // A call to this very node has no deadline of its own.
            const sent = send({ partition, epoch, peer: peer(owner, Duration.millis(left)) }).pipe(
              Effect.timeoutOrElse({ duration: Duration.millis(left), orElse: () => Effect.fail(late(owner)) })
            )
            const result = yield* Effect.result(sent)
            if (result._tag === "Success") return result.success
            const error: { readonly _tag: string } = result.failure
            if (!isPassing(error)) {
              return yield* Effect.fail(result.failure as Exclude<typeof result.failure, Passing>)
            }
            last = error
            if (error._tag === "NodeUnreachable" && error.outcome === "Unknown") unknown = true
            if (error._tag === "Moved" && error.epoch > epoch) {
              hints.set(partition, { epoch: error.epoch, owner: error.owner })
              continue
            }
            // The owner does not know yet that it is the owner, or is not any more: the store knows.
            if (error._tag === "Moved") yield* membership.refresh
          }
          const jitter = yield* Random.next
          yield* Effect.sleep(Duration.millis(Math.max(1, Math.min(wait * (0.8 + 0.4 * jitter), deadline - now()))))
          wait = Math.min(wait * 2, retryUpTo)
        }
      })

    return { peer, toOwner } satisfies Calls
  }
)

/**
 * Urgent questions of the runtime to an actor of another node, as calls: looking at it and ending it must not wait behind the
 * messages that it does not take, nor must a watch of it where they have filled the lane.
 */
import { Effect, Exit, type Fiber, Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"
import type { ActorAddress } from "../../Actor/Address.ts"
import type { Delivery } from "../../Actor/Delivery.ts"
import { ActorStopped, AskError, InvalidData, NotAllowed } from "../../Actor/errors.ts"
import type { Asker } from "../../Actor/internal/Envelope.ts"
import { isForClients, isSystemTag, notForClients, urgency } from "../../Actor/internal/systemMessages.ts"
import type { Timeouts } from "../../Actor/internal/Timeouts.ts"
import type { KindDefinition } from "../../Actor/Kind.ts"
import { type Calls, isOfClient } from "./calls.ts"
import { codecOf, reasonOf } from "./codec.ts"
import type { Session } from "./session.ts"
import { peerMillis, wholeMillis } from "./wire.ts"

/** Whoever names this answers such calls. */
export const urgentCapability = "urgent"

/** milliseconds that a call may take longer than its asker waits, so that the asker's own time decides */
const margin = 1000

class UrgentRpcs extends RpcGroup.make(
  /** The question and its answer are bytes by the runtime's own schemas. */
  Rpc.make("Actor.Urgent", {
    payload: {
      kind: Schema.String,
      name: Schema.String,
      placement: Schema.Int,
      epoch: Schema.Int,
      tag: Schema.String,
      question: Schema.Uint8Array,
      timeout: Schema.Number
    },
    success: Schema.Uint8Array,
    error: Schema.Union([...AskError.members, NotAllowed])
  })
) {}

const urgentRpc = UrgentRpcs.requests.get("Actor.Urgent") as unknown as Rpc.AnyWithProps

/** Answers such calls for as long as the scope lives. */
export const serveUrgent = (calls: Calls, options: {
  readonly delivery: Delivery["Service"]
  readonly kinds: () => ReadonlyMap<string, KindDefinition>
  readonly self: ActorAddress["node"]
}) =>
  calls.serveGroup(UrgentRpcs).pipe(Effect.provide(UrgentRpcs.toLayer({
    "Actor.Urgent": ({ epoch, kind: kindName, name, placement, question, tag, timeout }, { headers }) =>
      Effect.suspend((): Effect.Effect<Uint8Array, AskError | NotAllowed> => {
        if (isOfClient(headers) && !isForClients(tag)) return Effect.fail(notForClients(tag, name, options.self))
        const kind = options.kinds().get(kindName)
        if (kind === undefined) return Effect.fail(new ActorStopped({ name }))
        const message = isSystemTag(tag) && urgency(tag) !== undefined ? kind.messages.get(tag) : undefined
        const invalid = (error: unknown) => new InvalidData({ what: `${kindName}.${tag}`, reason: reasonOf(error) })
        const unanswerable = (error: unknown) =>
          new InvalidData({ what: `reply of ${kindName}.${tag}`, reason: reasonOf(error), reply: true })
        if (message === undefined) return Effect.fail(invalid("is no urgent message"))
        return Effect.try({
          try: () => codecOf(message.payload, "evolving").decode(question),
          catch: invalid
        }).pipe(
          Effect.flatMap((payload) =>
            options.delivery.ask(
              { kind: kindName, name, node: options.self, placement, epoch },
              { kind, tag, payload },
              peerMillis(wholeMillis(timeout))
            )
          ),
          // the runtime's own messages have no errors but that of whoever may not send them
          Effect.flatMap((answer) => Effect.orDie(answer)),
          Effect.flatMap((answer) =>
            Effect.try({ try: () => codecOf(message.success, "evolving").encode(answer), catch: unanswerable })
          )
        )
      })
  })))

/** Is that question to be asked so? Else it goes with the other messages. */
export const goesUrgently = (session: Session, tag: string): boolean => {
  if (!isSystemTag(tag)) return false
  const how = urgency(tag)
  return how !== undefined && (how === "always" || session.outbox.stalled) && !session.muted &&
    session.supports(urgentCapability)
}

/** Asks it; the asker is told here too where that cannot be done. */
export const askUrgently = (
  options: {
    readonly calls: Calls
    readonly timeouts: Timeouts
    readonly runFork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  },
  session: Session,
  to: ActorAddress,
  asker: Asker
): void => {
  const { kind, name, placement, epoch } = to
  const message = asker.kind.messages.get(asker.tag)!
  const question = codecOf(message.payload, "evolving").encode(asker.payload)
  const { tag, timeout } = asker
  const fiber = options.runFork(
    options.calls.call(
      session,
      urgentRpc,
      { kind, name, placement, epoch, tag, question, timeout },
      timeout + margin
    )
  )
  asker.carrier = { forget: () => fiber.interruptUnsafe() }
  options.timeouts.add(timeout, asker)
  fiber.addObserver((exit) => {
    if (Exit.isSuccess(exit)) {
      try {
        return asker.succeed(codecOf(message.success, "evolving").decode(exit.value as Uint8Array))
      } catch (error) {
        return asker.refuse(new InvalidData({ what: `reply of ${kind}.${tag}`, reason: reasonOf(error), reply: true }))
      }
    }
    const error = Exit.findErrorOption(exit)
    if (error._tag === "None") return asker.refuse(session.failure("Unknown"))
    // the question's own error, as on the data lane
    if (error.value instanceof NotAllowed) asker.reply(Exit.fail(error.value))
    else asker.refuse(error.value as AskError)
  })
}

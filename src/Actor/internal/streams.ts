/**
 * Streaming replies over plain asks: opening gives the stream an id, each pull asks for its next chunk, closing ends it. So they
 * work over any `Delivery`, an asker that is slow holds the stream back (one chunk is under way at most), and one that stops
 * listening ends it. A stream lives in its actor's incarnation.
 */
import { Effect, Exit, Fiber, Pull, Schema, Scope, Stream } from "effect"
import { RpcSchema } from "effect/rpc"
import { HandlerFailed } from "../errors.ts"
import type { KindDefinition, MessageDefinition } from "../Kind.ts"
import type { Cell, HandlerTable } from "./Cell.ts"
import { Forwarded } from "./Envelope.ts"
import { Alarm } from "./Extras.ts"
import { validated } from "./observed.ts"
import { isSystemTag } from "./systemMessages.ts"

export interface StreamSession {
  readonly scope: Scope.Closeable
  readonly pull: Effect.Effect<ReadonlyArray<unknown>, unknown>
  readonly alarm: Alarm
  /** the chunk that is under way; an asker who asked too briefly finds it again */
  fiber: Fiber.Fiber<ReadonlyArray<unknown>, unknown> | undefined
}

export interface Page {
  readonly items: ReadonlyArray<unknown>
  readonly done: boolean
}

export const pullTag = (tag: string): string => `${tag}$pull`
export const closeTag = (tag: string): string => `${tag}$close`

/** The messages that the kind's author declared: without those that the runtime added. */
export const ownMessages = ({ messages }: KindDefinition): ReadonlyArray<MessageDefinition> => {
  const all = [...messages.values()]
  const added = new Set(all.filter(({ stream }) => stream).flatMap(({ tag }) => [pullTag(tag), closeTag(tag)]))
  return all.filter(({ tag }) => !isSystemTag(tag) && !added.has(tag))
}

/** milliseconds after which a stream whose asker is silent is given up */
const abandonedAfter = 60_000
/** milliseconds that an asker waits for a chunk before it asks anew */
export const longestPull = abandonedAfter / 2

/** The three messages that a streaming message becomes. */
export const streamDefinitions = (message: MessageDefinition): ReadonlyArray<MessageDefinition> => {
  const stream = message.success as unknown as RpcSchema.Stream<Schema.Top, Schema.Top>
  const top = (schema: unknown) => schema as Schema.Top
  return [
    { ...message, success: Schema.Int },
    {
      tag: pullTag(message.tag),
      payload: top(Schema.Struct({ id: Schema.Int, wait: Schema.Int })),
      success: top(Schema.Struct({ items: Schema.Array(stream.success), done: Schema.Boolean })),
      error: stream.error,
      stream: false
    },
    {
      tag: closeTag(message.tag),
      payload: top(Schema.Struct({ id: Schema.Int })),
      success: Schema.Void,
      error: Schema.Never,
      stream: false
    }
  ]
}

/** The handlers with those of the streaming messages put into place. */
export const streamHandlers = (cell: Cell, handlers: HandlerTable, tags: ReadonlyArray<string>): HandlerTable => {
  const table: Record<string, HandlerTable[string]> = { ...handlers }

  const close = (id: number) =>
    Effect.suspend(() => {
      const session = cell.extras?.streams?.get(id)
      if (session === undefined) return Effect.void
      cell.extras!.streams!.delete(id)
      cell.host.timeouts.cancel(session.alarm)
      return Scope.close(session.scope, Exit.void)
    })

  const keep = (session: StreamSession) => {
    cell.host.timeouts.cancel(session.alarm)
    cell.host.timeouts.add(abandonedAfter, session.alarm)
  }

  const open = (stream: Stream.Stream<unknown, unknown, unknown>) =>
    Effect.gen(function*() {
      const scope = yield* Scope.fork(yield* Scope.Scope)
      const context = yield* Effect.context<never>()
      const pull = yield* Stream.toPull(stream).pipe(Scope.provide(scope))
      const id = ++cell.more.lastStream
      const session: StreamSession = {
        scope,
        pull: Effect.provideContext(pull, context) as Effect.Effect<ReadonlyArray<unknown>, unknown>,
        alarm: new Alarm(() => cell.host.runFork(close(id))),
        fiber: undefined
      }
      // what is under way ends before what it uses
      yield* Scope.addFinalizer(
        scope,
        Effect.suspend(() => session.fiber === undefined ? Effect.void : Fiber.interrupt(session.fiber))
      )
      ;(cell.more.streams ??= new Map()).set(id, session)
      keep(session)
      return id
    })

  const ended = (tag: string) =>
    Effect.die(
      new Forwarded(
        new HandlerFailed({
          name: cell.name,
          request: tag,
          reason: "the stream has ended, with its actor's behaviour or because nobody listened for a minute"
        })
      )
    )

  const pull = (tag: string, id: number, wait: number) =>
    Effect.withFiber<Page, unknown>((fiber) => {
      const session = cell.extras?.streams?.get(id)
      if (session === undefined) return ended(tag)
      keep(session)
      // Waiting for a stream must not hold the mailbox.
      const worker = cell.workerOf(fiber)
      if (worker !== undefined) cell.detach(worker, false)
      session.fiber ??= Effect.runForkWith(fiber.context)(session.pull)
      return Fiber.await(session.fiber).pipe(
        Effect.timeoutOrElse({ duration: wait, orElse: () => Effect.succeed(undefined) }),
        Effect.flatMap((exit): Effect.Effect<Page, unknown> => {
          if (exit === undefined) return Effect.succeed({ items: [], done: false })
          session.fiber = undefined
          if (exit._tag === "Success") return Effect.succeed({ items: exit.value, done: false })
          const over = Pull.isDoneCause(exit.cause)
            ? Effect.succeed<Page>({ items: [], done: true })
            : Effect.failCause(exit.cause)
          return Effect.andThen(close(id), over)
        })
      )
    })

  for (const tag of tags) {
    const handler = handlers[tag]
    // Not all handlers are given when an actor becomes something.
    if (handler === undefined) continue
    const opened: HandlerTable[string] = (payload) =>
      open(handler(payload) as unknown as Stream.Stream<unknown, unknown>)
    table[tag] = cell.registration.options.validate ? validated(cell, tag, opened) : opened
    table[pullTag(tag)] = (payload) => {
      const { id, wait } = payload as { readonly id: number; readonly wait: number }
      return pull(tag, id, wait)
    }
    table[closeTag(tag)] = (payload) => close((payload as { readonly id: number }).id)
  }
  return table
}

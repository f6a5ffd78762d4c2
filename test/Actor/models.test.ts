// Mailbox and supervision against plain models of what is written about them.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorSystem, type Mailbox, type Supervision, SystemEvents } from "effect-troupe/Actor"
import { Effect, Exit, Fiber, Layer, Queue, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { layerLocal } from "./local.ts"

const settle = TestClock.adjust(0)
const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

// ---- mailbox --------------------------------------------------------------------------------------------------------------------

interface Sent {
  readonly id: number
  readonly urgency: number
  readonly asks: boolean
}
type Outcome = "in" | "full" | "waits"

/** A mailbox as its documentation says it, with an actor that handles one message at a time and ends it when it is let. */
class MailboxModel {
  readonly begun: Array<number> = []
  readonly dead: Array<number> = []
  readonly outcomes = new Map<number, Outcome>()
  private inHand = false
  private readonly control: Array<Sent> = []
  private queue: Array<Sent> = []
  private waiting: Array<Sent> = []
  private readonly capacity: number
  private readonly overflow: Mailbox.Overflow
  private readonly priorities: boolean

  constructor(capacity: number, overflow: Mailbox.Overflow, priorities: boolean) {
    this.capacity = capacity
    this.overflow = overflow
    this.priorities = priorities
  }

  urgent(message: Sent): void {
    this.control.push(message)
    this.outcomes.set(message.id, "in")
    this.take()
  }

  send(message: Sent): void {
    this.outcomes.set(message.id, "in")
    if (this.queue.length < this.capacity) this.queue.push(message)
    else {
      switch (this.overflow) {
        case "fail":
          this.outcomes.set(message.id, "full")
          break
        case "dropNewest":
          this.drop(message)
          break
        case "dropOldest": {
          const least = Math.min(...this.queue.map(({ urgency }) => urgency))
          this.drop(this.queue.splice(this.queue.findIndex(({ urgency }) => urgency === least), 1)[0]!)
          this.queue.push(message)
          break
        }
        case "backpressure":
          this.outcomes.set(message.id, "waits")
          this.waiting.push(message)
      }
    }
    this.take()
  }

  /** The one that waits for room longest gives up. */
  giveUp(): number | undefined {
    const [first] = this.waiting
    if (first !== undefined) this.waiting = this.waiting.slice(1)
    return first?.id
  }

  release(): void {
    this.inHand = false
    this.take()
  }

  get holds(): boolean {
    return this.inHand
  }

  private drop(message: Sent): void {
    this.dead.push(message.id)
    if (message.asks) this.outcomes.set(message.id, "full")
  }

  private take(): void {
    if (this.inHand) return
    const next = this.control.shift() ?? this.mostUrgent()
    if (next === undefined) return
    this.inHand = true
    this.begun.push(next.id)
    while (this.waiting.length > 0 && this.queue.length < this.capacity) {
      const admitted = this.waiting.shift()!
      this.outcomes.set(admitted.id, "in")
      this.queue.push(admitted)
    }
  }

  private mostUrgent(): Sent | undefined {
    if (!this.priorities) return this.queue.shift()
    const most = Math.max(...this.queue.map(({ urgency }) => urgency))
    return this.queue.splice(this.queue.findIndex(({ urgency }) => urgency === most), 1)[0]
  }
}

const Message = Actor.make("Message", {
  protocol: [
    Rpc.make("Put", { payload: { id: Schema.Int, urgency: Schema.Int } }),
    Rpc.make("Urgent", { payload: { id: Schema.Int, urgency: Schema.Int } })
  ]
})

const MailboxPlan = {
  capacity: between(1, 3),
  overflow: Schema.Literals(["fail", "dropNewest", "dropOldest", "backpressure"]),
  priorities: Schema.Boolean,
  // More sends than releases, so that mailboxes fill up.
  steps: Schema.Array(Schema.Struct({
    do: Schema.Literals(["tell", "tell 2", "ask", "urgent", "release", "release 2", "giveUp"]),
    urgency: between(0, 2)
  })).check(Schema.isMinLength(15), Schema.isMaxLength(40))
}

describe("a mailbox", () => {
  it.effect.prop(
    "handles in its order, refuses, drops and holds back exactly what its bound and its overflow say, whoever asks or tells",
    MailboxPlan,
    ({ capacity, overflow, priorities, steps }) =>
      Effect.gen(function*() {
        const permits = yield* Queue.unbounded<void>()
        const begun: Array<number> = []
        const handle = ({ id }: { readonly id: number }) =>
          Effect.andThen(Effect.sync(() => void begun.push(id)), Queue.take(permits))
        const live = Message.toLayer(Effect.succeed(Message.of({ Put: handle, Urgent: handle })), {
          mailbox: {
            capacity,
            overflow,
            control: ["Urgent"],
            ...(priorities
              ? { priority: ({ payload }) => (payload as { readonly urgency: number }).urgency }
              : undefined)
          }
        })
        yield* Effect.gen(function*() {
          const system = yield* ActorSystem.ActorSystem
          const { stream } = yield* SystemEvents.SystemEvents
          let dead = 0
          yield* Effect.forkChild(
            Stream.runForEach(stream, (event) => Effect.sync(() => event._tag === "DeadLetter" && dead++)),
            { startImmediately: true }
          )
          const ref = yield* system.spawn(Message, "m")
          const model = new MailboxModel(capacity, overflow, priorities)
          const sends = new Map<number, { readonly asks: boolean; readonly fiber: Fiber.Fiber<void, unknown> }>()
          const abandoned = new Set<number>()
          let ids = 0
          for (const step of steps) {
            switch (step.do) {
              case "tell":
              case "tell 2":
              case "ask":
              case "urgent": {
                const message = { id: ++ids, urgency: priorities ? step.urgency : 0, asks: step.do === "ask" }
                const send = step.do === "tell" || step.do === "tell 2"
                  ? ref.tell.Put(message)
                  : step.do === "ask"
                  ? ref.ask.Put(message, { timeout: "1 day" })
                  : ref.tell.Urgent(message)
                const fiber = yield* Effect.forkChild(send, { startImmediately: true })
                sends.set(message.id, { asks: message.asks, fiber })
                if (step.do === "urgent") model.urgent(message)
                else model.send(message)
                break
              }
              case "release":
              case "release 2":
                if (model.holds) {
                  yield* Queue.offer(permits, undefined)
                  model.release()
                }
                break
              case "giveUp": {
                const id = model.giveUp()
                // An asker that is interrupted is not told of: its message stays, and nobody waits for the answer.
                if (id === undefined) break
                if (sends.get(id)!.asks) abandoned.add(id)
                else yield* Fiber.interrupt(sends.get(id)!.fiber)
              }
            }
            yield* settle
            if (abandoned.size > 0) return
            assert.deepStrictEqual(begun, model.begun)
            assert.strictEqual(dead, model.dead.length)
            for (const [id, { asks, fiber }] of sends) {
              const exit = fiber.pollUnsafe()
              const outcome = model.outcomes.get(id)!
              if (outcome === "full") assert.isTrue(exit !== undefined && Exit.isFailure(exit))
              else if (!asks && outcome === "in") assert.isTrue(exit !== undefined && Exit.isSuccess(exit))
              else if (outcome === "waits" && !asks && exit !== undefined) assert.isTrue(Exit.hasInterrupts(exit))
              else if (outcome === "waits") assert.isUndefined(exit)
            }
            assert.strictEqual(
              (yield* system.inspectActor(ref)).waiting,
              [...model.outcomes.values()].filter((outcome) => outcome === "in").length - model.begun.length -
                model.dead.filter((id) => model.outcomes.get(id) === "in").length
            )
          }
        }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
      }),
    { arbitrary: { runs: 150 } }
  )
})

// ---- supervision ----------------------------------------------------------------------------------------------------------------

const Frail = Actor.make("Frail", {
  protocol: [
    Rpc.make("Add", { success: Schema.Int }),
    Rpc.make("Crash", { payload: { as: Schema.Literals(["restart", "resume", "suspend"]) } })
  ]
})

const SupervisionPlan = {
  limit: between(0, 3),
  window: Schema.Literals([100, 200]),
  exhausted: Schema.Literals(["stop", "suspend", "escalate"]),
  // Moments that fall on the very ends of windows, and between.
  steps: Schema.Array(Schema.Struct({
    do: Schema.Literals(["restart", "resume", "suspend", "reinstate"]),
    after: Schema.Literals([0, 50, 99, 100])
  })).check(Schema.isMinLength(8), Schema.isMaxLength(30))
}

describe("supervision", () => {
  it.effect.prop(
    "an actor restarts as often as its budget in the window says and no more; what a spent budget means is what was chosen",
    SupervisionPlan,
    ({ exhausted, limit, steps, window }) =>
      Effect.gen(function*() {
        let starts = 0
        let ends = 0
        const live = Frail.toLayer(
          Effect.gen(function*() {
            let count = 0
            starts++
            yield* Effect.addFinalizer(() => Effect.sync(() => void ends++))
            return Frail.of({
              Add: () => Effect.sync(() => ++count),
              Crash: ({ as }) => Effect.die(as)
            })
          }),
          {
            supervision: { decide: (error) => error as Supervision.Directive, limit, window, exhausted }
          }
        )
        yield* Effect.gen(function*() {
          const system = yield* ActorSystem.ActorSystem
          const ref = yield* system.spawn(Frail, "f")
          // The model: times of restarts, the state, and whether it runs, is suspended or has ended.
          let restarts: ReadonlyArray<number> = []
          let state = "runs" as "runs" | "suspended" | "ended"
          let now = 0
          let count = 0
          for (const step of steps) {
            yield* TestClock.adjust(step.after)
            now += step.after
            if (step.do === "reinstate") {
              const exit = yield* Effect.exit(system.reinstate(ref))
              assert.strictEqual(exit._tag, "Success")
              if (state === "suspended") state = "runs"
            } else if (state === "runs") {
              const error = yield* Effect.flip(ref.ask.Crash({ as: step.do }))
              assert.strictEqual(error._tag, "HandlerFailed")
              if (step.do === "suspend") state = "suspended"
              else if (step.do === "restart") {
                if (restarts.filter((at) => at > now - window).length < limit) {
                  restarts = [...restarts, now]
                  count = 0
                } else state = exhausted === "suspend" ? "suspended" : "ended"
              }
            }
            yield* settle
            const seen = yield* system.inspect
            assert.strictEqual(seen[0]?.status, state === "runs" ? "Idle" : state === "ended" ? undefined : "Suspended")
            if (state === "ended") break
            assert.strictEqual(seen[0]!.restarts, restarts.length)
            assert.strictEqual(starts, 1 + restarts.length)
            if (state === "runs") assert.strictEqual(yield* ref.ask.Add(), ++count)
          }
        }).pipe(Effect.provide(live.pipe(Layer.provideMerge(layerLocal))))
        assert.strictEqual(ends, starts)
      }),
    { arbitrary: { runs: 100 } }
  )
})

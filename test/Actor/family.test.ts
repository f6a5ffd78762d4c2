// Random life of a family with watchers and listeners: nobody outlives its parent, every watch is told once, nothing is left behind.
import { assert, describe, it } from "@effect/vitest"
import { Actor, ActorContext, ActorHost, ActorSystem } from "effect-troupe/Actor"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { TestClock } from "effect/testing"
import { hostOf } from "../../src/Actor/internal/Host.ts"
import { layerLocal } from "./local.ts"

const Step = Schema.Struct({
  do: Schema.Literals([
    "grow",
    "grow 2",
    "crash",
    "escalate",
    "stopChild",
    "stopFromOutside",
    "crashParent",
    "restartParent",
    "stopParent",
    "hang",
    "watch",
    "watch 2",
    "unwatch",
    "crashWatcher",
    "listen",
    "timer",
    "pipe",
    "wait"
  ]),
  who: Schema.Literals(["a", "b"])
})

const Child = Actor.make("Child", {
  protocol: [
    Rpc.make("Crash", { payload: { why: Schema.Literals(["restart", "escalate"]) } }),
    Rpc.make("Hang"),
    Rpc.make("Timer"),
    Rpc.make("Pipe"),
    Rpc.make("Ticks", { success: Schema.Int, stream: true })
  ]
})
const Parent = Actor.make("Parent", {
  protocol: [
    Rpc.make("Grow", { payload: { name: Schema.String } }),
    Rpc.make("StopChild", { payload: { name: Schema.String } }),
    Rpc.make("Crash")
  ]
})
const Watcher = Actor.make("Watcher", {
  protocol: [
    Rpc.make("Watch", { payload: { name: Schema.String } }),
    Rpc.make("Unwatch", { payload: { name: Schema.String } }),
    Rpc.make("Crash"),
    Rpc.make("Waits", { success: Schema.Array(Schema.String) })
  ]
})

describe("a family under random use", () => {
  it.effect.prop(
    "keeps together, tells each watch once, and leaves nothing behind",
    { steps: Schema.Array(Step).check(Schema.isMinLength(15), Schema.isMaxLength(45)) },
    ({ steps }) =>
      Effect.gen(function*() {
        // An assertion inside an actor would only be a failure of the actor.
        const violations: Array<string> = []
        const holds = (what: string, condition: boolean) => {
          if (!condition) violations.push(what)
        }
        const alive = new Set<string>()
        let opened = 0
        let closed = 0
        /** Beside a life its name; nobody may live under one name twice, nor without a parent. */
        const living = (name: string) =>
          Effect.acquireRelease(
            Effect.sync(() => {
              holds(`${name} lives once`, !alive.has(name))
              const [parent, child] = name.split("/")
              if (child !== undefined) holds(`${name} has a parent`, alive.has(parent!))
              alive.add(name)
              opened++
            }),
            () =>
              Effect.sync(() => {
                holds(`${name} ends once`, alive.delete(name))
                for (const other of alive) holds(`${other} outlives ${name}`, !other.startsWith(`${name}/`))
                closed++
              })
          )
        const ChildLive = Child.toLayer(
          Effect.gen(function*() {
            const context = yield* ActorContext.ActorContext
            yield* living(context.name)
            let over = false
            yield* Effect.addFinalizer(() => Effect.sync(() => void (over = true)))
            const mine = Effect.sync(() => holds(`${context.name} does nothing after its end`, !over))
            return Child.of({
              Crash: ({ why }) => Effect.die(why),
              Hang: () => Effect.sleep("1 second"),
              Timer: () => context.timers.every("t", 7, mine),
              Pipe: () => context.pipeTo(Effect.sleep(9), () => mine),
              Ticks: () => Stream.tick(11).pipe(Stream.map(() => 1), Stream.take(3))
            })
          }),
          {
            stopGrace: 20,
            supervision: { decide: (why) => why === "escalate" ? "escalate" : "restart", limit: 2, window: 100 }
          }
        )
        const ParentLive = Parent.toLayer(
          Effect.gen(function*() {
            const context = yield* ActorContext.ActorContext
            yield* living(context.name)
            return Parent.of({
              Grow: ({ name }) => Effect.ignore(context.spawnChild(Child, name)),
              StopChild: ({ name }) =>
                Effect.flatMap(context.children, (children) =>
                  Effect.forEach(children.filter((child) => child.name.endsWith(name)), context.stopChild)),
              Crash: () =>
                Effect.die("crash")
            })
          }),
          { supervision: { limit: 1000 } }
        )
        const WatcherLive = Watcher.toLayer(
          Effect.gen(function*() {
            const context = yield* ActorContext.ActorContext
            const system = yield* ActorSystem.ActorSystem
            const waits = new Set<string>()
            let over = false
            yield* Effect.addFinalizer(() => Effect.sync(() => void (over = true)))
            return Watcher.of({
              Crash: () => Effect.die("crash"),
              Watch: ({ name }) =>
                Effect.ignore(Effect.flatMap(system.actorOf(Child, name), (ref) => {
                  waits.add(name)
                  return context.watch(ref, (terminated) =>
                    Effect.sync(() => {
                      holds(`${terminated.name} is told of to one that waits`, waits.delete(terminated.name) && !over)
                    }))
                })),
              Unwatch: ({ name }) =>
                Effect.ignore(Effect.flatMap(system.actorOf(Child, name), (ref) => {
                  waits.delete(name)
                  return context.unwatch(ref)
                })),
              Waits: () => Effect.sync(() => [...waits])
            })
          }),
          { supervision: { limit: 1000 } }
        )
        const kinds = Layer.mergeAll(ChildLive, ParentLive, WatcherLive)
        yield* Effect.gen(function*() {
          const system = yield* ActorSystem.ActorSystem
          const host = hostOf(yield* ActorHost.ActorHost)
          const spawnParent = system.spawn(Parent, "p")
          let parent = yield* spawnParent
          const watcher = yield* system.spawn(Watcher, "w")
          const fork = <A, E>(effect: Effect.Effect<A, E>) =>
            Effect.forkChild(Effect.ignore(effect), { startImmediately: true })
          const fibers: Array<Fiber.Fiber<void>> = []
          for (const { do: what, who } of steps) {
            const name = `p/${who}`
            const child = system.actorOf(Child, name)
            switch (what) {
              case "grow":
              case "grow 2":
                fibers.push(yield* fork(parent.tell.Grow({ name: who })))
                break
              case "crash":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => ref.tell.Crash({ why: "restart" }))))
                break
              case "escalate":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => ref.tell.Crash({ why: "escalate" }))))
                break
              case "stopChild":
                fibers.push(yield* fork(parent.tell.StopChild({ name: who })))
                break
              case "stopFromOutside":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => system.stop(ref, { now: who === "a" }))))
                break
              case "crashParent":
                fibers.push(yield* fork(parent.tell.Crash()))
                break
              case "restartParent":
                fibers.push(yield* fork(system.restart(parent)))
                break
              case "stopParent": {
                fibers.push(yield* fork(system.stop(parent)))
                yield* TestClock.adjust(50)
                parent = yield* spawnParent
                break
              }
              case "hang":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => ref.tell.Hang())))
                break
              case "watch":
              case "watch 2":
                yield* watcher.ask.Watch({ name })
                break
              case "unwatch":
                yield* watcher.ask.Unwatch({ name })
                break
              case "crashWatcher":
                yield* watcher.tell.Crash()
                break
              case "listen":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => Stream.runDrain(ref.ask.Ticks()))))
                break
              case "timer":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => ref.tell.Timer())))
                break
              case "pipe":
                fibers.push(yield* fork(Effect.flatMap(child, (ref) => ref.tell.Pipe())))
                break
              case "wait":
                yield* TestClock.adjust(13)
            }
          }
          yield* TestClock.adjust("1 minute")
          yield* fork(system.stop(parent))
          yield* TestClock.adjust("1 minute")
          for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe())
          assert.deepStrictEqual(yield* watcher.ask.Waits(), [])
          assert.deepStrictEqual([...alive], [])
          assert.deepStrictEqual(violations, [])
          assert.deepStrictEqual((yield* system.inspect).map((seen) => [seen.name, seen.timers, seen.detached]), [
            ["w", [], 0]
          ])
          assert.strictEqual(host.cells.size, 1)
          const watching = host.cells.get("w")!.extras
          assert.strictEqual(watching?.undo.size ?? 0, 0)
        }).pipe(Effect.provide(kinds.pipe(Layer.provideMerge(layerLocal))))
        assert.strictEqual(closed, opened)
      }),
    { arbitrary: { runs: 100 } }
  )
})

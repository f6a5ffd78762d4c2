import {
  Actor,
  ActorContext,
  type ActorRef,
  ActorSystem,
  type Errors,
  type Jobs,
  type Router,
  Router as RouterOf,
  Topic
} from "effect-troupe/Actor"
import { Context, Effect, Layer, Schema, Scope, Stream } from "effect"
import { Rpc } from "effect/rpc"
import { describe, expect, test } from "tstyche"
import { Account, AccountLive, type InsufficientFunds } from "../../examples/usage/account.ts"

declare const system: ActorSystem.ActorSystem["Service"]
type RpcsOf<K> = K extends Actor.Kind<infer Rpcs, infer _> ? Rpcs : never
declare const account: ActorRef.ActorRef<RpcsOf<typeof Account>>

class Database extends Context.Service<Database, { readonly url: string }>()("test/Database") {}
class Mailer extends Context.Service<Mailer, { readonly from: string }>()("test/Mailer") {}

describe("what the calls of account.ts can fail with", () => {
  test("ask: the message's own error and AskError, nothing else", () => {
    expect(account.ask.Withdraw({ cents: 1 })).type.toBe<Effect.Effect<number, InsufficientFunds | Errors.AskError>>()
    expect(account.ask.Balance()).type.toBe<Effect.Effect<number, Errors.AskError>>()
    expect(account.ask.Deposit({ cents: 1 })).type.toBe<Effect.Effect<void, Errors.AskError>>()
  })

  test("AskError and TellError, member by member", () => {
    expect<Errors.AskError["_tag"]>().type.toBe<
      | "ActorStopped"
      | "MailboxFull"
      | "NodeUnreachable"
      | "InvalidData"
      | "FrameTooLarge"
      | "ProtocolMismatch"
      | "AskTimeout"
      | "HandlerFailed"
    >()
    expect(account.tell.Deposit({ cents: 1 })).type.toBe<Effect.Effect<void, Errors.TellError>>()
    expect<Errors.TellError["_tag"]>().type.toBe<
      "ActorStopped" | "MailboxFull" | "NodeUnreachable" | "InvalidData" | "FrameTooLarge" | "ProtocolMismatch"
    >()
  })

  test("what says whether an ask's message was handled, and whether there was no room for it", () => {
    expect<Errors.FrameTooLarge["reply"]>().type.toBe<true | undefined>()
    expect<Errors.InvalidData["reply"]>().type.toBe<true | undefined>()
    expect<Errors.NodeUnreachable["overloaded"]>().type.toBe<true | undefined>()
  })

  test("spawnOn: every way a placement fails", () => {
    const spawned = system.spawnOn(Account, "acct-1", { dataCenter: "eu-west-1", props: { opening: 0 } })
    expect<Effect.Error<typeof spawned>["_tag"]>().type.toBe<
      | "NameTaken"
      | "KindNotRegistered"
      | "KindMismatch"
      | "StartFailed"
      | "InvalidData"
      | "PolicyNotRegistered"
      | "NoEligibleMember"
      | "NodeUnreachable"
      | "ClusterNotFormed"
      | "DirectoryRebuilding"
      | "StoreUnavailable"
      | "OutcomeUnknown"
      | "DataCenterNotReady"
      | "StaleRecords"
      | "RecordNotFound"
      | "AmbiguousDataCenter"
      | "KindNotAllowed"
    >()
    expect<Effect.Success<typeof spawned>>().type.toBe<ActorRef.ActorRef<RpcsOf<typeof Account>>>()
  })

  test("actorOf, actorExists, stop and awaitDataCenter", () => {
    expect<Effect.Error<ReturnType<typeof system.actorOf<RpcsOf<typeof Account>, {}>>>>().type.toBe<
      Errors.LookupError
    >()
    const exists = system.actorExists(Account, "acct-1")
    expect<Effect.Error<typeof exists>>().type.toBe<
      Exclude<Errors.LookupError, Errors.ActorNotFound | Errors.KindMismatch>
    >()
    expect(system.stop(account)).type.toBe<Effect.Effect<void, Errors.StopError>>()
    expect(system.awaitDataCenter("eu")).type.toBe<Effect.Effect<void, Errors.DataCenterNotReady>>()
  })
})

describe("what calls accept", () => {
  test("a message without payload takes options first, one with payload takes them second", () => {
    expect(account.ask.Balance).type.toBeCallableWith({ timeout: "1 second" as const })
    expect(account.ask.Balance).type.not.toBeCallableWith({ cents: 1 })
    expect(account.ask.Withdraw).type.toBeCallableWith({ cents: 1 }, { timeout: "1 second" as const })
    expect(account.ask.Withdraw).type.not.toBeCallableWith()
    expect(account.ask.Withdraw).type.not.toBeCallableWith({ cents: "1" })
    expect(account.tell).type.not.toHaveProperty("Close")
  })

  test("props are asked for exactly where the kind has some", () => {
    const Plain = Actor.make("Plain", { protocol: [Rpc.make("Ping")] })
    expect(system.spawn).type.toBeCallableWith(Plain, "p")
    expect(system.spawn).type.toBeCallableWith(Account, "a", { props: { opening: 1 } })
    expect(system.spawn).type.not.toBeCallableWith(Account, "a")
    expect(system.spawn).type.not.toBeCallableWith(Account, "a", { props: { opening: "1" } })
    expect(system.spawnOn).type.not.toBeCallableWith(Account, "a", { dataCenter: "eu" })
  })

  test("a reference to more messages serves where fewer are wanted, not the other way round", () => {
    const Small = Actor.make("Small", { protocol: [Rpc.make("Balance")] })
    expect<ActorRef.ActorRef<RpcsOf<typeof Account>>>().type.toBeAssignableTo<ActorRef.ActorRef>()
    expect<ActorRef.ActorRef>().type.not.toBeAssignableTo<ActorRef.ActorRef<RpcsOf<typeof Small>>>()
  })
})

describe("toLayer requires what start and every handler require, less ActorContext and Scope", () => {
  const Kind = Actor.make("Kind", {
    protocol: [
      Rpc.make("Save"),
      Rpc.make("Mail"),
      Rpc.make("Self", { success: Rpc.make("x").successSchema as Schema.Void })
    ]
  })

  test("of start alone", () => {
    expect(AccountLive).type.toBe<Layer.Layer<never, never, ActorSystem.ActorSystem>>()
  })

  test("of start and of handlers, and a start may fail with anything", () => {
    const live = Kind.toLayer(Effect.gen(function*() {
      const { url } = yield* Database
      yield* Effect.addFinalizer(() => Effect.void)
      if (url === "") return yield* Effect.fail("no url")
      return Kind.of({
        Save: () => Effect.void,
        Mail: () => Mailer.use((mailer) => Effect.log(mailer.from)),
        Self: () => ActorContext.ActorContext.use((context) => context.stop)
      })
    }))
    expect(live).type.toBe<Layer.Layer<never, never, ActorSystem.ActorSystem | Database | Mailer>>()
  })

  test("handlers with a wrong payload, reply, error or a missing message do not compile", () => {
    expect(Account.of).type.not.toBeCallableWith({ Deposit: () => Effect.void, Balance: () => Effect.succeed(1) })
    expect(Account.of).type.not.toBeCallableWith({
      Deposit: () => Effect.void,
      Withdraw: () => Effect.succeed("no number"),
      Balance: () => Effect.succeed(1)
    })
    expect(Account.of).type.not.toBeCallableWith({
      Deposit: () => Effect.fail("undeclared"),
      Withdraw: () => Effect.succeed(1),
      Balance: () => Effect.succeed(1)
    })
    expect(Account.of).type.not.toBeCallableWith({
      Deposit: (_: { readonly dollars: number }) => Effect.void,
      Withdraw: () => Effect.succeed(1),
      Balance: () => Effect.succeed(1)
    })
  })

  test("props and self need an actor's own context", () => {
    expect(Account.props).type.toBe<Effect.Effect<{ readonly opening: number }, never, ActorContext.ActorContext>>()
    expect<Effect.Services<typeof Account.self>>().type.toBe<ActorContext.ActorContext>()
    expect<Scope.Scope>().type.not.toBeAssignableTo<ActorContext.ActorContext>()
  })
})

describe("what else can fail, and with what", () => {
  class Jammed extends Schema.TaggedError<Jammed>()("Jammed", {}) {}
  const Feed = Actor.make("Feed", {
    protocol: [
      Rpc.make("Numbers", { payload: { count: Schema.Int }, success: Schema.Int, error: Jammed, stream: true }),
      Rpc.make("Ping")
    ]
  })
  type FeedRpcs = RpcsOf<typeof Feed>
  const feed = {} as ActorRef.ActorRef<FeedRpcs>

  test("a streaming ask is a stream with the message's own error and AskError", () => {
    expect<ReturnType<typeof feed.ask.Numbers>>().type.toBe<Stream.Stream<number, Jammed | Errors.AskError>>()
    expect(Feed.of).type.not.toBeCallableWith({ Numbers: () => Effect.succeed(1), Ping: () => Effect.void })
    expect(Feed.of).type.toBeCallableWith({ Numbers: () => Stream.make(1), Ping: () => Effect.void })
  })

  test("suspending, restarting, inspecting, stopping, of any actor", () => {
    for (const ref of [feed, account, {} as ActorRef.ActorRef]) {
      expect(system.suspend(ref)).type.toBe<Effect.Effect<void, Errors.AskError | Errors.NotAllowed>>()
      expect(system.reinstate(ref)).type.toBe<Effect.Effect<void, Errors.AskError | Errors.NotAllowed>>()
      expect(system.restart(ref)).type.toBe<Effect.Effect<void, Errors.AskError | Errors.NotAllowed>>()
      expect(system.inspectActor(ref)).type.toBe<
        Effect.Effect<ActorSystem.Inspected, Errors.AskError | Errors.NotAllowed>
      >()
      expect(system.stop(ref, { drain: "1 second", now: true })).type.toBe<Effect.Effect<void, Errors.StopError>>()
    }
    expect<Errors.StopError["_tag"]>().type.toBe<
      "NodeUnreachable" | "DirectoryRebuilding" | "StoreUnavailable" | "OutcomeUnknown" | "ClusterNotFormed"
    >()
    expect(system.inspect).type.toBe<Effect.Effect<ReadonlyArray<ActorSystem.Inspected>>>()
    expect(system.stop).type.not.toBeCallableWith("acct-1")
    expect(system.inspectActor).type.toBeCallableWith(feed, { timeout: "1 second" as const })
  })

  test("a tell never fails with the message's own error, not even of a stream", () => {
    expect(feed.tell.Numbers({ count: 1 })).type.toBe<Effect.Effect<void, Errors.TellError>>()
    expect(account.tell.Withdraw({ cents: 1 })).type.toBe<Effect.Effect<void, Errors.TellError>>()
    expect(feed.tell.Ping).type.not.toBeCallableWith({ timeout: "1 second" as const })
  })

  test("spawn fails as spawnOn does, and takes no target", () => {
    const spawned = system.spawn(Feed, "f")
    expect(spawned).type.toBe<Effect.Effect<ActorRef.ActorRef<FeedRpcs>, Errors.SpawnError>>()
    expect(system.spawn).type.toBeCallableWith(Feed, "f", { id: "one", relocatable: false })
    expect(system.spawn).type.not.toBeCallableWith(Feed, "f", { dataCenter: "eu-west-1" })
    expect(system.spawnOn).type.not.toBeCallableWith(Feed, "f", { strategy: "nearest" })
    expect<Extract<Errors.SpawnError, { readonly retryable: false }>["_tag"]>().type.toBe<
      | "NameTaken"
      | "KindMismatch"
      | "StartFailed"
      | "InvalidData"
      | "PolicyNotRegistered"
      | "OutcomeUnknown"
      | "AmbiguousDataCenter"
      | "KindNotAllowed"
    >()
  })

  test("looking a name up: by its datacenter or anywhere", () => {
    const found = system.actorOf(Feed, "f", { dataCenter: "eu-west-1" })
    expect(found).type.toBe<Effect.Effect<ActorRef.ActorRef<FeedRpcs>, Errors.LookupError>>()
    expect<Errors.LookupError["_tag"]>().type.toBe<
      | "ActorNotFound"
      | "KindMismatch"
      | "NodeUnreachable"
      | "ClusterNotFormed"
      | "DirectoryRebuilding"
      | "StoreUnavailable"
      | "DataCenterNotReady"
      | "StaleRecords"
      | "RecordNotFound"
      | "AmbiguousDataCenter"
    >()
  })

  test("routers answer as their routees do, and fail to grow as spawns do", () => {
    const pool = system.spawnRouter(Feed, "f", { size: 2, strategy: "roundRobin" })
    expect(pool).type.toBe<Effect.Effect<Router.Pool<FeedRpcs>, Errors.SpawnError>>()
    expect<Effect.Error<ReturnType<Router.Pool<FeedRpcs>["resize"]>>>().type.toBe<
      Errors.SpawnError | Errors.StopError
    >()
    expect<ReturnType<Router.Pool<FeedRpcs>["ask"]["Ping"]>>().type.toBe<Effect.Effect<void, Errors.AskError>>()
    expect<ReturnType<Router.Pool<FeedRpcs>["tell"]["Ping"]>>().type.toBe<Effect.Effect<void, Errors.TellError>>()
    expect<ReturnType<Router.Pool<FeedRpcs>["ask"]["Numbers"]>>().type.toBe<
      Stream.Stream<number, Jammed | Errors.AskError>
    >()
    expect(system.spawnRouter).type.not.toBeCallableWith(Account, "a", { size: 1, strategy: "random" as const })
  })

  test("a group is of one protocol, has at least one routee and cannot be resized", () => {
    const group = RouterOf.group("g", [feed], { strategy: { tailChopping: { interval: "1 second" } } })
    expect(group).type.toBe<Router.Group<FeedRpcs>>()
    expect(group.add).type.not.toBeCallableWith(account)
    expect(group.remove(account)).type.toBe<Effect.Effect<void>>()
    expect(group).type.not.toHaveProperty("resize")
    expect(RouterOf.group<FeedRpcs>).type.not.toBeCallableWith("g", [], { strategy: "random" as const })
    expect(RouterOf.group<FeedRpcs>).type.not.toBeCallableWith("g", [feed], { strategy: "nearest" as const })
  })

  test("topics fail with nothing, and take tells of any protocol", () => {
    const topic = Topic.make<number>("t")
    expect(topic.publish(1)).type.toBe<Effect.Effect<void, never, Topic.Topics>>()
    expect(topic.publish).type.not.toBeCallableWith("1")
    expect(topic.stream).type.toBe<Stream.Stream<number, never, Topic.Topics>>()
    expect(topic.tellTo((cents) => account.tell.Deposit({ cents }))).type.toBe<
      Effect.Effect<void, never, Topic.Topics | Scope.Scope>
    >()
    expect(topic.tellTo).type.not.toBeCallableWith((cents: number) => account.ask.Withdraw({ cents }))
  })

  test("jobs refuse a bad cron expression, and nothing else", () => {
    const jobs = {} as Jobs.Jobs["Service"]
    expect(jobs.cron("id", "* * * * *", Effect.void)).type.toBe<Effect.Effect<void, Errors.SettingInvalid>>()
    expect(jobs.every("id", "1 second", Database)).type.toBe<Effect.Effect<void, never, Database>>()
    expect(jobs.once("id", "1 second", account.tell.Deposit({ cents: 1 }))).type.toBe<Effect.Effect<void>>()
    expect(jobs.cron("id", "* * * * *", Database, { timeZone: "Europe/Paris" })).type.toBe<
      Effect.Effect<void, Errors.SettingInvalid, Database>
    >()
    expect(jobs.list).type.toBe<Effect.Effect<ReadonlyArray<Jobs.Job>>>()
    for (const change of [jobs.pause, jobs.resume, jobs.cancel]) {
      expect(change("id")).type.toBe<Effect.Effect<boolean>>()
    }
  })

  test("inside: children fail to start typed, effects handed over keep their needs", () => {
    const context = {} as ActorContext.ActorContext["Service"]
    expect(context.spawnChild(Feed, "f")).type.toBe<Effect.Effect<ActorRef.ActorRef<FeedRpcs>, Errors.StartError>>()
    expect(context.spawnChild).type.not.toBeCallableWith(Account, "a")
    expect(context.watch(feed, () => Mailer)).type.toBe<Effect.Effect<void, never, Mailer>>()
    expect(context.watch).type.toBeCallableWith(
      feed,
      (terminated: ActorContext.Terminated) => Effect.fail(terminated.address.node.dataCenter)
    )
    expect(context.unwatch(account)).type.toBe<Effect.Effect<void>>()
    expect(context.stopChild(feed)).type.toBe<Effect.Effect<void>>()
    expect<Errors.StartError["_tag"]>().type.toBe<
      "NameTaken" | "KindNotRegistered" | "KindMismatch" | "StartFailed" | "InvalidData" | "PolicyNotRegistered"
    >()
    expect(context.timers.once("t", 1, Database)).type.toBe<Effect.Effect<void, never, Database>>()
    expect(context.stash).type.toBe<Effect.Effect<never>>()
    expect(context.forward(account.ask.Withdraw({ cents: 1 }))).type.toBe<Effect.Effect<number, InsufficientFunds>>()
    expect(context.pipeTo(Database, () => Mailer)).type.toBe<Effect.Effect<void, never, Database | Mailer>>()
    expect(Account.become({ Balance: () => Effect.as(Database, 1) })).type.toBe<
      Effect.Effect<void, never, ActorContext.ActorContext | Database>
    >()
    expect(Account.become).type.not.toBeCallableWith({ Balance: () => Effect.succeed("1") })
  })

  test("options name messages of the protocol only", () => {
    expect(Account.toLayer).type.not.toBeCallableWith(Effect.succeed({} as never), { mailbox: { control: ["Nope"] } })
    expect(Account.toLayer).type.not.toBeCallableWith(Effect.succeed({} as never), {
      reentrancy: { messages: ["Nope"] }
    })
  })
})

/**
 * Drives a ledger through the actors: opens the accounts where their residency asks for, then performs each transfer from the
 * sender's datacenter. Transfers that share an account keep the file's order; all others run side by side.
 */
import type { Actor, ActorRef, ActorSystem, Address } from "effect-troupe"
import { Clock, Deferred, Effect, Schedule } from "effect"
import { Account } from "./Account.ts"
import type { AccountLine, Ledger, Transfer } from "./Ledger.ts"
import { dataCenterFor, type Site } from "./sites.ts"

type AccountRef = typeof Account extends Actor.Kind<infer Rpcs, infer _Props> ? ActorRef.ActorRef<Rpcs> : never
type System = ActorSystem.ActorSystem["Service"]
type NodeAddress = Address.NodeAddress

/** transfers that may be under way at once */
const concurrency = 64

/** What happened in one datacenter: of the accounts that live there and of the transfers that were driven from there. */
export interface Tally {
  readonly dataCenter: string
  readonly nodes: number
  accounts: number
  transfers: number
  refused: number
  crossDataCenterCalls: number
  /** asks that were asked again because their outcome was unknown, or nothing had been sent */
  repeatedAsks: number
  /** microseconds of each transfer, from the first ask to the last reply */
  readonly latencies: Array<number>
  /** monotonic nanoseconds: the first began, the last ended */
  begun: bigint | undefined
  ended: bigint
}

/** Retryable failures are asked again: the transfer's id makes that safe, whatever became of the first ask. */
const askAgain = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.jittered,
  Schedule.upTo({ times: 12 })
)

const isRetryable = (error: { readonly _tag: string; readonly retryable?: boolean }): boolean =>
  error.retryable === true

/** A spawn carries an id of its own, so it too may be repeated when nobody knows what became of it. */
const isRepeatable = (error: { readonly _tag: string; readonly retryable?: boolean }): boolean =>
  isRetryable(error) || error._tag === "OutcomeUnknown"

/** Opens every account, each from another node in turn, so that half of the spawns cross to the other datacenter. */
export const openAccounts = Effect.fnUntraced(function*(
  sites: ReadonlyArray<Site>,
  accounts: ReadonlyArray<AccountLine>,
  onOpened: (account: string, where: NodeAddress) => void
) {
  const systems = sites.flatMap((site) => site.systems)
  yield* Effect.forEach(accounts, ({ id, openingCents, residency }, index) => {
    const dataCenter = dataCenterFor(residency)
    return systems[index % systems.length]!.spawnOn(Account, id, {
      id: `open-${id}`,
      dataCenter,
      role: "ledger",
      props: { openingCents }
    }).pipe(
      Effect.retry({ schedule: askAgain, while: isRepeatable }),
      Effect.tap((ref) => Effect.sync(() => onOpened(id, ref.address.node)))
    )
  }, { concurrency: 32, discard: true })
})

/** References to accounts as one node sees them, looked up once each. */
const makeReferences = (system: System) => {
  const known = new Map<string, AccountRef>()
  return Effect.fnUntraced(function*(name: string) {
    const before = known.get(name)
    if (before !== undefined) return before
    const found = yield* system.actorOf(Account, name).pipe(Effect.retry({ schedule: askAgain, while: isRetryable }))
    known.set(name, found)
    return found
  })
}

/** Performs all transfers and fills the tallies. */
export const perform = Effect.fnUntraced(function*(
  sites: ReadonlyArray<Site>,
  ledger: Ledger,
  tallies: ReadonlyMap<string, Tally>,
  onDone: () => void
) {
  const homes = new Map(ledger.accounts.map((account) => [account.id, dataCenterFor(account.residency)]))
  const references = new Map(sites.map((site) => [site.dataCenter, site.systems.map(makeReferences)]))

  const transferOnce = Effect.fnUntraced(function*(transfer: Transfer) {
    const home = homes.get(transfer.from)!
    const tally = tallies.get(home)!
    const nodes = references.get(home)!
    const find = nodes[transfer.line % nodes.length]!
    const again = { schedule: askAgain, while: isRetryable }
    const countRepeat = Effect.sync(() => void tally.repeatedAsks++)

    const sender = yield* find(transfer.from)
    const receiver = yield* find(transfer.to)
    const begun = yield* Clock.monotonicTimeNanos
    tally.begun ??= begun
    const outcome = yield* sender.ask.Withdraw({ transfer: transfer.id, cents: transfer.debit.cents }).pipe(
      Effect.tapError((error) => isRetryable(error) ? countRepeat : Effect.void),
      Effect.retry(again),
      Effect.as("withdrawn" as const),
      Effect.catchTag("Overdrawn", () => Effect.succeed("refused" as const))
    )
    if (outcome === "withdrawn") {
      if (homes.get(transfer.to) !== home) tally.crossDataCenterCalls++
      yield* receiver.ask.Deposit({ transfer: transfer.id, cents: transfer.credit.cents }).pipe(
        Effect.tapError((error) => isRetryable(error) ? countRepeat : Effect.void),
        Effect.retry(again)
      )
    }
    tally.ended = yield* Clock.monotonicTimeNanos
    if (!transfer.repeated) {
      tally[outcome === "refused" ? "refused" : "transfers"]++
      tally.latencies.push(Number((tally.ended - begun) / 1_000n))
    }
    onDone()
  })

  // Each transfer waits for those before it that touch one of its accounts; they all started earlier, so nobody waits in a ring.
  const last = new Map<string, Deferred.Deferred<void>>()
  const queue = ledger.transfers.map((transfer) => {
    const done = Deferred.makeUnsafe<void>()
    const before = [last.get(transfer.from), last.get(transfer.to)].filter((other) => other !== undefined)
    last.set(transfer.from, done).set(transfer.to, done)
    return { transfer, before, done }
  })
  yield* Effect.forEach(
    queue,
    ({ before, done, transfer }) =>
      Effect.forEach(before, Deferred.await, { discard: true }).pipe(
        Effect.andThen(transferOnce(transfer)),
        Effect.ensuring(Deferred.succeed(done, undefined))
      ),
    { concurrency, discard: true }
  )
})

/** The balance of every account, asked from a node of the *other* datacenter. */
export const balances = Effect.fnUntraced(function*(sites: ReadonlyArray<Site>, accounts: ReadonlyArray<AccountLine>) {
  const references = new Map(sites.map((site) => [site.dataCenter, makeReferences(site.systems[0]!)]))
  const found = yield* Effect.forEach(accounts, ({ id, residency }) => {
    const home = dataCenterFor(residency)
    const away = sites.find((site) => site.dataCenter !== home)!
    return references.get(away.dataCenter)!(id).pipe(
      Effect.flatMap((ref) => ref.ask.Balance()),
      Effect.retry({ schedule: askAgain, while: isRetryable }),
      Effect.map((cents) => [id, cents] as const)
    )
  }, { concurrency: 32 })
  return new Map(found)
})

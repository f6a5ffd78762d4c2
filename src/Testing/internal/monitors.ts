/**
 * Monitors of a world: they see every start and stop of an actor on every node at the moment it happens, and say which
 * invariant broke. They share no code with the runtime: what they know is what the nodes did.
 *
 * One overlap is promised to end, not to be absent: a member cut from the store alone, whose lease others closed, may run an
 * ordinary actor beside its successor until the next ping tells it. So two owners that both hold a valid lease are a violation
 * at once, and an owner without one beside another is one after `toldWithin`.
 */
import type { SystemEvent } from "../../Actor/SystemEvents.ts"

export interface Violation {
  /** the invariant's name */
  readonly invariant: "uniqueActingOwner" | "placementsRise" | "viewsAreOrdered" | "deadDoNotAct"
  readonly at: number
  readonly detail: string
}

/** virtual milliseconds until a member whose lease is closed has been told by a ping */
const toldWithin = 2500

interface Owner {
  readonly node: string
  readonly placement: number
}

export class Monitors {
  readonly violations: Array<Violation> = []
  /** `dc/name` -> who runs it now */
  private readonly running = new Map<string, Array<Owner>>()
  private readonly highest = new Map<string, number>()
  private readonly held = new Set<string>()
  private readonly gone = new Set<string>()
  private readonly views = new Map<string, number>()
  /** names with an owner too many that may not act any more -> since when */
  private readonly overlaps = new Map<string, number>()
  private readonly mayAct: (node: string, incarnation?: string) => boolean

  /** `mayAct`: does the node (that start of it) hold a valid lease at this moment? */
  constructor(mayAct: (node: string, incarnation?: string) => boolean) {
    this.mayAct = mayAct
  }

  event(at: number, node: string, event: SystemEvent): void {
    this.timePassed(at)
    switch (event._tag) {
      case "ActorStarted": {
        const key = `${event.actor.node.dataCenter}/${event.actor.name}`
        const owner = { node, placement: event.actor.placement }
        const owners = this.running.get(key) ?? []
        this.running.set(key, [...owners.filter((other) => other.node !== node), owner])
        const before = this.highest.get(key) ?? -1
        if (owner.placement > 0 && owner.placement <= before) {
          this.report(
            "placementsRise",
            at,
            `${key} started on ${node} with placement ${owner.placement} after ${before}`
          )
        }
        this.highest.set(key, Math.max(before, owner.placement))
        this.checkOwners(at, key)
        return
      }
      case "ActorStopped": {
        const key = `${event.actor.node.dataCenter}/${event.actor.name}`
        const owners = this.running.get(key) ?? []
        this.running.set(key, owners.filter((other) => other.node !== node))
        this.checkOwners(at, key)
        return
      }
      case "MemberLeft": {
        const { id, incarnation } = event.member.node
        if (!this.gone.has(id) && this.mayAct(id, incarnation)) {
          this.report("deadDoNotAct", at, `${id} holds a valid lease, and ${node} has seen it declared dead`)
        }
        return
      }
      case "WorkHeld":
        return this.workHeld(at, node, event.held)
    }
  }

  /** The node's actors hold their messages (a lapsed lease), or act again. */
  private workHeld(at: number, node: string, held: boolean): void {
    if (held) {
      this.held.add(node)
    } else {
      this.held.delete(node)
    }
    for (const key of this.running.keys()) this.checkOwners(at, key)
  }

  viewSeen(at: number, node: string, number: number): void {
    const before = this.views.get(node) ?? 0
    if (number < before) this.report("viewsAreOrdered", at, `${node} saw view ${number} after ${before}`)
    this.views.set(node, number)
  }

  /** A crash loses everything that the node ran, at once. */
  crashed(node: string): void {
    this.gone.add(node)
    this.views.delete(node)
    for (const [key, owners] of this.running) {
      this.running.set(key, owners.filter((owner) => owner.node !== node))
      if (this.acting(key).length < 2) this.overlaps.delete(key)
    }
  }

  started(node: string): void {
    this.gone.delete(node)
    this.held.delete(node)
  }

  /** Judges what should have ended by now; called with each event, and at the end. */
  timePassed(at: number): void {
    for (const [key, since] of this.overlaps) {
      if (at - since <= toldWithin) continue
      this.overlaps.delete(key)
      this.report("uniqueActingOwner", at, `${this.describe(key)}, for more than ${toldWithin} ms`)
    }
  }

  private checkOwners(at: number, key: string): void {
    const acting = this.acting(key)
    if (acting.length < 2) {
      this.overlaps.delete(key)
    } else if (acting.filter((owner) => this.mayAct(owner.node)).length > 1) {
      this.report("uniqueActingOwner", at, this.describe(key))
    } else if (!this.overlaps.has(key)) {
      this.overlaps.set(key, at)
    }
  }

  private acting(key: string): ReadonlyArray<Owner> {
    return (this.running.get(key) ?? []).filter((owner) => !this.held.has(owner.node) && !this.gone.has(owner.node))
  }

  private describe(key: string): string {
    const who = this.acting(key).map((owner) => `${owner.node} (placement ${owner.placement})`).join(" and ")
    return `${key} acts on ${who}`
  }

  private report(invariant: Violation["invariant"], at: number, detail: string): void {
    this.violations.push({ invariant, at, detail })
  }
}

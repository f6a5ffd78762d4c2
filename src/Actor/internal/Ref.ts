/** A reference to an actor: its name, what is known of where it is, and its messages as methods. */
import { Equal, Hash } from "effect"
import type { ActorRef } from "../ActorRef.ts"
import type { ActorAddress } from "../Address.ts"
import type { Route } from "../Delivery.ts"
import type { KindDefinition } from "../Kind.ts"
import type { Cell } from "./Cell.ts"
import type { RefRuntime } from "./RefRuntime.ts"
import type { SurfaceClasses } from "./surfaces.ts"

/** `tell` and `ask` are made on first use, from classes shared by all references of the kind. */
export class Ref implements ActorRef, Route {
  readonly name: string
  readonly dataCenter: string | undefined
  /** where messages go straight to; undefined: the actor is elsewhere, or was not found here */
  cell: Cell | undefined
  private readonly classes: SurfaceClasses
  /** undefined: that of the cell, which is made when somebody wants it */
  private known: ActorAddress | undefined
  /** what `Delivery` remembers of the way to the address */
  found: unknown = undefined

  /** `address` is needed where there is no cell. */
  constructor(
    classes: SurfaceClasses,
    name: string,
    cell: Cell | undefined,
    address: ActorAddress | undefined,
    dataCenter: string | undefined
  ) {
    this.classes = classes
    this.name = name
    this.dataCenter = dataCenter
    this.cell = cell
    this.known = cell === undefined ? address : undefined
  }

  get kind(): KindDefinition {
    return this.classes.kind
  }

  get runtime(): RefRuntime {
    return this.classes.runtime
  }

  get address(): ActorAddress {
    return this.known ??= this.cell!.address
  }

  moveTo(address: ActorAddress): void {
    this.known = address
    this.found = undefined
    this.cell = this.runtime.host.cellAt(address)
  }

  get tell() {
    const surface = new this.classes.tell(this)
    Object.defineProperty(this, "tell", { value: surface })
    return surface as {}
  }

  get ask() {
    const surface = new this.classes.ask(this)
    Object.defineProperty(this, "ask", { value: surface })
    return surface as {}
  }

  /** By what it refers to. What it has found out about the way there is no part of that. */
  [Equal.symbol](that: unknown): boolean {
    return that instanceof Ref && that.name === this.name && that.kind.name === this.kind.name &&
      that.address.node.dataCenter === this.address.node.dataCenter
  }

  [Hash.symbol](): number {
    return Hash.string(`${this.kind.name}/${this.name}`)
  }

  toJSON(): unknown {
    return { _id: "ActorRef", kind: this.kind.name, name: this.name, address: this.address }
  }
}

/** The effect behind `system.spawn`: what it does where this node alone decides, and what a repetition of it is. */
import { Cause, Effect, Effectable, Exit, type Fiber } from "effect"
import { InvalidData, type SpawnError } from "../errors.ts"
import type { KindDefinition } from "../Kind.ts"
import type { DataCenterSelector, Placement, SpawnSpec, Strategy, Target } from "../Placement.ts"
import { propsCodec } from "./codecs.ts"
import { type Host, placesOn } from "./Host.ts"
import { nameTrouble } from "./nameRules.ts"
import type { Ref } from "./Ref.ts"
import type { RefRuntime } from "./RefRuntime.ts"

export interface SpawnOptions {
  readonly id?: string | undefined
  readonly relocatable?: boolean | undefined
  readonly dataCenter?: string | DataCenterSelector | undefined
  readonly role?: string | undefined
  readonly on?: string | undefined
  readonly props?: unknown
}

/** The options of whoever gives none. */
export const noOptions: SpawnOptions = {}

/** Most spawns name nothing but a strategy. */
const plainTargets: Readonly<Record<Strategy, Target>> = {
  local: { strategy: "local" },
  roundRobin: { strategy: "roundRobin" },
  random: { strategy: "random" },
  leastLoad: { strategy: "leastLoad" }
}

const targetOf = ({ dataCenter, on, role }: SpawnOptions, strategy: Strategy): Target =>
  dataCenter === undefined && on === undefined && role === undefined ? plainTargets[strategy] : {
    strategy,
    ...(on === undefined ? undefined : { on }),
    ...(role === undefined ? undefined : { role }),
    ...(dataCenter === undefined ? undefined : { dataCenter })
  }

/** A run of a spawn's effect that has not succeeded: its actor may have been started all the same. */
interface Run {
  id: string | undefined
  fiber: Fiber.Fiber<unknown, unknown>
}

/** A spawn as an effect, made like a message and for the same reason: by a plain constructor. */
interface Spawn {
  readonly spawning: Spawning
  readonly kind: KindDefinition
  readonly name: string
  readonly options: SpawnOptions
  readonly strategy: Strategy
  /** undefined: there are none */
  runs: Array<Run> | undefined
}
const Spawn = function(
  this: { -readonly [Key in keyof Spawn]: Spawn[Key] },
  spawning: Spawning,
  kind: KindDefinition,
  name: string,
  options: SpawnOptions,
  strategy: Strategy
) {
  this.spawning = spawning
  this.kind = kind
  this.name = name
  this.options = options
  this.strategy = strategy
  this.runs = undefined
} as unknown as new(
  spawning: Spawning,
  kind: KindDefinition,
  name: string,
  options: SpawnOptions,
  strategy: Strategy
) => Effect.Effect<Ref, SpawnError>

Spawn.prototype = Effectable.Prototype<Effect.Effect<Ref, SpawnError>>({
  label: "Spawn",
  evaluate(fiber) {
    const self = this as unknown as Spawn
    return self.spawning.run(self, fiber)
  }
})

export class Spawning {
  private readonly host: Host
  private readonly refs: RefRuntime
  private readonly placement: Placement["Service"]
  /** no directory is to be asked */
  private readonly alone: boolean
  private spawns = 0

  constructor(host: Host, refs: RefRuntime, placement: Placement["Service"]) {
    this.host = host
    this.refs = refs
    this.placement = placement
    this.alone = placesOn(placement) === host
  }

  spawn(
    kind: KindDefinition,
    name: string,
    options: SpawnOptions,
    strategy: Strategy
  ): Effect.Effect<Ref, SpawnError> {
    return new Spawn(this, kind, name, options, strategy)
  }

  run(spawn: Spawn, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<Ref, SpawnError> {
    if (this.alone && spawn.options === noOptions && spawn.runs === undefined) {
      const cell = this.host.startPlain(spawn.kind, spawn.name)
      if (cell !== undefined) {
        if (!cell.isStarting) {
          return cell.failure === undefined ? Exit.succeed(this.refs.refTo(cell)) : Exit.fail(cell.failure)
        }
        // From here on as a repetition of what has just begun.
        runOf(spawn, fiber).id = cell.spec.id
      }
    }
    return this.place(spawn, runOf(spawn, fiber))
  }

  private place(spawn: Spawn, run: Run): Effect.Effect<Ref, SpawnError> {
    const { kind, name, options, strategy } = spawn
    const trouble = nameTrouble(name)
    if (trouble !== undefined) return Effect.fail(new InvalidData({ what: `name of ${kind.name}`, reason: trouble }))
    const props = propsCodec(kind).encode(options.props ?? {})
    if (props._tag === "Failure") {
      return Effect.fail(
        new InvalidData({ what: `props of ${kind.name}`, reason: String(Cause.squash(props.cause)) })
      )
    }
    const { dataCenter, relocatable = true, role } = options
    const id = options.id ?? (run.id ??= `${this.host.node.incarnation}-${++this.spawns}`)
    const spec: SpawnSpec = role === undefined
      ? { id, kind: kind.name, name, props: props.value, relocatable }
      : { id, kind: kind.name, name, props: props.value, relocatable, role }
    return Effect.map(this.placement.spawn(spec, targetOf(options, strategy)), (address) => {
      over(spawn, run)
      return this.refs.ref(kind, name, address, dataCenter === undefined ? undefined : address.node.dataCenter)
    })
  }
}

/**
 * The run that this one repeats, else a new one. No two at a time share an id, because of two that race for a name one is to
 * lose: a run repeats one of its own fiber, or of a fiber that has ended.
 */
const runOf = (spawn: Spawn, fiber: Fiber.Fiber<unknown, unknown>): Run => {
  const runs = spawn.runs ??= []
  for (const run of runs) {
    if (run.fiber === fiber || run.fiber.pollUnsafe() !== undefined) {
      run.fiber = fiber
      return run
    }
  }
  const run: Run = { id: undefined, fiber }
  runs.push(run)
  return run
}

const over = (spawn: Spawn, run: Run): void => {
  const runs = spawn.runs ?? []
  runs.splice(runs.indexOf(run), 1)
  if (runs.length === 0) spawn.runs = undefined
}

/**
 * A real server process for the length of a scope: started on ports that were free, in a folder of its own, killed by its id.
 * Tests may stop it, freeze it, kill it and start it again on the same ports and data.
 */
import { Data, Duration, Effect, Schedule, Scope } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import * as net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { find, type ServerName } from "./find.mjs"

/** A server could not be found, started or made ready; `log` holds its last words. */
export class ServerFailed extends Data.TaggedError("ServerFailed")<{
  readonly server: string
  readonly reason: string
  readonly log: string
}> {
  override get message() {
    return `${this.server}: ${this.reason}${this.log === "" ? "" : `\n${this.log}`}`
  }
}

/** One running server process, and what a failure suite does to it. All of them are idempotent. */
export interface Server {
  readonly name: string
  readonly pid: () => number | undefined
  /** where it keeps its data; survives `kill`, removed with the scope */
  readonly folder: string
  /** SIGKILL, and waits until the process is gone */
  readonly kill: Effect.Effect<void>
  /** SIGTERM, and waits until the process is gone */
  readonly stop: Effect.Effect<void>
  /** SIGSTOP: sockets stay open, nothing answers */
  readonly freeze: Effect.Effect<void>
  /** SIGCONT */
  readonly thaw: Effect.Effect<void>
  /** Starts the process (again) without waiting until it is ready. */
  readonly launch: Effect.Effect<void>
  /** Starts it again on the same ports and data, and waits until it is ready. */
  readonly restart: Effect.Effect<void, ServerFailed>
  readonly ready: Effect.Effect<void, ServerFailed>
  /** its last output */
  readonly log: () => string
}

/** Frees n ports at once; they may be lost to another process before they are used, so starts are tried again. */
export const freePorts = (count: number): Effect.Effect<Array<number>> =>
  Effect.promise(async () => {
    const servers = await Promise.all(
      Array.from({ length: count }, () =>
        new Promise<net.Server>((done, fail) => {
          const server = net.createServer()
          server.once("error", fail)
          server.listen(0, "127.0.0.1", () => done(server))
        }))
    )
    const ports = servers.map((server) => (server.address() as net.AddressInfo).port)
    await Promise.all(servers.map((server) => new Promise((done) => server.close(done))))
    return ports
  })

/** A folder that goes with the scope; in memory where the machine has such a file system and the data need not outlive it. */
export const temporaryFolder = (
  prefix: string,
  where: "disk" | "memory" = "disk"
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() =>
      mkdtempSync(join(where === "memory" && existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), `troupe-${prefix}-`))
    ),
    (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }))
  )

export const binary = (name: ServerName): Effect.Effect<string, ServerFailed> =>
  Effect.tryPromise({
    try: () => find(name),
    catch: (error) =>
      new ServerFailed({ server: name, reason: error instanceof Error ? error.message : String(error), log: "" })
  })

// A test process that ends without closing its scopes takes its servers along.
const running = new Set<ChildProcess>()
let guarded = false
const guard = () => {
  if (guarded) return
  guarded = true
  process.on("exit", () => {
    for (const child of running) child.kill("SIGKILL")
  })
}

export interface Command {
  readonly name: string
  readonly binary: string
  readonly args: ReadonlyArray<string>
  readonly folder: string
  /** true once the server does its work */
  readonly probe: () => Promise<boolean>
  /** default 30 s: a loaded machine takes its time */
  readonly readyWithin?: Duration.Input
}

/** Starts the process; the end of the scope kills it. Waiting for readiness is separate, so that clusters can form. */
export const start = (command: Command): Effect.Effect<Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): Server => {
      guard()
      let child: ChildProcess | undefined
      let output = ""
      const alive = () => child !== undefined && child.exitCode === null && child.signalCode === null
      const launch = Effect.sync(() => {
        if (alive()) return
        const started = spawn(command.binary, command.args, { stdio: ["ignore", "pipe", "pipe"] })
        child = started
        running.add(started)
        const keep = (chunk: Buffer) => output = (output + chunk.toString()).slice(-16_384)
        started.stdout.on("data", keep)
        started.stderr.on("data", keep)
        started.on("error", (error) => output += `\n${error.message}`)
        started.on("exit", (code, signal) => {
          running.delete(started)
          output += `\n(exit ${code ?? signal})`
        })
      })
      const signal = (name: NodeJS.Signals) =>
        Effect.sync(() => {
          if (alive()) child!.kill(name)
        })
      const gone = Effect.callback<void>((resume) => {
        if (!alive()) return resume(Effect.void)
        child!.once("exit", () => resume(Effect.void))
      })
      const failed = (reason: string) =>
        new ServerFailed({ server: command.name, reason, log: output.split("\n").slice(-15).join("\n") })
      const ready: Effect.Effect<void, ServerFailed> = Effect.suspend(() =>
        alive()
          ? Effect.flatMap(
            Effect.promise(() => command.probe().catch(() => false)),
            (done) => done ? Effect.void : Effect.fail(failed("is not ready"))
          )
          : Effect.fail(failed("has ended"))
      ).pipe(
        Effect.retry({ schedule: Schedule.spaced("25 millis"), while: (error) => error.reason === "is not ready" }),
        Effect.timeoutOrElse({
          duration: command.readyWithin ?? "30 seconds",
          orElse: () => Effect.fail(failed("was not ready in time"))
        })
      )
      return {
        name: command.name,
        folder: command.folder,
        pid: () => child?.pid,
        kill: Effect.andThen(signal("SIGKILL"), gone),
        // a frozen process must wake up to take its leave
        stop: signal("SIGCONT").pipe(Effect.andThen(signal("SIGTERM")), Effect.andThen(gone)),
        freeze: signal("SIGSTOP"),
        thaw: signal("SIGCONT"),
        launch,
        restart: Effect.andThen(launch, ready),
        ready,
        log: () => output
      }
    }).pipe(Effect.tap((server) => server.launch)),
    (server) => server.kill
  )

/** Tries a start again on other ports when a port was lost to another process meanwhile. */
export const retryStart = <A, R>(effect: Effect.Effect<A, ServerFailed, R>): Effect.Effect<A, ServerFailed, R> =>
  Effect.retry(effect, { times: 3, while: (error) => error.reason === "has ended" })

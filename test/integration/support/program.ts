/** Programs of the project as processes of their own. */
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as Net from "node:net"
import * as Path from "node:path"

const project = Path.join(import.meta.dirname, "../../..")

export interface Program {
  readonly child: ChildProcess
  readonly output: () => string
  /** the exit code, or the signal that ended it */
  readonly exit: Effect.Effect<number | NodeJS.Signals | null>
  /** waits until the output matches; fails with the whole output when the program ends first or time is up */
  readonly until: (pattern: RegExp, timeout: number) => Effect.Effect<void>
}

/** A program of the project, by its path in it, as a process which the end of the scope kills. */
export const start = (file: string, environment: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    Effect.sync((): Program => {
      const child = spawn(process.execPath, [Path.join(project, file)], {
        cwd: project,
        env: { PATH: process.env["PATH"], HOME: process.env["HOME"], NO_COLOR: "1", ...environment },
        stdio: ["ignore", "pipe", "pipe"]
      })
      let output = ""
      const waiting = new Set<() => void>()
      const add = (text: string) => {
        output += text
        for (const look of waiting) look()
      }
      child.stdout.on("data", (chunk) => add(String(chunk)))
      child.stderr.on("data", (chunk) => add(String(chunk)))
      let ended: number | NodeJS.Signals | null | undefined
      child.on("close", (code, signal) => {
        ended = code ?? signal
        add(`(ended: ${ended})\n`)
      })
      return {
        child,
        output: () => output,
        exit: Effect.callback((resume) => {
          const look = () => {
            if (ended === undefined) return
            waiting.delete(look)
            resume(Effect.succeed(ended))
          }
          waiting.add(look)
          look()
        }),
        until: (pattern, timeout) =>
          Effect.callback<void>((resume) => {
            const look = () => {
              if (pattern.test(output)) done(Effect.void)
              else if (ended !== undefined) done(Effect.die(new Error(`${file} ended before ${pattern}:\n${output}`)))
            }
            const timer = setTimeout(
              () => done(Effect.die(new Error(`${file} did not print ${pattern} in ${timeout} ms:\n${output}`))),
              timeout
            )
            const done = (result: Effect.Effect<void>) => {
              clearTimeout(timer)
              waiting.delete(look)
              resume(result)
            }
            waiting.add(look)
            look()
          })
      }
    }),
    ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))
  )

/** A TCP port that was free a moment ago. */
export const freePort = Effect.callback<number>((resume) => {
  const server = Net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as Net.AddressInfo
    server.close(() => resume(Effect.succeed(port)))
  })
})

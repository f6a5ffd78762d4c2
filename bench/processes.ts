/** Measuring processes: started, listened to, and gone when the one that started them is. */
import { type ChildProcess, fork } from "node:child_process"
import type { Options, Result } from "./harness.ts"

/** Parts of a bench by name, each giving its results as they come. */
export type Bench = Readonly<Record<string, (options: Options) => AsyncIterable<Result>>>

/** Flags for every process that measures: garbage on demand, room for a million of anything. */
const flags = ["--expose-gc", "--max-old-space-size=8192", "--no-warnings"]

/** A module of this folder as a process of its own, with an argument that it reads by `asked`. */
export const start = (module: string, argument: unknown): ChildProcess =>
  fork(new URL(module, import.meta.url), [JSON.stringify(argument)], {
    execArgv: [...flags, ...(process.env.BENCH_NODE_FLAGS ?? "").split(" ").filter((flag) => flag !== "")],
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })

/** Everything that a module reports, in order; fails if it ends otherwise than well. */
export async function* reports<A>(module: string, argument: unknown): AsyncGenerator<A> {
  const child = start(module, argument)
  const queue: Array<A> = []
  let wake = () => {}
  let status: number | string | undefined
  child.on("message", (message) => {
    queue.push(message as A)
    wake()
  })
  child.on("close", (code, signal) => {
    status = code ?? signal ?? 1
    wake()
  })
  try {
    for (;;) {
      while (queue.length > 0) yield queue.shift()!
      if (status !== undefined) break
      await new Promise<void>((resolve) => wake = resolve)
    }
  } finally {
    if (status === undefined) child.kill("SIGKILL")
  }
  if (status !== 0) throw new Error(`${module} ended with ${status}`)
}

/** The results of modules that measure several figures in one process. */
export const inOneProcess = (module: string) => (options: Options): AsyncIterable<Result> =>
  reports<Result>(module, options)

/** A process that answers one order after the other. */
export interface Partner<Order, Answer> {
  readonly ask: (order: Order) => Promise<Answer>
  readonly end: () => void
}

export const startPartner = <Order, Answer>(module: string, argument: unknown): Partner<Order, Answer> => {
  const child = start(module, argument)
  return {
    ask: (order) =>
      new Promise((resolve, reject) => {
        const ended = () => reject(new Error(`${module} ${JSON.stringify(argument)} has ended`))
        child.once("exit", ended)
        child.once("message", (answer) => {
          child.off("exit", ended)
          resolve(answer as Answer)
        })
        child.send(order as object)
      }),
    end: () => void child.kill("SIGKILL")
  }
}

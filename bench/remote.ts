/** Two nodes on loopback: questions, messages, one big payload among small ones, idle peers. Wall clock between processes. */
import { type Bench, inOneProcess } from "./processes.ts"

export const bench: Bench = {
  messages: inOneProcess("remote/messages.ts"),
  mixed: inOneProcess("remote/mixed.ts"),
  idle: inOneProcess("remote/idle.ts")
}

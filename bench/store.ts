/** Control stores beside their own clients, and what idle nodes ask of them. */
import { type Bench, inOneProcess } from "./processes.ts"

export const bench: Bench = {
  create: inOneProcess("store/create.ts"),
  idle: inOneProcess("store/idle.ts")
}

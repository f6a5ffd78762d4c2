import type { Bench } from "./processes.ts"

export const bench: Bench = {}

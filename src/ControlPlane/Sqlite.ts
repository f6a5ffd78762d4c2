/** The store on one SQLite file, for several processes on one machine. No vendor client: it uses Node's own `node:sqlite`. */
export * as ControlStoreSqlite from "./ControlStoreSqlite.ts"

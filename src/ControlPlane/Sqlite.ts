/** One SQLite file behind the store port and the control plane, for processes of one machine. It uses Node's own `node:sqlite`. */
export * as ControlPlaneSqlite from "./ControlPlaneSqlite.ts"
export * as ControlStoreSqlite from "./ControlStoreSqlite.ts"

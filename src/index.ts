/** The whole runtime as namespaces; see `ARCHITECTURE.md` for the house. Loads no vendor client. */
export * from "./Actor/index.ts"

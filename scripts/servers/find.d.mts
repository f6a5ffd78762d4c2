export type ServerName = "nats-server" | "etcd"
/** the project's folder for servers that it brought itself */
export const cacheFolder: string
/** The path of a server that is already on this machine, or undefined. */
export const findHere: (name: ServerName) => string | undefined
/** The path of a server, which is brought if need be. Rejects with one sentence that says what to do. */
export const find: (name: ServerName) => Promise<string>

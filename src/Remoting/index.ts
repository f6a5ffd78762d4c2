/** Nodes that reach each other: transports, the protocol between them, calls and messages over it. */
export * as Client from "./Client.ts"
export * as Errors from "./errors.ts"
export * as Remoting from "./Remoting.ts"
export * as RemotingSettings from "./Settings.ts"
export * as Transport from "./Transport.ts"

/**
 * What the store's thread and its owner say to each other. Requests have an id and get one answer each; orders get none; news
 * come by themselves. One port carries all of it in order, so an answer proves that all news before it were told: where one takes the
 * shorter way (`Shared`), the port is emptied first.
 */
import type { MessagePort } from "node:worker_threads"

export interface Row {
  readonly key: string
  readonly value: string
  readonly revision: number
}

/** One change; without a value it is a removal. */
export interface Change {
  readonly key: string
  readonly value: string | null
  readonly revision: number
}

export type Write =
  | { readonly op: "create"; readonly key: string; readonly value: string }
  | { readonly op: "update"; readonly key: string; readonly value: string; readonly revision: string }
  | { readonly op: "remove"; readonly key: string; readonly revision: string }

export type Read = { readonly op: "get"; readonly key: string } | { readonly op: "list"; readonly prefix: string }

export type Request =
  /** is the file there, and ours? Opens it where it is not open yet */
  | { readonly op: "open" }
  | Read
  /** Answered when every change up to now has been told. */
  | { readonly op: "probe" }
  /** milliseconds after which it is no longer begun, and so certainly not applied */
  | Write & { readonly budget: number }

export type Order =
  /** begin a watch, or begin it again: answered by a `Snapshot` */
  | { readonly op: "watch"; readonly watch: number; readonly prefix: string }
  | { readonly op: "unwatch"; readonly watch: number }
  /** the asker has gone; a write that has not begun is dropped */
  | { readonly op: "cancel"; readonly id: number }
  | { readonly op: "close" }

export type Answer =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Rows"; readonly rows: ReadonlyArray<Row> }
  | { readonly _tag: "Written"; readonly revision: number }
  | { readonly _tag: "Conflict"; readonly current: number | undefined }
  /** certainly not done; `lasting` says that only a human can change that */
  | { readonly _tag: "Refused"; readonly reason: string; readonly lasting: boolean }
  | { readonly _tag: "Unknown"; readonly reason: string }

export type News =
  | { readonly _tag: "Snapshot"; readonly watch: number; readonly rows: ReadonlyArray<Row> }
  | { readonly _tag: "Changes"; readonly changes: ReadonlyArray<Change> }
  /** all watches have ended here and must be begun again; `forgot` says that the store lost what it had acknowledged */
  | { readonly _tag: "Lost"; readonly reason: string; readonly forgot: boolean }

/** owner to thread */
export type Inbound = (Request & { readonly id: number }) | Order
/** thread to owner */
export type Outbound = { readonly id: number; readonly answer: Answer } | News

export interface ThreadOptions {
  /** absolute path */
  readonly path: string
  readonly synchronous: "full" | "normal"
  /** milliseconds between two looks for changes of other processes */
  readonly pollInterval: number
}

/** What the thread is started with. */
export interface ThreadData {
  readonly options: ThreadOptions
  readonly port: MessagePort
  /** of `Shared` */
  readonly shared: SharedArrayBuffer
}

/** What a bucket of NATS and its server were found to be at the start, for people and programs who check it. */

export interface BucketReport {
  readonly bucket: string
  readonly storage: string
  readonly replicas: number
  readonly history: number
  /** may others read from any replica, also one that lags? this store never does */
  readonly directReads: boolean
  /** when the server syncs what it acknowledged to disk: `always`, `each <n> ms`, or `unknown` */
  readonly syncPolicy: string
  readonly serverVersion: string
}

const oldest = [2, 9, 10] as const

/** Is this the version of a server that lacks what is used here? What is no version, as of a build of one's own, is taken. */
export const isTooOld = (version: string): boolean => {
  const parts = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number)
  const differs = parts?.findIndex((part, i) => part !== oldest[i]) ?? -1
  return differs >= 0 && parts![differs]! < oldest[differs]!
}

/** The part of a server's own settings that matters here. */
export interface ServerSettings {
  readonly data?: {
    readonly jetstream?: { readonly config?: { readonly sync_always?: boolean; readonly sync_interval?: number } }
  }
}

/** Servers before 2.10 leave the policy out; nanoseconds. */
export const syncPolicyOf = ({ data }: ServerSettings): string => {
  const config = data?.jetstream?.config
  return config?.sync_always === true
    ? "always"
    : typeof config?.sync_interval === "number"
    ? `each ${Math.round(config.sync_interval / 1e6)} ms`
    : "unknown"
}

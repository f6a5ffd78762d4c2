/** Datacenters: who they are, which may be chosen, and placement and lookup across them. */
export * as DataCenterRpcs from "./DataCenterRpcs.ts"
export * as DataCenters from "./DataCenters.ts"
export * as DataCenterSettings from "./DataCenterSettings.ts"

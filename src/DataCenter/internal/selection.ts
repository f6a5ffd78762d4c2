/** Pure: which datacenter does a selector mean? */
import type { DataCenter, DataCenterRecord } from "../../ControlPlane/ControlPlane.ts"
import type { DataCenterSelector } from "../../Actor/Placement.ts"

/** A name, or a selector. */
export type Selector = string | DataCenterSelector

export const selectorOf = (selector: Selector): DataCenterSelector =>
  typeof selector === "string" ? { name: selector } : selector

/** Every part that is given must match. */
export const matches = (selector: Selector, dataCenter: DataCenter): boolean => {
  const { labels, name, region, zone } = selectorOf(selector)
  return (name === undefined || name === dataCenter.name) &&
    (region === undefined || region === dataCenter.region) &&
    (zone === undefined || zone === dataCenter.zone) &&
    (labels === undefined ||
      Object.entries(labels).every(([label, value]) =>
        Object.hasOwn(dataCenter.labels, label) && dataCenter.labels[label] === value
      ))
}

/** For people and errors: the name where that is all, else the parts. */
export const describe = (selector: Selector): string => {
  const { labels, name, region, zone } = selectorOf(selector)
  if (region === undefined && zone === undefined && labels === undefined) return name ?? "any"
  const parts = [
    ...(name === undefined ? [] : [name]),
    ...(region === undefined ? [] : [`region=${region}`]),
    ...(zone === undefined ? [] : [`zone=${zone}`]),
    ...Object.entries(labels ?? {}).map(([label, value]) => `${label}=${value}`)
  ]
  return parts.join(",")
}

/** Where a record's endpoints are; what is malformed is passed over. */
export const peersOf = (record: Pick<DataCenterRecord, "endpoints">) =>
  record.endpoints.flatMap((endpoint) => {
    const match = /^(.+):(\d{1,5})$/.exec(endpoint)
    const port = Number(match?.[2])
    return match === null || port < 1 || port > 65_535 ? [] : [{ host: match[1]!.replace(/^\[(.*)\]$/, "$1"), port }]
  })

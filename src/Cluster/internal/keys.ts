/**
 * Where the cluster keeps what in its control store. Three prefixes, because they are read differently: `state` is watched by
 * every member, `lease` by the lease observer, `journal` is read only when an owner is gone.
 */
import { keyPart } from "../../ControlPlane/ControlStore.ts"

export interface Keys {
  readonly state: string
  readonly id: string
  readonly view: string
  readonly memberPrefix: string
  readonly kindsPrefix: string
  readonly leasePrefix: string
  readonly member: (nodeKey: string) => string
  readonly kinds: (nodeKey: string) => string
  readonly lease: (nodeKey: string) => string
  readonly journalPrefix: (nodeKey: string) => string
  /** numbers start at 1 and are padded, so that keys sort as numbers do */
  readonly journal: (nodeKey: string, sequence: number) => string
}

export const make = (system: string, dataCenter: string): Keys => {
  const root = `cluster/${keyPart(system)}/${keyPart(dataCenter)}`
  return {
    state: `${root}/state/`,
    id: `${root}/state/id`,
    view: `${root}/state/view`,
    memberPrefix: `${root}/state/member/`,
    kindsPrefix: `${root}/state/kinds/`,
    leasePrefix: `${root}/lease/`,
    member: (node) => `${root}/state/member/${keyPart(node)}`,
    kinds: (node) => `${root}/state/kinds/${keyPart(node)}`,
    lease: (node) => `${root}/lease/${keyPart(node)}`,
    journalPrefix: (node) => `${root}/journal/${keyPart(node)}/`,
    journal: (node, sequence) => `${root}/journal/${keyPart(node)}/${String(sequence).padStart(10, "0")}`
  }
}

/**
 * Pure core of the leader: what its datacenter's record should say, and which write makes it so.
 *
 * State and liveness have different writers. An operator's wish is a key of its own and always wins; a record that is being
 * drained without such a wish was drained by hand at the control plane, and no heartbeat, conflict or restart undoes that.
 * Only what this runtime itself wrote while its last member left is taken back at the next start.
 */
import { Equal } from "effect"
import type { DataCenter, DataCenterRecord, DataCenterState, Registration } from "../../ControlPlane/ControlPlane.ts"

export interface OwnInput {
  readonly id: string
  readonly dataCenter: DataCenter
  /** sorted; none: those in the record stay */
  readonly endpoints: ReadonlyArray<string>
  /** has the cluster its minimum of members? */
  readonly formed: boolean
  readonly wish: "DRAINED" | "ACTIVE" | undefined
  readonly record: DataCenterRecord | undefined
  /** this start of this node */
  readonly writer: string
}

export type OwnCommand =
  | { readonly _tag: "Register"; readonly registration: Registration }
  | { readonly _tag: "Replace"; readonly registration: Registration; readonly version: string }
  | { readonly _tag: "Nothing" }

const leaving = "shutdown:"
/** The writer of a record whose last member says goodbye: whatever state it leaves, a start may take it back. */
export const leavingWriter = (writer: string): string => `${leaving}${writer}`

/** Does somebody want this datacenter to get nothing new? What its last member left behind is nobody's wish. */
export const isDrained = (record: DataCenterRecord | undefined, wish: "DRAINED" | "ACTIVE" | undefined): boolean =>
  wish !== undefined
    ? wish === "DRAINED"
    : (record?.state === "DRAINING" || record?.state === "INACTIVE") && !record.writer.startsWith(leaving)

/** Up members' endpoints in one order, so that nothing is written when only the order differs. */
export const sortedEndpoints = (endpoints: Iterable<string>): ReadonlyArray<string> =>
  Array.from(new Set(endpoints)).sort()

const wantedState = ({ formed, record, wish }: OwnInput): DataCenterState => {
  if (wish === "DRAINED") return "DRAINING"
  if (record !== undefined && isDrained(record, wish)) return record.state
  const open: DataCenterState = formed ? "ACTIVE" : "REGISTERED"
  // once routable, a change of leader does not make it less so
  return record?.state === "ACTIVE" ? "ACTIVE" : open
}

export const plan = (input: OwnInput): OwnCommand => {
  const { dataCenter, id, record, writer } = input
  const endpoints = input.endpoints.length > 0 ? input.endpoints : record?.endpoints ?? []
  const registration: Registration = { id, dataCenter, endpoints, state: wantedState(input), writer }
  if (record === undefined) return { _tag: "Register", registration }
  const same = record.state === registration.state && Equal.equals(record.endpoints, endpoints) &&
    Equal.equals(record.dataCenter, dataCenter)
  return same ? { _tag: "Nothing" } : { _tag: "Replace", registration, version: record.version }
}

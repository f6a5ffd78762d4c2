/** Who a node is, from settings: the system that it belongs to, and its id where that is to be stable over restarts. */
import { Effect, Layer } from "effect"
import type { SettingInvalid } from "../../Actor/errors.ts"
import * as Settings from "../../Actor/Settings.ts"
import { group as dataCenterGroup } from "../../DataCenter/DataCenterSettings.ts"
import type { Node } from "../../Actor/Node.ts"
import * as Remoting from "../../Remoting/Remoting.ts"
import type { Transport } from "../../Remoting/Transport.ts"

export const group = Settings.group("node", {
  /** name of the system: all nodes that talk to each other carry the same; required */
  system: Settings.text({ env: "TROUPE_SYSTEM" }),
  /** default: drawn at each start; a stable one names the same host in logs and in `spawnOn({ on })` */
  id: Settings.optionalText({ env: "TROUPE_NODE_ID" })
})

/** What code may give. */
export interface Identity {
  /** name of the system: all nodes that talk to each other carry the same */
  readonly system: string
  /** default: drawn at each start; a stable one names the same host in logs and in `spawnOn({ on })` */
  readonly id?: string | undefined
}

type NodeLayer = Layer.Layer<Node, SettingInvalid, Transport>

export const layer = (identity: Identity, dataCenter: string): NodeLayer =>
  Layer.unwrap(Effect.map(
    group.decode({ system: identity.system, id: identity.id }),
    (values) => Remoting.layerNode({ ...values, dataCenter })
  ))

const fromEnvironment = (dataCenter: Effect.Effect<string, SettingInvalid>): NodeLayer =>
  Layer.unwrap(
    Effect.map(Effect.all([group.config, dataCenter]), ([values, name]) =>
      Remoting.layerNode({ ...values, dataCenter: name }))
  )

/** From the environment; the datacenter's name too. */
export const layerConfig: NodeLayer = fromEnvironment(Effect.map(dataCenterGroup.config, (values) => values.name))

/** From the environment, where there are no datacenters. */
export const layerConfigIn = (dataCenter: string): NodeLayer => fromEnvironment(Effect.succeed(dataCenter))

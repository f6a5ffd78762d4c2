/**
 * The control plane on a bucket of NATS JetStream, `troupe_datacenters` by default, shared by all datacenters. What the store
 * itself promises, and what a NATS with replicas does not, is said in `ControlStoreNats`.
 *
 * No server TTL is used: a lease is judged by its readers, since a bucket's TTL expires silently and cannot be changed later.
 */
import * as Settings from "../Actor/Settings.ts"
import * as ControlStoreNats from "./ControlStoreNats.ts"
import { layersOf, ttl } from "./internal/controlPlaneLayers.ts"

/** Those of the store, with a bucket of its own, and the TTL. */
export const settings = {
  ...ControlStoreNats.settings,
  /** shared by all datacenters of one system, and by no other system; created if it is absent */
  bucket: Settings.text({
    env: "NATS_DATACENTERS_BUCKET",
    default: "troupe_datacenters",
    pattern: /^[A-Za-z0-9_-]{1,64}$/
  }),
  ttl
}

const layers = layersOf(
  Settings.group("controlPlaneNats", settings),
  (values) => values.ttl,
  ({ ttl: _, ...values }) => ControlStoreNats.open(values)
)

/** Fails with what opening the store fails with: a bad setting by name, refused credentials, or no server in time. */
export const layer = layers.layer

/** The same from the environment: `NATS_SERVERS` and so on, or `CONTROL_PLANE_NATS_SERVERS` where it differs from the cluster's. */
export const layerConfig = layers.layerConfig

/**
 * The control plane on etcd, under the namespace `/troupe/datacenters` by default, shared by all datacenters.
 *
 * No etcd leases are used: a lease is judged by its readers' own clocks, so that the loss of one is known to both sides in
 * bounded time, and none is left behind.
 */
import * as Settings from "../Actor/Settings.ts"
import * as ControlStoreEtcd from "./ControlStoreEtcd.ts"
import { layersOf, ttl } from "./internal/controlPlaneLayers.ts"

/** Those of the store, with a namespace of its own, and the TTL. */
export const settings = {
  ...ControlStoreEtcd.settings,
  /** shared by all datacenters of one system, and by no other system */
  namespace: Settings.text({
    env: "ETCD_DATACENTERS_NAMESPACE",
    default: "/troupe/datacenters",
    pattern: /^\/?[A-Za-z0-9\-_.=@]+(\/[A-Za-z0-9\-_.=@]+)*\/?$/
  }),
  ttl
}

const layers = layersOf(
  Settings.group("controlPlaneEtcd", settings),
  (values) => values.ttl,
  ({ ttl: _, ...values }) => ControlStoreEtcd.open(values)
)

/** Fails with what opening the store fails with: a bad setting by name, refused credentials, or no member in time. */
export const layer = layers.layer

/** The same from the environment: `ETCD_ENDPOINTS` and so on, or `CONTROL_PLANE_ETCD_ENDPOINTS` where it differs from the cluster's. */
export const layerConfig = layers.layerConfig

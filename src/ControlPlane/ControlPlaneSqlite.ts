/**
 * The control plane in one SQLite file, in the namespace `datacenters` by default: for datacenters that are simulated by
 * processes of one machine. Real datacenters share no file; they take etcd or NATS.
 */
import * as Settings from "../Actor/Settings.ts"
import * as ControlStoreSqlite from "./ControlStoreSqlite.ts"
import { layersOf, ttl } from "./internal/controlPlaneLayers.ts"

/** Those of the store, with a namespace of its own, and the TTL. */
export const settings = {
  ...ControlStoreSqlite.settings,
  /** shared by all datacenters of one system, and by no other system */
  namespace: Settings.text({
    env: "SQLITE_DATACENTERS_NAMESPACE",
    default: "datacenters",
    pattern: /^[A-Za-z0-9\-_.]{1,100}$/
  }),
  ttl
}

const layers = layersOf(
  Settings.group("controlPlaneSqlite", settings),
  (values) => values.ttl,
  ({ ttl: _, ...values }) => ControlStoreSqlite.open(values)
)

/** Fails with what opening the store fails with: a bad setting by name, or a file that was busy all the time. */
export const layer = layers.layer

/** The same from the environment: `SQLITE_FILE` and so on, or `CONTROL_PLANE_SQLITE_FILE` where it differs from the cluster's. */
export const layerConfig = layers.layerConfig

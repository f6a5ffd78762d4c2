/**
 * The Layers of a control plane on a backend's store: one pattern for all backends. Each provides `GlobalStore` beside
 * `ControlPlane`.
 *
 * In the environment a variable may carry the prefix `CONTROL_PLANE_`: a datacenter whose own store and whose control plane
 * are two installations of one backend names both.
 */
import { ConfigProvider, type Duration, Effect, Layer, type Scope } from "effect"
import type { SettingInvalid } from "../../Actor/errors.ts"
import * as Settings from "../../Actor/Settings.ts"
import { ControlPlane } from "../ControlPlane.ts"
import { make } from "../ControlPlaneStore.ts"
import { type ControlStoreService, GlobalStore } from "../ControlStore.ts"

/** TTL of a datacenter's lease: default 30 s, at least 1 s. Every backend's settings of a control plane carry it. */
export const ttl = Settings.duration({ env: "TROUPE_CONTROL_PLANE_TTL", default: "30 seconds", minimum: 1_000 })

const prefix = "CONTROL_PLANE_"

/** Looks for each variable under its prefixed name first. */
const prefixed = <A, E, R>(config: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const provider = yield* ConfigProvider.ConfigProvider
    const own = ConfigProvider.mapInput(
      provider,
      (path) => path.map((part, index) => index === 0 && typeof part === "string" ? `${prefix}${part}` : part)
    )
    return yield* Effect.provideService(
      config,
      ConfigProvider.ConfigProvider,
      ConfigProvider.orElse(own, provider)
    )
  })

/** Settings that all have defaults may be left out together. */
type Given<S extends Record<string, unknown>> = {} extends Settings.Partial_<S>
  ? [partial?: Settings.Partial_<S> | undefined]
  : [partial: Settings.Partial_<S>]

/** `layer(partial)` and `layerConfig` for a group of settings that holds the TTL and all that opening the store needs. */
export const layersOf = <S extends Record<string, unknown>, E>(
  group: Settings.Group<S>,
  ttlOf: (values: Settings.Values<S>) => Duration.Duration,
  open: (values: Settings.Values<S>) => Effect.Effect<ControlStoreService, E, Scope.Scope>
) => {
  const layerOf = <E2>(values: Effect.Effect<Settings.Values<S>, E2>) =>
    Layer.unwrap(Effect.map(values, (settings) =>
      Layer.effect(
        ControlPlane,
        Effect.flatMap(GlobalStore, (store) => make(store, { ttl: ttlOf(settings) }))
      ).pipe(Layer.provideMerge(Layer.effect(GlobalStore, open(settings))))))
  return {
    layer: (
      ...[partial]: Given<S>
    ): Layer.Layer<ControlPlane | GlobalStore, E | SettingInvalid> =>
      layerOf(group.decode(partial ?? {} as Settings.Partial_<S>)),
    layerConfig: layerOf(prefixed(group.config)) satisfies Layer.Layer<ControlPlane | GlobalStore, E | SettingInvalid>
  }
}

/**
 * The linter's half of the house rules: the walls (imports point one way), the clock (time, chance and platform timers only
 * through services) and the usual mistakes. What a linter cannot see is checked by `scripts/check`.
 */
import { defineConfig, type OxlintConfig } from "oxlint"

/** From the innermost ring to the outermost; a ring may know those before it. `Testing` may know all, nothing may know it. */
const rings = ["Actor", "Remoting", "ControlPlane", "Cluster", "DataCenter", "Layers", "Testing"]

const useClock = "Time is the Clock service (Effect.sleep, Schedule, Clock.monotonicTimeNanos)."
const useScheduler = "Turns are posted through Effect's Scheduler service."
const useRandom = "Chance is the Random service."

const restrictedGlobals = [
  { name: "Date", message: useClock },
  { name: "performance", message: useClock },
  { name: "setTimeout", message: useClock },
  { name: "setInterval", message: useClock },
  { name: "setImmediate", message: useScheduler },
  { name: "clearTimeout", message: useClock },
  { name: "clearInterval", message: useClock },
  { name: "clearImmediate", message: useScheduler }
]

const restrictedProperties = [
  { object: "Date", property: "now", message: useClock },
  { object: "performance", property: "now", message: useClock },
  { object: "process", property: "hrtime", message: useClock },
  { object: "Math", property: "random", message: useRandom },
  { object: "crypto", property: "randomUUID", message: useRandom },
  { object: "crypto", property: "getRandomValues", message: useRandom },
  ...restrictedGlobals.map(({ name, message }) => ({ object: "globalThis", property: name, message }))
]

/** What files of one ring may not import. Rules of the same name replace each other, so each list is whole. */
const walls = (
  ring: string,
  allowed: { readonly vendor?: boolean; readonly platform?: boolean } = {}
): NonNullable<OxlintConfig["rules"]> => {
  const outer = rings.slice(rings.indexOf(ring) + 1)
  return {
    "no-restricted-imports": ["error", {
      patterns: [
        { group: ["effect-troupe", "effect-troupe/*"], message: "Sources import each other by relative path." },
        ...(outer.length === 0 ? [] : [{
          group: outer.flatMap((name) => [`**/${name}/**`, `**/${name}`]),
          message: `Imports point one way: ${rings.slice(0, -1).join(" <- ")}.`
        }]),
        ...(allowed.vendor ? [] : [{
          group: ["@nats-io/*", "etcd3", "etcd3/*", "@grpc/*"],
          message: "Only the backends in src/ControlPlane load a vendor client."
        }]),
        ...(allowed.platform ? [] : [{
          group: ["timers", "timers/*", "node:timers", "node:timers/*", "perf_hooks", "node:perf_hooks"],
          message: useClock
        }])
      ]
    }]
  }
}

export default defineConfig({
  plugins: ["typescript", "unicorn", "oxc"],
  categories: { correctness: "error" },
  ignorePatterns: ["dist", "node_modules", ".cache", "examples/usage"],
  rules: {
    "eqeqeq": "error",
    "no-var": "error",
    "prefer-const": "error",
    "no-unused-expressions": "error",
    "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_", caughtErrorsIgnorePattern: "^_" }],
    // an Effect.gen without yield is Effect's business, and `then` is a plain word in a protocol
    "require-yield": "off",
    "unicorn/no-thenable": "off",
    // control characters separate parts that no user may write
    "no-control-regex": "off",
    // a copy taken because the loop changes the original
    "unicorn/no-useless-spread": "off"
  },
  overrides: [
    {
      files: ["src/**/*.ts"],
      rules: {
        "no-restricted-globals": ["error", ...restrictedGlobals],
        "no-restricted-properties": ["error", ...restrictedProperties],
        "oxc/no-async-await": "error",
        "typescript/no-explicit-any": "error",
        "no-console": "error"
      }
    },
    ...rings.map((ring) => ({ files: [`src/${ring}/**/*.ts`], rules: walls(ring) })),
    {
      files: ["src/ControlPlane/*{Nats,Etcd}.ts", "src/ControlPlane/internal/{nats,etcd}*.ts"],
      rules: walls("ControlPlane", { vendor: true })
    },
    // Edge modules wrap a platform or vendor API; they are thin, and named for what they are.
    {
      files: ["src/**/*.edge.ts"],
      rules: { "no-restricted-globals": "off", "no-restricted-properties": "off", "oxc/no-async-await": "off" }
    },
    ...rings.map((ring) => ({
      files: [`src/${ring}/**/*.edge.ts`],
      rules: walls(ring, { platform: true, vendor: ring === "ControlPlane" })
    }))
  ]
})

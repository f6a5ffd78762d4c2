import { defineConfig } from "vitest/config"

/** Where tests need real servers, processes, sockets or the platform's clock; everything else runs in virtual time. */
const integration = ["test/integration/**/*.test.ts", "test/ground/**/*.test.ts", "test/bench/**/*.test.ts"]
/** Failures of whole processes and servers: minutes, not seconds. */
const faults = ["test/faults/**/*.test.ts"]

export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/**/*.test.ts", "examples/**/*.test.ts"],
          exclude: [...integration, ...faults],
          testTimeout: 30_000
        }
      },
      {
        // one file at a time: real clocks, and two cores are soon busy with servers
        extends: true,
        test: {
          name: "integration",
          include: integration,
          testTimeout: 60_000,
          hookTimeout: 120_000,
          fileParallelism: false,
          sequence: { groupOrder: 1 }
        }
      },
      {
        extends: true,
        test: {
          name: "faults",
          include: faults,
          testTimeout: 300_000,
          hookTimeout: 120_000,
          fileParallelism: false,
          sequence: { groupOrder: 2 }
        }
      }
    ]
  }
})

import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"

/** What the ground must hold: house rules, the published package, the pages. Processes, but no clocks. */
const ground = ["test/ground/**/*.test.ts"]
/** Where tests need real servers, processes, sockets or the platform's clock; everything else runs in virtual time. */
const integration = ["test/integration/**/*.test.ts", "test/bench/**/*.test.ts"]
/** Failures of whole processes and servers: minutes, not seconds. */
const faults = ["test/faults/**/*.test.ts"]

/** All cores, and never one alone: with one worker a project would be put behind those that need real clocks. */
const maxWorkers = Math.max(2, availableParallelism())

/**
 * Real clocks and servers on a shared machine: a stall of seconds there is no defect here. In CI such a test gets a second try, and the
 * report names it; by hand it gets none.
 */
const retry = process.env["CI"] === undefined ? 0 : 1

export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["test/**/*.test.ts", "examples/**/*.test.ts"],
          exclude: [...ground, ...integration, ...faults],
          testTimeout: 30_000,
          maxWorkers
        }
      },
      {
        extends: true,
        test: { name: "ground", include: ground, testTimeout: 60_000, hookTimeout: 120_000, maxWorkers }
      },
      {
        // one file at a time: real clocks, and two cores are soon busy with servers
        extends: true,
        test: {
          name: "integration",
          retry,
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
          retry,
          include: faults,
          testTimeout: 300_000,
          hookTimeout: 120_000,
          // two files at a time: they mostly wait for servers that are down or asleep
          maxWorkers: 2,
          sequence: { groupOrder: 2 }
        }
      }
    ]
  }
})

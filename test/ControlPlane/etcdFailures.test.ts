// Which failures of etcd prove that a write was not applied. The words are etcd's own and those of its gRPC client.
import { assert, describe, it } from "@effect/vitest"
import type * as Grpc from "@grpc/grpc-js"
import { failureOf, status } from "../../src/ControlPlane/internal/etcdProtocol.edge.ts"

const kindOf = (code: number, details: string) =>
  failureOf(Object.assign(new Error(details), { code, details }) as Grpc.ServiceError).kind

/** of a request that may have been on its way when it ended */
const perhapsApplied: ReadonlyArray<readonly [number, string]> = [
  [status.DEADLINE_EXCEEDED, "Deadline exceeded after 1.001s,LB pick: 0.001s,remote_addr=127.0.0.1:2379"],
  [status.UNAVAILABLE, "Connection dropped"],
  [status.UNAVAILABLE, "read ECONNRESET"],
  [status.UNAVAILABLE, "Received HTTP status code 503"],
  [status.CANCELLED, "Call cancelled"],
  // the machine behind a connection that was well has gone
  [status.INTERNAL, "Received RST_STREAM with code 2 triggered by internal client error: read EHOSTUNREACH"],
  [status.INTERNAL, "Received RST_STREAM with code 2 triggered by internal client error: read ECONNREFUSED"],
  // a proxy hangs up on a request that it may have passed on, or refuses an answer
  [status.RESOURCE_EXHAUSTED, "Bandwidth exhausted or memory limit exceeded"],
  [status.RESOURCE_EXHAUSTED, "grpc: trying to send message larger than max (3000000 vs. 2097152)"],
  [status.UNKNOWN, "context deadline exceeded"],
  [status.UNAVAILABLE, "etcdserver: request timed out"],
  [status.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"],
  // also said of a write that was proposed before the member began to stop
  [status.UNAVAILABLE, "etcdserver: server stopped"]
]

const notApplied: ReadonlyArray<readonly [number, string, string]> = [
  [
    status.UNAVAILABLE,
    "No connection established. Last error: connect ECONNREFUSED 127.0.0.1:1. Resolution note: ",
    "NotSent"
  ],
  [
    status.UNAVAILABLE,
    "No connection established. Last error: connect EHOSTUNREACH 10.0.0.1:2379. Resolution note: ",
    "NotSent"
  ],
  [status.UNAVAILABLE, "Name resolution failed for target dns:nowhere:2379", "NotSent"],
  [status.DEADLINE_EXCEEDED, "Deadline exceeded after 1.001s,Waiting for LB pick", "NotSent"],
  [status.UNAVAILABLE, "etcdserver: no leader", "Refused"],
  [status.RESOURCE_EXHAUSTED, "etcdserver: too many requests", "Refused"],
  [status.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", "Refused"],
  [status.INVALID_ARGUMENT, "etcdserver: request is too large", "TooLarge"],
  [status.PERMISSION_DENIED, "etcdserver: permission denied", "Denied"],
  [status.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password", "Denied"],
  [status.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", "Compacted"]
]

describe("a failure of etcd", () => {
  for (const [code, words] of perhapsApplied) {
    it(`leaves it open whether a write was applied: ${words}`, () => {
      assert.strictEqual(kindOf(code, words), "NoAnswer")
    })
  }

  for (const [code, words, kind] of notApplied) {
    it(`proves that nothing was applied: ${words}`, () => {
      assert.strictEqual(kindOf(code, words), kind)
    })
  }

  for (
    const words of [
      "etcdserver: invalid auth token",
      // authentication was switched on after this client had been taken without a token
      "etcdserver: user name is empty",
      // users or roles have changed since the token was given out
      "etcdserver: revision of auth store is old"
    ]
  ) {
    it(`asks for another token: ${words}`, () => {
      assert.strictEqual(kindOf(status.INVALID_ARGUMENT, words), "Unauthenticated")
    })
  }
})

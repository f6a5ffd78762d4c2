// Which hosts may be dialed: patterns, and that a node holds to them whoever names a host.
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit } from "effect"
import { NodeUnreachable } from "../../src/Actor/errors.ts"
import { Delivery } from "../../src/Actor/Delivery.ts"
import { Node } from "../../src/Actor/Node.ts"
import { allowedBy } from "../../src/Remoting/internal/hosts.edge.ts"
import { Remoting } from "../../src/Remoting/Remoting.ts"
import { ClientRpcs } from "../../src/Remoting/ClientRpcs.ts"
import * as Settings from "../../src/Remoting/Settings.ts"
import { Recorder, Recorders } from "../../src/Testing/DeliveryContract.ts"
import * as SimulatedNetwork from "../../src/Testing/SimulatedNetwork.ts"
import { startNode } from "./support.ts"

describe("dialHosts", () => {
  it("names, suffixes, addresses and ranges", () => {
    const cases: ReadonlyArray<readonly [ReadonlyArray<string>, string, boolean]> = [
      [["*"], "anything", true],
      [[], "anything", false],
      [["node-1"], "Node-1", true],
      [["node-1"], "node-10", false],
      [["*.example.org"], "a.b.example.org", true],
      [["*.example.org"], "example.org", false],
      [["*.example.org"], "badexample.org", false],
      [["10.0.0.0/8"], "10.255.0.1", true],
      [["10.0.0.0/8"], "11.0.0.1", false],
      [["10.0.0.0/8"], "10.0.0.1.example.org", false],
      [["10.0.0.0/8"], "localhost", false],
      [["192.0.2.7"], "192.0.2.7", true],
      [["192.0.2.7"], "192.0.2.70", false],
      [["fd00::/8"], "fd12::1", true],
      [["fd00::/8"], "fe80::1", false],
      // an address that is an IPv4 one in another dress is held against ranges of IPv4 too
      [["10.0.0.0/8"], "::ffff:10.1.2.3", true],
      [["10.0.0.0/8"], "::ffff:11.1.2.3", false],
      // other spellings of an address are names to this list, and no name is looked up
      [["127.0.0.0/8"], "0x7f.1", false],
      [["127.0.0.0/8"], "2130706433", false]
    ]
    for (const [patterns, host, allowed] of cases) {
      assert.strictEqual(allowedBy(patterns)(host), allowed, `${patterns.join(", ")}: ${host}`)
    }
  })

  it.effect("a pattern that is none is a setting that is wrong", () =>
    Effect.gen(function*() {
      for (const pattern of ["10.0.0.0/33", "example.org/8", "a*", "*.a.*", "fd00::/129"]) {
        const error = yield* Effect.flip(Settings.decode({ dialHosts: [pattern] }))
        assert.strictEqual(error.setting, "remoting.dialHosts")
        assert.include(error.reason, pattern)
      }
      yield* Settings.decode({ dialHosts: ["*", "*.example.org", "10.0.0.0/8", "::1/128", "node-1"] })
    }))

  it.effect("what is not allowed is refused typed and told, for messages and for calls, and nobody is dialed", () =>
    Effect.gen(function*() {
      const network = yield* SimulatedNetwork.make({ seed: 5 })
      const a = yield* startNode(network, "a", { remoting: { dialHosts: ["c"] } })
      const b = yield* startNode(network, "b")
      const c = yield* startNode(network, "c")
      const at = (node: Context.Context<Node>) => ({
        kind: Recorder.name,
        name: "x",
        node: Context.get(node, Node).address,
        placement: 1,
        epoch: 1
      })
      const put = { kind: Recorder, tag: "Put", payload: { n: 1 } }
      const why = "b is not a host that this node may dial"
      const told = yield* Effect.flip(Context.get(a, Delivery).tell(at(b), put))
      assert.isTrue(told instanceof NodeUnreachable && told.outcome === "NotSent" && told.reason === why)
      const { host, port } = at(b).node
      const called = yield* Effect.exit(
        Context.get(a, Remoting).call({ host, port }, ClientRpcs, "Client.Info", undefined)
      )
      assert.isTrue(Exit.isFailure(called) && String(called.cause).includes(why))
      const { events } = Context.get(a, Recorders)
      assert.isTrue(events.every((event) => event._tag === "PeerRefused" && event.reason === why))
      assert.isAtLeast(events.length, 1)
      yield* Context.get(a, Delivery).tell(at(c), put)
      assert.deepStrictEqual((yield* Context.get(a, Remoting).connected).map(({ id }) => id), ["c"])
    }))
})

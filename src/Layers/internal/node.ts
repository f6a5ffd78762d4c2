/** What makes a composition of rings one node. */
import { Layer } from "effect"

/**
 * The rings are the same Layers for every node, and Effect builds the same Layer once in one composition, and once for what is built inside of
 * it. So each node has a memory of its own: two nodes in one program are two, while one node's Layer that is used in several places is one.
 */
export const node = <A, E, R>(rings: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.suspend(() => Layer.fresh(rings))

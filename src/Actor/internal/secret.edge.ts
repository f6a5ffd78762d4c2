/**
 * A number that nobody can guess, for the salt of a hash table. An edge: `Random` is no cryptographic source, and a peer sees enough
 * of what it gave to tell what comes next. What happens does not depend on it, so a simulation needs no say in it.
 */
export const secret = (): number => globalThis.crypto.getRandomValues(new Int32Array(1))[0]!

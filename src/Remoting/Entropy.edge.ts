/**
 * Bytes that nobody can guess, for handshake nonces. An edge: the one place of the remoting that asks the platform for
 * randomness, as `Random` is no cryptographic source. A simulation replaces it by its seed.
 */
import { Context, type Random } from "effect"
import { randomBytes } from "node:crypto"

export const Entropy = Context.Reference<(bytes: number) => Uint8Array>("effect-troupe/Remoting/Entropy", {
  defaultValue: () => (bytes) => new Uint8Array(randomBytes(bytes))
})

/** Guessable bytes from a seeded source: for simulations only. */
export const entropyOf = (random: Random.Random) => (bytes: number): Uint8Array =>
  Uint8Array.from({ length: bytes }, () => Math.floor(random.nextDoubleUnsafe() * 256))

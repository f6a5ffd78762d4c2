/** Paths of the tests' certificates; `make.sh` makes them anew. */
import { fileURLToPath } from "node:url"

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url))

export const pki = {
  ca: file("ca.crt"),
  /** an authority that has signed nothing */
  stranger: file("stranger.crt"),
  server: { cert: file("server.crt"), key: file("server.key") },
  client: { cert: file("client.crt"), key: file("client.key") }
}

/** Causes in words, for errors that cross the wire and for logs. */
import { Cause } from "effect"

export const reasonOf = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasInterruptsOnly(cause)) return "interrupted"
  const error = Cause.squash(cause)
  return error instanceof Error ? (error.message === "" ? error.name : error.message) : String(error)
}

/** The errors of this ring. The actor ring declares them, because its ports name them in their signatures. */
export { AuthenticationFailed, FrameTooLarge, NodeUnreachable, Outcome, ProtocolMismatch } from "../Actor/errors.ts"

/**
 * Every failure that a port of the actor ring names in a signature, one class for each decision a caller can take. The outer
 * rings (remoting, cluster, datacenter) raise these and re-export them; nothing here knows who raises it.
 *
 * All of them cross the wire by tag and fields. `retryable` says whether the same call may succeed later without a change
 * by the caller; it says nothing about whether the first call had an effect (`outcome` and `OutcomeUnknown` do).
 */
import { Duration, Schema } from "effect"

/** Whether an operation that failed may still have happened: `NotSent` is certainly not, `Unknown` is perhaps. */
export const Outcome = Schema.Literals(["NotSent", "Unknown"])
export type Outcome = typeof Outcome.Type

// ---- actors ------------------------------------------------------------------------------------------------------------

/** The name is taken in its scope by another actor. Not retryable: choose another name, or look the actor up. */
export class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", {
  name: Schema.String,
  kind: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `the name ${this.name} is taken (kind ${this.kind})`
  }
}

/** No eligible member has registered the kind within the deadline. Retryable: a member may be starting. */
export class KindNotRegistered extends Schema.TaggedError<KindNotRegistered>()("KindNotRegistered", {
  kind: Schema.String,
  dataCenter: Schema.optionalKey(Schema.String)
}) {
  readonly retryable = true
  override get message() {
    return `no eligible member has registered ${this.kind}${
      this.dataCenter === undefined ? "" : ` in ${this.dataCenter}`
    }`
  }
}

/** An actor of that name exists, but of another kind. */
export class KindMismatch extends Schema.TaggedError<KindMismatch>()("KindMismatch", {
  name: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.name} is a ${this.actual}, not a ${this.expected}`
  }
}

/** No actor of that name exists where the call looked. */
export class ActorNotFound extends Schema.TaggedError<ActorNotFound>()("ActorNotFound", {
  name: Schema.String,
  kind: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `no ${this.kind} of the name ${this.name}`
  }
}

/** The actor has stopped, and no successor of its name could be found. The message was not handled. */
export class ActorStopped extends Schema.TaggedError<ActorStopped>()("ActorStopped", {
  name: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.name} has stopped`
  }
}

/** A bounded mailbox with overflow `fail` had no room. The message was not accepted. */
export class MailboxFull extends Schema.TaggedError<MailboxFull>()("MailboxFull", {
  name: Schema.String,
  /** messages */
  capacity: Schema.Int
}) {
  readonly retryable = true
  override get message() {
    return `the mailbox of ${this.name} is full (${this.capacity} messages)`
  }
}

/** No reply came within the timeout. The outcome is unknown: the message may have been handled, or may be yet. */
export class AskTimeout extends Schema.TaggedError<AskTimeout>()("AskTimeout", {
  name: Schema.String,
  request: Schema.String,
  timeout: Schema.DurationFromMillis
}) {
  readonly retryable = true
  override get message() {
    return `no reply from ${this.name} to ${this.request} within ${
      Duration.format(this.timeout)
    }: the outcome is unknown`
  }
}

/** The handler of this very message died with a defect. Supervision decides about the actor; the outcome is unknown. */
export class HandlerFailed extends Schema.TaggedError<HandlerFailed>()("HandlerFailed", {
  name: Schema.String,
  request: Schema.String,
  /** the defect in words; the defect itself stays on the actor's node */
  reason: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.name} died handling ${this.request}: ${this.reason}`
  }
}

/** The actor's behaviour could not be built: it failed, died, or took longer than the start timeout. */
export class StartFailed extends Schema.TaggedError<StartFailed>()("StartFailed", {
  name: Schema.String,
  kind: Schema.String,
  cause: Schema.Defect()
}) {
  readonly retryable = false
  override get message() {
    return `${this.kind} ${this.name} could not be started: ${String(this.cause)}`
  }
}

/**
 * Data at a boundary (props, a message, a reply) does not fit its schema. Names what and where. Nothing was changed by it, but where
 * `reply` is set: then the message was handled, and it is the answer that could not be brought.
 */
export class InvalidData extends Schema.TaggedError<InvalidData>()("InvalidData", {
  /** what was decoded or encoded, e.g. `props of Account`, `Account.Withdraw`, `reply of Account.Withdraw` */
  what: Schema.String,
  reason: Schema.String,
  /** of an ask: it is the reply that does not fit, after the message was handled. Absent: it is what was given */
  reply: Schema.optionalKey(Schema.Literal(true))
}) {
  readonly retryable = false
  override get message() {
    return `${this.what}: ${this.reason}`
  }
}

/** A setting is missing or out of range. Raised while a Layer is built, never later. */
export class SettingInvalid extends Schema.TaggedError<SettingInvalid>()("SettingInvalid", {
  setting: Schema.String,
  reason: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.setting} ${this.reason}`
  }
}

// ---- remoting ----------------------------------------------------------------------------------------------------------

/**
 * A node cannot be reached, was lost in mid-call, or did not answer in time. With `outcome: "NotSent"` nothing left this
 * node and the call may be repeated as it is; with `"Unknown"` the peer may have acted.
 */
export class NodeUnreachable extends Schema.TaggedError<NodeUnreachable>()("NodeUnreachable", {
  /** `host:port`, or the node's id where that is all that is known */
  node: Schema.String,
  outcome: Outcome,
  reason: Schema.String,
  /** of one dial: the address itself answered that nobody listens there. Absent: it did not say so */
  refused: Schema.optionalKey(Schema.Literal(true)),
  /** it is there, but has no room for more messages, asks or answers, or the way to it has none: nothing to do with where an actor is */
  overloaded: Schema.optionalKey(Schema.Literal(true)),
  /** of a dial: it is there, and one of the two does not let the other in, for that reason. Absent: it is another, or not known */
  barred: Schema.optionalKey(Schema.Literals(["Authentication", "Certificate", "Protocol"]))
}) {
  readonly retryable = true
  override get message() {
    return `${this.node} cannot be reached (${this.outcome}): ${this.reason}`
  }
}

/**
 * A frame is larger than the cap of the side that refuses it. Nothing of it was delivered; where `reply` is set it is the answer of a
 * message that was handled.
 */
export class FrameTooLarge extends Schema.TaggedError<FrameTooLarge>()("FrameTooLarge", {
  bytes: Schema.Int,
  limit: Schema.Int,
  /** of an ask: it is the reply that is too large, after the message was handled. Absent: it is the message */
  reply: Schema.optionalKey(Schema.Literal(true))
}) {
  readonly retryable = false
  override get message() {
    return `a ${this.reply === true ? "reply" : "frame"} of ${this.bytes} bytes is over the limit of ${this.limit}`
  }
}

/** Two sides do not speak the same protocol: of the wire, or of one kind. Names both sides. */
export class ProtocolMismatch extends Schema.TaggedError<ProtocolMismatch>()("ProtocolMismatch", {
  what: Schema.String,
  ours: Schema.String,
  theirs: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.what}: ours is ${this.ours}, theirs is ${this.theirs}`
  }
}

/** The peer could not prove that it belongs here. Says nothing about why, on purpose. */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>()("AuthenticationFailed", {
  peer: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.peer} could not prove that it belongs here`
  }
}

// ---- cluster -----------------------------------------------------------------------------------------------------------

/** No member satisfies role, kind and target. Retryable: members come and go. */
export class NoEligibleMember extends Schema.TaggedError<NoEligibleMember>()("NoEligibleMember", {
  kind: Schema.String,
  reason: Schema.String
}) {
  readonly retryable = true
  override get message() {
    return `no member may run ${this.kind}: ${this.reason}`
  }
}

/** The cluster did not reach `minimumMembers` within `bootstrapTimeout`. */
export class ClusterNotFormed extends Schema.TaggedError<ClusterNotFormed>()("ClusterNotFormed", {
  members: Schema.Int,
  minimum: Schema.Int
}) {
  readonly retryable = true
  override get message() {
    return `${this.members} of at least ${this.minimum} members are Up`
  }
}

/** The owner of the name's partition is new and still collects its names. Retryable within moments. */
export class DirectoryRebuilding extends Schema.TaggedError<DirectoryRebuilding>()("DirectoryRebuilding", {
  name: Schema.String,
  partition: Schema.Int
}) {
  readonly retryable = true
  override get message() {
    return `partition ${this.partition}, which owns ${this.name}, still collects its names`
  }
}

/** A spawn names a policy (supervision, mailbox, relocation strategy) that the kind has not registered. */
export class PolicyNotRegistered extends Schema.TaggedError<PolicyNotRegistered>()("PolicyNotRegistered", {
  kind: Schema.String,
  policy: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.kind} has no policy ${this.policy}`
  }
}

/** The caller acts for an owner that has been replaced (its lease is closed, or its epoch is behind). It must stop acting. */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", {
  what: Schema.String,
  ours: Schema.String,
  current: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.what}: ${this.ours} was replaced by ${this.current}`
  }
}

// ---- control store -----------------------------------------------------------------------------------------------------

/** A compare-and-set lost: certainly not applied. `current` is the key's revision where the store told it. */
export class RevisionConflict extends Schema.TaggedError<RevisionConflict>()("RevisionConflict", {
  key: Schema.String,
  current: Schema.optionalKey(Schema.String)
}) {
  readonly retryable = false
  override get message() {
    return `${this.key} has another revision${this.current === undefined ? "" : ` (${this.current})`}`
  }
}

/** The store could not be asked: certainly not applied. */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>()("StoreUnavailable", {
  operation: Schema.String,
  reason: Schema.String
}) {
  readonly retryable = true
  override get message() {
    return `${this.operation}: ${this.reason}`
  }
}

/** A write may or may not have been applied (`protocols` rule: three outcomes). Settled only by a later compare-and-set. */
export class OutcomeUnknown extends Schema.TaggedError<OutcomeUnknown>()("OutcomeUnknown", {
  operation: Schema.String,
  reason: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.operation} may or may not have happened: ${this.reason}`
  }
}

// ---- datacenters -------------------------------------------------------------------------------------------------------

/** This node's datacenter controller has not refreshed once since start, or the awaited datacenter is not yet active. */
export class DataCenterNotReady extends Schema.TaggedError<DataCenterNotReady>()("DataCenterNotReady", {
  dataCenter: Schema.optionalKey(Schema.String)
}) {
  readonly retryable = true
  override get message() {
    return this.dataCenter === undefined ? "no datacenter records yet" : `${this.dataCenter} is not ready`
  }
}

/** The cache of datacenter records is older than `maxCacheStaleness`, and `failOnStaleCache` is on. */
export class StaleRecords extends Schema.TaggedError<StaleRecords>()("StaleRecords", {
  age: Schema.DurationFromMillis,
  limit: Schema.DurationFromMillis
}) {
  readonly retryable = true
  override get message() {
    return `records are ${Duration.format(this.age)} old, over the limit of ${Duration.format(this.limit)}`
  }
}

/** No record of that datacenter is listed, ACTIVE and alive by this node's own clock. */
export class RecordNotFound extends Schema.TaggedError<RecordNotFound>()("RecordNotFound", {
  dataCenter: Schema.String
}) {
  readonly retryable = true
  override get message() {
    return `no active record of ${this.dataCenter}`
  }
}

/** A datacenter selector (name, region, zone, labels) matches more than one record. */
export class AmbiguousDataCenter extends Schema.TaggedError<AmbiguousDataCenter>()("AmbiguousDataCenter", {
  selector: Schema.String,
  matches: Schema.Array(Schema.String)
}) {
  readonly retryable = false
  override get message() {
    return `${this.selector} matches ${this.matches.join(", ")}`
  }
}

/**
 * Actors of that kind may not be spawned there by whoever asked: its `spawnableKinds` (for other datacenters) or `clientKinds` (for
 * clients) does not name it. Nothing was started. Not retryable: the settings of the side that refuses say so.
 */
export class KindNotAllowed extends Schema.TaggedError<KindNotAllowed>()("KindNotAllowed", {
  kind: Schema.String,
  /** who asked: `another datacenter` or `a client` */
  caller: Schema.String,
  /** the node that refuses, and its datacenter */
  refusedBy: Schema.String,
  dataCenter: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.caller} may not spawn ${this.kind} in ${this.dataCenter}: ${this.refusedBy} refuses`
  }
}

/**
 * The actor's node does not let whoever asked do that with its actors: outsiders may tell, ask and stop them, no more. Nothing was
 * disturbed. Not retryable: ask from a node of the system.
 */
export class NotAllowed extends Schema.TaggedError<NotAllowed>()("NotAllowed", {
  /** `suspend`, `reinstate`, `restart`, `inspect` or `watch` */
  operation: Schema.String,
  /** the actor's */
  name: Schema.String,
  /** who asked: `a client` */
  caller: Schema.String,
  /** the node that refuses, and its datacenter */
  refusedBy: Schema.String,
  dataCenter: Schema.String
}) {
  readonly retryable = false
  override get message() {
    return `${this.caller} may not ${this.operation} ${this.name}: ${this.refusedBy} in ${this.dataCenter} refuses`
  }
}

// ---- unions: what a call can fail with -----------------------------------------------------------------------------------

/** What `tell` can fail with before the message is on its way. After that it ends as a dead letter at the receiver. */
export const TellError = Schema.Union([
  ActorStopped,
  MailboxFull,
  NodeUnreachable,
  InvalidData,
  FrameTooLarge,
  ProtocolMismatch
])
export type TellError = typeof TellError.Type

/** What `ask` can fail with besides the error of the message's own protocol. */
export const AskError = Schema.Union([
  ActorStopped,
  MailboxFull,
  NodeUnreachable,
  InvalidData,
  FrameTooLarge,
  ProtocolMismatch,
  AskTimeout,
  HandlerFailed
])
export type AskError = typeof AskError.Type

/** What starting an actor on one given node can fail with. */
export const StartError = Schema.Union([
  NameTaken,
  KindNotRegistered,
  KindMismatch,
  StartFailed,
  InvalidData,
  PolicyNotRegistered
])
export type StartError = typeof StartError.Type

/** What a placement inside one cluster can fail with. */
export const ClusterSpawnError = Schema.Union([
  ...StartError.members,
  NoEligibleMember,
  NodeUnreachable,
  ClusterNotFormed,
  DirectoryRebuilding,
  StoreUnavailable,
  OutcomeUnknown
])
export type ClusterSpawnError = typeof ClusterSpawnError.Type

/** What a placement with a target can fail with: those of a cluster, and those of choosing a datacenter and being let in there. */
export const SpawnError = Schema.Union([
  ...ClusterSpawnError.members,
  DataCenterNotReady,
  StaleRecords,
  RecordNotFound,
  AmbiguousDataCenter,
  KindNotAllowed
])
export type SpawnError = typeof SpawnError.Type

/** What finding an actor by name in one cluster can fail with. */
export const ClusterLookupError = Schema.Union([
  ActorNotFound,
  KindMismatch,
  NodeUnreachable,
  ClusterNotFormed,
  DirectoryRebuilding,
  StoreUnavailable
])
export type ClusterLookupError = typeof ClusterLookupError.Type

/** What finding an actor by name across datacenters can fail with. */
export const LookupError = Schema.Union([
  ...ClusterLookupError.members,
  DataCenterNotReady,
  StaleRecords,
  RecordNotFound,
  AmbiguousDataCenter
])
export type LookupError = typeof LookupError.Type

/** What stopping an actor by its address can fail with. */
export const StopError = Schema.Union([
  NodeUnreachable,
  DirectoryRebuilding,
  StoreUnavailable,
  OutcomeUnknown,
  ClusterNotFormed
])
export type StopError = typeof StopError.Type

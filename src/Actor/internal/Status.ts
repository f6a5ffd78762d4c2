/** A cell's state of life. Order matters: up to `Busy` it handles messages, from `Stopping` on it accepts none. */
export const Status = {
  Starting: 0,
  Idle: 1,
  /** in the run queue, or in a turn */
  Ready: 2,
  /** a handler is suspended */
  Busy: 3,
  /** passivated: no behaviour until the next message */
  Dormant: 4,
  /** keeps its mailbox and handles nothing */
  Suspended: 5,
  /** between two behaviours */
  Restarting: 6,
  Stopping: 7,
  Stopped: 8
} as const
export type Status = typeof Status[keyof typeof Status]

export const statusNames = [
  "Starting",
  "Idle",
  "Ready",
  "Busy",
  "Passivated",
  "Suspended",
  "Restarting",
  "Stopping",
  "Stopped"
] as const
